//! How much an instance can do against its siblings: requests a second per unit of load.

use crate::view::fade;
use domain::Mono;
use std::time::Duration;

/// Time constant of the slow sums. Longer ones learn too late who is slow: 30 s cost 80 % of p99
/// with unequal speeds and three balancers.
pub const SUMS_TAU: Duration = Duration::from_secs(10);
/// Older knowledge says nothing about the instance of today.
pub const FORGET_AFTER: Duration = Duration::from_secs(180);
/// Under this mean load a quotient is mostly noise.
pub const LOAD_MIN: f64 = 0.05;
/// More requests a second at load 1.0 than any instance can answer; beyond it a report is broken.
pub const QUOTIENT_MAX: f64 = 1e9;
/// A weight stays within this factor of the median, so that no wrong report starves or floods.
pub const SPREAD_MAX: f64 = 4.0;
/// Requests that make half of what a quotient says believed. Few, since a slow instance answers few.
pub const EVIDENCE_HALF: f64 = 10.0;
/// Instances this close to the median are equal: what is between them is chance, and a weight that
/// follows chance sends more to the lucky.
pub const EQUAL_WITHIN: f64 = 1.15;
/// A reading stands for the time since the one before, at most so long, and the first for so long.
const STANDS_MAX: Duration = Duration::from_secs(5);
const STANDS_FIRST: Duration = Duration::from_millis(100);

/// What is known of one instance: sums over time, so that no single reading counts for more than
/// the time it stood for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Capacity {
    /// Requests, decayed.
    requests: f64,
    /// Seconds at load 1.0, decayed.
    used: f64,
    /// Seconds, decayed.
    span: f64,
    at: Option<Mono>,
    last: Option<(Known, Mono)>,
}

/// What an instance can do, and how sure that is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Known {
    /// Requests a second at load 1.0.
    pub quotient: f64,
    /// Requests it is learned from.
    pub requests: f64,
}

impl Capacity {
    /// Takes one reading: requests a second, and the load they came with.
    pub fn learn(&mut self, requests_per_second: f64, load: f64, now: Mono) {
        // NaN fails every comparison, which is what it deserves.
        let sane = |x: f64| (0.0..=QUOTIENT_MAX).contains(&x);
        if !sane(requests_per_second) || !sane(load) {
            return;
        }
        let stood = self.at.map_or(STANDS_FIRST, |at| now.since(at)).min(STANDS_MAX);
        let (kept, seconds) = (fade(stood, SUMS_TAU), stood.as_secs_f64());
        self.requests = self.requests * kept + requests_per_second * seconds;
        self.used = self.used * kept + load * seconds;
        self.span = self.span * kept + seconds;
        self.at = Some(now);
        let quotient = self.requests / self.used;
        let busy = self.used >= LOAD_MIN * self.span && self.used > 0.0;
        if busy && quotient > 0.0 && quotient <= QUOTIENT_MAX {
            self.last = Some((Known { quotient, requests: self.requests }, now));
        }
    }

    /// What it can do, if known and not too old.
    #[must_use]
    pub fn known(&self, now: Mono) -> Option<Known> {
        self.last.filter(|(_, at)| now.since(*at) < FORGET_AFTER).map(|(known, _)| known)
    }
}

/// Writes each instance's weight against the median into `weights`: as far as the evidence goes,
/// 1.0 where the difference may be chance, clipped to a factor of [`SPREAD_MAX`]; the unknown count
/// as the median; when all are unknown all weigh 1.0. `weights` has at least as many places as
/// `known`.
pub fn weigh(known: &[Option<Known>], scratch: &mut Vec<f64>, weights: &mut [f64]) {
    scratch.clear();
    scratch.extend(known.iter().flatten().map(|known| known.quotient));
    let median = median(scratch);
    for (weight, value) in weights.iter_mut().zip(known) {
        *weight = match (value, median) {
            (Some(value), Some(median)) if median > 0.0 => against(*value, median),
            _ => 1.0,
        };
    }
}

fn against(known: Known, median: f64) -> f64 {
    let sure = known.requests / (known.requests + EVIDENCE_HALF);
    let ratio = (known.quotient / median).powf(sure).clamp(1.0 / SPREAD_MAX, SPREAD_MAX);
    if (1.0 / EQUAL_WITHIN..=EQUAL_WITHIN).contains(&ratio) { 1.0 } else { ratio }
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

    /// Half a minute of readings each 50 ms.
    fn after_a_while(rps: impl Fn(u64) -> f64, load: impl Fn(u64) -> f64) -> Capacity {
        let mut capacity = Capacity::default();
        for n in 0..600 {
            capacity.learn(rps(n), load(n), Mono(Duration::from_millis(n * 50)));
        }
        capacity
    }

    #[test]
    fn no_single_reading_rules() {
        // The first second is five times off; a third of the readings say nothing is in work.
        let rps = |n: u64| if n < 20 { 500.0 } else { 100.0 };
        let load = |n: u64| if n.is_multiple_of(3) { 0.0 } else { 0.75 };
        let known = after_a_while(rps, load).known(at(30)).unwrap();
        assert!((190.0..230.0).contains(&known.quotient), "{known:?}");
        assert!((800.0..1200.0).contains(&known.requests), "{known:?}");
    }

    #[test]
    fn an_idle_time_teaches_nothing_and_is_forgotten_late() {
        let mut capacity = after_a_while(|_| 100.0, |_| 0.5);
        let before = capacity.known(at(30)).unwrap();
        for second in 30..200 {
            capacity.learn(0.0, 0.0, at(second));
        }
        let after = capacity.known(at(200)).unwrap();
        assert!((after.quotient - before.quotient).abs() < 1e-6, "{after:?}");
        assert_eq!(capacity.known(at(500)), None);
        let mut lazy = Capacity::default();
        (0..60).for_each(|second| lazy.learn(100.0, 0.0, at(second)));
        assert_eq!(lazy.known(at(60)), None, "who always says zero says nothing");
    }

    #[test]
    fn weights_go_as_far_as_the_evidence() {
        let sure = |quotient| Some(Known { quotient, requests: 1e12 });
        let mut weights = [0.0; 5];
        let known = [sure(10.0), sure(100.0), None, sure(9000.0), sure(110.0)];
        weigh(&known, &mut Vec::new(), &mut weights);
        let expected = [0.25, 1.0, 1.0, 4.0, 1.0];
        assert!(weights.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{weights:?}");
        let guessed = [sure(100.0), Some(Known { quotient: 400.0, requests: EVIDENCE_HALF })];
        weigh(&guessed, &mut Vec::new(), &mut weights);
        assert!((weights[1] - 2.0).abs() < 1e-6, "half believed: {weights:?}");
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
                capacity.learn(rps, load, at(2));
                known.push(capacity.known(at(2)));
            }
            let mut weights = vec![0.0; known.len()];
            weigh(&known, &mut Vec::new(), &mut weights);
            for weight in weights {
                prop_assert!((0.25..=4.0).contains(&weight));
            }
        }
    }
}
