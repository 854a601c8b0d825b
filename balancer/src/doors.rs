//! What the front door itself counts: connections, and what its limits did.

use crate::Shared;
use crate::conn::Ending;
use crate::limited::{self, Limit, Limited};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The counters, shared by all workers; none is touched by a request that is served within the
/// bounds.
#[derive(Debug, Default)]
pub struct Doors {
    /// Client connections open now.
    pub open: AtomicUsize,
    /// A worker found no place for a new connection, and none to take.
    pub crowded: AtomicBool,
    /// How often each bound was reached.
    pub limited: Limited,
    /// Requests that were not HTTP, could be read in two ways, or whose head was too large.
    pub refused: AtomicU64,
    /// Requests for which there is no route.
    pub unrouted: AtomicU64,
    /// Connections that were ended, by why.
    ended: [AtomicU64; Ending::ALL.len()],
}

impl Ending {
    const ALL: [(Ending, &'static str); 3] =
        [(Ending::Idle, "idle"), (Ending::Slow, "slow"), (Ending::Evicted, "evicted")];
}

impl Doors {
    /// The sweep ended a connection.
    pub fn ended(&self, why: Ending) {
        for (counter, (ending, _)) in self.ended.iter().zip(Ending::ALL) {
            if ending == why {
                counter.fetch_add(1, Relaxed);
            }
        }
    }
}

/// Tells the counters to a scrape.
///
/// # Errors
/// When the scrape cannot be written.
pub fn encode(encoder: &mut DescriptorEncoder<'_>, shared: &Shared) -> fmt::Result {
    let doors = &shared.doors;
    let open = i64::try_from(doors.open.load(Relaxed)).unwrap_or(i64::MAX);
    let most = i64::try_from(shared.limits.connections).unwrap_or(i64::MAX);
    for (name, help, value) in [
        ("tally_balancer_connections", "Client connections open now", open),
        (
            "tally_balancer_connections_limit",
            "Client connections at once (limits.connections)",
            most,
        ),
    ] {
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)?;
    }
    let dropped = shared.access.as_ref().map_or(0, |log| log.dropped.load(Relaxed));
    for (name, help, value) in [
        (
            "tally_balancer_connections_full",
            "Times a new connection found all places taken",
            doors.limited.times(Limit::Connections),
        ),
        (
            "tally_balancer_refused_requests",
            "Requests that are not HTTP/1.1, could be read in two ways, or have too large a head",
            doors.refused.load(Relaxed),
        ),
        (
            "tally_balancer_unrouted_requests",
            "Requests for which there is no route",
            doors.unrouted.load(Relaxed),
        ),
        (
            "tally_balancer_access_log_dropped",
            "Requests that were not logged because the log was too slow",
            dropped,
        ),
    ] {
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)?;
    }
    let help = "Client connections that were ended: idle too long, too slow, or for a new one";
    let name = "tally_balancer_connections_ended";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (counter, (_, why)) in doors.ended.iter().zip(Ending::ALL) {
        let labels: &[(&str, &str)] = &[("reason", why)];
        ConstCounter::new(counter.load(Relaxed)).encode(metric.encode_family(&labels)?)?;
    }
    limited::encode(&shared.limits, encoder)?;
    doors.limited.encode(encoder)
}
