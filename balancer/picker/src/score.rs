//! The order of preference: what one more request at an instance would cost.

use crate::view::{Field, View, fade};
use domain::Mono;
use std::time::Duration;

/// Time constant with which a report loses its say to what the balancer sees itself.
pub const REPORT_FADE: Duration = Duration::from_secs(2);
/// The least share a new instance starts with: enough to learn from, too little to hurt.
pub const RAMP_MIN: f64 = 0.1;
/// Added to loads before their quotient is taken, so that an idle one is not infinitely good.
pub const LOAD_FLOOR: f64 = 0.25;

/// Requests in the instance's queue as far as can be known:
/// `a*max(f, q + M*(f - f0)) + (1-a)*M*f` with `a = exp(-age/2 s)`.
///
/// `q` is the reported in-flight, else load times declared concurrency. Without either the only
/// word on the queue is `M*f` at any age.
#[must_use]
pub fn estimate(view: &View, field: &Field, a: f64) -> f64 {
    let balancers = f64::from(field.balancers);
    let own = f64::from(view.in_flight);
    let Some(reported) = view.reported.filter(|_| a > 0.0) else { return balancers * own };
    let queue = match (reported.in_flight, field.concurrency) {
        (Some(n), _) => f64::from(n),
        (None, Some(concurrency)) => reported.load * f64::from(concurrency),
        (None, None) => return balancers * own,
    };
    let since = own - f64::from(reported.own_in_flight);
    a * own.max(queue + balancers * since) + (1.0 - a) * balancers * own
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

/// `(est + 1) * load factor / (w * ramp * s)`; the least is picked.
#[must_use]
pub fn cost(view: &View, field: &Field, now: Mono) -> f64 {
    let a = view.reported.map_or(0.0, |r| fade(now.since(r.at), REPORT_FADE));
    let good = view.weight * ramp(view, field, now) * view.outcomes.success(now);
    (estimate(view, field, a) + 1.0) * bare_load_factor(view, field, a) / good
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Reported;
    use crate::view::tests::{at_ms, field, plain};
    use proptest::prelude::{prop, prop_assert, proptest};

    fn report(load: f64, in_flight: Option<u32>, own: u32, at: Mono) -> Option<Reported> {
        Some(Reported { load, in_flight, at, own_in_flight: own })
    }

    #[test]
    fn a_fresh_report_is_corrected_by_own_sends() {
        let mut view = plain();
        let three = Field { balancers: 3, ..field() };
        view.in_flight = 4;
        view.reported = report(0.5, Some(10), 2, at_ms(0));
        assert!((estimate(&view, &three, 1.0) - 16.0).abs() < 1e-9);
        assert!((estimate(&view, &three, 0.0) - 12.0).abs() < 1e-9, "stale: M times own");
        view.in_flight = 1;
        view.reported = report(0.5, Some(2), 9, at_ms(0));
        assert!((estimate(&view, &three, 1.0) - 1.0).abs() < 1e-9, "never under own in flight");
    }

    #[test]
    fn a_declared_concurrency_turns_load_into_a_queue() {
        let mut view = plain();
        view.reported = report(0.5, None, 0, at_ms(0));
        let declared = Field { concurrency: Some(10), ..field() };
        assert!((estimate(&view, &declared, 1.0) - 5.0).abs() < 1e-9);
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
