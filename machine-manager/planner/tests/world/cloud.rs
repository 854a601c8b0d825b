//! The provider's side: chance, machines as the biller sees them, and what happens when.

use domain::{IdSource, NodeId};
use machine_planner::Month;

/// A small generator (splitmix64), so that a seed is a whole story.
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

impl IdSource for Dice {
    fn random_part(&mut self) -> String {
        (0..10)
            .map(|_| char::from(domain::id::CROCKFORD[usize::try_from(self.below(32)).unwrap()]))
            .collect()
    }
}

/// What the provider knows of one machine: all the biller ever sees.
#[derive(Debug, Clone)]
pub struct Machine {
    pub price: i64,
    pub unit_ms: i64,
    pub minimum_ms: i64,
    pub start: i64,
    pub stop: Option<i64>,
    /// When a provider that keeps its word would have stopped billing: asked + lead.
    pub promised_stop: Option<i64>,
}

impl Machine {
    /// The bill of one month by the calendar, unit by unit; `honest` leaves out the units that
    /// began only because the provider stopped later than it promises.
    pub fn bill(&self, month: Month, now: i64, honest: bool) -> i64 {
        let mut end = self.stop.unwrap_or(now).min(now);
        if let (true, Some(promised)) = (honest, self.promised_stop) {
            end = end.min(promised);
        }
        let minimum = (self.minimum_ms + self.unit_ms - 1) / self.unit_ms;
        let mut units = 0_i64;
        let (from, until) = (month.start().0, month.end().0);
        let mut i = 0;
        loop {
            let at = self.start + i * self.unit_ms;
            if at >= until || (at >= end && i >= minimum.max(1)) {
                break;
            }
            units += i64::from(at >= from);
            i += 1;
        }
        let micros = i128::from(self.price) * i128::from(units) * i128::from(self.unit_ms);
        i64::try_from((micros + 3_599_999) / 3_600_000).unwrap()
    }
}

/// An event the provider will bring about.
#[derive(Debug, Clone)]
pub enum Due {
    Start(NodeId),
    Answer(NodeId, i64),
    Refusal(NodeId),
    Join(NodeId),
    Stop(NodeId),
    Confirm(NodeId),
}
