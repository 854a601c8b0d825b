//! Requests that wait because nothing can take them: one bounded queue per service, first come
//! first served, the instance chosen only when one has room.

use crate::view::{Service, Snapshot};
use domain::Mono;
use domain::service::Hold;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// The least share of an instance's room that waiting requests get right after it became ready.
const ROOM_RAMP_MIN: f64 = 0.1;
/// Places of those who left that may lie among the others before the list is gone through: looking
/// at each one then costs next to nothing for each that left.
const LEFT_MAX: usize = 64;

/// The queue of one service. The request path reads `waiters` alone while nobody waits.
#[derive(Debug, Default)]
pub struct Queue {
    held: AtomicU32,
    bytes: AtomicU64,
    /// Of those held, who have a place in the queue, or were told to go and have not gone yet.
    waiters: AtomicU32,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Waiter>,
    /// Told to go, not yet gone.
    granted: u32,
}

impl Inner {
    /// Forgets those who left: at the front always, among the others before they are many.
    fn tidy(&mut self, waiters: u32) {
        while self.waiting.front().is_some_and(|w| w.go.is_closed()) {
            self.waiting.pop_front();
        }
        if self.waiting.len() > 2 * waiters as usize + LEFT_MAX {
            self.waiting.retain(|w| !w.go.is_closed());
        }
    }
}

#[derive(Debug)]
struct Waiter {
    since: Mono,
    go: oneshot::Sender<()>,
}

/// The queue takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueFull {
    /// As many are held as may be.
    Requests,
    /// What is held takes as much memory as it may.
    Bytes,
}

/// A request held, counted within the bounds; going on is dropping it.
#[derive(Debug)]
pub struct Stay<'a> {
    queue: &'a Queue,
    bytes: u64,
}

/// A place in the queue; leaving is dropping it.
#[derive(Debug)]
pub struct Ticket<'a> {
    queue: &'a Queue,
    _stay: Stay<'a>,
    since: Mono,
    go: Option<oneshot::Receiver<()>>,
    granted: bool,
}

impl Queue {
    /// Requests held now.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.held.load(Relaxed)
    }

    /// Bytes they take.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether some wait for an instance, so that who comes now is behind them.
    #[must_use]
    pub fn has_waiters(&self) -> bool {
        self.waiters.load(Relaxed) > 0
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves the list itself whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place at the end.
    ///
    /// # Errors
    /// [`QueueFull`] when the bounds on requests or bytes would be passed.
    pub fn enter(&self, hold: &Hold, bytes: u64, now: Mono) -> Result<Ticket<'_>, QueueFull> {
        let stay = self.stay(hold, bytes)?;
        self.waiters.fetch_add(1, Relaxed);
        let go = Some(self.push(now, false));
        Ok(Ticket { queue: self, _stay: stay, since: now, go, granted: false })
    }

    /// Held without a place: who pauses takes no turn from those who wait.
    ///
    /// # Errors
    /// [`QueueFull`] when the bounds on requests or bytes would be passed.
    pub fn stay(&self, hold: &Hold, bytes: u64) -> Result<Stay<'_>, QueueFull> {
        // Counted first and taken back, so that two cores never both take the last place.
        let requests = self.held.fetch_add(1, Relaxed) + 1;
        let all_bytes = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        let stay = Stay { queue: self, bytes };
        if requests > hold.requests {
            return Err(QueueFull::Requests);
        }
        if all_bytes > hold.bytes.0 {
            return Err(QueueFull::Bytes);
        }
        Ok(stay)
    }

    fn push(&self, since: Mono, front: bool) -> oneshot::Receiver<()> {
        let (go, gone) = oneshot::channel();
        let waiter = Waiter { since, go };
        let mut inner = self.lock();
        if front {
            inner.waiting.push_front(waiter);
        } else {
            inner.waiting.push_back(waiter);
        }
        gone
    }

    /// Lets as many go as there is room for.
    pub fn release(&self, room: u32) {
        if !self.has_waiters() {
            return;
        }
        let mut inner = self.lock();
        while inner.granted < room {
            let Some(waiter) = inner.waiting.pop_front() else { break };
            // One who left in the meantime takes no room.
            if waiter.go.send(()).is_ok() {
                inner.granted += 1;
            }
        }
    }

    /// How long the first in the queue has waited.
    #[must_use]
    pub fn oldest_wait(&self, now: Mono) -> Duration {
        if !self.has_waiters() {
            return Duration::ZERO;
        }
        let inner = self.lock();
        let first = inner.waiting.iter().find(|w| !w.go.is_closed());
        first.map_or(Duration::ZERO, |w| now.since(w.since))
    }
}

impl Ticket<'_> {
    /// Waits until told to go. Cancel-safe.
    pub async fn turn(&mut self) {
        if let Some(go) = &mut self.go {
            // The sender is dropped only with the whole queue; then waiting is over too.
            let _closed = go.await;
            self.go = None;
            self.granted = true;
        }
    }

    /// Back to the front, because the room was gone before it could be taken.
    pub fn again(&mut self) {
        self.settle();
        self.go = Some(self.queue.push(self.since, true));
    }

    fn settle(&mut self) {
        if let Some(mut go) = self.go.take() {
            // From here on nobody tells it to go; who was told in this very moment is as good as
            // granted.
            go.close();
            self.granted |= go.try_recv().is_ok();
        }
        if self.granted {
            self.granted = false;
            let mut inner = self.queue.lock();
            inner.granted = inner.granted.saturating_sub(1);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.settle();
        let waiters = self.queue.waiters.fetch_sub(1, Relaxed).saturating_sub(1);
        self.queue.lock().tidy(waiters);
    }
}

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.queue.held.fetch_sub(1, Relaxed);
        self.queue.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// Requests that may be let go now: free places of the standing instances, of new ones only as
