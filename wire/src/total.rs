//! A service's load as a whole, for whoever balances between services like ours: what it is made of,
//! and its forms.

use crate::agent::{AgentLine, Health};
use crate::orca::OrcaReport;
use serde::{Deserialize, Serialize};

/// What is known of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Part {
    /// Whether it takes new requests.
    pub ready: bool,
    /// Its capacity against the others'.
    pub weight: f64,
    /// How loaded it says it is; `None`: unknown.
    pub load: Option<f64>,
    /// Requests in flight there.
    pub in_flight: u32,
    /// Requests it bears at load 1.0.
    pub concurrency: u32,
    /// Requests it takes at once.
    pub max_in_flight: u32,
}

/// The sum over a service's instances.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Total {
    /// Instances in the routes.
    pub instances: u32,
    /// Those that take new requests.
    pub ready: u32,
    /// Ready ones whose load is known.
    pub reporting: u32,
    /// Requests in flight at instances.
    pub in_flight: u64,
    /// Requests that wait for an instance.
    pub held: u32,
    /// Requests the ready ones take at once.
    pub max_in_flight: u64,
    /// Requests a second.
    pub rps: f64,
    /// Errors a second.
    pub eps: f64,
    /// Whether an instance can be had where none is ready.
    pub startable: bool,
    weight: f64,
    weighted_load: f64,
    concurrency: u64,
}

impl Total {
    /// Counts one instance in.
    pub fn add(&mut self, part: &Part) {
        self.instances += 1;
        self.in_flight += u64::from(part.in_flight);
        if !part.ready {
            return;
        }
        self.ready += 1;
        self.max_in_flight += u64::from(part.max_in_flight);
        self.concurrency += u64::from(part.concurrency);
        if let Some(load) = part.load {
            self.reporting += 1;
            self.weight += part.weight;
            self.weighted_load += part.weight * load;
        }
    }

    /// How loaded the service is: the mean over the ready instances that say so, each by its
    /// capacity. Where none says so, the requests it has against those it bears at load 1.0.
    /// Requests that wait mean that it is full. `None`: nothing is ready and nothing waits.
    #[must_use]
    pub fn load(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "counts of requests")]
        let mean = if self.weight > 0.0 {
            Some(self.weighted_load / self.weight)
        } else if self.ready > 0 && self.concurrency > 0 {
            Some(self.in_flight as f64 / self.concurrency as f64)
        } else {
            None
        };
        if self.held > 0 { Some(mean.unwrap_or(1.0).max(1.0)) } else { mean }
    }

    /// As an ORCA report.
    #[must_use]
    pub fn orca(&self) -> OrcaReport {
        let in_flight = self.in_flight.saturating_add(u64::from(self.held));
        OrcaReport {
            application_utilization: self.load().map(rounded),
            rps: Some(rounded(self.rps)),
            eps: Some(rounded(self.eps)),
            in_flight: Some(u32::try_from(in_flight).unwrap_or(u32::MAX)),
            ..OrcaReport::default()
        }
    }

    /// As an agent's line: the free share in percent, at least 1 while requests are welcome. Where
    /// nothing is ready but an instance can be had, they are welcome: the first one starts it.
    #[must_use]
    pub fn line(&self) -> AgentLine {
        if self.ready == 0 && !self.startable {
            return AgentLine {
                percent: Some(0),
                health: Some(Health::Down),
                why: Some("no instance is ready".to_owned()),
                ..AgentLine::default()
            };
        }
        let bound = (self.ready > 0).then(|| u32::try_from(self.max_in_flight).unwrap_or(u32::MAX));
        AgentLine {
            percent: Some(free_percent(self.load().unwrap_or(0.0))),
            health: Some(Health::Up),
            max_in_flight: bound,
            ..AgentLine::default()
        }
    }

    /// As a document.
    #[must_use]
    pub fn document(&self, service: &str) -> ServiceLoad {
        ServiceLoad {
            service: service.to_owned(),
            load: self.load().map(rounded),
            instances: self.instances,
            ready: self.ready,
            reporting: self.reporting,
            in_flight: self.in_flight,
            held: self.held,
            rps: rounded(self.rps),
            eps: rounded(self.eps),
            max_in_flight: self.max_in_flight,
        }
    }
}

