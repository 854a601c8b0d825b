//! What the choosing of instances looks like from outside: how many balancers there are thought to
//! be, who is set aside, how good the feedback is.

use crate::Shared;
use crate::feedback::{ERROR_EDGES, Errors};
use crate::stats::{AGE_EDGES_MILLIS, Sum};
use crate::view::{Entry, Snapshot};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use std::fmt;
use std::sync::Arc;

/// Reads the measures at each scrape.
pub struct Choosing(pub Arc<Shared>);

impl fmt::Debug for Choosing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Choosing")
    }
}

/// One service at the moment of a scrape.
struct Read {
    name: String,
    sum: Sum,
    snapshot: Arc<Snapshot>,
    ejections: u64,
    errors: Errors,
    shares: (f64, f64),
}

/// Counts of instances by what becomes of them.
fn states(snapshot: &Snapshot) -> [(&'static str, usize); 4] {
    let count = |is: &dyn Fn(&Entry) -> bool| snapshot.entries.iter().filter(|e| is(e)).count();
    [
        ("standing", count(&Entry::stands)),
        ("draining", count(&|e| !e.ready)),
        ("unwell", count(&|e| e.ready && e.unwell)),
        ("ejected", count(&|e| e.ready && e.healthy && e.ejected)),
    ]
}

impl Choosing {
    fn read(&self) -> Vec<Read> {
        let table = self.0.table.load();
        let each = table.services().iter().map(|service| {
            let mut sum = Sum::default();
            service.stats.iter().for_each(|stats| sum.add(stats));
            Read {
                name: service.name.as_str().to_owned(),
                sum,
                snapshot: service.snapshot.load_full(),
                ejections: service.feedback.ejections(),
                errors: service.feedback.errors(),
                shares: service.feedback.shares(),
            }
        });
        each.collect()
    }
}

impl Collector for Choosing {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let services = self.read();
        let name = "tally_balancer_balancers";
        let help = "Balancers that send to the same instances, as estimates assume";
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let most = services.iter().map(|s| s.snapshot.field.balancers).max().unwrap_or(1);
        ConstGauge::new(i64::from(most)).encode(metric)?;
        counts(&mut encoder, &services)?;
        shares(&mut encoder, &services)?;
        ages(&mut encoder, &services)?;
        errors(&mut encoder, &services)
    }
}

fn counts(encoder: &mut DescriptorEncoder<'_>, services: &[Read]) -> fmt::Result {
    let help = "Instances by whether they get requests: standing ones do";
    let name = "tally_balancer_instances";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for service in services {
        for (state, count) in states(&service.snapshot) {
            let labels: &[(&str, &str)] = &[("service", &service.name), ("state", state)];
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(metric.encode_family(&labels)?)?;
        }
    }
    let help = "Instances set aside for failing";
    let name = "tally_balancer_ejections";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for service in services {
        let labels: &[(&str, &str)] = &[("service", &service.name)];
        ConstCounter::new(service.ejections).encode(metric.encode_family(&labels)?)?;
    }
    let help = "Requests that could be tried again now";
    let name = "tally_balancer_retries_left";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for service in services {
        let labels: &[(&str, &str)] = &[("service", &service.name)];
        let left = i64::try_from(service.sum.retries_left).unwrap_or(i64::MAX);
        ConstGauge::new(left).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// The two ends alone: a label for each instance would have no bound.
fn shares(encoder: &mut DescriptorEncoder<'_>, services: &[Read]) -> fmt::Result {
    let help = "Share of the last picks against the fair one, of the least and the most picked";
    let name = "tally_balancer_share";
    let unit = Unit::Ratios;
    let mut metric = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
    for service in services {
        let (least, most) = service.shares;
        for (end, value) in [("least", least), ("most", most)] {
            let labels: &[(&str, &str)] = &[("service", &service.name), ("picked", end)];
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// The feedback's own measure.
#[expect(clippy::cast_precision_loss, reason = "sums for people")]
fn ages(encoder: &mut DescriptorEncoder<'_>, services: &[Read]) -> fmt::Result {
    let name = "tally_balancer_report_age";
    let help = "Age of the report a pick used";
    let mut metric =
        encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    let edges = || AGE_EDGES_MILLIS.iter().map(|millis| *millis as f64 / 1e3);
    for service in services {
        let counts = &service.sum.report_ages;
        let buckets: Vec<(f64, u64)> =
            edges().chain(std::iter::once(f64::MAX)).zip(counts.iter().copied()).collect();
        let labels: &[(&str, &str)] = &[("service", &service.name)];
        let sum = service.sum.report_age_millis as f64 / 1e3;
        let mut family = metric.encode_family(&labels)?;
        family.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)?;
    }
    Ok(())
}

fn errors(encoder: &mut DescriptorEncoder<'_>, services: &[Read]) -> fmt::Result {
    let name = "tally_balancer_estimate_error_requests";
    let help = "Difference between the queue that picks assumed and the one next reported";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for service in services {
        let Errors { counts, sum } = &service.errors;
        let edges = ERROR_EDGES.iter().copied().chain(std::iter::once(f64::MAX));
        let buckets: Vec<(f64, u64)> = edges.zip(counts.iter().copied()).collect();
        let labels: &[(&str, &str)] = &[("service", &service.name)];
        let mut family = metric.encode_family(&labels)?;
        family.encode_histogram::<NoLabelSet>(*sum, counts.iter().sum(), &buckets, None)?;
    }
    Ok(())
}
