//! How much an instance can do against its siblings: requests a second per unit of load.

use crate::view::fade;
use domain::Mono;
use std::time::Duration;

/// Time constant of the slow average.
pub const AVERAGE_TAU: Duration = Duration::from_secs(10);
/// Older knowledge says nothing about the instance of today.
pub const FORGET_AFTER: Duration = Duration::from_secs(180);
/// Under this load a quotient is mostly noise.
pub const LOAD_MIN: f64 = 0.05;
/// More requests a second at load 1.0 than any instance can answer; beyond it a report is broken.
pub const QUOTIENT_MAX: f64 = 1e9;
/// A weight stays within this factor of the median, so that no wrong report starves or floods.
pub const SPREAD_MAX: f64 = 4.0;

/// The slow average of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Capacity {
    average: Option<(f64, Mono)>,
}

impl Capacity {
    /// Takes one reading: requests a second, and the load they came with.
    pub fn learn(&mut self, requests_per_second: f64, load: f64, now: Mono) {
        let sample = requests_per_second / load;
        // NaN fails every comparison, which is what it deserves.
        let sane = load >= LOAD_MIN && sample > 0.0 && sample <= QUOTIENT_MAX;
        if !sane {
            return;
        }
        let average = match self.known(now).zip(self.average) {
            None => sample,
            Some((old, (_, at))) => {
                let kept = fade(now.since(at), AVERAGE_TAU);
                old * kept + sample * (1.0 - kept)
            }
        };
        self.average = Some((average, now));
    }

    /// Requests a second at load 1.0, if known and not too old.
    #[must_use]
    pub fn known(&self, now: Mono) -> Option<f64> {
        self.average.filter(|(_, at)| now.since(*at) < FORGET_AFTER).map(|(value, _)| value)
    }
}

/// Writes each instance's weight against the median into `weights`: clipped to a factor of
/// [`SPREAD_MAX`]; the unknown count as the median; when all are unknown all weigh 1.0.
/// `weights` has at least as many places as `known`.
pub fn weigh(known: &[Option<f64>], scratch: &mut Vec<f64>, weights: &mut [f64]) {
    scratch.clear();
    scratch.extend(known.iter().flatten());
    let median = median(scratch);
    for (weight, value) in weights.iter_mut().zip(known) {
        *weight = match (value, median) {
            (Some(value), Some(median)) if median > 0.0 => {
                (value / median).clamp(1.0 / SPREAD_MAX, SPREAD_MAX)
            }
            _ => 1.0,
        };
    }
}

/// The lower median of `values`, which it reorders; `None` when there are none.
pub fn median(values: &mut [f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let middle = (values.len() - 1) / 2;
    let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*median)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, proptest};

    fn at(s: u64) -> Mono {
        Mono(Duration::from_secs(s))
    }

    #[test]
    fn capacity_is_learned_slowly_and_forgotten_late() {
        let mut capacity = Capacity::default();
        capacity.learn(100.0, 0.5, at(0));
        assert_eq!(capacity.known(at(0)), Some(200.0));
        capacity.learn(100.0, 0.01, at(1));
        assert_eq!(capacity.known(at(1)), Some(200.0), "an idle reading is skipped");
        capacity.learn(100.0, 1.0, at(10));
        let after = capacity.known(at(10)).unwrap();
        assert!((136.0..138.0).contains(&after), "{after}");
        assert_eq!(capacity.known(at(10 + 181)), None);
    }

    #[test]
    fn weights_are_against_the_median_and_clipped() {
        let mut weights = [0.0; 4];
        weigh(&[Some(10.0), Some(100.0), None, Some(9000.0)], &mut Vec::new(), &mut weights);
        let expected = [0.25, 1.0, 1.0, 4.0];
        assert!(weights.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{weights:?}");
        weigh(&[None, None], &mut Vec::new(), &mut weights);
        assert!(weights[..2].iter().all(|w| (w - 1.0).abs() < 1e-9));
    }

    proptest! {
        #[test]
        fn no_reading_makes_a_weight_insane(readings in prop::collection::vec((any::<f64>(), any::<f64>()), 1..20)) {
            let mut known = Vec::new();
            for (rps, load) in readings {
                let mut capacity = Capacity::default();
                capacity.learn(rps, load, at(1));
                known.push(capacity.known(at(1)));
            }
            let mut weights = vec![0.0; known.len()];
            weigh(&known, &mut Vec::new(), &mut weights);
            for weight in weights {
                prop_assert!((0.25..=4.0).contains(&weight));
            }
        }
    }
}
