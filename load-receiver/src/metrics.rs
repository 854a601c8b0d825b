//! What is counted: every report by what became of it, every write.

use chassis::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

type Label = [(&'static str, &'static str); 1];

/// The receiver's counters; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    reports: Family<Label, Counter>,
    recorded: Counter,
    writes: Counter,
    failures: Counter,
    agents: Family<Label, Counter>,
}

impl Counts {
    /// Registers the counters.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Counts {
        let counts = Counts::default();
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
        });
        counts
    }

    /// Counts reports by what became of them.
    pub fn add(&self, result: &'static str, count: usize) {
        if count > 0 {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
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

    pub(crate) fn wrote(&self, new: usize) {
        self.writes.inc();
        self.recorded.inc_by(u64::try_from(new).unwrap_or(u64::MAX));
    }

    pub(crate) fn failed(&self) {
        self.failures.inc();
    }
}
