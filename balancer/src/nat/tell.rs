//! Metrics of mode `nat`.

use crate::Shared;
use crate::view::Service;
use domain::RouteMode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Reads the counters at each scrape.
pub struct Scrape(pub Arc<Shared>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let state = &self.0.nat;
        for (name, help, value) in [
            ("tally_balancer_nat_writes", "Changes of the kernel's table", &state.writes),
            (
                "tally_balancer_nat_write_failures",
                "Changes the kernel did not take",
                &state.write_failures,
            ),
            (
                "tally_balancer_nat_flushed_connections",
                "Connections of dead instances that the kernel was made to forget",
                &state.flushed,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value.load(Relaxed)).encode(metric)?;
        }
        let name = "tally_balancer_nat_able";
        let help = "1 if this host can serve mode nat";
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::from(state.lacks().is_none())).encode(metric)?;
        let table = self.0.table.load();
        let services: Vec<&Arc<Service>> = table.ports().iter().map(|(_, s)| s).collect();
        let name = "tally_balancer_nat_connections";
        let help = "Connections the kernel has open for a service";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for service in services.iter().filter(|s| s.front.load().mode == RouteMode::Nat) {
            let labels: &[(&str, &str)] = &[("service", service.name.as_str())];
            let open = service.kernel.open.load(Relaxed);
            ConstGauge::new(i64::from(open)).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
