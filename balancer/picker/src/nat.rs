//! Weights of a map in the kernel, moved by loads: shares of connections instead of single picks.

/// How far one step goes: cautious, since connections last and the next step comes a second later.
const EXPONENT: f64 = 0.3;
/// A weight stays within this factor of the mean, either way: a wrong report starves nobody.
const SPREAD: f64 = 8.0;
/// A load below this counts as this much: nothing to do is no reason for all connections.
const LOAD_MIN: f64 = 0.01;
/// What moved by less than this share is not worth a write.
const DEAD_BAND: f64 = 0.05;
/// Slots of a mean weight: fine enough that rounding is far below [`DEAD_BAND`] for the heaviest
/// and still under it for the lightest, an eighth.
const SLOTS_PER_MEAN: f64 = 512.0;

/// One instance before a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Its weight so far; 1 is the mean.
    pub weight: f64,
    /// Its load; `None`: unknown, and the weight drifts towards the mean with the others.
    pub load: Option<f64>,
}

/// Moves every weight by the instance's load against the mean load; the mean weight becomes 1.
pub fn step(targets: &mut [Target]) {
    let loads = || targets.iter().filter_map(|t| t.load).map(|load| load.max(LOAD_MIN));
    let known = loads().count();
    if known > 0 {
        #[expect(clippy::cast_precision_loss, reason = "a count of instances")]
        let mean = loads().sum::<f64>() / known as f64;
        for target in targets.iter_mut() {
            if let Some(load) = target.load {
                target.weight *= (mean / load.max(LOAD_MIN)).powf(EXPONENT);
            }
        }
    }
    level(targets);
}

/// Brings the mean back to 1 and every weight within [`SPREAD`] of it.
fn level(targets: &mut [Target]) {
    if targets.is_empty() {
        return;
    }
    // Clamping moves the mean, which moves the clamp: a few rounds settle it.
    for _ in 0..4 {
        #[expect(clippy::cast_precision_loss, reason = "a count of instances")]
        let mean = targets.iter().map(|t| t.weight).sum::<f64>() / targets.len() as f64;
        for target in targets.iter_mut() {
            let weight = if mean > 0.0 { target.weight / mean } else { 1.0 };
            let weight = if weight.is_finite() { weight } else { 1.0 };
            target.weight = weight.clamp(1.0 / SPREAD, SPREAD);
        }
    }
}

/// Slots of a map for these weights, in order; a weight of 0 or less gets none, any other one at
/// least one. Their sum is the map's size.
#[must_use]
pub fn slots(weights: &[f64]) -> Vec<u32> {
    let standing = weights.iter().filter(|w| **w > 0.0);
    let (count, sum) = standing.fold((0.0, 0.0), |(n, sum), w| (n + 1.0, sum + w));
    let scale = if sum > 0.0 { SLOTS_PER_MEAN * count / sum } else { 0.0 };
    let slots = weights.iter().map(|weight| {
        if *weight <= 0.0 {
            return 0;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive and saturating"
        )]
        let n = (weight * scale).round() as u32;
        n.max(1)
    });
    slots.collect()
}

/// Whether shares moved so far that they are worth a write. Lists of unequal length always are.
#[must_use]
pub fn moved(written: &[u32], wanted: &[u32]) -> bool {
    let sum = |slots: &[u32]| slots.iter().map(|n| f64::from(*n)).sum::<f64>();
    let (before, after) = (sum(written), sum(wanted));
    if written.len() != wanted.len() || before <= 0.0 || after <= 0.0 {
        return written != wanted;
    }
    written.iter().zip(wanted).any(|(old, new)| {
        let (old, new) = (f64::from(*old) / before, f64::from(*new) / after);
        (new - old).abs() > DEAD_BAND * old
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn targets(each: &[(f64, Option<f64>)]) -> Vec<Target> {
        each.iter().map(|(weight, load)| Target { weight: *weight, load: *load }).collect()
    }

    #[test]
    fn the_loaded_get_less_and_the_unknown_keep_their_share() {
        let mut all = targets(&[(1.0, Some(0.8)), (1.0, Some(0.2)), (1.0, None)]);
        step(&mut all);
        assert!(all[0].weight < all[2].weight && all[2].weight < all[1].weight, "{all:?}");
        let expected = (0.5_f64 / 0.2).powf(0.3) / (0.5_f64 / 0.8).powf(0.3);
        assert!((all[1].weight / all[0].weight - expected).abs() < 1e-9);
    }

    #[test]
    fn unequal_machines_settle_where_their_loads_are_equal() {
        // Loads follow weights: capacity 1 and 3.
        let mut all = targets(&[(1.0, None), (1.0, None)]);
        for _ in 0..40 {
            let sum: f64 = all.iter().map(|t| t.weight).sum();
            for (target, capacity) in all.iter_mut().zip([1.0, 3.0]) {
                target.load = Some(2.0 * target.weight / sum / capacity);
            }
            step(&mut all);
        }
        assert!((all[1].weight / all[0].weight - 3.0).abs() < 0.01, "{all:?}");
    }

    #[test]
    fn an_idle_or_broken_report_stays_within_the_spread() {
        let mut all = targets(&[(1.0, Some(0.0)), (1.0, Some(4.0)), (1.0, Some(4.0))]);
        for _ in 0..50 {
            step(&mut all);
        }
        let sum: f64 = all.iter().map(|t| t.weight).sum();
        assert!(all.iter().all(|t| (0.1..=8.0).contains(&t.weight)) && sum < 9.1, "{all:?}");
    }

    #[test]
    fn slots_follow_weights_and_small_moves_are_not_written() {
        assert_eq!(slots(&[1.0, 1.0, 0.0, 2.0]), [384, 384, 0, 768]);
        assert_eq!(slots(&[]), Vec::<u32>::new());
        assert_eq!(slots(&[0.0]), [0]);
        assert_eq!(slots(&[8.0, 0.000_001]), [1024, 1]);
        assert!(!moved(&[512, 512], &[520, 504]));
        assert!(moved(&[512, 512], &[560, 464]));
        assert!(moved(&[512, 0], &[512, 512]) && moved(&[512], &[512, 512]));
        assert!(moved(&[0], &[512]) && moved(&[512], &[0]));
        assert!(!moved(&[0], &[0]) && !moved(&[], &[]));
    }

    proptest! {
        #[test]
        fn whatever_is_reported_weights_stay_finite_and_near_the_mean(
            each in proptest::collection::vec(
                (0.0f64..1e9, proptest::option::of(0.0f64..100.0)), 1..40),
            steps in 1usize..20,
        ) {
            let mut all = targets(&each);
            for _ in 0..steps {
                step(&mut all);
            }
            for target in &all {
                prop_assert!(target.weight >= 1.0 / SPREAD && target.weight <= SPREAD);
            }
            let weights: Vec<f64> = all.iter().map(|t| t.weight).collect();
            let slots = slots(&weights);
            prop_assert!(slots.iter().all(|n| *n > 0));
            prop_assert!(!moved(&slots, &slots));
        }
    }
}
