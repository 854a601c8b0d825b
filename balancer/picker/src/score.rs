//! The order of preference: what one more request at an instance would cost.

use crate::view::{Field, Others, View, fade};
use domain::Mono;
use std::time::Duration;

/// Time constant with which a report loses its say to what the balancer sees itself.
pub const REPORT_FADE: Duration = Duration::from_secs(2);
/// The least share a new instance starts with: enough to learn from, too little to hurt.
pub const RAMP_MIN: f64 = 0.1;
/// Added to loads before their quotient is taken, so that an idle one is not infinitely good.
pub const LOAD_FLOOR: f64 = 0.25;

/// Requests of the other balancers at the instance as far as can be known: what they published,
/// moved as this balancer's own moved since, and fading into as many as this balancer's own;
/// `b*max(0, n + P*(f - f0)) + (1-b)*P*f + (M-1-P)*f` with `b = exp(-age/2 s)`, for the P of them
/// that publish. Nobody published: `(M-1)*f`.
#[must_use]
pub fn others(own_in_flight: u32, others: Others, field: &Field, now: Mono) -> f64 {
    let own = f64::from(own_in_flight);
    let all = f64::from(field.balancers.saturating_sub(1));
    if field.published == 0 {
        return all * own;
    }
    let publish = f64::from(field.published);
    let b = fade(now.since(field.published_at), REPORT_FADE);
    let moved = publish * (own - f64::from(others.own_in_flight));
    let known = (f64::from(others.in_flight) + moved).max(0.0);
    b * known + (1.0 - b) * publish * own + (all - publish).max(0.0) * own
}

/// Requests in the instance's queue as far as can be known:
/// `a*max(f, q + (f - f0) + (o - o0)) + (1-a)*(f + o)` with `a = exp(-age/2 s)`, and `o` what
/// [`others`] have there: `(M-1)*f` as long as they publish nothing, which makes the sum
/// `a*max(f, q + M*(f - f0)) + (1-a)*M*f`.
///
/// `q` is the reported in-flight, else load times declared concurrency. Without either the only
/// word on the queue is `f + o` at any age.
#[must_use]
pub fn estimate(view: &View, field: &Field, a: f64, now: Mono) -> f64 {
    let own = f64::from(view.in_flight);
    let others = others(view.in_flight, view.others, field, now);
    let Some(reported) = view.reported.filter(|_| a > 0.0) else { return own + others };
    let queue = match (reported.in_flight, field.concurrency) {
        (Some(n), _) => f64::from(n),
        (None, Some(concurrency)) => reported.load * f64::from(concurrency),
        (None, None) => return own + others,
    };
    let own_since = own - f64::from(reported.own_in_flight);
    let others_since = match reported.others_in_flight {
        Some(then) => others - then,
        None => f64::from(field.balancers.saturating_sub(1)) * own_since,
    };
    a * own.max(queue + own_since + others_since) + (1.0 - a) * (own + others)
}

/// How much a bare load (no in-flight, no declared concurrency) makes an instance dearer:
/// `((0.25 + load)/(0.25 + median))^a`.
#[must_use]
pub fn bare_load_factor(view: &View, field: &Field, a: f64) -> f64 {
    match view.reported {
        Some(r) if r.in_flight.is_none() && field.concurrency.is_none() => {
            ((LOAD_FLOOR + r.load) / (LOAD_FLOOR + field.median_load)).powf(a)
        }
        _ => 1.0,
    }
}

/// The share a new or recovered instance is given: `clamp(age/slow_start, 0.1, 1)`.
#[must_use]
pub fn ramp(view: &View, field: &Field, now: Mono) -> f64 {
    if field.all_new || field.slow_start.is_zero() {
        return 1.0;
    }
    let age = now.since(view.ready_since);
    if age >= field.slow_start {
        return 1.0;
    }
    (age.as_secs_f64() / field.slow_start.as_secs_f64()).clamp(RAMP_MIN, 1.0)
}

/// The say of the last report, from 1.0 when it is fresh to 0.0 when there is none.
#[must_use]
pub fn say(view: &View, now: Mono) -> f64 {
    view.reported.map_or(0.0, |r| fade(now.since(r.at), REPORT_FADE))
}

/// Everything that makes the cost of one more request at an instance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parts {
    /// The report's say.
    pub say: f64,
    /// Requests in its queue.
    pub estimate: f64,
    /// What a bare load adds.
    pub load_factor: f64,
    /// Capacity against the median, times the configured weight.
    pub weight: f64,
    /// Share of a new one.
    pub ramp: f64,
    /// How its requests end.
    pub success: f64,
}

impl Parts {
    /// Looks at an instance.
    #[must_use]
    pub fn of(view: &View, field: &Field, now: Mono) -> Parts {
        let say = say(view, now);
        Parts {
            say,
            estimate: estimate(view, field, say, now),
            load_factor: bare_load_factor(view, field, say),
            weight: view.weight,
            ramp: ramp(view, field, now),
            success: view.outcomes.success(now),
        }
    }

    /// `(est + 1) * load factor / (w * ramp * s)`.
    #[must_use]
    pub fn cost(&self) -> f64 {
        (self.estimate + 1.0) * self.load_factor / (self.weight * self.ramp * self.success)
    }
}

