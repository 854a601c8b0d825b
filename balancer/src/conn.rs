//! One client connection as the sweep sees it: what it is doing and since when. Deadlines are
//! checked by the sweep of the worker, so that no request pays for a timer.

use crate::http::request::peer_text;
use crate::limited::Limit;
use crate::limits::{Limits, millis};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

/// How often the sweep looks: deadlines are late by at most this.
pub const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Between requests.
    Idle,
    /// Reading a request's head.
    Head,
    /// Reading a body that is kept until it is whole.
    Body,
    /// Waiting in a queue, which has its own deadline.
    Held,
    /// Passing a request's body on; no answer yet.
    Upload,
    /// Waiting for an answer's head.
    Answer,
    /// Passing an answer on.
    Stream,
    /// Passing bytes on after an upgrade.
    Tunnel,
    /// Answered; taking in what the client still sends.
    Linger,
}

impl Phase {
    fn limit(self, limits: &Limits) -> Option<u64> {
        let limit = match self {
            Phase::Idle => limits.idle,
            Phase::Head => limits.head_time,
            Phase::Held => return None,
            Phase::Answer => limits.answer_time,
            Phase::Body | Phase::Upload | Phase::Stream => limits.stall_time,
            Phase::Tunnel => limits.tunnel_idle,
            Phase::Linger => Limits::LINGER,
        };
        Some(millis(limit))
    }

    /// The bound that [`Phase::limit`] is.
    fn bound(self) -> Option<Limit> {
        match self {
            Phase::Idle => Some(Limit::Idle),
            Phase::Head => Some(Limit::HeadTime),
            Phase::Answer => Some(Limit::AnswerTime),
            Phase::Body | Phase::Upload | Phase::Stream => Some(Limit::StallTime),
            Phase::Tunnel => Some(Limit::TunnelIdle),
            Phase::Held | Phase::Linger => None,
        }
    }
}

/// Why the sweep ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was quiet between requests.
    Idle,
    /// Its request's head or body did not come in time.
    Slow,
    /// A new connection needed its place.
    Evicted,
}

/// The worker's coarse clock: milliseconds, moved on by the sweep.
#[derive(Debug, Default)]
pub struct Tick(pub Cell<u64>);

