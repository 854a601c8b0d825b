//! What one pick looks at: an instance as this balancer sees it, and the field it stands in.

use domain::Mono;
use std::time::Duration;

/// Time constant of the decayed counts of outcomes.
pub const OUTCOME_DECAY: Duration = Duration::from_secs(2);
/// Time over which a run of failures loses its sting.
pub const FAILURE_MEMORY: Duration = Duration::from_secs(30);
/// Failures in a row that still make a difference; more say nothing more.
pub const FAILURES_MAX: f64 = 8.0;
/// Time constant of the peak-sensitive latency average.
pub const LATENCY_DECAY: Duration = Duration::from_secs(10);
/// What a failure counts as, where latency decides: failing fast must not look fast.
pub const LATENCY_PENALTY: Duration = Duration::from_secs(5);

/// The last report of an instance, with what this balancer had in flight when it arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reported {
    /// How loaded it said it was; 1.0 is full by its own measure.
    pub load: f64,
    /// Requests in flight there, from all balancers, if it said so.
    pub in_flight: Option<u32>,
    /// When this balancer first saw the report, by its own clock.
    pub at: Mono,
    /// This balancer's own requests in flight at that moment.
    pub own_in_flight: u32,
    /// Requests of the other balancers there at that moment, as [`crate::score::others`] had them;
    /// `None`: they are taken to have moved as this balancer's own.
    pub others_in_flight: Option<f64>,
}

/// What the other balancers published of their requests at one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Others {
    /// Their requests in flight, all together.
    pub in_flight: u32,
    /// This balancer's own when theirs became known.
    pub own_in_flight: u32,
}

/// Decayed counts of how requests ended.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcomes {
    /// Requests that went well, decayed since `last`.
    pub ok: f64,
    /// All requests, decayed since `last`.
    pub total: f64,
    /// Failures in a row: each adds one, each success halves it.
    pub failures: f64,
    /// When the last one ended.
    pub last: Mono,
}

impl Outcomes {
    /// The counts after one more request ended at `now`.
    #[must_use]
    pub fn after(self, ok: bool, now: Mono) -> Outcomes {
        let fade = fade(now.since(self.last), OUTCOME_DECAY);
        let failures = if ok { self.failures / 2.0 } else { self.failures + 1.0 };
        Outcomes {
            ok: self.ok * fade + if ok { 1.0 } else { 0.0 },
            total: self.total * fade + 1.0,
            // Under a thousandth the run is forgotten, which spares every later pick an exp().
            failures: if failures < 1e-3 { 0.0 } else { failures.min(FAILURES_MAX) },
            last: now,
        }
    }

    /// `s = ((ok+5)/(total+5))^4 / 4^(k*exp(-dt/30 s))`, in (0, 1].
    #[must_use]
    pub fn success(&self, now: Mono) -> f64 {
        let failed = self.total - self.ok;
        if failed <= 0.0 && self.failures <= 0.0 {
            return 1.0;
        }
        let dt = now.since(self.last);
        let fade_counts = fade(dt, OUTCOME_DECAY);
        let share = (self.ok * fade_counts + 5.0) / (self.total * fade_counts + 5.0);
        let run = self.failures * fade(dt, FAILURE_MEMORY);
        share.powi(4) * (-2.0 * run).exp2()
    }
}

/// A latency average that jumps up with a slow answer and comes down slowly.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Latency {
    /// Seconds.
    pub seconds: f64,
    /// When it was last moved.
    pub at: Mono,
}

impl Latency {
    /// The average after one more answer, or failure, at `now`.
    #[must_use]
    pub fn after(self, took: Duration, ok: bool, now: Mono) -> Latency {
        let sample = if ok { took } else { took.max(LATENCY_PENALTY) }.as_secs_f64();
        let kept = fade(now.since(self.at), LATENCY_DECAY);
        let seconds = if sample > self.seconds {
            sample
        } else {
            self.seconds * kept + sample * (1.0 - kept)
        };
        Latency { seconds, at: now }
    }

    /// The average as it stands at `now`: without news it sinks, so that an instance that was once
    /// slow is tried again.
    #[must_use]
    pub fn now(&self, now: Mono) -> f64 {
        self.seconds * fade(now.since(self.at), LATENCY_DECAY)
    }
}

/// `exp(-age/tau)`.
#[must_use]
pub fn fade(age: Duration, tau: Duration) -> f64 {
    if age.is_zero() { 1.0 } else { (-age.as_secs_f64() / tau.as_secs_f64()).exp() }
}

