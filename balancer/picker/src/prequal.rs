//! The policy `prequal`: a small pool of recent answers to probes, used a few times each, and the
//! rule of hot and cold over it.
//!
//! The pool belongs to one [`crate::Picker`]. Where instances answer probes, the caller brings
//! their answers; where none do, what this balancer sees itself stands for them.

use crate::rng::Rng;
use crate::view::{Candidates, Field};
use domain::Mono;
use std::time::Duration;

/// Answers kept at most.
pub const POOL_MAX: usize = 16;
/// Of so few instances all answers are kept: half of them would leave no choice.
const FEW: usize = 4;
/// Probes for each request.
pub const PROBES_PER_PICK: u32 = 3;
/// An older answer says nothing of now.
pub const AGE_MAX: Duration = Duration::from_secs(1);
/// Share of recent answers above which an instance's requests in flight make it hot. Above, not at:
/// where all are equally busy, as at low load, latency decides.
pub const HOT_SHARE: f64 = 0.84;
/// Answers taken out for each request, besides those used up, so that the pool stays fresh.
const REMOVED_PER_PICK: f64 = 1.0;
/// Net gain of answers for each request; more keeps them longer.
const REUSE_DELTA: f64 = 1.0;
/// An answer is used no more often than this, however few instances there are.
const REUSE_MAX: f64 = 16.0;
/// Recent answers whose requests in flight make the quantile.
const RECENT: usize = 64;

/// What an instance answered to a probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// Whose answer ([`Candidates::key`]).
    pub key: u64,
    /// Its place when it was asked.
    pub index: usize,
    /// Requests in flight there.
    pub in_flight: u32,
    /// How long answers take there with about so many in flight, in seconds.
    pub latency: f64,
    /// When the answer came.
    pub at: Mono,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    probe: Probe,
    uses_left: u32,
}

/// The answers of one picker.
#[derive(Debug, Clone)]
pub struct Pool {
    kept: Vec<Kept>,
    recent: [u32; RECENT],
    seen: usize,
    hot_from: u32,
    takes_worst: bool,
}

impl Default for Pool {
    fn default() -> Pool {
        let recent = [0; RECENT];
        Pool { kept: Vec::new(), recent, seen: 0, hot_from: 0, takes_worst: false }
    }
}

/// An answer weighed: hot ones after all cold ones, then by what counts, then by the other.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Worth {
    hot: bool,
    first: f64,
    second: f64,
}

impl Pool {
    /// Answers kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Takes an answer; a newer one of the same instance replaces it, and where all places are
    /// taken the oldest leaves.
    pub fn take(&mut self, probe: Probe, standing: u32, rng: &mut Rng) {
        self.recent[self.seen % RECENT] = probe.in_flight;
        self.seen = self.seen.wrapping_add(1);
        if self.seen.is_multiple_of(RECENT / 8) || self.seen < RECENT {
            self.hot_from = self.quantile();
        }
        let places = places(standing);
        self.kept.retain(|kept| kept.probe.key != probe.key);
        while self.kept.len() >= places {
            self.kept.remove(0);
        }
        self.kept.push(Kept { probe, uses_left: uses(standing, rng) });
    }

    fn quantile(&self) -> u32 {
        let mut recent = self.recent;
        let known = &mut recent[..self.seen.min(RECENT)];
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank among at most 64"
        )]
        let rank = (known.len() as f64 * HOT_SHARE) as usize;
        let rank = rank.min(known.len().saturating_sub(1));
        if known.is_empty() { 0 } else { *known.select_nth_unstable(rank).1 }
    }

    /// The instance of the best answer: of the cold ones the quickest, of hot ones alone the least
    /// busy; `None` when nothing usable is known. What is looked at is told to `saw`.
    pub fn pick<C: Candidates + ?Sized>(
        &mut self,
        candidates: &C,
        field: &Field,
        avoid: Option<usize>,
        now: Mono,
        mut saw: impl FnMut(usize, f64),
    ) -> Option<usize> {
        let count = candidates.count();
        self.kept.retain(|kept| {
            let Probe { key, index, at, .. } = kept.probe;
            index < count && candidates.key(index) == key && now.since(at) <= AGE_MAX
        });
        let hot_from = self.hot_from;
        let mut best: Option<(Worth, usize)> = None;
        let mut worst: Option<(Worth, usize)> = None;
        for (place, kept) in self.kept.iter().enumerate() {
            let index = kept.probe.index;
            let view = candidates.view(index);
            let good = view.weight * crate::score::ramp(&view, field, now);
            let good = (good * view.outcomes.success(now)).max(f64::MIN_POSITIVE);
            let hot = kept.probe.in_flight > hot_from;
            // Failing and cold instances must look neither quick nor idle.
            let latency = kept.probe.latency / good;
            let busy = (f64::from(kept.probe.in_flight) + 1.0) / good;
            let worth = if hot {
                Worth { hot, first: busy, second: latency }
            } else {
                Worth { hot, first: latency, second: busy }
            };
            saw(index, if hot { busy } else { latency });
            if worst.is_none_or(|(other, _)| worth > other) {
                worst = Some((worth, place));
            }
            let takes = view.stands() && view.has_room() && Some(index) != avoid;
            if takes && best.is_none_or(|(other, _)| worth < other) {
                best = Some((worth, place));
            }
        }
        let best = best.map(|(_, place)| place);
        let index = best.map(|place| self.kept[place].probe.index);
        self.spend(best, worst.map(|(_, place)| place));
        index
    }

    /// One use of the chosen answer, which has one request more to tell of from now on; and one
    /// answer leaves: the oldest and the worst by turns.
    fn spend(&mut self, best: Option<usize>, worst: Option<usize>) {
        let mut used_up = None;
        if let Some(kept) = best.and_then(|place| self.kept.get_mut(place)) {
            kept.probe.in_flight = kept.probe.in_flight.saturating_add(1);
            kept.uses_left = kept.uses_left.saturating_sub(1);
            used_up = best.filter(|_| kept.uses_left == 0);
        }
        let removed = if self.takes_worst { worst } else { Some(0) };
        self.takes_worst = !self.takes_worst;
        // A pool that is nearly empty keeps what it has.
        let removed = removed.filter(|_| self.kept.len() > 2);
        let mut places = [used_up, removed];
        places.sort_unstable();
        if places[0] == places[1] {
            places[0] = None;
        }
        for place in places.into_iter().rev().flatten() {
            if place < self.kept.len() {
                self.kept.remove(place);
            }
        }
    }
}

