//! One request: find its service, pick an instance or wait for one, pass it on, try again if that
//! is safe, pass the answer back.

use crate::body::{AnswerBody, Broken, Streaming};
use crate::conn::{Conn, Phase};
use crate::head::{self, Answer, Framing};
use crate::outcome::AtInstance;
use crate::refuse::problem;
use crate::upstream::{Fault, Sending, Upstream};
use crate::worker::{Local, Worker};
use crate::{orca, tunnel};
use bytes::Bytes;
use domain::Mono;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use picker::NoPick;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
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
pub struct Passage {
    pub(crate) worker: Rc<Worker>,
    pub(crate) conn: Arc<Conn>,
    pub(crate) local: Rc<Local>,
    pub(crate) parts: Parts,
    pub(crate) arrived: Mono,
    pub(crate) framing: Framing,
}

/// How a try failed.
enum Failure {
    /// No connection: nothing was sent.
    Connect,
    /// The connection broke before the first byte of the answer; `stale` if it had been idle.
    Reset { stale: bool, sending: Option<Sending> },
    /// Part of an answer came, or one that must not be passed on.
    Nonsense(&'static str),
    /// No answer in time.
    Late,
    /// The client stopped sending.
    Client,
}

/// Serves one request.
///
/// # Errors
/// [`Broken`] when the client's connection must be closed.
pub async fn serve(
    worker: Rc<Worker>,
    conn: Arc<Conn>,
    mut request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Broken> {
    let arrived = worker.now();
    if *request.method() == Method::CONNECT {
        return Ok(answer_self(
            &conn,
            problem(Kind::Method, "this is a reverse proxy; CONNECT is not served"),
        ));
    }
    if !head::has_one_host(&request) {
        let detail = "a request needs exactly one Host header";
        return Ok(answer_self(&conn, problem(Kind::BadRequest, detail)));
    }
    let upgrade =
        head::wants_upgrade(request.headers()).is_some().then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let Some(local) = worker.find(head::host(&parts), parts.uri.path()) else {
        worker.shared.unrouted.fetch_add(1, Relaxed);
        let detail = "no service has this host and path; `tally service ls` shows the routes";
        return Ok(answer_self(&conn, problem(Kind::NotFound, detail)));
    };
    local.service.touch(arrived);
    local.budget.borrow_mut().request();
    let ended = body.is_end_stream();
    let framing = match (ended, body.size_hint().exact()) {
        (true, _) if parts.headers.contains_key(header::CONTENT_LENGTH) => Framing::Length(0),
        (true, _) => Framing::None,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::Chunked,
    };
    let body = (!ended).then_some(body);
    let passage = Passage { worker, conn, local, parts, arrived, framing };
    passage.run(body, upgrade).await
}

fn answer_self(conn: &Conn, response: Response<AnswerBody>) -> Response<AnswerBody> {
    conn.enter(Phase::Idle);
    response
}

impl Passage {
    async fn run(
        self,
        body: Option<Incoming>,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Response<AnswerBody>, Broken> {
        let mut sending = Some(Sending::new(Vec::new(), body, self.framing));
        let mut avoid = None;
        let (mut tries, mut connects) = (0, 0);
        let mut fresh = false;
        let mut now = self.arrived;
        loop {
            let at = match self.pick(avoid, now) {
                Ok(at) => at,
                Err(why) => match Box::pin(self.hold(why)).await {
                    Ok(at) => at,
                    Err(refusal) => return Ok(self.refused(refusal)),
                },
            };
            let failure = match self.try_at(&at, &mut sending, fresh).await {
                Ok((answer, upstream, rest)) => {
                    return self.pass(at, answer, upstream, rest, upgrade);
                }
                Err(failure) => failure,
            };
            avoid = Some(at.instance.serial);
            now = self.worker.now();
            match failure {
                Failure::Connect => {
                    at.failed();
                    connects += 1;
                    if connects >= CONNECTS_MAX {
                        drop(at);
                        let pause = PAUSE_MIN.saturating_mul(1 << (connects - CONNECTS_MAX).min(8));
                        if let Err(refusal) = Box::pin(self.pause(pause.min(PAUSE_MAX))).await {
                            return Ok(self.refused(refusal));
                        }
                        now = self.worker.now();
                    }
                    self.retried();
                }
                Failure::Reset { stale, sending: back } => {
                    if stale {
                        // The instance closed an idle connection, as it may: it is not avoided.
                        at.was_stale();
                        avoid = None;
                        fresh = true;
                    } else {
                        at.failed();
                    }
                    tries += 1;
                    match back.filter(|_| tries < TRIES_MAX && self.may_repeat()) {
                        Some(back) => sending = Some(back),
                        None => return Ok(self.refused(lost())),
                    }
                    self.retried();
                }
                Failure::Nonsense(why) => {
                    at.failed();
                    tracing::debug!(instance = %at.instance.id, why, "an answer was refused");
                    return Ok(self.refused(problem(
                        Kind::BadGateway,
                        "the instance's answer is not HTTP/1.1",
                    )));
                }
                Failure::Late => {
                    at.failed();
                    return Ok(
                        self.refused(problem(Kind::Timeout, "the instance did not answer in time"))
                    );
                }
                Failure::Client => return Err(Broken("the client broke off its request")),
            }
        }
    }

    /// Whether a request that may have reached an instance can be sent again.
    fn may_repeat(&self) -> bool {
        self.parts.method.is_idempotent() && self.local.budget.borrow_mut().take(self.worker.now())
    }

    fn retried(&self) {
        self.local.service.stats[self.worker.index].retried();
    }

    fn refused(&self, response: Response<AnswerBody>) -> Response<AnswerBody> {
        let took = self.worker.now().since(self.arrived);
        let stats = &self.local.service.stats[self.worker.index];
        stats.answered(response.status().as_u16(), took);
        answer_self(&self.conn, response)
    }

    /// Picks an instance and counts the request in there.
    fn pick(&self, avoid: Option<u64>, now: Mono) -> Result<AtInstance, NoPick> {
        let service = &self.local.service;
        if service.queue.held() > 0 && avoid.is_none() {
            // Others wait already: behind them, not past them.
            let standing = service.snapshot.load().any_standing();
            return Err(if standing { NoPick::Full } else { NoPick::Nothing });
        }
        self.pick_now(avoid, now)
    }

    /// Picks past those who wait.
    pub(crate) fn pick_now(&self, avoid: Option<u64>, now: Mono) -> Result<AtInstance, NoPick> {
        let snapshot = self.local.service.snapshot.load();
        let avoid = avoid
            .and_then(|serial| snapshot.entries.iter().position(|e| e.instance.serial == serial));
        let index = self.local.picker.borrow_mut().pick(
            snapshot.policy,
            &**snapshot,
            &snapshot.field,
            avoid,
            now,
        )?;
        let entry = &snapshot.entries[index];
        if let Some(reported) = &entry.reported {
            let stats = &self.local.service.stats[self.worker.index];
            stats.used_report(now.since(reported.at));
        }
        AtInstance::enter(&self.worker, &self.local, entry, self.arrived, now).ok_or(NoPick::Full)
    }

    /// Sends the request to one instance and reads its answer's head.
    async fn try_at(
        &self,
        at: &AtInstance,
        sending: &mut Option<Sending>,
        fresh: bool,
    ) -> Result<(Answer, Upstream, Option<Sending>), Failure> {
        self.conn.enter(Phase::Answer);
        let pooled =
            if fresh { None } else { self.local.pool.borrow_mut().take(at.instance.serial) };
        let mut upstream = match pooled {
            Some(upstream) => upstream,
            // Boxed, as all that is rare: it would make every request's future larger.
            None => Box::pin(Upstream::connect(at.instance.address)).await.map_err(|error| {
                tracing::debug!(instance = %at.instance.id, %error, "no connection");
                Failure::Connect
            })?,
        };
        let mut out = upstream.take_spare();
        head::write_request(&mut out, &self.parts, self.framing, &self.conn);
        let Some(mut going) = sending.take().and_then(|s| s.again(out)) else {
            return Err(Failure::Reset { stale: false, sending: None });
        };
        let mut out_is_gone = false;
        let result = poll_fn(|cx| {
            if !out_is_gone {
                match going.poll(cx, &upstream) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => out_is_gone = true,
                    Poll::Ready(Err(Fault::Client)) => {
                        return Poll::Ready(Err(Fault::Client));
                    }
                    // An instance may answer early and stop listening: see what it says.
                    Poll::Ready(Err(_)) => out_is_gone = true,
                }
            }
            if self.conn.take_late() {
                return Poll::Ready(Ok(None));
            }
            let mut scratch = self.worker.scratch.borrow_mut();
            upstream.poll_head(cx, &self.parts.method, &mut scratch).map_ok(Some)
        })
        .await;
        match result {
            Ok(Some(answer)) => {
                let rest = if going.is_out() {
                    upstream.give_spare(going.into_spare());
                    None
                } else {
                    Some(going)
                };
                Ok((answer, upstream, rest))
            }
            Ok(None) => Err(Failure::Late),
            Err(Fault::Client) => Err(Failure::Client),
            Err(Fault::Nonsense(nonsense)) => Err(Failure::Nonsense(nonsense.0)),
            Err(Fault::Io | Fault::Eof) if upstream.seen => {
                Err(Failure::Nonsense("it broke off within its head"))
            }
            Err(Fault::Io | Fault::Eof) => {
                let back = going.can_repeat().then_some(going);
                Err(Failure::Reset { stale: upstream.used, sending: back })
            }
        }
    }

    /// Passes an answer back.
    fn pass(
        self,
        at: AtInstance,
        answer: Answer,
        mut upstream: Upstream,
        rest: Option<Sending>,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Response<AnswerBody>, Broken> {
        at.answered(answer.status);
        if let Some(load) = &answer.load {
            orca::note(&at.instance, load);
        }
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            let Some(upgrade) = upgrade else {
                at.failed();
                return Ok(self.refused(problem(
                    Kind::BadGateway,
                    "the instance switched protocols unasked",
                )));
            };
            return Ok(tunnel::open(at, answer, upstream, upgrade, self.conn));
        }
        let whole = match answer.framing {
            Framing::None => Some(Bytes::new()),
            Framing::Length(n) => usize::try_from(n)
                .ok()
                .filter(|n| *n <= upstream.buffer.len())
                .map(|n| upstream.buffer.split_to(n).freeze()),
            Framing::Chunked | Framing::Close => None,
        };
        let body = match whole {
            Some(bytes) if rest.is_none() => {
                at.ends_with_its_head();
                if answer.keep && upstream.buffer.is_empty() {
                    let tick = self.worker.tick.0.load(Relaxed);
                    self.local.pool.borrow_mut().give(at.instance.serial, upstream, tick);
                }
                self.conn.enter(Phase::Idle);
                AnswerBody::Whole(bytes)
            }
            Some(bytes) => {
                // Answered before the request was all out: the connection is not used again.
                self.conn.enter(Phase::Idle);
                AnswerBody::Whole(bytes)
            }
            None => {
                self.conn.enter(Phase::Stream);
                let conn = Arc::clone(&self.conn);
                AnswerBody::Stream(Box::new(Streaming::new(
                    upstream,
                    answer.framing,
                    answer.keep,
                    rest,
                    at,
                    conn,
                )))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

fn lost() -> Response<AnswerBody> {
    problem(
        Kind::BadGateway,
        "the instance was lost before it answered; the request may have been carried out",
    )
}
