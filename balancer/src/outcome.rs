//! What the balancer saw of a request, recorded when it is over, however it ends.

use crate::pool::Spot;
use crate::view::{Entry, Instance};
use crate::wait;
use crate::worker::{Local, Worker};
use domain::Mono;
use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

/// Counted for a client that went away before its answer.
const CLIENT_GONE: u16 = 499;

/// An instance, as the request has it.
pub struct Place(Rc<Spot>);

impl Deref for Place {
    type Target = Arc<Instance>;
    fn deref(&self) -> &Arc<Instance> {
        &self.0.instance
    }
}

/// One request at one instance. Dropping it takes the request off the instance's count.
pub struct AtInstance {
    /// Where it is.
    pub instance: Place,
    /// The service's part of this worker.
    pub local: Rc<Local>,
    worker: Rc<Worker>,
    arrived: Mono,
    began: Mono,
    code: Cell<u16>,
    /// Requests that may step aside there.
    aside_max: u32,
    aside: Cell<bool>,
}

/// So many times an instance's places may requests step aside: what they wait for is their clients,
/// but each still has a connection there.
const ASIDE_TIMES: u32 = 10;

impl AtInstance {
    /// Counts a request in, that arrived then; requests that wait for a connection count too.
    /// `None`: the instance is full.
    #[must_use]
    pub fn enter(
        worker: &Rc<Worker>,
        local: &Rc<Local>,
        entry: &Entry,
        arrived: Mono,
        now: Mono,
    ) -> Option<AtInstance> {
        entry.instance.enter(entry.max_in_flight, now).then(|| AtInstance {
            instance: Place(local.pool.borrow_mut().spot(&entry.instance)),
            local: Rc::clone(local),
            worker: Rc::clone(worker),
            arrived,
            began: now,
            code: Cell::new(CLIENT_GONE),
            aside_max: entry.max_in_flight.saturating_mul(ASIDE_TIMES),
            aside: Cell::new(false),
        })
    }

    /// The worker's part of the instance.
    #[must_use]
    pub fn spot(&self) -> &Spot {
        &self.instance.0
    }

    /// The answer's head came: 5xx is a failure.
    pub fn answered(&self, status: u16) {
        self.code.set(status);
        self.record(status < 500);
    }

    /// No answer came: connect error, reset or time-out before the head, or nonsense.
    pub fn failed(&self) {
        self.code.set(0);
        self.record(false);
    }

    /// Its client is what is waited for: another request may have its place.
    pub fn step_aside(&self) {
        if !self.aside.get() && self.instance.step_aside(self.aside_max) {
            self.aside.set(true);
            wait::pump(&self.local.service, self.worker.now());
        }
    }

    /// The connection had ended while it was idle, or none could be made from here: not the
    /// instance's fault, and nothing is counted.
    pub fn was_stale(&self) {
        self.code.set(0);
    }

    fn record(&self, ok: bool) {
        let now = self.worker.now();
        self.instance.record(ok, now.since(self.began), now);
    }

    /// The worker this runs on.
    #[must_use]
    pub fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }
}

impl Drop for AtInstance {
    fn drop(&mut self) {
        if self.aside.get() {
            self.instance.leave_aside();
        } else {
            self.instance.leave();
        }
        let service = &self.local.service;
        let now = self.worker.now();
        let code = self.code.get();
        if code > 0 {
            service.stats[self.worker.index].answered(code, now.since(self.arrived));
        }
        wait::pump(service, now);
    }
}