/// Four digits say all that a load or a rate is worth.
fn rounded(x: f64) -> f64 {
    (x * 10_000.0).round() / 10_000.0
}

fn free_percent(load: f64) -> u32 {
    let free = ((1.0 - load) * 100.0).round().clamp(1.0, 100.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 100")]
    let percent = free as u32;
    percent
}

/// `GET /v1/load?service=NAME`: a service's load as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceLoad {
    /// Which service.
    pub service: String,
    /// 1.0 = fully used; null: nothing is known.
    pub load: Option<f64>,
    /// Instances in the routes.
    pub instances: u32,
    /// Those that take new requests.
    pub ready: u32,
    /// Ready ones whose load is known.
    pub reporting: u32,
    /// Requests in flight at instances.
    pub in_flight: u64,
    /// Requests that wait for an instance.
    pub held: u32,
    /// Requests a second.
    pub rps: f64,
    /// Errors a second.
    pub eps: f64,
    /// Requests the ready ones take at once.
    pub max_in_flight: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(load: Option<f64>, in_flight: u32) -> Part {
        Part { ready: true, weight: 1.0, load, in_flight, concurrency: 10, max_in_flight: 100 }
    }

    fn of(parts: &[Part]) -> Total {
        let mut total = Total { startable: true, ..Total::default() };
        parts.iter().for_each(|part| total.add(part));
        total
    }

    #[test]
    fn the_load_is_the_mean_by_capacity_of_those_who_say_it() {
        let big = Part { weight: 3.0, ..part(Some(0.2), 1) };
        let away = Part { ready: false, ..part(Some(4.0), 5) };
        let total = of(&[big, part(Some(1.0), 2), part(None, 4), away]);
        assert!((total.load().unwrap() - 0.4).abs() < 1e-9);
        assert_eq!((total.instances, total.ready, total.reporting), (4, 3, 2));
        assert_eq!((total.in_flight, total.max_in_flight), (12, 300));
        assert_eq!(total.line().to_string(), "60% up maxconn:300");
        assert_eq!(total.orca().in_flight, Some(12));
    }

    #[test]
    fn where_nobody_says_it_the_requests_do() {
        assert_eq!(of(&[part(None, 5), part(None, 10)]).load(), Some(0.75));
        assert_eq!(of(&[]).load(), None);
        let held = Total { held: 3, ..of(&[part(Some(0.5), 0)]) };
        assert_eq!((held.load(), held.orca().in_flight), (Some(1.0), Some(3)));
        assert_eq!(Total { held: 1, ..of(&[]) }.load(), Some(1.0));
    }

    #[test]
    fn a_service_that_can_be_started_is_up() {
        assert_eq!(of(&[]).line().to_string(), "100% up");
        let never = Total { startable: false, ..of(&[]) };
        assert_eq!(never.line().to_string(), "0% down #no instance is ready");
        assert_eq!(of(&[part(Some(4.0), 0)]).line().to_string(), "1% up maxconn:100");
    }

    proptest! {
        #[test]
        fn forms_are_always_readable(
            parts in proptest::collection::vec(
                (any::<bool>(), 0.0..16.0, proptest::option::of(0.0..4.0), any::<u32>()), 0..20),
            held: u32, rps in 0.0..1e6,
        ) {
            let parts: Vec<Part> = parts
                .into_iter()
                .map(|(ready, weight, load, n)| Part {
                    ready, weight, load, in_flight: n, concurrency: n, max_in_flight: n,
                })
                .collect();
            let total = Total { held, rps, ..of(&parts) };
            let line = total.line();
            prop_assert_eq!(AgentLine::parse(line.to_string().as_bytes()), Ok(line));
            prop_assert!(total.load().is_none_or(|load| load.is_finite() && load >= 0.0));
            for format in crate::orca::OrcaFormat::ALL {
                let value = total.orca().write(format);
                let name = crate::orca::HEADER.as_bytes();
                prop_assert!(OrcaReport::parse(name, value.as_bytes()).is_ok(), "{}", value);
            }
        }
    }
}