/// What is known of a connection, for the sweep.
#[derive(Debug)]
pub struct Conn {
    /// The client's address, for `X-Forwarded-For`.
    pub peer: String,
    tick: Rc<Tick>,
    limits: Rc<Limits>,
    phase: Cell<Phase>,
    since: Cell<u64>,
    /// The client is what is waited for: its bytes, or its room.
    waits: Cell<bool>,
    waited: Cell<u64>,
    /// When the sweep last looked.
    checked: Cell<u64>,
    moved: Cell<u64>,
    late: Cell<bool>,
    /// The client has kept its request waiting.
    slow: Cell<bool>,
    ending: Cell<Option<Ending>>,
    /// The bound it ran into, for which it ends.
    limit: Cell<Option<Limit>>,
    stopping: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl Conn {
    /// A fresh connection.
    #[must_use]
    pub fn new(peer: SocketAddr, tick: Rc<Tick>, limits: Rc<Limits>) -> Conn {
        let tick_now = tick.0.get();
        let since = Cell::new(tick_now);
        Conn {
            peer: peer_text(peer),
            tick,
            limits,
            phase: Cell::new(Phase::Head),
            since,
            waits: Cell::new(false),
            waited: Cell::new(0),
            checked: Cell::new(tick_now),
            moved: Cell::new(0),
            late: Cell::new(false),
            slow: Cell::new(false),
            ending: Cell::new(None),
            limit: Cell::new(None),
            stopping: Cell::new(false),
            task: RefCell::new(None),
        }
    }

    /// It does something else from now on.
    pub fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.tick.0.get());
    }

    /// What it does.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// For how many milliseconds it has done that without progress.
    #[must_use]
    pub fn quiet(&self) -> u64 {
        self.tick.0.get().saturating_sub(self.since.get())
    }

    /// A new request: what the client made the balancer wait for before is forgiven.
    pub fn begin(&self) {
        self.enter(Phase::Answer);
        self.waits.set(false);
        self.waited.set(0);
        self.slow.set(false);
        self.moved.set(0);
    }

    /// Bytes of a body came or went.
    pub fn moved(&self, bytes: usize) {
        self.waits.set(false);
        self.moved.set(self.moved.get().saturating_add(bytes as u64));
        match self.phase.get() {
            // A head that trickles in is not progress, and an answer's deadline is its own.
            Phase::Head | Phase::Idle | Phase::Linger | Phase::Answer => {}
            Phase::Body | Phase::Held | Phase::Upload | Phase::Stream | Phase::Tunnel => {
                self.since.set(self.tick.0.get());
            }
        }
    }

    /// The client is waited for.
    pub fn waits(&self) {
        self.waits.set(true);
    }

    /// The task that drives this connection, for the sweep to wake. A task's waker stays the same.
    pub fn driven_by(&self, cx: &Context<'_>) {
        *self.task.borrow_mut() = Some(cx.waker().clone());
    }

    fn wake(&self) {
        if let Some(waker) = &*self.task.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The sweep's look at it.
    pub fn check(&self) {
        let phase = self.phase.get();
        let now = self.tick.0.get();
        let step = now.saturating_sub(self.checked.replace(now));
        if self.waits.get() && phase != Phase::Tunnel {
            self.waited.set(self.waited.get() + step);
            if matches!(phase, Phase::Upload | Phase::Stream) && !self.slow.replace(true) {
                self.wake();
            }
        }
        if self.is_too_slow() {
            return self.end_at(Ending::Slow, Some(Limit::SlowRate));
        }
        if phase.limit(&self.limits).is_none_or(|limit| self.quiet() <= limit) {
            return;
        }
        match phase {
            Phase::Answer | Phase::Upload if self.waits.get() => {
                self.end_at(Ending::Slow, phase.bound());
            }
            Phase::Answer | Phase::Upload => {
                self.late.set(true);
                self.wake();
            }
            Phase::Idle => self.end_at(Ending::Idle, phase.bound()),
            Phase::Head | Phase::Body | Phase::Stream | Phase::Tunnel | Phase::Linger => {
                self.end_at(Ending::Slow, phase.bound());
            }
            Phase::Held => {}
        }
    }

    /// Whether the client moved fewer bytes than it must in the time it was waited for.
    fn is_too_slow(&self) -> bool {
        let moved = self.moved.get().saturating_mul(1000);
        let Some(earned) = moved.checked_div(self.limits.slow_rate.0.0) else { return false };
        let allowed = millis(self.limits.slow_time).saturating_add(earned);
        self.waited.get() > allowed
    }

    /// The bound for which it ends, if it is one.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        self.limit.get()
    }

    fn end_at(&self, why: Ending, limit: Option<Limit>) {
        self.limit.set(limit);
        self.end(why);
    }

    /// Ends it now.
    pub fn end(&self, why: Ending) {
        self.ending.set(Some(why));
        self.wake();
    }

    /// Asks it to end after the request in hand.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.wake();
    }

    /// Whether the client was found to be what its request waits for.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.slow.get()
    }

    /// Whether the answer's deadline passed; asking takes the flag back.
    #[must_use]
    pub fn take_late(&self) -> bool {
        self.late.replace(false)
    }

    /// Why it must be closed now, if it must.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending.get()
    }

    /// Whether it was asked to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(limits: Limits) -> (Conn, impl Fn(&Conn, u64)) {
        let tick = Rc::new(Tick::default());
        let conn =
            Conn::new("127.0.0.1:9".parse().unwrap(), Rc::clone(&tick), Rc::new(limits.sane()));
        let pass = move |conn: &Conn, millis: u64| {
            let step = u64::try_from(SWEEP_EVERY.as_millis()).unwrap();
            for _ in 0..millis / step {
                tick.0.set(tick.0.get() + step);
                conn.check();
            }
        };
        (conn, pass)
    }

    #[test]
    fn each_phase_has_its_deadline() {
        let limits = Limits::default();
        let (conn, pass) = conn(limits.clone());
        conn.begin();
        pass(&conn, millis(limits.answer_time));
        assert!(!conn.take_late());
        pass(&conn, 250);
        assert!(conn.take_late() && !conn.take_late() && conn.ending().is_none());
        conn.enter(Phase::Held);
        pass(&conn, 1_000_000);
        assert!(conn.ending().is_none(), "the queue has its own deadline");
        conn.enter(Phase::Head);
        pass(&conn, millis(limits.head_time));
        conn.moved(1);
        assert!(conn.ending().is_none());
        pass(&conn, 250);
        assert_eq!(conn.ending(), Some(Ending::Slow), "a head that trickles in is late");
    }

    #[test]
    fn a_client_must_move_its_bytes() {
        let (conn, pass) = conn(Limits::default());
        conn.begin();
        conn.enter(Phase::Stream);
        for _ in 0..60 {
            conn.moved(1000);
            conn.waits();
            pass(&conn, 1000);
        }
        assert_eq!(conn.ending(), None, "1000 bytes a second are enough");
        conn.begin();
        conn.enter(Phase::Stream);
        for _ in 0..30 {
            conn.moved(10);
            conn.waits();
            pass(&conn, 1000);
        }
        assert_eq!(conn.ending(), Some(Ending::Slow), "ten are not");
    }

    #[test]
    fn an_upload_may_take_its_time_as_long_as_it_moves() {
        let limits = Limits::default();
        let (conn, pass) = conn(limits.clone());
        conn.begin();
        conn.enter(Phase::Upload);
        for _ in 0..millis(limits.answer_time) / 1000 + 60 {
            conn.moved(10_000);
            pass(&conn, 1000);
        }
        assert!(!conn.take_late() && conn.ending().is_none());
        pass(&conn, millis(limits.stall_time) + 250);
        assert!(conn.take_late(), "the instance takes no more");
    }

    #[test]
    fn looking_more_often_makes_no_client_slower() {
        let tick = Rc::new(Tick::default());
        let limits = Rc::new(Limits::default());
        let conn = Conn::new("127.0.0.1:9".parse().unwrap(), Rc::clone(&tick), limits);
        conn.begin();
        conn.enter(Phase::Stream);
        conn.waits();
        for _ in 0..1000 {
            tick.0.set(tick.0.get() + 10);
            conn.check();
        }
        assert_eq!(conn.ending(), None, "ten seconds, however often they are counted");
    }

    #[test]
    fn an_instance_that_is_slow_is_not_the_clients_fault() {
        let (conn, pass) = conn(Limits::default());
        conn.begin();
        conn.enter(Phase::Stream);
        conn.moved(10);
        pass(&conn, 200_000);
        assert_eq!(conn.ending(), None);
    }
}
