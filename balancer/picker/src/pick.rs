//! The pick itself: a few random candidates, the policy's least among them, ties by chance.

use crate::rng::Rng;
use crate::score;
use crate::view::{Candidates, Field, View};
use domain::{Mono, PolicyName};
use std::time::Duration;

/// Candidates looked at by the feedback rule and peak-EWMA. Two are clearly worse (17 to 40 % in
/// p99 with unequal servers), all are hardly better and herd when reports are old.
pub const CANDIDATES_MAX: usize = 8;
/// Random draws per wanted candidate before the rest is sought in a row: with a quarter of the
/// instances standing, eight are found in 32 draws on average.
const DRAWS_PER_CANDIDATE: usize = 4;
/// At most one pick in so many goes to the longest unused instance.
const REFRESH_PICKS: u32 = 100;
/// And at most one in this time, by each [`Picker`].
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// An instance that fails more than this is not refreshed with people's requests.
const REFRESH_SUCCESS_MIN: f64 = 0.5;

/// Why nothing was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPick {
    /// No instance is ready.
    Nothing,
    /// Some are ready, but all have as much in flight as they take.
    Full,
}

/// Whether [`Picker::pick`] knows the policy. Registration refuses the others.
#[must_use]
pub fn supported(policy: PolicyName) -> bool {
    match policy {
        PolicyName::Feedback
        | PolicyName::LowestScore
        | PolicyName::RoundRobin
        | PolicyName::Random
        | PolicyName::LeastInFlight
        | PolicyName::P2c
        | PolicyName::PeakEwma => true,
        PolicyName::Prequal | PolicyName::Hash => false,
    }
}

/// What picks of one service on one core remember: chance, whose turn it is, the last refresh.
#[derive(Debug, Clone)]
pub struct Picker {
    rng: Rng,
    turn: usize,
    picks_since_refresh: u32,
    refreshed: Mono,
}

/// The least cost so far; equal ones replace each other so that each is as likely in the end.
struct Least {
    index: Option<usize>,
    cost: f64,
    ties: usize,
}

impl Least {
    fn new() -> Least {
        Least { index: None, cost: f64::INFINITY, ties: 0 }
    }

    fn offer(&mut self, index: usize, cost: f64, rng: &mut Rng) {
        match cost.total_cmp(&self.cost) {
            std::cmp::Ordering::Less => {
                (self.index, self.cost, self.ties) = (Some(index), cost, 1);
            }
            std::cmp::Ordering::Equal => {
                self.ties += 1;
                if rng.below(self.ties) == 0 {
                    self.index = Some(index);
                }
            }
            std::cmp::Ordering::Greater => {}
        }
    }
}

impl Picker {
    /// A picker whose chance follows from `seed`; give each core and service its own.
    #[must_use]
    pub fn new(seed: u64) -> Picker {
        let mut rng = Rng::new(seed);
        let turn = rng.below(1 << 16);
        Picker { rng, turn, picks_since_refresh: 0, refreshed: Mono::default() }
    }

    /// The index of the instance for the next request. `avoid` is an instance that just failed
    /// this request: it is taken only when no other can be. A policy that is not [`supported`]
    /// picks by the feedback rule.
    ///
    /// # Errors
    /// [`NoPick`], when no instance can take a request now.
    pub fn pick<C: Candidates + ?Sized>(
        &mut self,
        policy: PolicyName,
        candidates: &C,
        field: &Field,
        avoid: Option<usize>,
        now: Mono,
    ) -> Result<usize, NoPick> {
        match self.choose(policy, candidates, field, avoid, now) {
            Ok(index) => Ok(index),
            Err(none) => {
                let again = avoid.filter(|i| *i < candidates.count());
                again
                    .filter(|i| {
                        let view = candidates.view(*i);
                        view.stands() && view.has_room()
                    })
                    .ok_or(none)
            }
        }
    }

