//! One request on its way: pick an instance or wait for one, pass it on, try again if that is safe.

use crate::choose::{Said, Wish};
use crate::conn::{Conn, Phase};
use crate::http::answer::Answer;
use crate::http::client::Client;
use crate::http::exchange::Exchange;
use crate::http::field;
use crate::http::request::Request;
use crate::http::serve;
use crate::http::up::{Fault, Up};
use crate::limited::Limit;
use crate::outcome::AtInstance;
use crate::refuse::{Refusal, problem};
use crate::upstream::Upstream;
use crate::worker::{Local, Worker};
use chassis::dial;
use domain::Mono;
use picker::NoPick;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;
use wire::problem::Kind;

/// Tries of one request that reached an instance: more would multiply an outage's load.
const TRIES_MAX: u32 = 3;
/// Connect errors in a row before a request waits a little: nothing was sent, so the next
/// instance is tried at once, but a service whose instances are all gone is not hammered.
const CONNECTS_MAX: u32 = 3;
/// The first such wait; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest such wait: an instance that came back is found within this.
const PAUSE_MAX: Duration = Duration::from_millis(800);

/// One request on its way.
pub struct Passage<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) conn: &'a Rc<Conn>,
    pub(crate) local: &'a Rc<Local>,
    pub(crate) arrived: Mono,
    pub(crate) wish: Wish,
}

/// What a request says that decides where it goes.
pub struct Saying<'a> {
    /// The request.
    pub request: &'a Request,
    /// Its client's connection.
    pub conn: &'a Conn,
}

impl Said for Saying<'_> {
    fn source(&self) -> IpAddr {
        self.conn.peer.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
    fn path(&self) -> &[u8] {
        self.request.path()
    }
    fn host(&self) -> &[u8] {
        self.request.host()
    }
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.request.header(name.as_bytes())
    }
}

/// How a request ended.
pub enum Served {
    /// The answer is with the client.
    Whole {
        /// Its connection may carry another request.
        keep: bool,
    },
    /// It is refused.
    Refused(Refusal),
    /// The client is gone.
    Gone,
    /// The answer broke off after its head; the client must see that.
    Broken,
    /// The instance switched protocols.
    Switched(Upstream, AtInstance),
}

/// How often a request was tried.
#[derive(Default)]
struct Tries {
    reached: u32,
    connects: u32,
    /// The instance that just failed this request.
    avoid: Option<u64>,
    /// An idle connection had ended: a new one is made.
    fresh: bool,
}

