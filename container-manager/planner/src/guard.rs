//! The crash guard: when a revision's starts fail, it is tried less and less, and the old one stays.

use crate::policy::Policy;
use domain::{Revision, Timestamp};
use std::time::Duration;

/// Most outcomes kept: enough to see a half, few enough to be written often.
const OUTCOMES_MAX: usize = 32;

/// What is remembered about the starts of the newest revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Guard {
    /// Whose starts.
    pub revision: Revision,
    /// Failed starts since the last good one.
    pub in_row: u32,
    /// When the last one failed.
    pub failed_at: Option<Timestamp>,
    /// When each ended, and whether well.
    pub outcomes: Vec<(Timestamp, bool)>,
    /// The revision was given up for its predecessor.
    pub given_up: bool,
}

impl Guard {
    /// Starts anew for a newer revision.
    pub fn follow(&mut self, revision: Revision) {
        if revision > self.revision {
            *self = Guard { revision, ..Guard::default() };
        }
    }

    /// Notes how a start of `revision` ended.
    pub fn record(&mut self, revision: Revision, now: Timestamp, well: bool) {
        if revision != self.revision {
            return;
        }
        if well {
            self.in_row = 0;
        } else {
            self.in_row = self.in_row.saturating_add(1);
            self.failed_at = Some(now);
        }
        self.outcomes.push((now, well));
        if self.outcomes.len() > OUTCOMES_MAX {
            self.outcomes.remove(0);
        }
    }

    /// Whether the revision is stopped: too many failed in a row, or more than half of late.
    #[must_use]
    pub fn is_tripped(&self, now: Timestamp, policy: &Policy) -> bool {
        let recent = self.outcomes.iter().filter(|(at, _)| now.since(*at) <= policy.guard_span);
        let (mut all, mut bad) = (0u32, 0u32);
        for (_, well) in recent {
            all += 1;
            bad += u32::from(!well);
        }
        let half = all >= policy.guard_samples && bad * 2 > all;
        self.in_row >= policy.guard_failures || half
    }

    /// Until when no start is tried; `None`: now is fine.
    #[must_use]
    pub fn wait_until(&self, now: Timestamp, policy: &Policy) -> Option<Timestamp> {
        let failed_at = self.failed_at?;
        let wait = if self.is_tripped(now, policy) {
            let more = self.in_row.saturating_sub(policy.guard_failures).min(8);
            (policy.guard_retry * 2u32.pow(more)).min(policy.guard_retry_max)
        } else if self.in_row > 0 {
            policy.retry_first * 2u32.pow((self.in_row - 1).min(8))
        } else {
            Duration::ZERO
        };
        let until = failed_at.plus(wait);
        (until > now).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_stop_a_revision_and_a_newer_one_starts_clean() {
        let policy = Policy::default();
        let mut guard = Guard::default();
        guard.follow(Revision(1));
        let mut now = Timestamp(0);
        for expected in [500, 1000, 30_000, 60_000, 120_000, 240_000, 300_000, 300_000] {
            guard.record(Revision(1), now, false);
            let until = guard.wait_until(now, &policy).unwrap();
            assert_eq!(until.since(now).as_millis(), expected);
            now = until;
            assert_eq!(guard.wait_until(now, &policy), None);
        }
        assert!(guard.is_tripped(now, &policy));
        guard.follow(Revision(2));
        assert!(!guard.is_tripped(now, &policy));
    }

    #[test]
    fn one_failure_among_many_good_starts_stops_nothing() {
        let policy = Policy::default();
        let mut guard = Guard::default();
        guard.follow(Revision(1));
        for n in 0..10 {
            guard.record(Revision(1), Timestamp(n), n != 4);
        }
        assert!(!guard.is_tripped(Timestamp(10), &policy));
        assert_eq!(guard.wait_until(Timestamp(10), &policy), None);
    }

    #[test]
    fn more_than_half_failing_stops_a_revision_until_that_is_long_ago() {
        let policy = Policy::default();
        let mut guard = Guard::default();
        guard.follow(Revision(3));
        for (n, well) in [true, false, false, true, false].into_iter().enumerate() {
            guard.record(Revision(3), Timestamp(i64::try_from(n).unwrap()), well);
        }
        assert!(guard.is_tripped(Timestamp(10), &policy));
        assert!(!guard.is_tripped(Timestamp(310_000), &policy));
    }
}
