//! How many balancers share the instances: the factor M of the estimate.

use domain::Mono;
use std::time::Duration;

/// How long after a change of the number one more balancer is assumed. Underestimating M makes
/// all balancers run to the same instance; overestimating it costs nothing.
pub const CHANGE_MARGIN: Duration = Duration::from_secs(10);
/// What is assumed while nobody can say how many there are.
pub const UNKNOWN_MIN: u32 = 2;

/// Remembers the number of live balancers and when it changed.
#[derive(Debug, Clone, Default)]
pub struct Crowd {
    known: Option<u32>,
    most: u32,
    changed: Option<Mono>,
}

impl Crowd {
    /// Takes what the heartbeats say now; `None` when they cannot be read.
    pub fn observe(&mut self, live: Option<u32>, now: Mono) {
        let live = live.map(|n| n.max(1));
        // The first word, if it is "you are alone", is no change of anything.
        let changed = live.is_some() && live != self.known;
        if changed && (self.known.is_some() || live > Some(1)) {
            self.changed = Some(now);
        }
        self.most = self.most.max(live.unwrap_or(0));
        self.known = live;
    }

    /// M at `now`: live balancers, one more for [`CHANGE_MARGIN`] after a change, and at least
    /// [`UNKNOWN_MIN`] (or the most ever seen) when unknown.
    #[must_use]
    pub fn size(&self, now: Mono) -> u32 {
        match self.known {
            None => self.most.max(UNKNOWN_MIN),
            Some(n) => {
                let fresh = self.changed.is_some_and(|at| now.since(at) < CHANGE_MARGIN);
                n.saturating_add(u32::from(fresh))
            }
        }
    }
}

/// Requests an instance takes from this balancer: its maximum counts all balancers' requests, so
/// what the others have there is taken off. Each of M may always use its own part of it, at least
/// one: a balancer that came later would wait for ever behind one that never pauses.
#[must_use]
pub fn room(max_in_flight: u32, others_in_flight: u32, balancers: u32) -> u32 {
    let part = (max_in_flight / balancers.max(1)).max(1);
    max_in_flight.saturating_sub(others_in_flight).max(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maximum_is_shared_and_nobody_is_left_without_a_part() {
        assert_eq!(room(100, 0, 4), 100);
        assert_eq!(room(100, 30, 4), 70);
        assert_eq!(room(100, 100, 4), 25);
        assert_eq!(room(2, 2, 4), 1);
        assert_eq!(room(0, 0, 0), 1);
    }

    fn at(s: u64) -> Mono {
        Mono(Duration::from_secs(s))
    }

    #[test]
    fn the_number_is_never_underestimated() {
        let mut crowd = Crowd::default();
        assert_eq!(crowd.size(at(0)), 2, "unknown: at least two");
        crowd.observe(Some(1), at(1));
        assert_eq!(crowd.size(at(1)), 1);
        crowd.observe(Some(3), at(5));
        assert_eq!(crowd.size(at(5)), 4, "one more after a change");
        assert_eq!(crowd.size(at(16)), 3);
        crowd.observe(None, at(20));
        assert_eq!(crowd.size(at(20)), 3, "lost sight of them: as many as there were");
        crowd.observe(Some(2), at(30));
        assert_eq!(crowd.size(at(31)), 3);
        assert_eq!(crowd.size(at(41)), 2);
    }
}