/// Answers kept of so many instances: the pool is a sample, not the whole, unless they are few.
fn places(standing: u32) -> usize {
    let standing = usize::try_from(standing).unwrap_or(usize::MAX);
    (standing / 2).clamp(standing.clamp(1, FEW), POOL_MAX)
}

/// How often an answer may be used, its fraction by chance:
/// `(1 + delta) / ((1 - m/n) * probes - removed)`, at least once.
fn uses(standing: u32, rng: &mut Rng) -> u32 {
    let kept = f64::from(u32::try_from(places(standing)).unwrap_or(1));
    let gained = (1.0 - kept / f64::from(standing.max(1))) * f64::from(PROBES_PER_PICK);
    let gained = gained - REMOVED_PER_PICK;
    let uses = if gained > 0.0 { (1.0 + REUSE_DELTA) / gained } else { REUSE_MAX };
    let uses = uses.clamp(1.0, REUSE_MAX);
    let whole = uses.floor();
    let more = f64::from(u8::from(rng.unit() < uses - whole));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 17")]
    let uses = (whole + more) as u32;
    uses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::View;
    use crate::view::tests::{at_ms, field, plain};

    const NOW: Mono = Mono(Duration::from_secs(100));

    fn probe(index: usize, in_flight: u32, latency: f64) -> Probe {
        let key = crate::hash::mix(index as u64);
        Probe { key, index, in_flight, latency, at: NOW }
    }

    fn pool(probes: &[Probe]) -> Pool {
        let (mut pool, mut rng) = (Pool::default(), Rng::new(1));
        // A past in which six of a hundred and less was usual.
        for n in 0..64u32 {
            pool.take(probe(50, n % 7, 1.0), 100, &mut rng);
        }
        pool.kept.clear();
        for one in probes {
            pool.take(*one, 100, &mut rng);
        }
        pool
    }

    fn pick(pool: &mut Pool, views: &[View]) -> Option<usize> {
        pool.pick(views, &field(), None, NOW, |_, _| {})
    }

    #[test]
    fn the_quickest_of_the_cold_else_the_least_busy_of_the_hot() {
        let views = vec![plain(); 100];
        let mut mixed = pool(&[probe(1, 2, 0.5), probe(2, 3, 0.1), probe(3, 90, 0.01)]);
        assert_eq!(pick(&mut mixed, &views), Some(2), "cold, and quicker than the other");
        let mut hot = pool(&[probe(1, 40, 0.01), probe(2, 20, 0.5), probe(3, 30, 0.01)]);
        assert_eq!(pick(&mut hot, &views), Some(2));
    }

    #[test]
    fn what_cannot_be_used_is_not() {
        let mut views = vec![plain(); 100];
        views[2].healthy = false;
        views[3].in_flight = 100;
        let old = Probe { at: at_ms(98_000), ..probe(4, 0, 0.001) };
        let other = Probe { key: 7, ..probe(5, 0, 0.001) };
        let mut pool = pool(&[probe(1, 5, 9.0), probe(2, 0, 0.1), probe(3, 0, 0.1), old, other]);
        assert_eq!(pick(&mut pool, &views), Some(1));
        let mut empty = Pool::default();
        assert_eq!(pick(&mut empty, &views), None);
    }

    #[test]
    fn answers_are_used_up() {
        let views = vec![plain(); 100];
        let mut pool = pool(&[probe(1, 0, 0.1)]);
        let picks = (0..10).filter(|_| pick(&mut pool, &views).is_some()).count();
        assert!((1..=2).contains(&picks), "1.32 uses each with a hundred instances: {picks}");
        let mut rng = Rng::new(5);
        let mean = (0..10_000).map(|_| uses(100, &mut rng)).sum::<u32>();
        assert!((13_000..13_400).contains(&mean), "{mean}");
        assert_eq!((uses(1, &mut rng), uses(2, &mut rng), uses(8, &mut rng)), (16, 16, 4));
    }

    #[test]
    fn a_failing_instance_does_not_look_quick() {
        let mut views = vec![plain(); 100];
        for _ in 0..6 {
            views[1].outcomes = views[1].outcomes.after(false, NOW);
        }
        let mut pool = pool(&[probe(1, 0, 0.001), probe(2, 3, 0.1)]);
        assert_eq!(pick(&mut pool, &views), Some(2));
    }

    #[test]
    fn the_pool_is_bounded() {
        let (mut pool, mut rng) = (Pool::default(), Rng::new(1));
        for index in 0..100 {
            pool.take(probe(index, 1, 1.0), 100, &mut rng);
        }
        assert_eq!(pool.len(), POOL_MAX);
        assert!(!pool.is_empty());
    }
}
