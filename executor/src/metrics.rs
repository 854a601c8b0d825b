//! What the executor counts and times.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use std::time::Duration;

/// How a start ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Result {
    /// It became well.
    Ready,
    /// It did not.
    Failed,
}

/// Label of starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Started {
    /// How it ended.
    pub result: Result,
}

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Refusal {
    /// No signature, or none that holds.
    Signature,
    /// An older term or number.
    Older,
    /// Not a document for this node.
    Invalid,
}

/// Label of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Refused {
    /// Why.
    pub reason: Refusal,
}

/// All of them. Clones share the values.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Starts by how they ended.
    pub starts: Family<Started, Counter>,
    /// Refused calls.
    pub refused: Family<Refused, Counter>,
    /// Local restarts.
    pub restarts: Counter,
    /// Instances known now.
    pub instances: Gauge,
    /// From the decision to start until the process was there, seconds.
    pub spawn: Histogram,
    /// From the decision to start until well, seconds.
    pub ready: Histogram,
}

/// From a millisecond to half a minute.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn new(metrics: &chassis::Metrics) -> Metrics {
        let made = Metrics {
            starts: Family::default(),
            refused: Family::default(),
            restarts: Counter::default(),
            instances: Gauge::default(),
            spawn: Histogram::new(BUCKETS),
            ready: Histogram::new(BUCKETS),
        };
        let add = made.clone();
        metrics.register(|registry| {
            let r = registry.sub_registry_with_prefix("tally_executor");
            r.register("starts", "Starts of instances by how they ended", add.starts);
            r.register("refused_calls", "Calls that were not obeyed", add.refused);
            r.register("restarts", "Local restarts after failures", add.restarts);
            r.register("instances", "Instances known now", add.instances);
            r.register("spawn_duration_seconds", "Until the process was there", add.spawn);
            r.register("ready_duration_seconds", "Until the instance was well", add.ready);
        });
        made
    }

    /// Counts a start that ended.
    pub fn started(&self, result: Result) {
        self.starts.get_or_create(&Started { result }).inc();
    }

    /// Counts a refusal.
    pub fn refuse(&self, reason: Refusal) {
        self.refused.get_or_create(&Refused { reason }).inc();
    }

    /// Times a becoming well.
    pub fn became_ready(&self, took: Duration) {
        self.started(Result::Ready);
        self.ready.observe(took.as_secs_f64());
    }
}
