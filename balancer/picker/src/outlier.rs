//! Ejection: who is set aside for failing, for how long, and never too many at once.

use crate::rng::Rng;
use domain::Mono;
use std::time::Duration;

/// Failures in a row after which an instance is set aside.
pub const FAILURES_IN_ROW: u32 = 5;
/// Over this span outcomes are counted for the comparison between instances.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// With at least so many instances, success is compared with the mean.
pub const COMPARED_MIN: usize = 5;
/// Requests an instance must have answered in the interval to be compared.
pub const SAMPLES_MIN: u32 = 100;
/// Standard deviations under the mean at which an instance is set aside.
pub const DEVIATIONS: f64 = 1.9;
/// Requests that are enough where fewer than [`COMPARED_MIN`] instances stand.
pub const FEW_SAMPLES_MIN: u32 = 20;
/// And the success under which one of those few is set aside.
pub const FEW_SUCCESS_MIN: f64 = 0.5;
/// The first time out; the n-th is n times as long.
pub const BASE: Duration = Duration::from_secs(30);
/// No time out is longer.
pub const LONGEST: Duration = Duration::from_secs(300);
/// Up to this share is added by chance, so that not all return at once.
pub const JITTER: f64 = 0.2;

/// What is remembered of an instance's times out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ejection {
    /// Set aside until then.
    pub until: Option<Mono>,
    /// How often it was set aside; one is forgiven for each [`LONGEST`] in good standing.
    pub times: u32,
    /// Since when it is in good standing.
    pub good_since: Mono,
}

/// One instance before the judge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Whether it takes requests at all; others are not judged and count for nothing.
    pub ready: bool,
    /// Failures since its last success, or since its last time out ended.
    pub failures_in_row: u32,
    /// Requests of this interval that went well.
    pub ok: u32,
    /// Requests of this interval.
    pub total: u32,
    /// Its times out.
    pub ejection: Ejection,
}

/// Judges all instances of a service: ends time outs that are over, begins those that are due, at
/// most half of the ready ones at once and so never the last. `interval_over` says that the counts
/// cover a whole [`INTERVAL`] and may be compared.
pub fn judge(standings: &mut [Standing], interval_over: bool, now: Mono, rng: &mut Rng) {
    for standing in standings.iter_mut() {
        let ejection = &mut standing.ejection;
        if ejection.until.is_some_and(|until| until <= now) {
            ejection.until = None;
            ejection.good_since = now;
            // What it did before is served: the caller writes these back.
            (standing.failures_in_row, standing.ok, standing.total) = (0, 0, 0);
        }
        if ejection.until.is_none()
            && ejection.times > 0
            && now.since(ejection.good_since) >= LONGEST
        {
            ejection.times -= 1;
            ejection.good_since = now;
        }
    }
    return_when_all_fail(standings, now);
    let ready = standings.iter().filter(|s| s.ready).count();
    let allowed = ready / 2;
    let mut out = standings.iter().filter(|s| s.ready && s.ejection.until.is_some()).count();
    let limit = if interval_over { success_limit(standings, ready) } else { None };
    while out < allowed {
        let worst = standings
            .iter_mut()
            .filter(|s| s.ready && s.ejection.until.is_none() && is_outlier(s, limit, ready))
            .max_by(|a, b| badness(a).total_cmp(&badness(b)));
        let Some(worst) = worst else { break };
        eject(&mut worst.ejection, now, rng);
        out += 1;
    }
    // Instances that left may have made the rest too many: the next to return return now.
    while out > allowed {
        let next = standings
            .iter_mut()
            .filter(|s| s.ready && s.ejection.until.is_some())
            .min_by_key(|s| s.ejection.until);
        let Some(next) = next else { break };
        next.ejection.until = None;
        next.ejection.good_since = now;
        out -= 1;
    }
}

/// When every instance that still stands fails, those set aside are as good a guess, and better
/// than nothing: an outage moved, or it is not the instances' own.
fn return_when_all_fail(standings: &mut [Standing], now: Mono) {
    let mut standing = standings.iter().filter(|s| s.ready && s.ejection.until.is_none());
    if !standing.all(|s| s.failures_in_row >= FAILURES_IN_ROW) {
        return;
    }
    for out in standings.iter_mut().filter(|s| s.ready && s.ejection.until.is_some()) {
        out.ejection.until = None;
        out.ejection.good_since = now;
        (out.failures_in_row, out.ok, out.total) = (0, 0, 0);
    }
}

fn success(standing: &Standing) -> f64 {
    if standing.total == 0 { 1.0 } else { f64::from(standing.ok) / f64::from(standing.total) }
}

fn badness(standing: &Standing) -> f64 {
    f64::from(standing.failures_in_row.min(1000)) + 1.0 - success(standing)
}

fn is_outlier(standing: &Standing, limit: Option<f64>, ready: usize) -> bool {
    let samples = if ready < COMPARED_MIN { FEW_SAMPLES_MIN } else { SAMPLES_MIN };
    standing.failures_in_row >= FAILURES_IN_ROW
        || limit.is_some_and(|limit| standing.total >= samples && success(standing) < limit)
}

