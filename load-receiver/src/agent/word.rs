//! What an agent has said so far, and what it means here; pure.
//!
//! A line changes what it names, and leaves the rest: an agent that said `drain` drains until it says
//! `ready`, and one that said `down` is down until it says `up`.

use domain::{Load, Terms};
use wire::agent::{Admin, AgentLine, Health, PERCENT_MAX};

/// The sum of an agent's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Word {
    percent: Option<u32>,
    weight: Option<u32>,
    max_in_flight: Option<u32>,
    admin: Option<Admin>,
    health: Option<Health>,
}

impl Word {
    /// Takes one more line.
    pub(super) fn hear(&mut self, line: &AgentLine) {
        self.percent = line.percent.or(self.percent);
        self.weight = line.weight.or(self.weight);
        self.max_in_flight = line.max_in_flight.or(self.max_in_flight);
        self.admin = line.admin.or(self.admin);
        self.health = line.health.or(self.health);
    }

    /// How loaded the instance is. Agents say `75%` of an instance that is a quarter full; `None`
    /// while they say no percentage.
    pub(super) fn load(&self) -> Option<Load> {
        let free = self.percent?.min(100);
        Some(Load::from_ten_thousandths((100 - free) * 100))
    }

    /// On what terms it takes requests. A percentage under 100 is no weight here, since it is the
    /// load already; above 100 it is one, and `0%` means nothing new, as everywhere.
    pub(super) fn terms(&self) -> Terms {
        let percent = self.percent.unwrap_or(100);
        let closed = matches!(self.admin, Some(Admin::Drain | Admin::Maint))
            || self.health == Some(Health::Down)
            || percent == 0;
        let weight = self.weight.unwrap_or(100).saturating_mul(percent.max(100)) / 100;
        Terms {
            weight: if closed { 0 } else { weight.min(PERCENT_MAX) },
            max_in_flight: self.max_in_flight.filter(|n| *n > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[&str]) -> (Option<u16>, u32, Option<u32>) {
        let mut word = Word::default();
        for line in lines {
            word.hear(&AgentLine::parse(line.as_bytes()).unwrap());
        }
        let terms = word.terms();
        (word.load().map(Load::ten_thousandths), terms.weight, terms.max_in_flight)
    }

    #[test]
    fn a_line_means_a_load_or_terms() {
        for (line, load, weight, bound) in [
            ("75%", Some(2500), 100, None),
            ("100% up ready", Some(0), 100, None),
            ("1%", Some(9900), 100, None),
            ("0%", Some(10_000), 0, None),
            ("150%", Some(0), 150, None),
            ("weight:50", None, 50, None),
            ("weight:50% 200%", Some(0), 100, None),
            ("weight:0", None, 0, None),
            ("up maxconn:30", None, 100, Some(30)),
            ("up maxconn:0", None, 100, None),
            ("drain", None, 0, None),
            ("maint 75%", Some(2500), 0, None),
            ("down#disk", None, 0, None),
            ("stopped", None, 0, None),
        ] {
            assert_eq!(after(&[line]), (load, weight, bound), "{line}");
        }
    }

    #[test]
    fn what_a_line_does_not_name_stays() {
        assert_eq!(after(&["drain", "75%"]), (Some(2500), 0, None));
        assert_eq!(after(&["drain", "up"]).1, 0);
        assert_eq!(after(&["drain 20%", "ready"]), (Some(8000), 100, None));
        assert_eq!(after(&["down", "ready"]).1, 0);
        assert_eq!(after(&["down", "up maxconn:3"]), (None, 100, Some(3)));
        assert_eq!(after(&["maxconn:3", "maxconn:0"]).2, None);
        assert_eq!(after(&["maint", "down", "up ready"]), (None, 100, None));
    }
}
