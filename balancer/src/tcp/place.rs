//! A connection on its way to an instance: picks, waits when nothing is ready, connects, tries
//! another instance when that fails, all within the service's bounds.

use super::counts::{Counts, Refusal};
use super::join::reset;
use crate::choose::{self, Wish};
use crate::limited::Limit;
use crate::view::Instance;
use crate::wait::{self, QueueFull};
use crate::worker::{Local, Worker};
use chassis::dial;
use domain::Mono;
use picker::NoPick;
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a held connection takes: its task and two ends; its bytes stay in the kernel.
const HELD_BYTES: u64 = 2048;
/// Connect errors in a row before a connection waits a little: the next instance is tried at once,
/// but a service whose instances are all gone is not hammered.
const CONNECTS_MAX: u32 = 3;
/// The first such wait; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest such wait: an instance that came back is found within this.
const PAUSE_MAX: Duration = Duration::from_millis(800);

/// A client's connection that has no instance yet.
pub struct Caller {
    pub worker: Rc<Worker>,
    pub local: Rc<Local>,
    client: TcpStream,
    arrived: Mono,
}

/// One connection at one instance. Dropping it takes it off the instance's count.
pub struct Place {
    instance: Arc<Instance>,
    worker: Rc<Worker>,
    local: Rc<Local>,
    began: Mono,
    took: Cell<Duration>,
    judged: Cell<bool>,
}

impl Place {
    /// The instance said its first byte: it works.
    pub fn spoke(&self) {
        self.judge(true);
    }

    /// It is over. An instance that hung up without a word has failed; one that was left by its
    /// client without a word has not.
    pub fn ended(&self, without_a_word: bool) {
        self.judge(!without_a_word);
    }

    fn judge(&self, ok: bool) {
        if !self.judged.replace(true) {
            self.instance.record(ok, self.took.get(), self.worker.now());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.instance.leave();
        wait::pump(&self.local.service, self.worker.now());
    }
}

impl Caller {
    /// A connection that came now.
    #[must_use]
    pub fn new(worker: Rc<Worker>, local: Rc<Local>, client: TcpStream) -> Caller {
        let arrived = worker.now();
        local.service.touch(arrived);
        Caller { worker, local, client, arrived }
    }

    /// Finds an instance that accepts; else the client's connection is broken off.
    pub async fn reach(self, counts: &Counts) -> Result<(TcpStream, TcpStream, Place), Refusal> {
        let stats = &self.local.service.stats[self.worker.index];
        match self.seek(counts).await {
            Ok((instance, place)) => {
                stats.answered(200, self.worker.now().since(self.arrived));
                Ok((self.client, instance, place))
            }
            Err(why) => {
                let code = match why {
                    Refusal::Gone => 499,
                    Refusal::Connections | Refusal::Queue => 429,
                    Refusal::Deadline | Refusal::Unstartable | Refusal::Lacking => 503,
                };
                stats.answered(code, self.worker.now().since(self.arrived));
                reset(&self.client);
                Err(why)
            }
        }
    }

    async fn seek(&self, counts: &Counts) -> Result<(TcpStream, Place), Refusal> {
        let mut avoid = None;
        let mut failures = 0;
        loop {
            let place = match self.pick(avoid) {
                Ok(place) => place,
                Err(_) => self.hold().await?,
            };
            match self.connect(&place).await {
                Ok(stream) => {
                    place.took.set(self.worker.now().since(place.began));
                    return Ok((stream, place));
                }
                Err(error) if dial::is_our_lack(&error) => {
                    tracing::debug!(%error, "no connection can be made");
                    return Err(Refusal::Lacking);
                }
                Err(error) => {
                    tracing::debug!(instance = %place.instance.id, %error, "no connection");
                    counts.connect_failures.fetch_add(1, Relaxed);
                    if error.kind() == io::ErrorKind::TimedOut {
                        self.worker.limited(Limit::PortConnectTime);
                    }
                    place.judge(false);
                    avoid = Some(place.instance.serial);
                    failures += 1;
                }
            }
            drop(place);
            if failures >= CONNECTS_MAX {
                let pause = PAUSE_MIN.saturating_mul(1 << (failures - CONNECTS_MAX).min(8));
                self.pause(pause.min(PAUSE_MAX)).await?;
            }
        }
    }

    async fn connect(&self, place: &Place) -> io::Result<TcpStream> {
        let limit = self.worker.limits.port_connect_time.0.0;
        let connecting = dial::connect(place.instance.address);
        let stream = tokio::time::timeout(limit, connecting).await??;
        let _no_delay_is_a_wish = stream.set_nodelay(true);
        Ok(stream)
    }

    fn pick(&self, avoid: Option<u64>) -> Result<Place, NoPick> {
        let service = &self.local.service;
        if service.queue.has_waiters() && avoid.is_none() {
            // Others wait already: behind them, not past them.
            return Err(NoPick::Full);
        }
        self.pick_now(avoid)
    }

    /// Picks past those who wait.
    fn pick_now(&self, avoid: Option<u64>) -> Result<Place, NoPick> {
        let now = self.worker.now();
        let snapshot = self.local.service.snapshot.load();
        let source = self.client.peer_addr().ok().map(|peer| peer.ip());
        let wish = Wish { avoid, ..choose::wish_of_connection(&self.local, source) };
        let index = self.local.place(&snapshot, &self.worker, &wish, now)?;
        let entry = &snapshot.entries[index];
        if !entry.instance.enter(entry.max_in_flight, now) {
            return Err(NoPick::Full);
        }
        Ok(Place {
            instance: Arc::clone(&entry.instance),
            worker: Rc::clone(&self.worker),
            local: Rc::clone(&self.local),
            began: now,
            took: Cell::default(),
            judged: Cell::new(false),
        })
    }

    fn left(&self, deadline: Duration) -> Duration {
        deadline.saturating_sub(self.worker.now().since(self.arrived))
    }

    fn full(&self, full: QueueFull) -> Refusal {
        self.worker.limited(full.into());
        Refusal::Queue
    }

    /// Waits in the service's queue until an instance has room.
    async fn hold(&self) -> Result<Place, Refusal> {
        let service = &self.local.service;
        let front = service.front.load_full();
        if !front.startable && service.snapshot.load().entries.is_empty() {
            return Err(Refusal::Unstartable);
        }
        let now = self.worker.now();
        let entered = service.queue.enter(&front.hold, HELD_BYTES, now);
        let mut ticket = entered.map_err(|full| self.full(full))?;
        self.worker.shared.waits(service);
        wait::pump(service, now);
        loop {
            tokio::select! {
                turn = tokio::time::timeout(self.left(front.hold.deadline), ticket.turn()) => {
                    if turn.is_err() {
                        self.worker.limited(Limit::HoldDeadline);
                        return Err(Refusal::Deadline);
                    }
                }
                // A half-closed client may wait for an answer; one that broke off does not.
                _broken = self.client.ready(Interest::ERROR) => return Err(Refusal::Gone),
            }
            if let Ok(place) = self.pick_now(None) {
                return Ok(place);
            }
            ticket.again();
        }
    }

    /// Waits a little after connect errors, counted among the held.
    async fn pause(&self, pause: Duration) -> Result<(), Refusal> {
        let service = &self.local.service;
        let front = service.front.load_full();
        if self.left(front.hold.deadline) < pause {
            self.worker.limited(Limit::HoldDeadline);
            return Err(Refusal::Deadline);
        }
        let stay = service.queue.stay(&front.hold, HELD_BYTES);
        let _held = stay.map_err(|full| self.full(full))?;
        self.worker.shared.waits(service);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