/// many as their ramp allows, so that a thousand waiting do not fall on a cold instance at once.
#[must_use]
pub fn room(snapshot: &Snapshot, now: Mono) -> u32 {
    let concurrency = snapshot.field.concurrency.unwrap_or(1).max(1);
    let slow_start = snapshot.field.slow_start;
    let mut room = 0u32;
    for entry in &snapshot.entries {
        if !entry.stands() {
            continue;
        }
        let age = now.since(entry.ready_since);
        let most = if age >= slow_start {
            entry.max_in_flight
        } else {
            let share = age.as_secs_f64() / slow_start.as_secs_f64();
            let ramped = f64::from(entry.max_in_flight) * share.max(ROOM_RAMP_MIN);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a u32, from 0.1 to 1"
            )]
            (ramped.ceil() as u32).max(concurrency).min(entry.max_in_flight)
        };
        room = room.saturating_add(most.saturating_sub(entry.instance.in_flight()));
    }
    room
}

/// Lets those go for whom there is room.
pub fn pump(service: &Service, now: Mono) {
    if service.queue.has_waiters() {
        service.queue.release(room(&service.snapshot.load(), now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Bytes;
    use futures_util::FutureExt;

    fn hold(requests: u32, bytes: u64) -> Hold {
        Hold { requests, bytes: Bytes(bytes), deadline: Duration::from_secs(1) }
    }

    fn told(ticket: &mut Ticket<'_>) -> bool {
        ticket.turn().now_or_never().is_some()
    }

    #[test]
    fn first_come_first_served_and_only_as_many_as_there_is_room() {
        let queue = Queue::default();
        let now = Mono(Duration::from_secs(1));
        let enter = || queue.enter(&hold(10, 1000), 10, now).unwrap();
        let (mut a, mut b, mut c) = (enter(), enter(), enter());
        assert!(!told(&mut a));
        queue.release(1);
        queue.release(1);
        assert!(told(&mut a) && !told(&mut b), "one place is not given twice");
        a.again();
        queue.release(1);
        assert!(told(&mut a) && !told(&mut b), "who found it taken comes first again");
        drop(a);
        drop(b);
        assert_eq!(queue.oldest_wait(now.plus(Duration::from_secs(2))), Duration::from_secs(2));
        queue.release(1);
        assert!(told(&mut c), "who left is skipped");
        drop(c);
        assert_eq!((queue.held(), queue.lock().granted), (0, 0));
    }

    #[test]
    fn a_place_left_after_the_word_to_go_is_free_again() {
        let queue = Queue::default();
        let now = Mono::default();
        let a = queue.enter(&hold(10, 1000), 10, now).unwrap();
        queue.release(1);
        drop(a);
        let mut b = queue.enter(&hold(10, 1000), 10, now).unwrap();
        queue.release(1);
        assert!(told(&mut b));
    }

    #[test]
    fn who_left_takes_no_place_however_long_nobody_goes() {
        let queue = Queue::default();
        let at = |seconds| Mono(Duration::from_secs(seconds));
        let enter = |seconds| queue.enter(&hold(10, 1000), 10, at(seconds)).unwrap();
        let first = enter(1);
        let second = enter(2);
        for _ in 0..10_000 {
            drop(enter(3));
            queue.release(0);
        }
        let places = queue.lock().waiting.len();
        assert!(places <= 2 * 2 + LEFT_MAX, "{places}");
        assert_eq!(queue.oldest_wait(at(9)), Duration::from_secs(8));
        drop(first);
        assert_eq!(queue.oldest_wait(at(9)), Duration::from_secs(7));
        drop(second);
        assert_eq!((queue.lock().waiting.len(), queue.oldest_wait(at(9))), (0, Duration::ZERO));
    }

    #[test]
    fn who_pauses_is_held_and_takes_no_turn() {
        let queue = Queue::default();
        let now = Mono::default();
        let pausing = queue.stay(&hold(2, 30), 20).unwrap();
        assert_eq!((queue.held(), queue.has_waiters()), (1, false));
        assert!(queue.enter(&hold(2, 29), 10, now).is_err(), "its bytes count");
        let mut waiting = queue.enter(&hold(2, 30), 10, now).unwrap();
        assert!(queue.stay(&hold(2, 1000), 0).is_err(), "both count");
        assert!(queue.has_waiters());
        queue.release(1);
        assert!(told(&mut waiting), "the one place goes to who waits");
        drop((pausing, waiting));
        assert_eq!((queue.held(), queue.bytes.load(Relaxed)), (0, 0));
        assert!(!queue.has_waiters() && queue.lock().granted == 0);
    }

    #[test]
    fn the_bounds_hold() {
        let queue = Queue::default();
        let now = Mono::default();
        let a = queue.enter(&hold(1, 1000), 10, now).unwrap();
        assert!(queue.enter(&hold(1, 1000), 10, now).is_err());
        assert!(queue.enter(&hold(9, 15), 10, now).is_err());
        drop(a);
        assert!(queue.enter(&hold(1, 10), 10, now).is_ok());
        assert_eq!(queue.held(), 0);
    }
}
