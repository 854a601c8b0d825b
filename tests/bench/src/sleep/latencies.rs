//! How long requests took that found so many others at an instance: what Prequal's probes ask for.

use std::collections::BTreeMap;
use std::time::Duration;

/// The say of one request among those of its kind.
const NEWS: f64 = 0.25;
/// More in flight are all alike.
const IN_FLIGHT_MAX: u32 = 1000;

/// Averages by the number of requests that were there already.
#[derive(Debug, Default)]
pub(super) struct Latencies(BTreeMap<u32, f64>);

impl Latencies {
    /// A request took so long that found `in_flight` others.
    pub(super) fn note(&mut self, in_flight: u32, took: Duration) {
        let took = took.as_secs_f64();
        let average = self.0.entry(in_flight.min(IN_FLIGHT_MAX)).or_insert(took);
        *average += NEWS * (took - *average);
    }

    /// Seconds that a request would take that finds so many; of the nearest number that is known.
    pub(super) fn at(&self, in_flight: u32) -> Option<f64> {
        let known = self.0.iter().min_by_key(|(n, _)| n.abs_diff(in_flight));
        known.map(|(_, seconds)| *seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_number_answers() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.at(0), None);
        latencies.note(2, Duration::from_secs(1));
        latencies.note(8, Duration::from_secs(4));
        assert_eq!((latencies.at(0), latencies.at(7)), (Some(1.0), Some(4.0)));
        latencies.note(8, Duration::from_secs(8));
        assert_eq!(latencies.at(9), Some(5.0));
    }
}
