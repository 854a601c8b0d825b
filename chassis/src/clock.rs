//! The only reader of the system's clocks.

use domain::{Clock, Mono, Timestamp};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The system's wall clock and a monotonic clock that starts with this value.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic reading starts at zero.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this module is where clocks are read")]
    pub fn new() -> SystemClock {
        SystemClock { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this module is where clocks are read")]
    fn now(&self) -> Timestamp {
        // Before 1970 only a broken clock can be; zero is as good as any wrong answer.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Mono {
        Mono(self.start.elapsed())
    }
}