/// One instance as a balancer sees it at the moment of a pick.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// False while it drains.
    pub ready: bool,
    /// Set aside for failing.
    pub ejected: bool,
    /// False while it fails its health checks.
    pub healthy: bool,
    /// This balancer's own requests there now, waiting for a connection included.
    pub in_flight: u32,
    /// Requests it takes at once from this balancer ([`crate::crowd::room`]).
    pub max_in_flight: u32,
    /// What the other balancers have there.
    pub others: Others,
    /// Its last report; `None` is unknown, not zero.
    pub reported: Option<Reported>,
    /// Capacity against the median of its service ([`crate::capacity`]) times the configured
    /// weight; 1.0 is normal, 0.0 takes it out.
    pub weight: f64,
    /// Since when it takes requests, or again takes them.
    pub ready_since: Mono,
    /// How its requests ended.
    pub outcomes: Outcomes,
    /// Its answers' latency, for policies that look at it.
    pub latency: Latency,
    /// When it was last picked.
    pub last_picked: Mono,
}

impl View {
    /// Whether it may be picked when it has room.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.ready && !self.ejected && self.healthy && self.weight > 0.0
    }

    /// Whether it has room for one more request of this balancer.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.in_flight < self.max_in_flight
    }
}

/// The little of a view that policies which look at every instance need.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Glance {
    /// Whether it may be picked when it has room.
    pub stands: bool,
    /// Whether it has room.
    pub has_room: bool,
    /// This balancer's own requests there now.
    pub in_flight: u32,
    /// As in [`View::weight`].
    pub weight: f64,
}

impl From<View> for Glance {
    fn from(view: View) -> Glance {
        Glance {
            stands: view.stands(),
            has_room: view.has_room(),
            in_flight: view.in_flight,
            weight: view.weight,
        }
    }
}

/// The instances of one service, as many as there are. Most picks read a few of them.
pub trait Candidates {
    /// How many there are.
    fn count(&self) -> usize;
    /// The view of one; `index` is below `count`.
    fn view(&self, index: usize) -> View;
    /// A number that one keeps whatever comes and goes, the same for every balancer.
    fn key(&self, index: usize) -> u64;
    /// The little of its view that is cheap.
    fn glance(&self, index: usize) -> Glance {
        self.view(index).into()
    }
    /// Its last reported load.
    fn load(&self, index: usize) -> Option<f64> {
        self.view(index).reported.map(|r| r.load)
    }
    /// How long its answers take with about so many of this balancer's requests in flight, in
    /// seconds; `None`: nobody knows yet.
    fn latency_at(&self, index: usize, in_flight: u32) -> Option<f64>;
    /// This balancer's requests at all of them.
    fn in_flight(&self) -> u64;
}

impl Candidates for [View] {
    fn count(&self) -> usize {
        self.len()
    }

    fn view(&self, index: usize) -> View {
        self[index]
    }

    fn key(&self, index: usize) -> u64 {
        crate::hash::mix(index as u64)
    }

    fn latency_at(&self, index: usize, _in_flight: u32) -> Option<f64> {
        Some(self[index].latency.seconds).filter(|seconds| *seconds > 0.0)
    }

    fn in_flight(&self) -> u64 {
        self.iter().map(|view| u64::from(view.in_flight)).sum()
    }
}

/// What concerns all instances of a service at once; made anew when reports or routes change, and
/// at least every second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field {
    /// M: balancers that send to the same instances ([`crate::Crowd`]).
    pub balancers: u32,
    /// How many of the others published what they have in flight.
    pub published: u32,
    /// When they did, by this balancer's clock.
    pub published_at: Mono,
    /// Their requests in flight at all instances.
    pub others_in_flight: u64,
    /// Declared requests at load 1.0.
    pub concurrency: Option<u32>,
    /// Median of the reported loads; 0.0 when nobody reported.
    pub median_load: f64,
    /// How long a new instance's share grows.
    pub slow_start: Duration,
    /// Every standing instance is new: nobody is ramped.
    pub all_new: bool,
    /// Instances that stand.
    pub standing: u32,
    /// Their weights together.
    pub weight: f64,
    /// Whether any two of them weigh differently.
    pub uneven: bool,
    /// What one may have in flight against the mean, under consistent hashing.
    pub balance: f64,
    /// Whether answers to probes come, for policy `prequal`.
    pub probed: bool,
}

