//! How often each bound of the front door was reached, by the bound's name.

use crate::limits::Limits;
use crate::wait::QueueFull;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A bound that something can run into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `limits.connections`.
    Connections,
    /// `limits.head`.
    Head,
    /// Memory of heads that are being read.
    HeadMemory,
    /// `limits.target`.
    Target,
    /// `limits.body` or the service's `route.body_max`.
    Body,
    /// `limits.buffer`: the body is passed on as it comes.
    Buffer,
    /// Memory of bodies that are being read whole: the same.
    BufferMemory,
    /// `limits.idle`.
    Idle,
    /// `limits.head_time`.
    HeadTime,
    /// `limits.answer_time`.
    AnswerTime,
    /// `limits.stall_time`.
    StallTime,
    /// `limits.tunnel_idle`.
    TunnelIdle,
    /// `limits.slow_time` and `limits.slow_rate`.
    SlowRate,
    /// `limits.port_connections`.
    PortConnections,
    /// `limits.port_connect_time`.
    PortConnectTime,
    /// `route.hold.requests`.
    HoldRequests,
    /// `route.hold.bytes`.
    HoldBytes,
    /// `route.hold.deadline`.
    HoldDeadline,
}

impl Limit {
    const ALL: [(Limit, &'static str); 18] = [
        (Limit::Connections, "connections"),
        (Limit::Head, "head"),
        (Limit::HeadMemory, "head_memory"),
        (Limit::Target, "target"),
        (Limit::Body, "body"),
        (Limit::Buffer, "buffer"),
        (Limit::BufferMemory, "buffer_memory"),
        (Limit::Idle, "idle"),
        (Limit::HeadTime, "head_time"),
        (Limit::AnswerTime, "answer_time"),
        (Limit::StallTime, "stall_time"),
        (Limit::TunnelIdle, "tunnel_idle"),
        (Limit::SlowRate, "slow_rate"),
        (Limit::PortConnections, "port_connections"),
        (Limit::PortConnectTime, "port_connect_time"),
        (Limit::HoldRequests, "hold_requests"),
        (Limit::HoldBytes, "hold_bytes"),
        (Limit::HoldDeadline, "hold_deadline"),
    ];
}

impl From<QueueFull> for Limit {
    fn from(full: QueueFull) -> Limit {
        match full {
            QueueFull::Requests => Limit::HoldRequests,
            QueueFull::Bytes => Limit::HoldBytes,
        }
    }
}

/// The counts, shared by all workers: nothing here is touched by a request within its bounds.
#[derive(Debug, Default)]
pub struct Limited([AtomicU64; Limit::ALL.len()]);

impl Limited {
    fn counter(&self, limit: Limit) -> Option<&AtomicU64> {
        self.0.get(limit as usize)
    }

    /// Something ran into this bound.
    pub fn reached(&self, limit: Limit) {
        if let Some(counter) = self.counter(limit) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// How often that was.
    #[must_use]
    pub fn times(&self, limit: Limit) -> u64 {
        self.counter(limit).map_or(0, |counter| counter.load(Relaxed))
    }

    /// Tells the counts to a scrape.
    ///
    /// # Errors
    /// When the scrape cannot be written.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (name, help) = ("tally_balancer_limited", "Times a bound was reached, by its name");
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (limit, name) in Limit::ALL {
            let labels: &[(&str, &str)] = &[("limit", name)];
            ConstCounter::new(self.times(limit)).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Tells the bounds themselves to a scrape: numbers, bytes and seconds.
///
/// # Errors
/// When the scrape cannot be written.
pub fn encode(limits: &Limits, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (name, help) = ("tally_balancer_limits", "Bounds: a number, bytes or seconds");
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (name, value) in values(limits) {
        let labels: &[(&str, &str)] = &[("limit", name)];
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for display; bounds are far below 2^53")]
fn values(limits: &Limits) -> Vec<(&'static str, f64)> {
    let seconds = |time: Duration| time.as_secs_f64();
    vec![
        ("connections", limits.connections as f64),
        ("head", limits.head.0.0 as f64),
        ("head_memory", Limits::HEAD_MEMORY as f64),
        ("target", limits.target.0.0 as f64),
        ("body", limits.body.0.0 as f64),
        ("buffer", limits.buffer.0.0 as f64),
        ("buffer_memory", Limits::BUFFER_MEMORY as f64),
        ("idle", seconds(limits.idle.0.0)),
        ("head_time", seconds(limits.head_time.0.0)),
        ("answer_time", seconds(limits.answer_time.0.0)),
        ("stall_time", seconds(limits.stall_time.0.0)),
        ("tunnel_idle", seconds(limits.tunnel_idle.0.0)),
        ("slow_time", seconds(limits.slow_time.0.0)),
        ("slow_rate", limits.slow_rate.0.0 as f64),
        ("port_connections", f64::from(limits.port_connections)),
        ("port_connect_time", seconds(limits.port_connect_time.0.0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_the_order_of_the_bounds() {
        assert!(Limit::ALL.iter().enumerate().all(|(at, (limit, _))| *limit as usize == at));
    }

    #[test]
    fn every_bound_is_counted_by_itself() {
        let limited = Limited::default();
        for (n, (limit, _)) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limited.times(limit), 0);
            (0..=n).for_each(|_| limited.reached(limit));
            assert_eq!(limited.times(limit), n as u64 + 1);
        }
    }

    #[test]
    fn every_configured_bound_has_a_value() {
        let written = serde_json::to_value(Limits::default()).unwrap();
        let names: Vec<&str> = values(&Limits::default()).iter().map(|(name, _)| *name).collect();
        for key in written.as_object().unwrap().keys().filter(|key| *key != "port_splice") {
            assert!(names.contains(&key.as_str()), "{key}");
        }
    }
}
