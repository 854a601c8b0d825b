//! What is counted: every report by what became of it, every write.

use chassis::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

type Label = [(&'static str, &'static str); 1];

/// What becomes of nearly every report.
pub(crate) const ACCEPTED: &str = "accepted";

/// The receiver's counters; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    reports: Family<Label, Counter>,
    recorded: Counter,
    writes: Counter,
    failures: Counter,
    agents: Family<Label, Counter>,
    limits: Family<Label, Counter>,
    dropped: Counter,
    accepted: Accepted,
}

/// The counter of what nearly every report is, found once.
#[derive(Debug, Clone, Default)]
struct Accepted(Option<Counter>);

impl Counts {
    /// Registers the counters.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Counts {
        let mut counts = Counts::default();
        let accepted = counts.reports.get_or_create_owned(&[("result", ACCEPTED)]);
        counts.accepted = Accepted(Some(accepted));
        metrics.register(|registry| {
            registry.register(
                "tally_load_reports",
                "Reports by what became of them: accepted, clipped, outranked, or why refused",
                counts.reports.clone(),
            );
            registry.register(
                "tally_load_recorded_reports",
                "Reports that were new to the board",
                counts.recorded.clone(),
            );
            registry.register(
                "tally_load_board_writes",
                "Writes the board took",
                counts.writes.clone(),
            );
            registry.register(
                "tally_load_board_failures",
                "Writes the board did not take",
                counts.failures.clone(),
            );
            registry.register(
                "tally_load_agent_checks",
                "Questions to agents by what came: line, silent, unreadable; unknown_words besides",
                counts.agents.clone(),
            );
            registry.register(
                "tally_load_limits",
                "Messages turned away at a bound: body_bytes, body_deadline, large_bodies, batch_reports",
                counts.limits.clone(),
            );
            registry.register(
                "tally_load_dropped_datagrams",
                "Datagrams the system dropped because they came faster than they were read",
                counts.dropped.clone(),
            );
        });
        counts
    }

    /// Counts reports by what became of them.
    pub fn add(&self, result: &'static str, count: usize) {
        if count > 0 {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            if let (ACCEPTED, Some(accepted)) = (result, &self.accepted.0) {
                accepted.inc_by(count);
                return;
            }
            self.reports.get_or_create(&[("result", result)]).inc_by(count);
        }
    }

    /// How many reports ended as `result`.
    #[must_use]
    pub fn of(&self, result: &'static str) -> u64 {
        self.reports.get_or_create(&[("result", result)]).get()
    }

    pub(crate) fn asked(&self, result: &'static str) {
        self.agents.get_or_create(&[("result", result)]).inc();
    }

    /// Counts a message that was turned away at a bound.
    pub(crate) fn limit(&self, name: &'static str) {
        self.limits.get_or_create(&[("limit", name)]).inc();
    }

    pub(crate) fn dropped(&self, count: u64) {
        self.dropped.inc_by(count);
    }

    pub(crate) fn wrote(&self, new: usize) {
        self.writes.inc();
        self.recorded.inc_by(u64::try_from(new).unwrap_or(u64::MAX));
    }

    pub(crate) fn failed(&self) {
        self.failures.inc();
    }
}