impl Default for Field {
    /// One balancer, nothing declared, nobody known.
    fn default() -> Field {
        Field {
            balancers: 1,
            published: 0,
            published_at: Mono::default(),
            others_in_flight: 0,
            concurrency: None,
            median_load: 0.0,
            slow_start: Duration::ZERO,
            all_new: true,
            standing: 0,
            weight: 0.0,
            uneven: false,
            balance: 1.25,
            probed: false,
        }
    }
}

impl Field {
    /// The field after one look over all candidates: what is declared and known of the balancers
    /// stays as it is. `scratch` is only there to save an allocation.
    #[must_use]
    pub fn surveyed<C: Candidates + ?Sized>(
        self,
        candidates: &C,
        now: Mono,
        scratch: &mut Vec<f64>,
    ) -> Field {
        scratch.clear();
        let mut field = Field { all_new: true, standing: 0, weight: 0.0, uneven: false, ..self };
        let mut first_weight = None;
        for index in 0..candidates.count() {
            let view = candidates.view(index);
            if !view.stands() {
                continue;
            }
            field.all_new &= now.since(view.ready_since) < self.slow_start;
            field.standing += 1;
            field.weight += view.weight;
            let first: f64 = *first_weight.get_or_insert(view.weight);
            field.uneven |= (first - view.weight).abs() > f64::EPSILON;
            scratch.extend(view.reported.map(|r| r.load));
        }
        field.balancers = self.balancers.max(1);
        field.median_load = crate::capacity::median(scratch).unwrap_or(0.0);
        field
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn at_ms(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    /// An instance that stands, long ready, about which nothing is known.
    pub(crate) fn plain() -> View {
        View {
            ready: true,
            ejected: false,
            healthy: true,
            in_flight: 0,
            max_in_flight: 100,
            others: Others::default(),
            reported: None,
            weight: 1.0,
            ready_since: Mono::default(),
            outcomes: Outcomes::default(),
            latency: Latency::default(),
            last_picked: Mono::default(),
        }
    }

    pub(crate) fn field() -> Field {
        Field { slow_start: Duration::from_secs(10), all_new: false, ..Field::default() }
    }

    #[test]
    fn a_run_of_failures_weighs_until_successes_halve_it() {
        let now = at_ms(1000);
        let mut outcomes = Outcomes::default();
        for _ in 0..3 {
            outcomes = outcomes.after(false, now);
        }
        // ((0+5)/(3+5))^4 / 4^3
        assert!((outcomes.success(now) - 0.152_587_9 / 64.0).abs() < 1e-6);
        let faded = outcomes.success(at_ms(1000 + 300_000));
        assert!(faded > 0.99, "after ten time constants it is nearly forgiven: {faded}");
        for _ in 0..20 {
            outcomes = outcomes.after(true, now);
        }
        assert!(outcomes.success(now) > 0.5);
    }

    #[test]
    fn latency_jumps_up_and_sinks_slowly() {
        let slow = Latency::default().after(Duration::from_secs(1), true, at_ms(0));
        assert!((slow.seconds - 1.0).abs() < 1e-9);
        let next = slow.after(Duration::from_millis(10), true, at_ms(100));
        assert!(next.seconds > 0.98);
        assert!(slow.now(at_ms(10_000)) < 0.37);
        let failed = Latency::default().after(Duration::from_millis(1), false, at_ms(0));
        assert!(failed.seconds >= 5.0);
    }

    #[test]
    fn a_survey_takes_the_median_of_those_who_stand() {
        let now = at_ms(60_000);
        let report = |load| Reported {
            load,
            in_flight: None,
            at: now,
            own_in_flight: 0,
            others_in_flight: None,
        };
        let mut views = [plain(), plain(), plain(), plain()];
        for (view, load) in views.iter_mut().zip([0.2, 0.4, 0.9, 4.0]) {
            view.reported = Some(report(load));
        }
        views[3].ready = false;
        views[0].ready_since = now;
        let field = Field { balancers: 0, ..field() };
        let field = field.surveyed(&views[..], now, &mut Vec::new());
        assert!((field.median_load - 0.4).abs() < 1e-9);
        assert!(!field.all_new && !field.uneven);
        assert_eq!((field.standing, field.weight), (3, 3.0));
        assert_eq!(field.balancers, 1);
    }
}