impl Passage<'_> {
    /// Passes the request on and its answer back.
    pub async fn run(&self, client: &mut Client, request: &Request, up: &mut Up) -> Served {
        let mut tries = Tries::default();
        let mut now = self.arrived;
        loop {
            let at = match self.pick(tries.avoid, now) {
                Ok(at) => at,
                Err(why) => match Box::pin(self.hold(client, request, why)).await {
                    Some(Ok(at)) => at,
                    Some(Err(refusal)) => return self.refused(refusal),
                    None => return self.broken(Fault::Client),
                },
            };
            self.conn.enter(if up.has_ended() { Phase::Answer } else { Phase::Upload });
            let upstream = match self.connection(&at, tries.fresh).await {
                Ok(upstream) => upstream,
                Err(error) if dial::is_our_lack(&error) => return self.lacking(&at, &error),
                Err(error) => {
                    tracing::debug!(instance = %at.instance.id, %error, "no connection");
                    match self.connect_failed(client, request, at, &mut tries).await {
                        None => {}
                        Some(served) => return served,
                    }
                    now = self.worker.now();
                    continue;
                }
            };
            let stale = upstream.used;
            let tie = self.local.tie(&self.wish, at.instance.key);
            let own = serve::additions(self.worker, &self.local.service, request);
            let additions = |answer: &Answer, out: &mut Vec<u8>| {
                own(answer, out);
                if let Some(tie) = &tie {
                    field::line(out, b"set-cookie", tie.as_bytes());
                }
            };
            let mut going = Exchange::new(request, up, upstream, &at, &additions);
            let fault = match serve::exchange(self.worker, client, &mut going).await {
                Ok(()) => {
                    return self.ended(going, &at).unwrap_or_else(|up| Served::Switched(up, at));
                }
                Err(fault) => fault,
            };
            let passed_on = going.status() > 0;
            if passed_on || !matches!(fault, Fault::Lost) {
                return self.failed(fault, &at, passed_on);
            }
            self.lost(&at, stale, &mut tries);
            let again = tries.reached < TRIES_MAX && up.can_repeat();
            if !again || !self.may_repeat(request) {
                return self.refused(problem(Kind::BadGateway, LOST));
            }
            up.again();
            self.retried();
            now = self.worker.now();
        }
    }

    /// An answer is with the client: its connection to the instance may serve again. `Err`: it
    /// speaks another protocol from now on.
    fn ended(&self, going: Exchange<'_>, at: &AtInstance) -> Result<Served, Upstream> {
        if going.has_switched() {
            return Err(going.upstream);
        }
        let keep = going.keeps_client();
        if going.is_reusable() {
            at.spot().give(going.upstream, self.worker.tick.0.get());
        }
        Ok(Served::Whole { keep })
    }

    /// An idle connection to the instance, or a new one.
    async fn connection(&self, at: &AtInstance, fresh: bool) -> std::io::Result<Upstream> {
        let pooled = if fresh { None } else { at.spot().take() };
        match pooled {
            Some(upstream) => Ok(upstream),
            // Boxed, as all that is rare: it would make every request's future larger.
            None => Box::pin(Upstream::connect(at.instance.address)).await,
        }
    }

    /// Nothing was sent: the next instance is tried, after a while if several refused. `Some`: the
    /// request ends.
    async fn connect_failed(
        &self,
        client: &mut Client,
        request: &Request,
        at: AtInstance,
        tries: &mut Tries,
    ) -> Option<Served> {
        at.failed();
        tries.avoid = Some(at.instance.serial);
        tries.connects += 1;
        drop(at);
        if tries.connects >= CONNECTS_MAX {
            let doubled = PAUSE_MIN.saturating_mul(1 << (tries.connects - CONNECTS_MAX).min(8));
            let paused = Box::pin(self.pause(client, request, doubled.min(PAUSE_MAX))).await;
            match paused {
                Some(Ok(())) => {}
                Some(Err(refusal)) => return Some(self.refused(refusal)),
                None => return Some(self.broken(Fault::Client)),
            }
        }
        self.retried();
        None
    }

    /// No connection can be made from here: that is no instance's fault.
    fn lacking(&self, at: &AtInstance, error: &std::io::Error) -> Served {
        tracing::debug!(%error, "no connection can be made");
        at.was_stale();
        self.refused(problem(Kind::Unavailable, LACKING))
    }

    /// The connection broke before the first byte of the answer.
    fn lost(&self, at: &AtInstance, stale: bool, tries: &mut Tries) {
        if stale {
            // The instance closed an idle connection, as it may: it is not avoided.
            at.was_stale();
            tries.avoid = None;
            tries.fresh = true;
        } else {
            at.failed();
            tries.avoid = Some(at.instance.serial);
        }
        tries.reached += 1;
    }

    /// Whether a request that may have reached an instance can be sent again.
    fn may_repeat(&self, request: &Request) -> bool {
        request.is_idempotent() && self.local.budget.borrow_mut().take(self.worker.now())
    }

    fn retried(&self) {
        self.local.service.stats[self.worker.index].retried();
    }

    /// A fault that ends the request.
    fn failed(&self, fault: Fault, at: &AtInstance, passed_on: bool) -> Served {
        match fault {
            Fault::Nonsense(why) | Fault::Broken(why) => {
                if !passed_on {
                    at.failed();
                }
                tracing::debug!(instance = %at.instance.id, why, "an answer was refused");
            }
            Fault::Late | Fault::Lost => at.failed(),
            Fault::Client | Fault::BadBody(_) | Fault::TooLarge => {}
        }
        if passed_on && !matches!(fault, Fault::Client) {
            self.local.service.stats[self.worker.index].broke();
            return Served::Broken;
        }
        self.broken(fault)
    }

    /// A fault before any of the answer was passed on.
    pub fn broken(&self, fault: Fault) -> Served {
        self.refused(match fault {
            Fault::Nonsense(why) => {
                problem(Kind::BadGateway, format!("the instance's answer is not HTTP/1.1: {why}"))
            }
            Fault::Lost | Fault::Broken(_) => problem(Kind::BadGateway, LOST),
            Fault::Late => {
                self.worker.limited(Limit::AnswerTime);
                problem(Kind::Timeout, "the instance did not answer in time")
            }
            Fault::BadBody(why) => {
                problem(Kind::BadRequest, format!("the request's body is framed wrongly: {why}"))
            }
            Fault::TooLarge => {
                self.worker.limited(Limit::Body);
                problem(Kind::TooLarge, "the request's body is larger than it may be")
            }
            Fault::Client => return Served::Gone,
        })
    }

    fn refused(&self, refusal: Refusal) -> Served {
        let took = self.worker.now().since(self.arrived);
        let stats = &self.local.service.stats[self.worker.index];
        stats.answered(refusal.kind.status(), took);
        Served::Refused(refusal)
    }

    /// Picks an instance and counts the request in there.
    fn pick(&self, avoid: Option<u64>, now: Mono) -> Result<AtInstance, NoPick> {
        let service = &self.local.service;
        if service.queue.has_waiters() && avoid.is_none() {
            // Others wait already: behind them, not past them.
            let standing = service.snapshot.load().any_standing();
            return Err(if standing { NoPick::Full } else { NoPick::Nothing });
        }
        self.pick_now(avoid, now)
    }

    /// Picks past those who wait.
    pub(crate) fn pick_now(&self, avoid: Option<u64>, now: Mono) -> Result<AtInstance, NoPick> {
        let wish = Wish { avoid, ..self.wish };
        self.local.choose(self.worker, &wish, self.arrived, now)
    }
}

/// Said when this host cannot make one more connection.
const LACKING: &str = "the balancer's host has no descriptor, memory or port left for a connection \
    to an instance; try again, and raise its limits (`ulimit -n`, LimitNOFILE) if this stays";
/// Said when it is not known what became of the request.
const LOST: &str =
    "the instance was lost before it answered; the request may have been carried out";
