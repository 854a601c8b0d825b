//! How many requests may be tried again: a budget, so that retries never make an outage worse.

use domain::Mono;

/// Retries allowed per hundred requests.
pub const SHARE_PERCENT: u32 = 20;
/// Retries allowed per second whatever the traffic, so that a quiet service may retry too.
pub const PER_SECOND_MIN: u32 = 3;
/// Seconds of unused allowance that may be saved up.
pub const SAVED_SECONDS_MAX: u32 = 10;

/// Thousandths of a retry.
const ONE: u64 = 1000;
/// Most saved-up retries from requests: beyond this a burst of retries is itself a load.
const SHARE_SAVED_MAX: u64 = 1000 * ONE;

/// One allowance: the larger of 20 % of requests and 3 a second, each saved up within bounds.
#[derive(Debug, Clone)]
pub struct Budget {
    per_second_milli: u64,
    share: u64,
    floor: u64,
    refilled: Mono,
}

impl Budget {
    /// A budget that is one of `parts` equal ones (a balancer keeps one per core).
    #[must_use]
    pub fn new(parts: u32, now: Mono) -> Budget {
        let per_second_milli = (u64::from(PER_SECOND_MIN) * ONE / u64::from(parts.max(1))).max(1);
        Budget { per_second_milli, share: 0, floor: ONE, refilled: now }
    }

    /// Counts a request, not a retry.
    pub fn request(&mut self) {
        self.share = (self.share + ONE * u64::from(SHARE_PERCENT) / 100).min(SHARE_SAVED_MAX);
    }

    /// Whole retries it would grant now.
    #[must_use]
    pub fn left(&self) -> u32 {
        u32::try_from(self.share.max(self.floor) / ONE).unwrap_or(u32::MAX)
    }

    /// Takes one retry from the budget; false when there is none left.
    pub fn take(&mut self, now: Mono) -> bool {
        let passed = u64::try_from(now.since(self.refilled).as_millis()).unwrap_or(u64::MAX);
        let earned = passed.saturating_mul(self.per_second_milli) / 1000;
        if earned > 0 {
            self.refilled = now;
            let most = (self.per_second_milli * u64::from(SAVED_SECONDS_MAX)).max(ONE);
            self.floor = self.floor.saturating_add(earned).min(most);
        }
        let allowed = self.share >= ONE || self.floor >= ONE;
        if allowed {
            self.share = self.share.saturating_sub(ONE);
            self.floor = self.floor.saturating_sub(ONE);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at_ms(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    #[test]
    fn a_fifth_of_requests_may_be_tried_again() {
        let mut budget = Budget::new(1, at_ms(0));
        for _ in 0..1000 {
            budget.request();
        }
        assert_eq!(budget.left(), 200);
        let granted = (0..1000).filter(|_| budget.take(at_ms(0))).count();
        assert_eq!((granted, budget.left()), (200, 0));
    }

    #[test]
    fn a_quiet_service_may_retry_three_times_a_second() {
        let mut budget = Budget::new(1, at_ms(0));
        while budget.take(at_ms(0)) {}
        let granted = (1..=100u64).filter(|i| budget.take(at_ms(i * 100))).count();
        assert!((29..=30).contains(&granted), "{granted}");
    }

    #[test]
    fn allowance_is_not_saved_for_ever() {
        let mut budget = Budget::new(1, at_ms(0));
        let granted = (0..1000).filter(|_| budget.take(at_ms(3_600_000))).count();
        assert_eq!(granted, 30);
    }

    #[test]
    fn cores_share_the_floor() {
        let mut budget = Budget::new(3, at_ms(0));
        while budget.take(at_ms(0)) {}
        assert!(!budget.take(at_ms(900)));
        assert!(budget.take(at_ms(1900)));
    }
}
