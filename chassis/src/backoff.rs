//! Waiting longer after each failure, with a little chance so that many do not come back at once.

use std::time::Duration;

/// Exponential back-off between two bounds.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
    rng: fastrand::Rng,
}

impl Backoff {
    /// Waits `first`, then twice as long each time, `max` at most; each wait is 75 to 100 %.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Backoff {
        Backoff { first, max, next: first, rng: fastrand::Rng::with_seed(crate::ids::seed()) }
    }

    /// How long to wait now.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.75 + 0.25 * self.rng.f64());
        self.next = (self.next * 2).min(self.max);
        wait
    }

    /// Something went well: begin anew.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<_> = (0..6).map(|_| backoff.wait()).collect();
        assert!(waits[0] <= Duration::from_millis(100));
        assert!(waits[5] > Duration::from_millis(700) && waits[5] <= Duration::from_secs(1));
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(100));
    }
}