    fn choose<C: Candidates + ?Sized>(
        &mut self,
        policy: PolicyName,
        candidates: &C,
        field: &Field,
        avoid: Option<usize>,
        now: Mono,
    ) -> Result<usize, NoPick> {
        let all = candidates.count();
        match policy {
            PolicyName::Feedback | PolicyName::Prequal | PolicyName::Hash => {
                if let Some(index) = self.refresh(candidates, avoid, now) {
                    return Ok(index);
                }
                self.least_of(CANDIDATES_MAX, candidates, avoid, |v| score::cost(v, field, now))
            }
            PolicyName::PeakEwma => {
                if let Some(index) = self.refresh(candidates, avoid, now) {
                    return Ok(index);
                }
                self.least_of(CANDIDATES_MAX, candidates, avoid, |v| {
                    let ramp = score::ramp(v, field, now);
                    v.latency.now(now).max(1e-6) * (f64::from(v.in_flight) + 1.0)
                        / (v.weight * ramp)
                })
            }
            PolicyName::LowestScore => self.least_of(all, candidates, avoid, |v| {
                v.reported.map_or(field.median_load, |r| r.load)
            }),
            PolicyName::LeastInFlight => {
                self.least_of(all, candidates, avoid, |v| f64::from(v.in_flight) / v.weight)
            }
            PolicyName::P2c => {
                self.least_of(2, candidates, avoid, |v| f64::from(v.in_flight) / v.weight)
            }
            PolicyName::Random => self.least_of(1, candidates, avoid, |_| 0.0),
            PolicyName::RoundRobin => self.next_in_turn(candidates, avoid),
        }
    }

    /// The least of `limit` distinct random instances that stand and have room.
    fn least_of<C: Candidates + ?Sized>(
        &mut self,
        limit: usize,
        candidates: &C,
        avoid: Option<usize>,
        cost: impl Fn(&View) -> f64,
    ) -> Result<usize, NoPick> {
        let count = candidates.count();
        let mut least = Least::new();
        let mut full = false;
        let mut look = |index: usize, least: &mut Least, rng: &mut Rng| -> bool {
            let view = candidates.view(index);
            if !view.stands() || Some(index) == avoid {
                return false;
            }
            if !view.has_room() {
                full = true;
                return false;
            }
            least.offer(index, cost(&view), rng);
            true
        };
        if count <= limit {
            for index in 0..count {
                look(index, &mut least, &mut self.rng);
            }
        } else {
            let limit = limit.min(CANDIDATES_MAX);
            let mut seen = [usize::MAX; CANDIDATES_MAX];
            let mut found = 0;
            for _ in 0..limit * DRAWS_PER_CANDIDATE {
                let index = self.rng.below(count);
                if !seen[..found].contains(&index) && look(index, &mut least, &mut self.rng) {
                    seen[found] = index;
                    found += 1;
                    if found == limit {
                        break;
                    }
                }
            }
            // Few stand: look through all from a random start, so that none is overlooked.
            let start = self.rng.below(count);
            let mut step = 0;
            while found < limit && step < count {
                let index = (start + step) % count;
                step += 1;
                if !seen[..found].contains(&index) && look(index, &mut least, &mut self.rng) {
                    seen[found] = index;
                    found += 1;
                }
            }
        }
        least.index.ok_or(if full { NoPick::Full } else { NoPick::Nothing })
    }

    fn next_in_turn<C: Candidates + ?Sized>(
        &mut self,
        candidates: &C,
        avoid: Option<usize>,
    ) -> Result<usize, NoPick> {
        let count = candidates.count();
        let mut full = false;
        for step in 1..=count {
            let index = (self.turn.wrapping_add(step)) % count;
            let view = candidates.view(index);
            if !view.stands() || Some(index) == avoid {
                continue;
            }
            if view.has_room() {
                self.turn = index;
                return Ok(index);
            }
            full = true;
        }
        Err(if full { NoPick::Full } else { NoPick::Nothing })
    }

    /// Now and then the longest unused instance gets a request, so that no estimate freezes.
    fn refresh<C: Candidates + ?Sized>(
        &mut self,
        candidates: &C,
        avoid: Option<usize>,
        now: Mono,
    ) -> Option<usize> {
        self.picks_since_refresh = self.picks_since_refresh.saturating_add(1);
        let due =
            self.picks_since_refresh >= REFRESH_PICKS && now.since(self.refreshed) >= REFRESH_EVERY;
        if !due {
            return None;
        }
        self.picks_since_refresh = 0;
        self.refreshed = now;
        let mut oldest: Option<(Mono, usize)> = None;
        for index in 0..candidates.count() {
            let view = candidates.view(index);
            let unused = view.stands()
                && view.has_room()
                && Some(index) != avoid
                && now.since(view.last_picked) >= REFRESH_EVERY
                && view.outcomes.success(now) >= REFRESH_SUCCESS_MIN;
            if unused && oldest.is_none_or(|(at, _)| view.last_picked < at) {
                oldest = Some((view.last_picked, index));
            }
        }
        oldest.map(|(_, index)| index)
    }
}

#[cfg(test)]
mod tests;
