//! What the demo measured, whether all of it happened, and how it is told.

use super::script::SLOW_FACTOR;
use serde::Serialize;
use std::fmt::Write;

/// An order that the cap held back.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct HeldBack {
    /// How much money was missing.
    pub needs: String,
    /// Until when.
    pub until: String,
}

/// One line of the story.
#[derive(Debug, Clone, Serialize)]
pub struct Moment {
    /// From the start.
    pub at_seconds: f64,
    /// One short stable word.
    pub event: String,
    /// A sentence.
    pub detail: String,
}

/// `tally demo --json` (contract).
#[derive(Debug, Clone, Serialize, Default)]
pub struct Summary {
    /// Whether everything that must happen happened.
    pub ok: bool,
    /// Length.
    pub seconds: f64,
    /// Requests sent.
    pub requests: usize,
    /// Requests without a whole, successful answer.
    pub failed_requests: usize,
    /// From the first request to its answer, the service being at zero.
    pub wake_ms: f64,
    /// Most instances ready at once.
    pub instances_max: u32,
    /// Most nodes at once.
    pub nodes_max: u32,
    /// Share of requests of the instance that became slow, before; 1.0 = all.
    pub slow_instance_share_before: f64,
    /// The same from 5 s after.
    pub slow_instance_share_after: f64,
    /// An equal share at that time.
    pub equal_share: f64,
    /// p99 of all requests before.
    pub p99_ms_before: f64,
    /// p99 of all requests from 5 s after.
    pub p99_ms_after: f64,
    /// Orders that the cap held back.
    pub held_back: Vec<HeldBack>,
    /// This month, by the ledger.
    pub spent: String,
    /// Promised at the end.
    pub obligations: String,
    /// The cap.
    pub cap: String,
    /// Instances at the end.
    pub instances_end: u32,
    /// Nodes at the end.
    pub nodes_end: u32,
    /// What did not happen.
    pub missing: Vec<String>,
    /// The story.
    pub timeline: Vec<Moment>,
}

impl Summary {
    /// Decides `ok`, listing what is missing.
    pub fn judge(&mut self) {
        let mut missing = Vec::new();
        let mut must = |right: bool, what: String| {
            if !right {
                missing.push(what);
            }
        };
        must(self.requests > 0, "no request was sent".into());
        must(self.failed_requests == 0, format!("{} requests failed", self.failed_requests));
        must(self.wake_ms > 0.0, "the first request was not answered".into());
        must(self.instances_max >= 3, format!("only {} instances came up", self.instances_max));
        must(self.nodes_max >= 2, "no further node was ordered".into());
        must(self.nodes_end <= 1, format!("{} nodes are left", self.nodes_end));
        must(!self.held_back.is_empty(), "the cap held nothing back".into());
        must(self.instances_end == 0, format!("{} instances are left", self.instances_end));
        let half = self.equal_share / 2.0;
        must(
            self.slow_instance_share_before > half && self.slow_instance_share_after <= half,
            format!(
                "the slow instance kept {:.1} % of the requests, more than half of an equal share \
                 ({:.1} %)",
                self.slow_instance_share_after * 100.0,
                self.equal_share * 100.0
            ),
        );
        self.ok = missing.is_empty();
        self.missing = missing;
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |what: &str, value: String| {
            let _never_fails = writeln!(text, "  {what:<34} {value}");
        };
        line("requests, failed", format!("{}, {}", self.requests, self.failed_requests));
        line("first request, from zero instances", format!("{:.0} ms", self.wake_ms));
        line(
            "instances at most, at the end",
            format!("{}, {}", self.instances_max, self.instances_end),
        );
        line("nodes at most, at the end", format!("{}, {}", self.nodes_max, self.nodes_end));
        line(
            "share of the slow instance",
            format!(
                "{:.1} % -> {:.1} % after it became {SLOW_FACTOR} times slower (equal: {:.1} %)",
                self.slow_instance_share_before * 100.0,
                self.slow_instance_share_after * 100.0,
                self.equal_share * 100.0
            ),
        );
        line(
            "p99 before, after",
            format!("{:.0} ms, {:.0} ms", self.p99_ms_before, self.p99_ms_after),
        );
        for held in &self.held_back {
            line(
                "held back by the cap",
                format!("{} more needed until {}", held.needs, held.until),
            );
        }
        line(
            "spent, obligations, cap",
            format!("{}, {}, {}", self.spent, self.obligations, self.cap),
        );
        for what in &self.missing {
            line("MISSING", what.clone());
        }
        let verdict = if self.ok { "everything happened" } else { "not everything happened" };
        let _never_fails = writeln!(text, "{verdict} in {:.0} s", self.seconds);
        text
    }
}

/// The 99th percentile of `latencies`, ms; 0 of none.
pub fn p99_ms(latencies: &mut [std::time::Duration]) -> f64 {
    latencies.sort_unstable();
    let place = (latencies.len() * 99).div_ceil(100).saturating_sub(1);
    latencies.get(place).map_or(0.0, |d| d.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Summary {
        Summary {
            requests: 10,
            wake_ms: 5.0,
            instances_max: 4,
            nodes_max: 2,
            nodes_end: 1,
            slow_instance_share_before: 0.25,
            slow_instance_share_after: 0.06,
            equal_share: 0.25,
            held_back: vec![HeldBack { needs: "1".into(), until: "x".into() }],
            ..Summary::default()
        }
    }

    #[test]
    fn ok_needs_every_part_of_the_story() {
        let mut summary = good();
        summary.judge();
        assert!(summary.ok, "{:?}", summary.missing);
        let breaks: [fn(&mut Summary); 7] = [
            |s| s.failed_requests = 1,
            |s| s.wake_ms = 0.0,
            |s| s.instances_max = 2,
            |s| s.nodes_max = 1,
            |s| s.held_back.clear(),
            |s| s.instances_end = 1,
            |s| s.slow_instance_share_after = 0.13,
        ];
        for (i, change) in breaks.iter().enumerate() {
            let mut summary = good();
            change(&mut summary);
            summary.judge();
            assert!(!summary.ok, "break {i} was not noticed");
        }
    }

    #[test]
    fn p99_is_the_99th_of_100() {
        let mut all: Vec<_> = (1..=100).map(std::time::Duration::from_millis).collect();
        assert!((p99_ms(&mut all) - 99.0).abs() < 1e-9);
        assert!(p99_ms(&mut []).abs() < 1e-9);
    }
}