/// The cost of one more request at an instance; the least is picked.
#[must_use]
pub fn cost(view: &View, field: &Field, now: Mono) -> f64 {
    Parts::of(view, field, now).cost()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Reported;
    use crate::view::tests::{at_ms, field, plain};
    use proptest::prelude::{prop, prop_assert, proptest};

    fn report(load: f64, in_flight: Option<u32>, own: u32, at: Mono) -> Option<Reported> {
        Some(Reported { load, in_flight, at, own_in_flight: own, others_in_flight: None })
    }

    #[test]
    fn a_fresh_report_is_corrected_by_own_sends() {
        let mut view = plain();
        let three = Field { balancers: 3, ..field() };
        view.in_flight = 4;
        view.reported = report(0.5, Some(10), 2, at_ms(0));
        let now = at_ms(0);
        assert!((estimate(&view, &three, 1.0, now) - 16.0).abs() < 1e-9);
        assert!((estimate(&view, &three, 0.0, now) - 12.0).abs() < 1e-9, "stale: M times own");
        view.in_flight = 1;
        view.reported = report(0.5, Some(2), 9, at_ms(0));
        let estimate = estimate(&view, &three, 1.0, now);
        assert!((estimate - 1.0).abs() < 1e-9, "never under own in flight");
    }

    #[test]
    fn what_others_publish_takes_the_place_of_a_guess() {
        let mut view = plain();
        let guess = Field { balancers: 3, ..field() };
        let known = Field { published: 2, published_at: at_ms(0), ..guess };
        view.in_flight = 4;
        view.others = Others { in_flight: 20, own_in_flight: 4 };
        let near = |own, field: &Field, ms, expected: f64, why| {
            let got = others(own, view.others, field, at_ms(ms));
            assert!((got - expected).abs() < 1e-6, "{why}: {got}");
        };
        near(4, &guess, 0, 8.0, "as many as own, each");
        near(4, &known, 0, 20.0, "as they said");
        near(4, &known, 60_000, 8.0, "said long ago: a guess again");
        near(6, &known, 0, 24.0, "they send as this one does");
        near(4, &Field { published: 1, ..known }, 0, 24.0, "the third is guessed");
        // A report that came with the others' counts is corrected by how they moved since.
        view.reported = report(0.5, Some(30), 4, at_ms(0));
        view.reported = view.reported.map(|r| Reported { others_in_flight: Some(15.0), ..r });
        assert!((estimate(&view, &known, 1.0, at_ms(0)) - 35.0).abs() < 1e-9);
        assert!((estimate(&view, &known, 0.0, at_ms(0)) - 24.0).abs() < 1e-9);
    }

    #[test]
    fn a_declared_concurrency_turns_load_into_a_queue() {
        let mut view = plain();
        view.reported = report(0.5, None, 0, at_ms(0));
        let declared = Field { concurrency: Some(10), ..field() };
        assert!((estimate(&view, &declared, 1.0, at_ms(0)) - 5.0).abs() < 1e-9);
        assert!((bare_load_factor(&view, &declared, 1.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_bare_load_counts_and_fades() {
        let mut busy = plain();
        busy.reported = report(0.9, None, 0, at_ms(0));
        let mut idle = plain();
        idle.reported = report(0.1, None, 0, at_ms(0));
        let field = Field { median_load: 0.1, ..field() };
        let ratio = |now| cost(&busy, &field, now) / cost(&idle, &field, now);
        assert!((ratio(at_ms(0)) - 1.15 / 0.35).abs() < 1e-9);
        assert!(ratio(at_ms(2000)) < ratio(at_ms(0)));
        assert!((ratio(at_ms(60_000)) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn new_instances_are_ramped_unless_all_are_new() {
        let mut view = plain();
        view.ready_since = at_ms(10_000);
        assert!((ramp(&view, &field(), at_ms(10_000)) - 0.1).abs() < 1e-9);
        assert!((ramp(&view, &field(), at_ms(15_000)) - 0.5).abs() < 1e-9);
        assert!((ramp(&view, &field(), at_ms(20_000)) - 1.0).abs() < 1e-9);
        let all_new = Field { all_new: true, ..field() };
        assert!((ramp(&view, &all_new, at_ms(10_000)) - 1.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn costs_are_positive_numbers(
            f in 0u32..10_000, f0 in 0u32..10_000, q in prop::option::of(0u32..100_000),
            load in 0.0f64..4.0, age in 0u64..600_000, m in 1u32..100, median in 0.0f64..4.0,
            failures in 0u32..50,
        ) {
            let now = at_ms(1_000_000);
            let mut view = plain();
            view.in_flight = f;
            view.reported = report(load, q, f0, at_ms(1_000_000 - age));
            for _ in 0..failures {
                view.outcomes = view.outcomes.after(false, now);
            }
            let cost = cost(&view, &Field { balancers: m, median_load: median, ..field() }, now);
            prop_assert!(cost.is_finite() && cost > 0.0, "{}", cost);
        }

        #[test]
        fn more_in_flight_never_looks_better(
            f in 0u32..1000, more in 1u32..100, q in 0u32..1000, age in 0u64..20_000, m in 1u32..20,
        ) {
            let now = at_ms(100_000);
            let field = Field { balancers: m, ..field() };
            let mut view = plain();
            view.in_flight = f;
            view.reported = report(0.5, Some(q), f, at_ms(100_000 - age));
            let before = cost(&view, &field, now);
            view.in_flight += more;
            prop_assert!(cost(&view, &field, now) >= before);
        }
    }
}
