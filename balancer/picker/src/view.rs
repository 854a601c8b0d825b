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
    /// This balancer's own requests there now, waiting for a connection included.
    pub in_flight: u32,
    /// Requests it takes at once.
    pub max_in_flight: u32,
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
        self.ready && !self.ejected && self.weight > 0.0
    }

    /// Whether it has room for one more request of this balancer.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.in_flight < self.max_in_flight
    }
}

/// The instances of one service, as many as there are. A pick reads a few of them, never all.
pub trait Candidates {
    /// How many there are.
    fn count(&self) -> usize;
    /// The view of one; `index` is below `count`.
    fn view(&self, index: usize) -> View;
}

impl Candidates for [View] {
    fn count(&self) -> usize {
        self.len()
    }

    fn view(&self, index: usize) -> View {
        self[index]
    }
}

/// What concerns all instances of a service at once; made anew when reports or routes change, and
/// at least every second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field {
    /// M: balancers that send to the same instances ([`crate::Crowd`]).
    pub balancers: u32,
    /// Declared requests at load 1.0.
    pub concurrency: Option<u32>,
    /// Median of the reported loads; 0.0 when nobody reported.
    pub median_load: f64,
    /// How long a new instance's share grows.
    pub slow_start: Duration,
    /// Every standing instance is new: nobody is ramped.
    pub all_new: bool,
}

impl Field {
    /// Looks over all candidates once. `scratch` is only there to save an allocation.
    #[must_use]
    pub fn survey<C: Candidates + ?Sized>(
        candidates: &C,
        balancers: u32,
        concurrency: Option<u32>,
        slow_start: Duration,
        now: Mono,
        scratch: &mut Vec<f64>,
    ) -> Field {
        scratch.clear();
        let mut all_new = true;
        for index in 0..candidates.count() {
            let view = candidates.view(index);
            if !view.stands() {
                continue;
            }
            all_new &= now.since(view.ready_since) < slow_start;
            scratch.extend(view.reported.map(|r| r.load));
        }
        let median_load = crate::capacity::median(scratch).unwrap_or(0.0);
        Field { balancers: balancers.max(1), concurrency, median_load, slow_start, all_new }
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
            in_flight: 0,
            max_in_flight: 100,
            reported: None,
            weight: 1.0,
            ready_since: Mono::default(),
            outcomes: Outcomes::default(),
            latency: Latency::default(),
            last_picked: Mono::default(),
        }
    }

    pub(crate) fn field() -> Field {
        Field {
            balancers: 1,
            concurrency: None,
            median_load: 0.0,
            slow_start: Duration::from_secs(10),
            all_new: false,
        }
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
        let report = |load| Reported { load, in_flight: None, at: now, own_in_flight: 0 };
        let mut views = [plain(), plain(), plain(), plain()];
        for (view, load) in views.iter_mut().zip([0.2, 0.4, 0.9, 4.0]) {
            view.reported = Some(report(load));
        }
        views[3].ready = false;
        views[0].ready_since = now;
        let field =
            Field::survey(&views[..], 0, Some(3), Duration::from_secs(10), now, &mut Vec::new());
        assert!((field.median_load - 0.4).abs() < 1e-9);
        assert!(!field.all_new);
        assert_eq!(field.balancers, 1);
    }
}
