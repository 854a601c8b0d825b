//! Measures of the feedback itself, one set per service: how near estimates come to reports, how
//! old the reports are that picks use, how evenly requests are spread.

use crate::view::Snapshot;
use domain::{LoadReport, Mono};
use picker::{Candidates, score};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper edges of the buckets of errors, in requests; the last bucket has none.
pub const ERROR_EDGES: [f64; 8] = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// The measures that control tasks take.
#[derive(Debug, Default)]
pub struct Feedback {
    errors: [AtomicU64; ERROR_EDGES.len() + 1],
    error_milli: AtomicU64,
    ejections: AtomicU64,
    /// Bits of the least and the most picked instance's share; 0 while unknown.
    shares: [AtomicU64; 2],
}

/// One instance's picks since the last look, and the weight by which its fair share goes.
#[derive(Debug, Clone, Copy)]
pub struct Picks {
    /// Picks.
    pub count: u64,
    /// Weight.
    pub weight: f64,
}

/// Picks under which shares are chance.
const PICKS_MIN: u64 = 100;

/// Errors of estimates, counted by size.
#[derive(Debug, Clone, PartialEq)]
pub struct Errors {
    /// By bucket.
    pub counts: Vec<u64>,
    /// All together, in requests.
    pub sum: f64,
}

impl Feedback {
    /// Compares the queue that picks assumed with the one that an instance now reports.
    pub fn compare(&self, snapshot: &Snapshot, report: &LoadReport, now: Mono) {
        let Some(queue) = report.in_flight else { return };
        let found = snapshot.entries.binary_search_by(|e| e.instance.id.cmp(&report.instance));
        let Ok(index) = found else { return };
        let view = snapshot.view(index);
        if view.reported.is_none() {
            return;
        }
        let assumed = score::Parts::of(&view, &snapshot.field, now).estimate;
        let error = (assumed - f64::from(queue)).abs();
        let bucket = ERROR_EDGES.partition_point(|edge| *edge < error);
        self.errors[bucket].fetch_add(1, Relaxed);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let milli = (error * 1000.0) as u64;
        self.error_milli.fetch_add(milli, Relaxed);
    }

    /// Notes how evenly the last picks were spread over those who stood all the while.
    #[expect(clippy::cast_precision_loss, reason = "counts within seconds")]
    pub fn spread(&self, picks: &[Picks]) {
        let all: u64 = picks.iter().map(|p| p.count).sum();
        let weights: f64 = picks.iter().map(|p| p.weight).sum();
        if all < PICKS_MIN || weights <= 0.0 {
            return;
        }
        let ratio = |p: &Picks| (p.count as f64 / all as f64) / (p.weight / weights);
        let ratios = picks.iter().filter(|p| p.weight > 0.0).map(ratio);
        let (least, most) =
            ratios.fold((f64::MAX, 0.0_f64), |(least, most), r| (least.min(r), most.max(r)));
        self.shares[0].store(least.to_bits(), Relaxed);
        self.shares[1].store(most.to_bits(), Relaxed);
    }

    /// The share of the least and of the most picked instance against its fair one.
    #[must_use]
    pub fn shares(&self) -> (f64, f64) {
        let read = |n: usize| f64::from_bits(self.shares[n].load(Relaxed));
        (read(0), read(1))
    }

    /// Counts an instance that was set aside.
    pub fn ejected(&self) {
        self.ejections.fetch_add(1, Relaxed);
    }

    /// Instances set aside since the start.
    #[must_use]
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    /// Errors of estimates since the start.
    #[must_use]
    pub fn errors(&self) -> Errors {
        #[expect(clippy::cast_precision_loss, reason = "a sum for people")]
        let sum = self.error_milli.load(Relaxed) as f64 / 1000.0;
        Errors { counts: self.errors.iter().map(|n| n.load(Relaxed)).collect(), sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_against_the_fair_ones() {
        let feedback = Feedback::default();
        let near = |least: f64, most: f64| {
            let got = feedback.shares();
            assert!((got.0 - least).abs() < 1e-9 && (got.1 - most).abs() < 1e-9, "{got:?}");
        };
        feedback.spread(&[Picks { count: 10, weight: 1.0 }]);
        near(0.0, 0.0);
        feedback.spread(&[Picks { count: 300, weight: 1.0 }, Picks { count: 100, weight: 1.0 }]);
        near(0.5, 1.5);
        feedback.spread(&[Picks { count: 300, weight: 3.0 }, Picks { count: 100, weight: 1.0 }]);
        near(1.0, 1.0);
    }
}
