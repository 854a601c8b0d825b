//! One instance and what was learned of it.

use crate::health::Check;
use crate::view::{Entry, Instance};
use domain::{LoadReading, LoadSource, Mono, RouteEntry, RouteState, Terms, Timestamp};
use picker::{Capacity, Ejection, Field, Others, Reported, score};
use std::sync::Arc;
use std::time::Duration;

/// A report that came in an answer this lately needs no other way: its copy on the board is older.
const HEARD_FRESH: Duration = Duration::from_secs(1);

pub(super) struct Member {
    pub instance: Arc<Instance>,
    pub route: RouteEntry,
    pub terms: Terms,
    pub ready_since: Mono,
    pub reading: Option<Timestamp>,
    pub source: Option<LoadSource>,
    pub reported: Option<Reported>,
    pub capacity: Capacity,
    pub answered: (u64, Mono),
    pub picked: u64,
    pub ejection: Ejection,
    pub check: Check,
    pub others: Others,
    /// Another balancer set it aside.
    pub hinted: bool,
}

impl Member {
    pub fn new(route: &RouteEntry, serial: u64, now: Mono) -> Member {
        Member {
            instance: Arc::new(Instance::new(route.instance.clone(), route.address, serial)),
            route: route.clone(),
            terms: Terms::AS_CONFIGURED,
            ready_since: now,
            reading: None,
            source: None,
            reported: None,
            capacity: Capacity::default(),
            answered: (0, now),
            picked: 0,
            ejection: Ejection::default(),
            check: Check::default(),
            others: Others::default(),
            hinted: false,
        }
    }

    pub fn max_in_flight(&self) -> u32 {
        self.route.max_in_flight.min(self.terms.max_in_flight.unwrap_or(u32::MAX)).max(1)
    }

    pub fn is_ready(&self) -> bool {
        self.route.state == RouteState::Ready
    }

    /// Whether what it says in its answers counts: the declared source, or as long as nobody spoke
    /// who outranks it.
    pub fn hears(&self, declared: Option<LoadSource>) -> bool {
        match declared {
            Some(source) => source == LoadSource::Header,
            None => self.source.is_none_or(|source| source <= LoadSource::Header),
        }
    }

    /// What picks see of it by itself.
    pub fn entry(&self, weight: f64) -> Entry {
        Entry {
            instance: Arc::clone(&self.instance),
            ready: self.is_ready(),
            ejected: self.ejection.until.is_some(),
            healthy: true,
            unwell: false,
            weight: weight * percent(self.route.weight) * percent(self.terms.weight),
            max_in_flight: self.max_in_flight(),
            others: self.others,
            reported: self.reported,
            hears: false,
            ready_since: self.ready_since,
        }
    }

    /// Takes a reading that is new.
    pub fn take(&mut self, reading: &LoadReading, field: &Field, now: Mono) {
        let report = &reading.report;
        let load = report.load.ratio();
        let answered = self.instance.answered();
        let span = now.since(self.answered.1).as_secs_f64();
        let own = answered.saturating_sub(self.answered.0);
        #[expect(clippy::cast_precision_loss, reason = "rates are estimates")]
        let rate = match report.rps_milli {
            Some(milli) => Some(milli as f64 / 1000.0),
            // Too short a span counts noise; the next reading covers both.
            None if span < 0.5 => None,
            None => Some(own as f64 / span * f64::from(field.balancers)),
        };
        if let Some(rate) = rate {
            self.capacity.learn(rate, load, now);
            self.answered = (answered, now);
        }
        self.reading = Some(reading.at);
        self.source = Some(report.source);
        let heard = self.instance.heard().map(|(_, at, _)| at);
        if report.source == LoadSource::Header
            && heard.is_some_and(|at| now.since(at) < HEARD_FRESH)
        {
            return;
        }
        // Its age on the board comes from one clock, the board's, and is no comparison of clocks.
        let age = reading.age.min(scoreboard::board::LOAD_TTL);
        let own_in_flight = self.instance.in_flight();
        self.reported = Some(Reported {
            load,
            in_flight: report.in_flight,
            at: Mono(now.0.saturating_sub(age)),
            own_in_flight,
            others_in_flight: Some(score::others(own_in_flight, self.others, field, now)),
        });
    }
}

fn percent(weight: u32) -> f64 {
    f64::from(weight) / 100.0
}
