//! Measures the node and its instances every second and sends it on.
//!
//! `instances` says who is there, `sample` reads their counters and `node` the node's, `estimate`
//! makes rates of them, `changes` picks the loads worth telling, `send` sends the newest.

pub mod changes;
pub mod estimate;
pub mod instances;
pub mod node;
pub mod sample;
pub mod send;
#[cfg(test)]
mod testing;

use crate::changes::Told;
use crate::estimate::Estimator;
use crate::instances::Instances;
use crate::node::NodeSampler;
use crate::sample::Sampler;
use crate::send::{Sender, Slot};
use chassis::{Client, Metrics, PeerUrl, Readiness, Shutdown};
use domain::{Clock, Mono, NodeId};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use wire::WIRE_VERSION;
use wire::join::StatsReport;
use wire::report::{Report, ReportBatch};

/// Instances are read this often, so that a load that moves is told within a quarter of a second.
pub const BEAT: Duration = Duration::from_millis(250);
/// The node is read, and everything sent, every so many beats: each second.
pub const BEATS_PER_SECOND: u64 = 4;
/// For messages in hand when the shutdown starts.
const GRACE: Duration = Duration::from_secs(2);

/// The role's part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the kernel shows the counters of processes.
    pub proc: PathBuf,
}

impl Default for Config {
    fn default() -> Config {
        Config { proc: PathBuf::from("/proc") }
    }
}

/// What the role works with.
pub struct Deps {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Which node this is.
    pub node: NodeId,
    /// From joining; proves who sends measurements.
    pub node_secret: String,
    /// The data directory, where the executor writes `node/instances.json`.
    pub data: PathBuf,
    /// The machine-manager.
    pub stats: PeerUrl,
    /// The load-receiver.
    pub load: PeerUrl,
    /// Where the role's metrics are registered.
    pub metrics: Metrics,
    /// What the role misses.
    pub readiness: Readiness,
}

/// What one beat reads and makes of it; moved to a thread that may block, and back.
struct Meter {
    clock: Arc<dyn Clock>,
    sampler: Sampler,
    /// `None` where the host cannot be read; instances are measured all the same.
    node_sampler: Option<NodeSampler>,
    instances: Instances,
    estimator: Estimator,
    told: Told,
    node: NodeId,
    seq: u64,
    beat: u64,
}

/// What a beat has to send.
struct Beat {
    stats: Option<StatsReport>,
    loads: Vec<Report>,
}

impl Meter {
    fn beat(&mut self) -> Beat {
        let now: Mono = self.clock.monotonic();
        let list = self.instances.refresh();
        let readings = self.sampler.instances(&list.instances, now);
        let measures = self.estimator.instances(&readings);
        let loads = self.told.due(&list.instances, &measures, now);
        let whole = self.beat.is_multiple_of(BEATS_PER_SECOND);
        self.beat += 1;
        let node = self.node_sampler.as_mut().filter(|_| whole).and_then(NodeSampler::read);
        let measure = node.and_then(|reading| self.estimator.node(reading, now));
        let stats = measure.map(|measure| {
            self.seq += 1;
            let node = self.node.clone();
            StatsReport { wire: WIRE_VERSION, node, seq: self.seq, measure, instances: measures }
        });
        Beat { stats, loads }
    }
}

/// Of two unsent lists, the newest report of each instance.
fn merge(before: ReportBatch, newer: ReportBatch) -> ReportBatch {
    let all = before.reports.into_iter().chain(newer.reports);
    let newest: BTreeMap<String, Report> = all.map(|r| (r.instance.clone(), r)).collect();
    ReportBatch { reports: newest.into_values().collect() }
}

type Label = [(&'static str, &'static str); 1];

/// What the role counts of itself.
struct Counters {
    sent: Family<Label, Counter>,
    dropped: Family<Label, Counter>,
    beats: Counter,
}

impl Counters {
    fn register(registry: &mut prometheus_client::registry::Registry) -> Counters {
        let sent = Family::<Label, Counter>::default();
        let dropped = Family::<Label, Counter>::default();
        let beats = Counter::default();
        registry.register("tally_transmitter_beats", "Measurements taken", beats.clone());
        registry.register("tally_transmitter_sent_messages", "Messages taken", sent.clone());
        registry.register("tally_transmitter_dropped_messages", "Messages lost", dropped.clone());
        Counters { sent, dropped, beats }
    }
}

/// Measures and sends until the shutdown starts.
pub async fn run(config: Config, deps: Deps, shutdown: Shutdown) {
    const COUNTERS: &str = "counters";
    let Counters { sent, dropped, beats } = deps.metrics.register(Counters::register);
    let sending = shutdown.branch();
    let (stats, loads) = (Slot::<StatsReport>::default(), Slot::<ReportBatch>::default());
    let stats_sender = Sender {
        client: Client::new(deps.stats).with_token(&deps.node_secret),
        path: "/v1/stats",
        what: "measurements",
        slot: stats.clone(),
        sent: sent.get_or_create_owned(&[("what", "stats")]),
        dropped: dropped.get_or_create_owned(&[("what", "stats")]),
    };
    let load_sender = Sender {
        client: Client::new(deps.load),
        path: "/v1/load",
        what: "loads",
        slot: loads.clone(),
        sent: sent.get_or_create_owned(&[("what", "load")]),
        dropped: dropped.get_or_create_owned(&[("what", "load")]),
    };
    sending.spawn(stats_sender.run(shutdown.clone()));
    sending.spawn(load_sender.run(shutdown.clone()));
    let node_sampler = NodeSampler::new(&deps.data)
        .inspect_err(|why| tracing::error!(%why, "the node cannot be measured"));
    let mut meter = Meter {
        sampler: Sampler::new(&config.proc),
        node_sampler: node_sampler.ok(),
        instances: Instances::new(&deps.data),
        estimator: Estimator::default(),
        told: Told::default(),
        node: deps.node,
        // Above every number of an earlier run, so that a restart is not taken for a replay.
        seq: u64::try_from(deps.clock.now().0).unwrap_or(0),
        beat: 0,
        clock: deps.clock,
    };
    let mut timer = tokio::time::interval(BEAT);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.started() => break,
            _ = timer.tick() => {}
        }
        let measured = tokio::task::spawn_blocking(move || {
            let beat = meter.beat();
            (meter, beat)
        });
        let beat;
        (meter, beat) = match measured.await {
            Ok(both) => both,
            Err(why) => {
                // Only a panic of ours or the end of the runtime: nothing can be measured any more.
                tracing::error!(%why, "measuring ended");
                deps.readiness.missing(COUNTERS, "measuring ended");
                break;
            }
        };
        beats.inc();
        if let Some(report) = beat.stats {
            stats.put(report, |_before, newer| newer);
        }
        if !beat.loads.is_empty() {
            loads.put(ReportBatch { reports: beat.loads }, merge);
        }
    }
    sending.finished(GRACE).await;
}
