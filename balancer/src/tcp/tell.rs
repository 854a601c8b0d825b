//! Metrics of the service ports, summed when asked for.

use super::counts::{Counts, Refusal};
use crate::Shared;
use crate::view::Service;
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

type Value = fn(&Counts) -> u64;

/// Name, help, value of what is counted per service.
const COUNTERS: [(&str, &str, Value); 6] = [
    ("tally_balancer_port_connections", "Connections passed on to an instance", |c| {
        c.joined.load(Relaxed)
    }),
    ("tally_balancer_port_idle_connections", "Connections ended because nothing moved", |c| {
        c.idle.load(Relaxed)
    }),
    ("tally_balancer_port_broken_connections", "Connections that one side broke off", |c| {
        c.broken.load(Relaxed)
    }),
    ("tally_balancer_port_connect_failures", "Instances that did not accept", |c| {
        c.connect_failures.load(Relaxed)
    }),
    ("tally_balancer_port_received_bytes", "Bytes from clients", |c| c.received.load(Relaxed)),
    ("tally_balancer_port_sent_bytes", "Bytes to clients", |c| c.sent.load(Relaxed)),
];

fn sum(service: &Service, value: impl Fn(&Counts) -> u64) -> u64 {
    service.links.iter().map(|counts| value(counts)).sum()
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let table = self.0.table.load();
        let services: Vec<&Arc<Service>> = table.ports().iter().map(|(_, s)| s).collect();
        for (name, help, value) in COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for service in &services {
                let labels: &[(&str, &str)] = &[("service", service.name.as_str())];
                let family = metric.encode_family(&labels)?;
                ConstCounter::new(sum(service, value)).encode(family)?;
            }
        }
        let name = "tally_balancer_port_refused_connections";
        let help = "Connections turned away, by why";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for service in &services {
            for (why, reason) in Refusal::ALL {
                let labels: &[(&str, &str)] =
                    &[("service", service.name.as_str()), ("reason", reason)];
                let family = metric.encode_family(&labels)?;
                ConstCounter::new(sum(service, |c| c.refused_for(why))).encode(family)?;
            }
        }
        let name = "tally_balancer_port_open_connections";
        let help = "Connections of a service port open in user space";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for service in &services {
            let labels: &[(&str, &str)] = &[("service", service.name.as_str())];
            gauge(sum(service, |c| u64::from(c.open.load(Relaxed))))
                .encode(metric.encode_family(&labels)?)?;
        }
        self.ports(&mut encoder)
    }
}

impl Scrape {
    fn ports(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let gauges = [
            ("tally_balancer_service_ports", "Service ports open", self.0.ports.open()),
            (
                "tally_balancer_service_troubles",
                "Services that cannot be reached as declared; the log says why",
                self.0.troubles().len(),
            ),
        ];
        for (name, help, value) in gauges {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            gauge(value as u64).encode(metric)?;
        }
        Ok(())
    }
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}
