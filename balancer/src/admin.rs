//! `/livez`, `/readyz`, `/metrics`: the workers' counters, summed when asked for.

mod choosing;
mod picks;

use crate::Shared;
use crate::stats::{EDGES_MICROS, Sum};
use chassis::{Listener, Metrics, Readiness, ServerLimits, Shutdown};
use choosing::Choosing;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Starts the admin server on the shutdown's branch.
pub fn start(listener: Listener, shared: &Arc<Shared>, readiness: &Readiness, control: &Shutdown) {
    let metrics = Metrics::new();
    metrics.register(|registry| {
        registry.register_collector(Box::new(Scrape(Arc::clone(shared))));
        registry.register_collector(Box::new(crate::nat::Scrape(Arc::clone(shared))));
        registry.register_collector(Box::new(crate::tcp::Scrape(Arc::clone(shared))));
        registry.register_collector(Box::new(Choosing(Arc::clone(shared))));
    });
    let router = chassis::admin::router(metrics, readiness.clone()).merge(picks::router(shared));
    let ending = control.clone();
    control.spawn(async move {
        chassis::serve(listener, router, ServerLimits::default(), &ending).await;
    });
}

/// Reads the counters at each scrape.
struct Scrape(Arc<Shared>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

/// One service at the moment of a scrape.
struct Read {
    name: String,
    sum: Sum,
    held: u32,
    held_bytes: u64,
    in_flight: u32,
    tunnels: u32,
}

impl Scrape {
    fn read(&self) -> Vec<Read> {
        let table = self.0.table.load();
        let each = table.services().iter().map(|service| {
            let mut sum = Sum::default();
            service.stats.iter().for_each(|stats| sum.add(stats));
            let snapshot = service.snapshot.load();
            Read {
                name: service.name.as_str().to_owned(),
                sum,
                held: service.queue.held(),
                held_bytes: service.queue.held_bytes(),
                in_flight: snapshot.entries.iter().map(|e| e.instance.in_flight()).sum(),
                tunnels: service.tunnels.load(Relaxed),
            }
        });
        each.collect()
    }
}

type Labels<'a> = &'a [(&'a str, &'a str)];

fn counter(metric: &mut MetricEncoder<'_>, labels: Labels<'_>, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(metric.encode_family(&labels)?)
}

fn gauge(metric: &mut MetricEncoder<'_>, labels: Labels<'_>, value: u64) -> fmt::Result {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric.encode_family(&labels)?)
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let services = self.read();
        let help = "Answers by service and status code";
        let mut requests = encoder.encode_descriptor(
            "tally_balancer_requests",
            help,
            None,
            MetricType::Counter,
        )?;
        for service in &services {
            for (index, count) in service.sum.codes.iter().enumerate().filter(|(_, n)| **n > 0) {
                let code = (index + 100).to_string();
                let labels = [("service", service.name.as_str()), ("code", code.as_str())];
                counter(&mut requests, &labels, *count)?;
            }
        }
        durations(&mut encoder, &services)?;
        type Value = fn(&Read) -> u64;
        let counters: [(&str, &str, Value); 2] = [
            ("tally_balancer_retries", "Requests tried again", |s| s.sum.retries),
            ("tally_balancer_broken_answers", "Answers that broke off", |s| s.sum.broken),
        ];
        for (name, help, value) in counters {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for service in &services {
                let labels = [("service", service.name.as_str())];
                counter(&mut metric, &labels, value(service))?;
            }
        }
        type Level = fn(&Read) -> u64;
        let gauges: [(&str, &str, Level); 4] = [
            ("tally_balancer_in_flight", "Requests at instances now", |s| s.in_flight.into()),
            ("tally_balancer_held_requests", "Requests that wait now", |s| s.held.into()),
            ("tally_balancer_held_bytes", "Memory of requests that wait now", |s| s.held_bytes),
            ("tally_balancer_open_tunnels", "Connections switched to another protocol", |s| {
                s.tunnels.into()
            }),
        ];
        for (name, help, level) in gauges {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for service in &services {
                let labels = [("service", service.name.as_str())];
                gauge(&mut metric, &labels, level(service))?;
            }
        }
        crate::doors::encode(&mut encoder, &self.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "sums for people")]
fn durations(encoder: &mut DescriptorEncoder<'_>, services: &[Read]) -> fmt::Result {
    let name = "tally_balancer_request_duration";
    let help = "From a request's arrival to the end of its answer";
    let mut metric =
        encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for service in services {
        let labels: &[(&str, &str)] = &[("service", &service.name)];
        let edges = EDGES_MICROS.iter().map(|micros| *micros as f64 / 1e6);
        let buckets: Vec<(f64, u64)> = edges
            .chain(std::iter::once(f64::MAX))
            .zip(service.sum.durations.iter().copied())
            .collect();
        let sum = service.sum.duration_micros as f64 / 1e6;
        let mut family = metric.encode_family(&labels)?;
        family.encode_histogram::<NoLabelSet>(sum, service.sum.requests(), &buckets, None)?;
    }
    Ok(())
}
