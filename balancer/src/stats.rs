//! Counters of one service on one worker: written by that worker alone, summed when read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper edges of the duration buckets, in microseconds; the last bucket has none.
/// Factors of about 1.6 keep quantiles within a third of the truth.
pub const EDGES_MICROS: [u64; 28] = [
    100,
    160,
    250,
    400,
    630,
    1_000,
    1_600,
    2_500,
    4_000,
    6_300,
    10_000,
    16_000,
    25_000,
    40_000,
    63_000,
    100_000,
    160_000,
    250_000,
    400_000,
    630_000,
    1_000_000,
    1_600_000,
    2_500_000,
    4_000_000,
    6_300_000,
    10_000_000,
    30_000_000,
    100_000_000,
];
const BUCKETS: usize = EDGES_MICROS.len() + 1;
/// Upper edges of the buckets of reports' ages, in milliseconds; the last bucket has none.
pub const AGE_EDGES_MILLIS: [u64; 10] = [1, 5, 10, 50, 100, 250, 500, 1_000, 2_000, 10_000];
const AGE_BUCKETS: usize = AGE_EDGES_MILLIS.len() + 1;
/// Status codes 100 to 599 have a counter each.
const CODES: usize = 500;

/// The counters.
#[derive(Debug)]
pub struct Stats {
    codes: Box<[AtomicU64; CODES]>,
    durations: [AtomicU64; BUCKETS],
    duration_micros: AtomicU64,
    retries: AtomicU64,
    broken: AtomicU64,
    report_age_millis: AtomicU64,
    report_ages: [AtomicU64; AGE_BUCKETS],
    retries_left: AtomicU64,
}

impl Default for Stats {
    fn default() -> Stats {
        Stats {
            codes: Box::new([const { AtomicU64::new(0) }; CODES]),
            durations: [const { AtomicU64::new(0) }; BUCKETS],
            duration_micros: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            report_age_millis: AtomicU64::new(0),
            report_ages: [const { AtomicU64::new(0) }; AGE_BUCKETS],
            retries_left: AtomicU64::new(0),
        }
    }
}

/// One writer: a plain load and store, without the bus lock of a fetch-and-add.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

impl Stats {
    /// Counts one answer.
    pub fn answered(&self, code: u16, took: Duration) {
        if let Some(counter) = self.codes.get(usize::from(code).wrapping_sub(100)) {
            add(counter, 1);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = EDGES_MICROS.partition_point(|edge| *edge < micros);
        add(&self.durations[bucket], 1);
        add(&self.duration_micros, micros);
    }

    /// Counts one request that was tried again.
    pub fn retried(&self) {
        add(&self.retries, 1);
    }

    /// Counts one answer that broke off after its head.
    pub fn broke(&self) {
        add(&self.broken, 1);
    }

    /// Counts the age of the report a pick used.
    pub fn used_report(&self, age: Duration) {
        let millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        add(&self.report_age_millis, millis);
        add(&self.report_ages[AGE_EDGES_MILLIS.partition_point(|edge| *edge < millis)], 1);
    }

    /// Tells how many retries the worker's budget would grant.
    pub fn retries_left(&self, left: u32) {
        self.retries_left.store(u64::from(left), Relaxed);
    }
}

/// The sum of all workers' counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// Answers by status code, 100 first.
    pub codes: Vec<u64>,
    /// Answers by duration.
    pub durations: [u64; BUCKETS],
    /// Sum of durations.
    pub duration_micros: u64,
    /// Requests tried again.
    pub retries: u64,
    /// Answers broken off.
    pub broken: u64,
    /// Sum of the ages of reports picks used.
    pub report_age_millis: u64,
    /// Reports that picks used, by age.
    pub report_ages: [u64; AGE_BUCKETS],
    /// Retries the budgets would grant.
    pub retries_left: u64,
}

impl Default for Sum {
    fn default() -> Sum {
        Sum {
            codes: vec![0; CODES],
            durations: [0; BUCKETS],
            duration_micros: 0,
            retries: 0,
            broken: 0,
            report_age_millis: 0,
            report_ages: [0; AGE_BUCKETS],
            retries_left: 0,
        }
    }
}

impl Sum {
    /// Adds one worker's counters.
    pub fn add(&mut self, stats: &Stats) {
        for (sum, counter) in self.codes.iter_mut().zip(stats.codes.iter()) {
            *sum = sum.wrapping_add(counter.load(Relaxed));
        }
        for (sum, counter) in self.durations.iter_mut().zip(&stats.durations) {
            *sum = sum.wrapping_add(counter.load(Relaxed));
        }
        self.duration_micros =
            self.duration_micros.wrapping_add(stats.duration_micros.load(Relaxed));
        self.retries = self.retries.wrapping_add(stats.retries.load(Relaxed));
        self.broken = self.broken.wrapping_add(stats.broken.load(Relaxed));
        self.report_age_millis =
            self.report_age_millis.wrapping_add(stats.report_age_millis.load(Relaxed));
        for (sum, counter) in self.report_ages.iter_mut().zip(&stats.report_ages) {
            *sum = sum.wrapping_add(counter.load(Relaxed));
        }
        self.retries_left = self.retries_left.saturating_add(stats.retries_left.load(Relaxed));
    }

    /// All answers.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.durations.iter().sum()
    }

    /// Answers of 500 and above.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.codes.iter().skip(400).sum()
    }

    /// The duration below which `share` of the answers since `before` were; zero without any.
    #[must_use]
    pub fn quantile_since(&self, before: &Sum, share: f64) -> Duration {
        let counts: Vec<u64> =
            self.durations.iter().zip(&before.durations).map(|(a, b)| a.wrapping_sub(*b)).collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return Duration::ZERO;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank among counted answers; the share is within 0 and 1"
        )]
        let rank = ((total as f64 * share).ceil() as u64).clamp(1, total);
        let mut below = 0;
        for (count, edge) in counts.iter().zip(EDGES_MICROS) {
            below += count;
            if below >= rank {
                return Duration::from_micros(edge);
            }
        }
        Duration::from_micros(EDGES_MICROS[EDGES_MICROS.len() - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_code_and_duration() {
        let stats = Stats::default();
        for ms in 1..=100 {
            stats.answered(200, Duration::from_millis(ms));
        }
        stats.answered(503, Duration::from_secs(1000));
        let mut sum = Sum::default();
        sum.add(&stats);
        assert_eq!((sum.requests(), sum.errors(), sum.codes[100]), (101, 1, 100));
        let p50 = sum.quantile_since(&Sum::default(), 0.5);
        assert!((50..=63).contains(&p50.as_millis()), "{p50:?}");
        assert_eq!(sum.quantile_since(&sum.clone(), 0.5), Duration::ZERO);
    }
}
