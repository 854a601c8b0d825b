//! What the loop last did and why, and its metrics.

use crate::reconcile::StepResult;
use chassis::{Metrics, Woke};
use container_planner::Plan;
use domain::InstanceState;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    service: String,
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    service: String,
    direction: &'static str,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierLabels {
    service: String,
    tier: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoopLabels {
    r#loop: &'static str,
    result: &'static str,
}

/// Buckets from a thawed process to a booted machine.
const START_BUCKETS: [f64; 12] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];
/// Buckets from a quiet step to a slow disk.
const STEP_BUCKETS: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 2.0];

/// The last step.
#[derive(Debug, Clone)]
pub struct LastStep {
    /// What woke it.
    pub woke: Woke,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub result: StepResult,
}

/// Results and metrics of the loop.
#[derive(Debug, Clone)]
pub struct Status {
    last: Arc<Mutex<Option<LastStep>>>,
    instances: Family<StateLabels, Gauge>,
    load: Family<ServiceLabels, Gauge<f64, AtomicU64>>,
    decisions: Family<DecisionLabels, Counter>,
    starts: Family<TierLabels, Histogram>,
    steps: Family<LoopLabels, Histogram>,
}

impl Status {
    /// Registers the metrics.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Status {
        let status = Status {
            last: Arc::default(),
            instances: Family::default(),
            load: Family::default(),
            decisions: Family::default(),
            starts: Family::new_with_constructor(|| Histogram::new(START_BUCKETS)),
            steps: Family::new_with_constructor(|| Histogram::new(STEP_BUCKETS)),
        };
        metrics.register(|registry| {
            registry.register(
                "tally_service_instances",
                "Instances by state",
                status.instances.clone(),
            );
            let help = "Mean load of the ready instances over the window";
            registry.register("tally_service_load_ratio", help, status.load.clone());
            registry.register("tally_scale_decisions", "Decisions", status.decisions.clone());
            let help = "From the assignment to ready";
            registry.register("tally_start_duration_seconds", help, status.starts.clone());
            let help = "One step of a loop";
            registry.register("tally_step_duration_seconds", help, status.steps.clone());
        });
        status
    }

    /// Notes a step.
    pub fn stepped(&self, woke: Woke, took: Duration, result: &StepResult) {
        let word = match result {
            StepResult::Skipped(_) => "skipped",
            StepResult::Refused(_) => "refused",
            StepResult::Superseded => "superseded",
            StepResult::Done(_) => "done",
            StepResult::Failed(why) => {
                tracing::warn!(why, "a step of the container-manager failed");
                "failed"
            }
        };
        let labels = LoopLabels { r#loop: "container-manager", result: word };
        self.steps.get_or_create(&labels).observe(took.as_secs_f64());
        let last = LastStep { woke, took, result: result.clone() };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    /// The last step; `None` before the first.
    #[must_use]
    pub fn last(&self) -> Option<LastStep> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a committed plan.
    pub fn planned(&self, plan: &Plan) {
        for planned in &plan.services {
            let service = planned.service.to_string();
            let report = &planned.report;
            let counts = [
                ("ready", report.ready),
                ("starting", report.starting),
                ("draining", report.draining),
            ];
            for (state, count) in counts {
                let labels = StateLabels { service: service.clone(), state: state.to_owned() };
                if planned.removed {
                    self.instances.remove(&labels);
                } else {
                    self.instances.get_or_create(&labels).set(i64::from(count));
                }
            }
            let labels = ServiceLabels { service };
            match report.load {
                #[expect(clippy::cast_precision_loss, reason = "a load is far below 2^52")]
                Some(load) if !planned.removed => {
                    self.load.get_or_create(&labels).set(load as f64 / 10_000.0);
                }
                Some(_) | None => {
                    self.load.remove(&labels);
                }
            }
        }
        for decision in &plan.decisions {
            let direction = match decision.to.cmp(&decision.from) {
                std::cmp::Ordering::Less => "down",
                std::cmp::Ordering::Equal => "held",
                std::cmp::Ordering::Greater => "up",
            };
            let (service, reason) = (decision.service.to_string(), decision.reason.clone());
            self.decisions.get_or_create(&DecisionLabels { service, direction, reason }).inc();
        }
        for row in plan.rows.iter().filter(|row| row.state == InstanceState::Ready) {
            // Only the step that first made it ready: later changes keep the older moment.
            if row.ready_at == Some(plan.at) {
                let took = plan.at.since(row.created_at).as_secs_f64();
                let tier = row.tier.as_str().to_owned();
                let labels = TierLabels { service: row.service.to_string(), tier };
                self.starts.get_or_create(&labels).observe(took);
            }
        }
    }
}
