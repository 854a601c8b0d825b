//! Calendar months in UTC: where one begins, where the next does, and how a date is written.

use domain::Timestamp;
use std::fmt;
use std::time::Duration;

const DAY_MS: i64 = 86_400_000;
/// The longest month: what stands for ever must fit into this one too.
pub const LONGEST: Duration = Duration::from_secs(31 * 86_400);

/// One calendar month, counted from January of the year 0. Ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(i64);

/// Days since 1970-01-01 of the first day of `month`, counted in months since the year 0.
///
/// The proleptic Gregorian calendar: every year has 365 days, and one more when divisible by 4,
/// but not by 100 unless by 400. Counting years from March puts the odd day at the end.
fn first_day(month: i64) -> i64 {
    let (year, index) = (month.div_euclid(12), month.rem_euclid(12));
    let (year, from_march) = if index < 2 { (year - 1, index + 10) } else { (year, index - 2) };
    let before_month = (153 * from_march + 2) / 5;
    let before_year = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    before_year + before_month - 719_468
}

impl Month {
    /// The month that holds `at`.
    #[must_use]
    pub fn of(at: Timestamp) -> Month {
        let day = at.0.div_euclid(DAY_MS);
        // An average month has 30.436875 days; the guess is off by one at most.
        let mut month = 1970 * 12 + (day * 1_000_000).div_euclid(30_436_875);
        while first_day(month) > day {
            month -= 1;
        }
        while first_day(month + 1) <= day {
            month += 1;
        }
        Month(month)
    }

    /// Its first moment.
    #[must_use]
    pub fn start(self) -> Timestamp {
        Timestamp(first_day(self.0) * DAY_MS)
    }

    /// The first moment that is no longer in it.
    #[must_use]
    pub fn end(self) -> Timestamp {
        self.next().start()
    }

    /// The month after.
    #[must_use]
    pub fn next(self) -> Month {
        Month(self.0 + 1)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:04}-{:02}", self.0.div_euclid(12), self.0.rem_euclid(12) + 1))
    }
}

/// The date of `at` in UTC, as `2026-12-01`.
#[must_use]
pub fn date(at: Timestamp) -> String {
    let month = Month::of(at);
    let day = (at.0 - month.start().0).div_euclid(DAY_MS) + 1;
    format!("{month}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn months_begin_where_the_calendar_says() {
        for (ms, text) in [
            (0, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (951_868_800_000, "2000-03-01"),
            (1_709_251_199_999, "2024-02-29"),
            (1_767_225_600_000, "2026-01-01"),
            (4_107_542_400_000, "2100-03-01"),
            (-1, "1969-12-31"),
        ] {
            assert_eq!(date(Timestamp(ms)), text);
        }
    }

    proptest! {
        #[test]
        fn a_month_holds_its_moments(ms in -4_000_000_000_000i64..8_000_000_000_000) {
            let month = Month::of(Timestamp(ms));
            prop_assert!(month.start().0 <= ms && ms < month.end().0);
            let days = (month.end().0 - month.start().0) / DAY_MS;
            prop_assert!((28..=31).contains(&days));
        }
    }
}
