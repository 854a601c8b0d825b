//! The pick itself: a few random candidates, the policy's least among them, ties by chance.

mod least;

use crate::hash;
use crate::prequal::{self, Pool, Probe};
use crate::rng::Rng;
use crate::score;
use crate::view::{Candidates, Field, Glance, View};
use domain::{Mono, PolicyName};
use least::{Least, Seen};
use std::time::Duration;

/// Candidates looked at by the feedback rule and peak-EWMA. Two are clearly worse (17 to 40 % in
/// p99 with unequal servers), all are hardly better and herd when reports are old.
pub const CANDIDATES_MAX: usize = 8;
/// Random draws per wanted candidate before the rest is sought in a row: with a quarter of the
/// instances standing, eight are found in 32 draws on average.
const DRAWS_PER_CANDIDATE: usize = 4;
/// Instances remembered of those a pick looked at.
pub const SEEN_MAX: usize = 16;
/// At most one pick in so many goes to the longest unused instance.
const REFRESH_PICKS: u32 = 100;
/// And at most one in this time, by each [`Picker`].
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// An instance that fails more than this is not refreshed with people's requests.
const REFRESH_SUCCESS_MIN: f64 = 0.5;

/// Requests in flight are counted over all instances no more often than this: a thousand counters
/// are more than one pick should read, and the mean of a thousand moves slowly.
const TOTAL_EVERY: Duration = Duration::from_millis(1);

/// Why nothing was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPick {
    /// No instance is ready.
    Nothing,
    /// Some are ready, but all have as much in flight as they take.
    Full,
}

/// What is asked of one pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ask {
    /// The rule.
    pub policy: PolicyName,
    /// What the request is hashed by, for policy `hash` ([`crate::hash::key`]); without one the
    /// feedback rule picks.
    pub key: Option<u64>,
    /// The instance this client stays at: taken if it stands and has room.
    pub stay: Option<usize>,
    /// An instance that just failed this request: taken only when no other can be.
    pub avoid: Option<usize>,
}

/// What picks of one service on one core remember: chance, whose turn it is, the last refresh.
#[derive(Debug, Clone)]
pub struct Picker {
    rng: Rng,
    turn: usize,
    picks_since_refresh: u32,
    refreshed: Mono,
    /// Only of use under policy `prequal`.
    pool: Option<Box<Pool>>,
    /// Requests in flight at all instances, and when they were counted.
    total: (u64, Mono),
    seen: Seen,
}

impl Picker {
    /// A picker whose chance follows from `seed`; give each core and service its own.
    #[must_use]
    pub fn new(seed: u64) -> Picker {
        let mut rng = Rng::new(seed);
        let turn = rng.below(1 << 16);
        Picker {
            rng,
            turn,
            picks_since_refresh: 0,
            refreshed: Mono::default(),
            pool: None,
            total: (0, Mono::default()),
            seen: Seen::default(),
        }
    }

    /// The index of the instance for the next request.
    ///
    /// # Errors
    /// [`NoPick`], when no instance can take a request now.
    pub fn pick<C: Candidates + ?Sized>(
        &mut self,
        ask: &Ask,
        candidates: &C,
        field: &Field,
        now: Mono,
    ) -> Result<usize, NoPick> {
        self.seen.clear();
        let can = |index: &usize| {
            let glance = candidates.glance(*index);
            glance.stands && glance.has_room
        };
        let known = |index: &usize| *index < candidates.count();
        let stay = ask.stay.filter(known).filter(|index| Some(*index) != ask.avoid);
        if let Some(index) = stay.filter(can) {
            self.seen.note(index, 0.0);
            return Ok(index);
        }
        self.choose(ask, candidates, field, now)
            .or_else(|none| ask.avoid.filter(known).filter(can).ok_or(none))
    }

    /// The instances the last pick looked at, at most [`SEEN_MAX`] of them, and what each cost by
    /// the policy; the least was picked.
    #[must_use]
    pub fn seen(&self) -> &[(usize, f64)] {
        self.seen.all()
    }

    /// Takes an instance's answer to a probe.
    pub fn probed(&mut self, probe: Probe, field: &Field) {
        self.pool.get_or_insert_default().take(probe, field.standing, &mut self.rng);
    }

    fn choose<C: Candidates + ?Sized>(
        &mut self,
        ask: &Ask,
        candidates: &C,
        field: &Field,
        now: Mono,
    ) -> Result<usize, NoPick> {
        let avoid = ask.avoid;
        let by_load = |g: &Glance| f64::from(g.in_flight) / g.weight;
        match ask.policy {
            PolicyName::Hash if ask.key.is_some() => {
                let key = ask.key.unwrap_or_default();
                if now.since(self.total.1) >= TOTAL_EVERY {
                    self.total = (candidates.in_flight(), now);
                }
                let (total, seen) = (self.total.0, &mut self.seen);
                let saw = |index, cost| seen.note(index, cost);
                hash::pick(key, candidates, field, total, avoid, saw)
            }
            PolicyName::Feedback | PolicyName::Hash => {
                if let Some(index) = self.refresh(candidates, avoid, now) {
                    return Ok(index);
                }
                self.least_of(candidates, avoid, |v| score::cost(v, field, now))
            }
            PolicyName::PeakEwma => {
                if let Some(index) = self.refresh(candidates, avoid, now) {
                    return Ok(index);
                }
                self.least_of(candidates, avoid, |v| {
                    let ramp = score::ramp(v, field, now);
                    v.latency.now(now).max(1e-6) * (f64::from(v.in_flight) + 1.0)
                        / (v.weight * ramp)
                })
            }
            PolicyName::Prequal => self.best_probed(candidates, field, avoid, now),
            PolicyName::LowestScore => self.least_of_all(candidates, avoid, |index, _| {
                candidates.load(index).unwrap_or(field.median_load)
            }),
            PolicyName::LeastInFlight => {
                self.least_of_all(candidates, avoid, |_, glance| by_load(glance))
            }
            PolicyName::P2c => self.least_of_few(2, candidates, avoid, by_load),
            PolicyName::Random => self.least_of_few(1, candidates, avoid, |_| 0.0),
            PolicyName::RoundRobin => self.next_in_turn(candidates, avoid),
        }
    }

