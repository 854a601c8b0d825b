//! The text form of what a plan remembers, one word list a line, for the registry to keep.

use crate::month::Month;
use crate::snapshot::Memory;
use domain::Timestamp;
use std::fmt::Write;

impl Memory {
    /// One fact a line: a word and its values. Hot nodes and unplaced starts are found anew.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |l: std::fmt::Arguments<'_>| {
            let _a_string_takes_all = writeln!(text, "{l}");
        };
        for (node, at) in &self.empty_since {
            line(format_args!("empty {node} {}", at.0));
        }
        for (node, at) in &self.busy_since {
            line(format_args!("busy {node} {}", at.0));
        }
        for (service, key) in &self.held_back {
            line(format_args!("held {service} {key}"));
        }
        if let Some(at) = self.changed_at {
            line(format_args!("changed {}", at.0));
        }
        if let Some(month) = self.month {
            line(format_args!("month {}", month.start().0));
        }
        line(format_args!("threshold {}", self.threshold));
        line(format_args!("over_cap {}", self.over_cap));
        line(format_args!("runs_out {}", self.runs_out));
        text
    }

    /// Reads it back. What cannot be read is left out: the worst that follows is an event told
    /// twice or an empty node that stays a little longer.
    #[must_use]
    pub fn from_text(text: &str) -> Memory {
        let mut memory = Memory::default();
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
            let at = |text: &str| text.parse::<i64>().ok().map(Timestamp);
            match word {
                "empty" => {
                    if let (Ok(node), Some(at)) = (first.parse(), at(second)) {
                        memory.empty_since.insert(node, at);
                    }
                }
                "busy" => {
                    if let (Ok(node), Some(at)) = (first.parse(), at(second)) {
                        memory.busy_since.insert(node, at);
                    }
                }
                "held" => {
                    if let Ok(service) = first.parse() {
                        memory.held_back.insert(service, second.to_owned());
                    }
                }
                "changed" => memory.changed_at = at(rest),
                "month" => memory.month = at(rest).map(Month::of),
                "threshold" => memory.threshold = rest.parse().unwrap_or(0),
                "over_cap" => memory.over_cap = rest == "true",
                "runs_out" => memory.runs_out = rest == "true",
                _ => {}
            }
        }
        memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_comes_back() {
        let mut memory = Memory { threshold: 75, over_cap: true, ..Memory::default() };
        memory.empty_since.insert("n-0000000001".parse().unwrap(), Timestamp(17));
        memory.busy_since.insert("n-0000000002".parse().unwrap(), Timestamp(-3));
        memory.held_back.insert("shop".parse().unwrap(), "cap 2026-12-01".into());
        memory.changed_at = Some(Timestamp(99));
        memory.month = Some(Month::of(Timestamp(1_767_225_600_000)));
        assert_eq!(Memory::from_text(&memory.to_text()), memory);
        assert_eq!(Memory::from_text("nonsense\nempty x y\nmonth soon"), Memory::default());
    }
}
