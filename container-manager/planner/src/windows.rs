//! Averages over time and highest values over time, small enough to be made durable.

use domain::Timestamp;
use std::collections::VecDeque;
use std::time::Duration;

/// A window is cut into this many parts: fine enough for the burst's tenth of it.
const PARTS: u32 = 30;
/// Shortest part: steps come hardly faster.
const PART_MS_MIN: u64 = 100;
/// A reading speaks for at most this long: a manager that was away knows nothing of the gap.
const GAP_MAX: Duration = Duration::from_secs(3);
/// Most peaks kept; beyond, the higher one is kept for longer.
const PEAKS_MAX: usize = 64;

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// One part of a window: integrals over the covered time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which part since 1970.
    pub index: i64,
    /// Demand as a scale-out sees it, ten-thousandths times milliseconds.
    pub up: u64,
    /// Demand as a scale-in sees it.
    pub down: u64,
    /// Covered milliseconds.
    pub covered_ms: u64,
}

/// A mean over a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mean {
    /// Demand as a scale-out sees it, ten-thousandths of an instance.
    pub up: u64,
    /// Demand as a scale-in sees it.
    pub down: u64,
    /// How much of the span was covered.
    pub covered: Duration,
}

/// The time-weighted average of demand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Window {
    /// Length of a part; 0 before the first reading.
    pub part_ms: u64,
    /// Last reading.
    pub at: Option<Timestamp>,
    /// Parts, oldest first.
    pub parts: VecDeque<Part>,
}

impl Window {
    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Window::default();
    }

    /// Adds what was read at `now`; it speaks for the time since the last reading.
    /// `window` is the averaging window, `keep` the longest span that will be asked for.
    pub fn add(&mut self, now: Timestamp, window: Duration, keep: Duration, up: u64, down: u64) {
        let part_ms = (ms(window) / u64::from(PARTS)).max(PART_MS_MIN);
        if part_ms != self.part_ms {
            self.clear();
            self.part_ms = part_ms;
        }
        let last = self.at.replace(now).unwrap_or(now);
        let newest = self.index(now);
        while self.parts.back().is_some_and(|p| p.index > newest) {
            self.parts.pop_back();
        }
        let mut from = last.max(now.minus(GAP_MAX));
        while from < now {
            let index = self.index(from);
            let edge = Timestamp((index + 1).saturating_mul(self.width()));
            let until = edge.min(now);
            let span = ms(until.since(from));
            let part = self.part(index);
            part.up = part.up.saturating_add(up.saturating_mul(span));
            part.down = part.down.saturating_add(down.saturating_mul(span));
            part.covered_ms += span;
            from = until;
        }
        let oldest = self.index(now.minus(keep));
        while self.parts.front().is_some_and(|p| p.index < oldest) {
            self.parts.pop_front();
        }
    }

    fn width(&self) -> i64 {
        i64::try_from(self.part_ms.max(1)).unwrap_or(i64::MAX)
    }

    fn index(&self, at: Timestamp) -> i64 {
        at.0.div_euclid(self.width())
    }

    fn part(&mut self, index: i64) -> &mut Part {
        if self.parts.back().is_none_or(|p| p.index < index) {
            self.parts.push_back(Part { index, up: 0, down: 0, covered_ms: 0 });
        }
        let last = self.parts.len() - 1;
        &mut self.parts[last]
    }

    /// The mean over the last `span`; `None` when nothing of it was covered.
    #[must_use]
    pub fn mean(&self, now: Timestamp, span: Duration) -> Option<Mean> {
        let oldest = self.index(now.minus(span));
        let (mut up, mut down, mut covered) = (0u64, 0u64, 0u64);
        for part in self.parts.iter().filter(|p| p.index >= oldest) {
            up = up.saturating_add(part.up);
            down = down.saturating_add(part.down);
            covered += part.covered_ms;
        }
        (covered > 0).then(|| Mean {
            up: up / covered,
            down: down / covered,
            covered: Duration::from_millis(covered),
        })
    }
}

/// The highest of the last values: a falling staircase.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peaks {
    /// When and how high, oldest and highest first.
    pub steps: VecDeque<(Timestamp, u32)>,
}

impl Peaks {
    /// Adds a value and forgets what is older than `keep`.
    pub fn add(&mut self, now: Timestamp, keep: Duration, value: u32) {
        while self.steps.back().is_some_and(|(at, v)| *v <= value || *at > now) {
            self.steps.pop_back();
        }
        self.steps.push_back((now, value));
        let oldest = now.minus(keep);
        while self.steps.len() > 1 && self.steps.front().is_some_and(|(at, _)| *at < oldest) {
            self.steps.pop_front();
        }
        if self.steps.len() > PEAKS_MAX {
            let later = self.steps[1].0;
            self.steps[0].0 = later;
            self.steps.remove(1);
        }
    }

    /// The highest kept.
    #[must_use]
    pub fn highest(&self) -> Option<u32> {
        self.steps.front().map(|(_, v)| *v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const W: Duration = Duration::from_secs(60);

    #[test]
    fn the_mean_weighs_by_time() {
        let mut window = Window::default();
        let at = |s: i64| Timestamp(s * 1000);
        for s in 0..=30 {
            window.add(at(s), W, W, 10_000, 20_000);
        }
        for s in 31..=60 {
            window.add(at(s), W, W, 30_000, 20_000);
        }
        let mean = window.mean(at(60), W).unwrap();
        assert_eq!((mean.up, mean.down, mean.covered), (20_000, 20_000, W));
        let recent = window.mean(at(60), Duration::from_secs(6)).unwrap();
        assert_eq!(recent.up, 30_000);
    }

    #[test]
    fn a_gap_is_not_covered_and_a_clock_set_back_forgets() {
        let mut window = Window::default();
        window.add(Timestamp(0), W, W, 1, 1);
        window.add(Timestamp(50_000), W, W, 1, 1);
        assert_eq!(window.mean(Timestamp(50_000), W).unwrap().covered, GAP_MAX);
        window.add(Timestamp(1000), W, W, 1, 1);
        assert_eq!(window.mean(Timestamp(1000), W), None);
    }

    proptest! {
        #[test]
        fn a_constant_stays_constant(value in 0u64..100_000_000, steps in prop::collection::vec(1u16..2500, 1..80)) {
            let mut window = Window::default();
            let mut now = Timestamp(1_000_000);
            window.add(now, W, W, value, value);
            for step in steps {
                now = now.plus(Duration::from_millis(u64::from(step)));
                window.add(now, W, W, value, value);
                prop_assert_eq!(window.mean(now, W).unwrap().up, value);
                prop_assert!(window.parts.len() <= PARTS as usize + 2);
            }
        }

        #[test]
        fn the_highest_is_never_missed(values in prop::collection::vec(0u32..50, 1..300)) {
            let mut peaks = Peaks::default();
            let keep = Duration::from_secs(30);
            for (i, value) in values.iter().enumerate() {
                let now = Timestamp(i64::try_from(i).unwrap() * 1000);
                peaks.add(now, keep, *value);
                let from = i.saturating_sub(30);
                let expected = values[from..=i].iter().max().copied();
                prop_assert!(peaks.highest() >= expected);
                prop_assert!(peaks.steps.len() <= PEAKS_MAX + 1);
            }
        }
    }
}