    /// The best of the pool, after as many more answers as a pick asks for where instances are not
    /// asked; by chance as long as nothing is known.
    fn best_probed<C: Candidates + ?Sized>(
        &mut self,
        candidates: &C,
        field: &Field,
        avoid: Option<usize>,
        now: Mono,
    ) -> Result<usize, NoPick> {
        if let Some(index) = self.refresh(candidates, avoid, now) {
            return Ok(index);
        }
        let mut pool = self.pool.take().unwrap_or_default();
        if !field.probed {
            for _ in 0..prequal::PROBES_PER_PICK {
                let index = self.rng.below(candidates.count());
                if index >= candidates.count() {
                    break;
                }
                let glance = candidates.glance(index);
                if !glance.stands {
                    continue;
                }
                // An instance of which nothing is known is tried, as an idle one is.
                let latency = candidates.latency_at(index, glance.in_flight).unwrap_or(0.0);
                let in_flight = glance.in_flight;
                let key = candidates.key(index);
                let probe = Probe { key, index, in_flight, latency, at: now };
                pool.take(probe, field.standing, &mut self.rng);
            }
        }
        let seen = &mut self.seen;
        let best = pool.pick(candidates, field, avoid, now, |index, cost| seen.note(index, cost));
        self.pool = Some(pool);
        match best {
            Some(index) => Ok(index),
            None => self.least_of_few(1, candidates, avoid, |_| 0.0),
        }
    }

    /// The least of all that stand and have room.
    fn least_of_all<C: Candidates + ?Sized>(
        &mut self,
        candidates: &C,
        avoid: Option<usize>,
        cost: impl Fn(usize, &Glance) -> f64,
    ) -> Result<usize, NoPick> {
        let mut least = Least::new();
        let mut full = false;
        for index in 0..candidates.count() {
            let glance = candidates.glance(index);
            if !glance.stands || Some(index) == avoid {
                continue;
            }
            if glance.has_room {
                let cost = cost(index, &glance);
                self.seen.note(index, cost);
                least.offer(index, cost, &mut self.rng);
            } else {
                full = true;
            }
        }
        least.index.ok_or(if full { NoPick::Full } else { NoPick::Nothing })
    }

    fn least_of<C: Candidates + ?Sized>(
        &mut self,
        candidates: &C,
        avoid: Option<usize>,
        cost: impl Fn(&View) -> f64,
    ) -> Result<usize, NoPick> {
        let look = |index: usize| {
            let view = candidates.view(index);
            (view.stands(), view.has_room(), view)
        };
        self.least(CANDIDATES_MAX, candidates.count(), avoid, look, cost)
    }

    fn least_of_few<C: Candidates + ?Sized>(
        &mut self,
        limit: usize,
        candidates: &C,
        avoid: Option<usize>,
        cost: impl Fn(&Glance) -> f64,
    ) -> Result<usize, NoPick> {
        let look = |index: usize| {
            let glance = candidates.glance(index);
            (glance.stands, glance.has_room, glance)
        };
        self.least(limit, candidates.count(), avoid, look, cost)
    }

    /// The least of `limit` distinct random instances that stand and have room.
    fn least<V>(
        &mut self,
        limit: usize,
        count: usize,
        avoid: Option<usize>,
        look_at: impl Fn(usize) -> (bool, bool, V),
        cost: impl Fn(&V) -> f64,
    ) -> Result<usize, NoPick> {
        let mut least = Least::new();
        let mut full = false;
        let considered = &mut self.seen;
        let mut look = |index: usize, least: &mut Least, rng: &mut Rng| -> bool {
            if Some(index) == avoid {
                return false;
            }
            let (stands, has_room, view) = look_at(index);
            full |= stands && !has_room;
            if !stands || !has_room {
                return false;
            }
            let cost = cost(&view);
            considered.note(index, cost);
            least.offer(index, cost, rng);
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
            let glance = candidates.glance(index);
            if !glance.stands || Some(index) == avoid {
                continue;
            }
            if glance.has_room {
                self.turn = index;
                self.seen.note(index, 0.0);
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
        let index = oldest.map(|(_, index)| index)?;
        self.seen.note(index, 0.0);
        Some(index)
    }
}

#[cfg(test)]
mod tests;
