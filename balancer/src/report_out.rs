//! The service's load for an outer balancer that asks for it: a header on the answer, made anew at
//! most every 50 ms.

use crate::stats::Sum;
use crate::view::Service;
use arc_swap::ArcSwapOption;
use domain::{LoadPolicy, Mono};
use scoreboard::board::LOAD_TTL;
use std::sync::Arc;
use std::time::Duration;
use wire::orca::{HEADER, OrcaFormat};
use wire::total::{Part, Total};

/// An outer balancer that asks with each request costs us twenty sums a second, and no more.
const REFRESH_EVERY: Duration = Duration::from_millis(50);
/// Rates are taken over at least this long.
const RATE_SPAN: Duration = Duration::from_secs(1);

/// What was last said, kept with its service.
#[derive(Debug, Default)]
pub struct Said(ArcSwapOption<Lines>);

#[derive(Debug)]
struct Lines {
    at: Mono,
    /// By form, each with the header's name and the line's end.
    lines: [Box<[u8]>; 3],
    rates: Rates,
}

/// Requests and errors a second, and what the next ones are counted from.
#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    since: Mono,
    requests: u64,
    errors: u64,
    rps: f64,
    eps: f64,
}

impl Rates {
    #[expect(clippy::cast_precision_loss, reason = "rates are estimates")]
    fn next(before: Option<&Rates>, sum: &Sum, now: Mono) -> Rates {
        let (requests, errors) = (sum.requests(), sum.errors());
        let Some(before) = before else {
            return Rates { since: now, requests, errors, rps: 0.0, eps: 0.0 };
        };
        let span = now.since(before.since);
        if span < RATE_SPAN {
            return *before;
        }
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / span.as_secs_f64();
        let (rps, eps) = (rate(requests, before.requests), rate(errors, before.errors));
        Rates { since: now, requests, errors, rps, eps }
    }
}

/// Adds a header line with the service's load to a head, in the form that was asked for; a form
/// nobody knows adds nothing.
pub fn add(service: &Service, format: &[u8], now: Mono, head: &mut Vec<u8>) {
    let format = std::str::from_utf8(format).ok().and_then(|text| text.trim().parse().ok());
    let Some(format) = format else { return };
    let place = match format {
        OrcaFormat::Text => 0,
        OrcaFormat::Json => 1,
        OrcaFormat::Bin => 2,
    };
    let said = service.said.0.load();
    match said.as_ref().filter(|lines| now.since(lines.at) < REFRESH_EVERY) {
        Some(lines) => head.extend_from_slice(&lines.lines[place]),
        None => {
            let lines = Arc::new(Lines::made(service, said.as_ref().map(|l| &l.rates), now));
            head.extend_from_slice(&lines.lines[place]);
            service.said.0.store(Some(lines));
        }
    }
}

impl Lines {
    fn made(service: &Service, before: Option<&Rates>, now: Mono) -> Lines {
        let mut sum = Sum::default();
        service.stats.iter().for_each(|stats| sum.add(stats));
        let rates = Rates::next(before, &sum, now);
        let report = total(service, rates, now).orca();
        let line = |format| {
            let line = format!("{HEADER}: {}\r\n", report.write(format));
            line.into_bytes().into_boxed_slice()
        };
        Lines { at: now, lines: OrcaFormat::ALL.map(line), rates }
    }
}

/// What this balancer knows of the service as a whole. Rates are its own: those are the requests the
/// outer balancer sent here.
fn total(service: &Service, rates: Rates, now: Mono) -> Total {
    let snapshot = service.snapshot.load();
    let mut total = Total::default();
    (total.held, total.startable) = (service.queue.held(), service.front.load().startable);
    (total.rps, total.eps) = (rates.rps, rates.eps);
    for entry in &snapshot.entries {
        let reported = entry.newest().filter(|r| now.since(r.at) < LOAD_TTL);
        let own = entry.instance.in_flight();
        total.add(&Part {
            ready: entry.stands(),
            weight: entry.weight,
            load: reported.map(|r| r.load),
            in_flight: reported.and_then(|r| r.in_flight).unwrap_or(0).max(own),
            concurrency: snapshot.field.concurrency.unwrap_or(LoadPolicy::CONCURRENCY_DEFAULT),
            max_in_flight: entry.max_in_flight,
        });
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::front;
    use crate::view::{Entry, Instance, Snapshot};
    use picker::{Others, Reported};
    use wire::orca::OrcaReport;

    fn at(millis: u64) -> Mono {
        Mono(Duration::from_millis(millis))
    }

    fn entry(n: usize, load: Option<f64>) -> Entry {
        let id = format!("shop-{n:010}").parse().unwrap();
        let reported =
            load.map(|load| Reported { in_flight: Some(3), ..crate::testing::reported(load) });
        Entry {
            instance: Arc::new(Instance::new(id, "127.0.0.1:1".parse().unwrap(), 1)),
            ready: true,
            ejected: false,
            healthy: true,
            unwell: false,
            weight: 1.0,
            max_in_flight: 10,
            others: Others::default(),
            reported,
            hears: false,
            ready_since: at(0),
        }
    }

    fn said(service: &Service, format: &str, now: Mono) -> Option<OrcaReport> {
        let mut head = Vec::new();
        add(service, format.as_bytes(), now, &mut head);
        let line = String::from_utf8(head).unwrap();
        let value = line.strip_prefix("endpoint-load-metrics: ")?.strip_suffix("\r\n").unwrap();
        Some(OrcaReport::parse(HEADER.as_bytes(), value.as_bytes()).unwrap())
    }

    #[test]
    fn the_load_is_said_in_the_form_asked_for_and_not_made_each_time() {
        let service = Service::new(front("shop"), 1, 0, 1);
        let entries = vec![entry(1, Some(0.2)), entry(2, Some(0.4)), entry(3, None)];
        service.snapshot.store(Arc::new(Snapshot { entries, ..Snapshot::empty() }));
        for format in ["TEXT", "JSON", "BIN", "text"] {
            let report = said(&service, format, at(1000)).unwrap();
            assert!((report.application_utilization.unwrap() - 0.3).abs() < 1e-9, "{format}");
            assert_eq!((report.in_flight, report.rps), (Some(6), Some(0.0)));
        }
        assert_eq!(said(&service, "XML", at(1000)), None);
        service.snapshot.store(Arc::new(Snapshot::empty()));
        let same = said(&service, "TEXT", at(1049)).unwrap();
        assert!(same.application_utilization.is_some(), "said again for 50 ms");
        let new = said(&service, "TEXT", at(1050)).unwrap();
        assert_eq!(new.application_utilization, None, "nothing is known: not zero");
    }

    #[test]
    fn old_reports_are_no_load_and_requests_are_counted() {
        let service = Service::new(front("shop"), 1, 0, 1);
        let entries = vec![entry(1, Some(0.2))];
        service.snapshot.store(Arc::new(Snapshot { entries, ..Snapshot::empty() }));
        let of = |now| said(&service, "TEXT", now).unwrap();
        assert_eq!(of(at(0)).application_utilization, Some(0.2));
        for _ in 0..20 {
            service.stats[0].answered(200, Duration::from_millis(1));
        }
        service.stats[0].answered(503, Duration::from_millis(1));
        let busy = of(at(10_000));
        assert_eq!(busy.application_utilization, Some(0.0), "the report is too old");
        assert_eq!((busy.rps, busy.eps), (Some(2.1), Some(0.1)));
    }
}
