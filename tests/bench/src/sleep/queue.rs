//! An instance's work as arithmetic: a FIFO queue before some workers, whose speed changes by plan.
//!
//! A request's end is known when it comes, so an instance sleeps instead of burning, and timers that
//! fire late never add up.

use std::collections::VecDeque;
use std::time::Duration;

/// A time in which an instance is faster or slower than usual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    /// From the start of the run.
    pub from: Duration,
    /// From the start of the run.
    pub until: Duration,
    /// Speed in it, as a multiple of the usual one.
    pub factor: f64,
}

/// An instance's queue.
#[derive(Debug)]
pub struct Queue {
    speed: f64,
    phases: Vec<Phase>,
    free_at: Vec<Duration>,
    foreign: usize,
    assigned: Duration,
    in_flight: u32,
    finished: u64,
    marks: VecDeque<Mark>,
}

/// What had been done at some moment.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Duration,
    busy: Duration,
    finished: u64,
}

/// What an instance says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct State {
    /// Share of its workers in use, over the last [`WINDOW`].
    pub load: f64,
    /// Requests it has.
    pub in_flight: u32,
    /// Requests finished a second, over the last [`WINDOW`].
    pub rps: f64,
}

/// Loads and rates are averages over this.
pub const WINDOW: Duration = Duration::from_secs(1);

impl Queue {
    /// A queue before `workers` workers, of whom `foreign` do other people's work all the time.
    #[must_use]
    pub fn new(workers: usize, foreign: usize, speed: f64, phases: Vec<Phase>) -> Queue {
        Queue {
            speed,
            phases,
            free_at: vec![Duration::ZERO; (workers - foreign).max(1)],
            foreign,
            assigned: Duration::ZERO,
            in_flight: 0,
            finished: 0,
            marks: VecDeque::from([Mark { at: Duration::ZERO, busy: Duration::ZERO, finished: 0 }]),
        }
    }

    /// A request that asks for so much work at normal speed comes. Answers when it will be done.
    pub fn arrive(&mut self, now: Duration, work: Duration) -> Duration {
        self.in_flight += 1;
        let Some(worker) = self.free_at.iter_mut().min() else { return now };
        let start = now.max(*worker);
        let end = done(self.speed, &self.phases, start, work);
        *worker = end;
        self.assigned += end - start;
        end
    }

    /// A request is done.
    pub fn finish(&mut self) {
        self.in_flight -= 1;
        self.finished += 1;
    }

    /// Requests it has.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Time its workers spent on our work until `now`.
    #[must_use]
    pub fn busy(&self, now: Duration) -> Duration {
        // A worker that is not free yet is busy all the time until it is.
        let ahead: Duration = self.free_at.iter().map(|free| free.saturating_sub(now)).sum();
        self.assigned.saturating_sub(ahead)
    }

    /// What it says of itself; to be asked in the order of time.
    pub fn state(&mut self, now: Duration) -> State {
        let busy = self.busy(now);
        // The newest mark that is a window old stays first.
        while self.marks.get(1).is_some_and(|mark| now.saturating_sub(mark.at) >= WINDOW) {
            self.marks.pop_front();
        }
        let Some(first) = self.marks.front().copied() else { return State::default() };
        let span = now.saturating_sub(first.at).as_secs_f64();
        if self.marks.back().is_none_or(|last| now.saturating_sub(last.at) >= WINDOW / 20) {
            self.marks.push_back(Mark { at: now, busy, finished: self.finished });
        }
        if span <= 0.0 {
            return State { in_flight: self.in_flight, ..State::default() };
        }
        let workers = count(self.free_at.len() + self.foreign);
        let used = busy.saturating_sub(first.busy).as_secs_f64() / span + count(self.foreign);
        State {
            load: used / workers,
            in_flight: self.in_flight,
            rps: count(usize::try_from(self.finished - first.finished).unwrap_or(0)) / span,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run are far below 2^53")]
fn count(n: usize) -> f64 {
    n as f64
}

/// When work that starts at `start` is done.
fn done(speed: f64, phases: &[Phase], start: Duration, work: Duration) -> Duration {
    let mut at = start;
    let mut left = work.as_secs_f64();
    for phase in phases.iter().filter(|phase| phase.until > start) {
        if phase.from > at {
            let span = (phase.from - at).as_secs_f64();
            if left <= span * speed {
                break;
            }
            left -= span * speed;
            at = phase.from;
        }
        let slow = speed * phase.factor;
        let span = phase.until.saturating_sub(at).as_secs_f64();
        if left <= span * slow {
            return at + Duration::from_secs_f64(left / slow);
        }
        left -= span * slow;
        at = phase.until;
    }
    at + Duration::from_secs_f64(left / speed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn requests_wait_for_a_worker_in_their_order() {
        let mut queue = Queue::new(2, 0, 1.0, Vec::new());
        assert_eq!(queue.arrive(ms(0), ms(100)), ms(100));
        assert_eq!(queue.arrive(ms(0), ms(300)), ms(300));
        assert_eq!(queue.arrive(ms(10), ms(100)), ms(200));
        assert_eq!(queue.arrive(ms(10), ms(10)), ms(210));
        assert_eq!(queue.in_flight(), 4);
        assert_eq!(queue.busy(ms(50)), ms(100));
    }

    #[test]
    fn slow_phases_stretch_the_work_that_falls_into_them() {
        let phase = |from, until| Phase { from: ms(from), until: ms(until), factor: 0.2 };
        let phases = [phase(100, 200), phase(300, 350)];
        assert_eq!(done(1.0, &phases, ms(0), ms(50)), ms(50));
        assert_eq!(done(1.0, &phases, ms(0), ms(110)), ms(150));
        assert_eq!(done(1.0, &phases, ms(0), ms(130)), ms(210));
        assert_eq!(done(1.0, &phases, ms(210), ms(100)), ms(350));
        assert_eq!(done(2.0, &[], ms(400), ms(100)), ms(450));
    }

    #[test]
    fn the_load_is_the_share_of_workers_in_use_foreign_work_included() {
        let mut queue = Queue::new(4, 2, 1.0, Vec::new());
        queue.arrive(ms(0), ms(500));
        queue.arrive(ms(0), ms(1000));
        let state = queue.state(ms(1000));
        // One worker half the time, one all the time, two foreign ones: 3.5 of 4.
        assert!((state.load - 0.875).abs() < 1e-9, "{state:?}");
        queue.finish();
        queue.finish();
        let later = queue.state(ms(2000));
        assert!((later.load - 0.5).abs() < 1e-9 && (later.rps - 2.0).abs() < 1e-9, "{later:?}");
    }
}
