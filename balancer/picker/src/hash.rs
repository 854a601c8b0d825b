//! Consistent hashing with bounded load: by rendezvous, so that an instance that comes or goes
//! moves its own keys and no others, without a table that would have to be kept.

use crate::pick::NoPick;
use crate::view::{Candidates, Field};

/// Instances remembered in a key's order: with a bound of 125 % on the load, the eighth is needed
/// for one key in thousands.
const ORDER_MAX: usize = 8;

/// Spreads the bits of a number, so that near ones become far ones.
#[must_use]
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    z ^ (z >> 32)
}

/// The key of a text: the same in every balancer and every version, for what is hashed must stay
/// where it is. (FNV-1a, its bits spread.)
#[must_use]
pub fn key(text: &[u8]) -> u64 {
    let folded = text.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(folded)
}

/// How much an instance is a key's; the greatest has it.
fn rank(key: u64, instance: u64, weight: f64, uneven: bool) -> f64 {
    let drawn = mix(key ^ instance) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double's mantissa exactly")]
    let share = (drawn as f64 + 0.5) / (1u64 << 53) as f64;
    // Equal weights need no logarithm: the order is the same.
    if uneven { weight / -share.ln() } else { share }
}

/// What one instance may have in flight, of all balancers' requests, this one included.
fn bound(field: &Field, own_total: u64, weight: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "requests in flight are far below 2^53")]
    let total = (own_total + field.others_in_flight + 1) as f64;
    (field.balance * total * weight / field.weight.max(f64::MIN_POSITIVE)).ceil()
}

/// The instance that has `key`, while `total` requests of this balancer are in flight, or the next in its order that is within the bound. Each one looked
/// at is told to `saw`, with what it costs: its place in the order.
///
/// # Errors
/// [`NoPick`], when no instance can take a request now.
pub fn pick<C: Candidates + ?Sized>(
    key: u64,
    candidates: &C,
    field: &Field,
    total: u64,
    avoid: Option<usize>,
    mut saw: impl FnMut(usize, f64),
) -> Result<usize, NoPick> {
    let ranked = |index: usize| {
        let weight = if field.uneven { candidates.glance(index).weight } else { 1.0 };
        rank(key, candidates.key(index), weight, field.uneven)
    };
    let takes = |index: usize| {
        let view = candidates.view(index);
        let here = f64::from(view.in_flight) + f64::from(view.others.in_flight);
        let stands = view.stands() && Some(index) != avoid;
        (stands, stands && view.has_room() && here < bound(field, total, view.weight))
    };
    // Nearly always the first in order takes it, and the order need not be known.
    let mut first = (f64::MIN, usize::MAX);
    for index in 0..candidates.count() {
        let rank = ranked(index);
        if rank > first.0 {
            first = (rank, index);
        }
    }
    if first.1 == usize::MAX {
        return Err(NoPick::Nothing);
    }
    if takes(first.1).1 {
        saw(first.1, 0.0);
        return Ok(first.1);
    }
    let (best, found) = order(candidates.count(), ranked);
    for (place, (_, index)) in (0_u32..).zip(&best[..found]) {
        saw(*index, f64::from(place));
        if takes(*index).1 {
            return Ok(*index);
        }
    }
    // None of the first few: the whole order, one look at each.
    let mut next: Option<(f64, usize)> = None;
    let mut roomy: Option<(f64, usize)> = None;
    let mut any = false;
    for index in 0..candidates.count() {
        let (stands, takes) = takes(index);
        any |= stands;
        let glance = candidates.glance(index);
        if !stands || !glance.has_room {
            continue;
        }
        let rank = rank(key, candidates.key(index), glance.weight, field.uneven);
        if takes && next.is_none_or(|(other, _)| rank > other) {
            next = Some((rank, index));
        }
        if roomy.is_none_or(|(other, _)| rank > other) {
            roomy = Some((rank, index));
        }
    }
    // Counts of different moments may put everybody over the bound: then it is not kept.
    next.or(roomy).map(|(_, index)| index).ok_or(if any { NoPick::Full } else { NoPick::Nothing })
}

/// The first few in a key's order, and how many they are.
fn order(count: usize, ranked: impl Fn(usize) -> f64) -> ([(f64, usize); ORDER_MAX], usize) {
    let mut best = [(f64::MIN, usize::MAX); ORDER_MAX];
    let mut found = 0;
    for index in 0..count {
        let rank = ranked(index);
        if found == ORDER_MAX && rank <= best[ORDER_MAX - 1].0 {
            continue;
        }
        let at = best[..found].partition_point(|(other, _)| *other >= rank);
        found = (found + 1).min(ORDER_MAX);
        best[at..found].rotate_right(1);
        best[at] = (rank, index);
    }
    (best, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::View;
    use crate::view::tests::{field, plain};
    use domain::Mono;

    fn surveyed(views: &[View]) -> Field {
        field().surveyed(views, Mono::default(), &mut Vec::new())
    }

    fn home(key: u64, views: &[View]) -> usize {
        pick(mix(key), views, &surveyed(views), 0, None, |_, _| {}).unwrap()
    }

    #[test]
    fn keys_stay_and_only_those_of_the_lost_move() {
        let mut views = vec![plain(); 20];
        let before: Vec<usize> = (0..5000).map(|key| home(key, &views)).collect();
        views[7].ready = false;
        let after: Vec<usize> = (0..5000).map(|key| home(key, &views)).collect();
        for (old, new) in before.iter().zip(&after) {
            assert!(*old == 7 || old == new, "{old} -> {new}");
            assert_ne!(*new, 7);
        }
        let mut counts = [0; 20];
        after.iter().for_each(|index| counts[*index] += 1);
        let fair = 5000 / 19;
        let near = |n: &i32| (fair - 70..fair + 70).contains(n);
        assert!(counts.iter().enumerate().all(|(i, n)| i == 7 || near(n)), "{counts:?}");
    }

    #[test]
    fn weights_are_kept() {
        let mut views = vec![plain(); 4];
        views[0].weight = 3.0;
        let homes = (0..6000).filter(|key| home(*key, &views) == 0).count();
        assert!((2850..3150).contains(&homes), "three of six parts: {homes}");
    }

    #[test]
    fn no_instance_gets_more_than_its_bound() {
        let mut views = vec![plain(); 10];
        let field = surveyed(&views);
        for sent in 0..1000 {
            // One popular key.
            let total = views.in_flight();
            let index = pick(1, &views[..], &field, total, None, |_, _| {}).unwrap();
            views[index].in_flight += 1;
            views[index].max_in_flight = 1000;
            let most = views.iter().map(|v| v.in_flight).max().unwrap();
            let bound = (1.25 * f64::from(sent + 1) / 10.0).ceil();
            assert!(f64::from(most) <= bound, "{most} of {bound} after {sent}");
        }
    }

    #[test]
    fn full_and_nothing_are_told_apart() {
        let full = View { in_flight: 100, ..plain() };
        let gone = View { healthy: false, ..plain() };
        let pick = |views: &[View]| pick(1, views, &surveyed(views), 0, None, |_, _| {});
        assert_eq!(pick(&[full; 30]), Err(NoPick::Full));
        assert_eq!(pick(&[gone; 30]), Err(NoPick::Nothing));
        let mut many = [gone; 30];
        many[11] = plain();
        assert_eq!(pick(&many), Ok(11));
    }
}
