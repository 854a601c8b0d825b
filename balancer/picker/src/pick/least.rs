//! What a pick keeps as it goes: the least cost so far, and what it looked at.

use super::SEEN_MAX;
use crate::rng::Rng;

/// The instances the last pick looked at, and what each cost by its policy.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    each: [(usize, f64); SEEN_MAX],
    count: usize,
}

impl Seen {
    pub fn clear(&mut self) {
        self.count = 0;
    }

    pub fn all(&self) -> &[(usize, f64)] {
        &self.each[..self.count]
    }

    pub fn note(&mut self, index: usize, cost: f64) {
        if let Some(place) = self.each.get_mut(self.count) {
            *place = (index, cost);
            self.count += 1;
        }
    }
}

/// The least cost so far; equal ones replace each other so that each is as likely in the end.
pub struct Least {
    pub index: Option<usize>,
    cost: f64,
    ties: usize,
}

impl Least {
    pub fn new() -> Least {
        Least { index: None, cost: f64::INFINITY, ties: 0 }
    }

    pub fn offer(&mut self, index: usize, cost: f64, rng: &mut Rng) {
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