/// The success under which an instance stands out; `None` when too few can be compared.
fn success_limit(standings: &[Standing], ready: usize) -> Option<f64> {
    if ready < COMPARED_MIN {
        return Some(FEW_SUCCESS_MIN);
    }
    let compared = || standings.iter().filter(|s| s.ready && s.total >= SAMPLES_MIN);
    let n = compared().count();
    if n < COMPARED_MIN {
        return None;
    }
    let n = f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let mean = compared().map(success).sum::<f64>() / n;
    let variance = compared().map(|s| (success(s) - mean).powi(2)).sum::<f64>() / n;
    Some(mean - DEVIATIONS * variance.sqrt())
}

fn eject(ejection: &mut Ejection, now: Mono, rng: &mut Rng) {
    ejection.times = ejection.times.saturating_add(1);
    let span = BASE.saturating_mul(ejection.times).min(LONGEST);
    let jittered = span.mul_f64(1.0 + JITTER * rng.unit()).min(LONGEST);
    ejection.until = Some(now.plus(jittered));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, proptest};

    const NOW: Mono = Mono(Duration::from_secs(1000));

    fn good() -> Standing {
        Standing {
            ready: true,
            failures_in_row: 0,
            ok: 200,
            total: 200,
            ejection: Ejection::default(),
        }
    }

    fn out(standings: &[Standing]) -> Vec<bool> {
        standings.iter().map(|s| s.ejection.until.is_some()).collect()
    }

    #[test]
    fn five_failures_in_a_row_set_aside_at_once() {
        let mut standings = [good(), good(), good()];
        standings[1].failures_in_row = 5;
        standings[2].failures_in_row = 4;
        judge(&mut standings, false, NOW, &mut Rng::new(1));
        assert_eq!(out(&standings), [false, true, false]);
        let until = standings[1].ejection.until.unwrap();
        assert!((30..=36).contains(&until.since(NOW).as_secs()));
    }

    #[test]
    fn each_time_out_is_longer_and_good_standing_is_remembered() {
        let mut standings = [good(), good()];
        let mut now = NOW;
        let mut spans = Vec::new();
        for _ in 0..12 {
            standings[0].failures_in_row = 5;
            judge(&mut standings, false, now, &mut Rng::new(1));
            let until = standings[0].ejection.until.unwrap();
            spans.push(until.since(now).as_secs());
            now = until;
            judge(&mut standings, false, now, &mut Rng::new(1));
            assert_eq!(standings[0].ejection.until, None);
            assert_eq!(standings[0].failures_in_row, 0, "it starts anew");
        }
        assert!(spans.is_sorted() && spans[11] == 300, "{spans:?}");
        judge(&mut standings, false, now.plus(LONGEST), &mut Rng::new(1));
        assert_eq!(standings[0].ejection.times, 11);
    }

    #[test]
    fn success_is_compared_only_with_enough_samples() {
        let mut standings = [good(); 6];
        standings[3].ok = 120;
        judge(&mut standings, false, NOW, &mut Rng::new(1));
        assert_eq!(out(&standings), [false; 6], "not before the interval is over");
        judge(&mut standings, true, NOW, &mut Rng::new(1));
        assert_eq!(out(&standings), [false, false, false, true, false, false]);
        let mut few = [good(); 3];
        (few[0].ok, few[0].total) = (9, 20);
        (few[1].ok, few[1].total) = (0, 19);
        judge(&mut few, true, NOW, &mut Rng::new(1));
        assert_eq!(out(&few), [true, false, false]);
    }

    #[test]
    fn when_the_others_fail_too_those_set_aside_come_back() {
        let mut standings = [good(), good()];
        standings[0].failures_in_row = 5;
        judge(&mut standings, false, NOW, &mut Rng::new(1));
        assert_eq!(out(&standings), [true, false]);
        standings[1].failures_in_row = 4;
        judge(&mut standings, false, NOW, &mut Rng::new(1));
        assert_eq!(out(&standings), [true, false]);
        standings[1].failures_in_row = 5;
        judge(&mut standings, false, NOW, &mut Rng::new(1));
        assert_eq!(out(&standings), [false, true], "they change places");
    }

    #[test]
    fn the_last_one_stays() {
        let mut standings = [Standing { failures_in_row: 50, ok: 0, ..good() }];
        judge(&mut standings, true, NOW, &mut Rng::new(1));
        assert_eq!(out(&standings), [false]);
    }

    proptest! {
        #[test]
        fn at_most_half_are_out_whatever_happens(
            rounds in prop::collection::vec(
                prop::collection::vec((any::<bool>(), 0u32..9, 0u32..300, 0u32..300), 12), 1..30),
            seed: u64,
        ) {
            let mut standings = [good(); 12];
            let mut rng = Rng::new(seed);
            let mut now = NOW;
            for round in rounds {
                for (standing, (ready, row, ok, failed)) in standings.iter_mut().zip(round) {
                    standing.ready = ready;
                    standing.failures_in_row = row;
                    standing.ok = ok;
                    standing.total = ok + failed;
                }
                judge(&mut standings, true, now, &mut rng);
                let ready = standings.iter().filter(|s| s.ready).count();
                let out = standings.iter().filter(|s| s.ready && s.ejection.until.is_some()).count();
                prop_assert!(out <= ready / 2, "{} of {}", out, ready);
                now = now.plus(Duration::from_secs(7));
            }
        }
    }
}
