//! How much history the registry keeps, and why that much.

use std::time::Duration;

/// A week of ended instances and nodes: long enough to look into a bad weekend on Monday.
pub const ENDED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Ended instances (and, counted apart, nodes) kept at most: a service that crashes in a loop ends
/// thousands a day, and each row is under 1 kB, so this is under 10 MB.
pub const ENDED_ROWS: usize = 10_000;
/// Events kept: under 30 MB, days of a busy cluster; followers resume by number within them.
pub const EVENTS: usize = 100_000;
/// Decisions kept in all: under 50 MB.
pub const DECISIONS: usize = 100_000;
/// Decisions kept of one service: one that flaps each second must not push out all others.
pub const DECISIONS_OF_ONE: usize = 10_000;
/// Measurements are kept for one day: the dashboard's longest span. Longer is Prometheus's work.
pub const STATS_FOR: Duration = Duration::from_secs(24 * 3600);
/// Measurements kept in each of the three tables: at about 100 bytes a row with its indexes, a
/// table stays near 200 MB however large the cluster is.
pub const STATS_ROWS: usize = 2_000_000;
/// Newest revision documents of a service kept beside those that instances live of: what a
/// rollback may want.
pub const REVISIONS: u64 = 10;
/// Ledger lines are kept for 13 months: this month's cap and the same month a year ago.
pub const LEDGER_FOR: Duration = Duration::from_secs(400 * 24 * 3600);
/// Names of removed services and types whose last numbers are remembered one by one; older ones
/// share the highest.
pub const RETIRED: usize = 10_000;

/// Time between two rounds of dropping what is kept long enough: rare enough to cost nothing, often
/// enough that the bounds are never far exceeded.
pub(crate) const UPKEEP_EVERY: Duration = Duration::from_secs(60);

/// The bounds in force; [`Limits::default`] outside tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// See [`ENDED_FOR`].
    pub ended_for: Duration,
    /// See [`ENDED_ROWS`].
    pub ended_rows: usize,
    /// See [`EVENTS`].
    pub events: usize,
    /// See [`DECISIONS`].
    pub decisions: usize,
    /// See [`DECISIONS_OF_ONE`].
    pub decisions_of_one: usize,
    /// See [`STATS_FOR`].
    pub stats_for: Duration,
    /// See [`STATS_ROWS`].
    pub stats_rows: usize,
    /// See [`REVISIONS`].
    pub revisions: u64,
    /// See [`LEDGER_FOR`].
    pub ledger_for: Duration,
    /// See [`RETIRED`].
    pub retired: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            ended_for: ENDED_FOR,
            ended_rows: ENDED_ROWS,
            events: EVENTS,
            decisions: DECISIONS,
            decisions_of_one: DECISIONS_OF_ONE,
            stats_for: STATS_FOR,
            stats_rows: STATS_ROWS,
            revisions: REVISIONS,
            ledger_for: LEDGER_FOR,
            retired: RETIRED,
        }
    }
}
