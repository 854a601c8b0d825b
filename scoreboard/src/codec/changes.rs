//! Messages of the channel: lines that name what changed, and loads told whole.

use super::{Counts, Milli10, OrNone, read_plain_report};
use crate::board::TOLD_MAX;
use domain::{Change, LoadReading, LoadReport, ServiceName, Timestamp};

/// A change as one line; `None` for [`Change::All`], which is never sent, and for
/// [`Change::Told`], which is more than a line: see [`told`].
#[must_use]
pub fn change(change: &Change) -> Option<String> {
    match change {
        Change::Front(service) => Some(format!("front {service}")),
        Change::Routes(service) => Some(format!("routes {service}")),
        Change::Loads(service) => Some(format!("loads {service}")),
        Change::Demand(service) => Some(format!("demand {service}")),
        Change::Told(..) | Change::All => None,
    }
}

/// Begins a message of so many readings; each follows on a line of its own, as
/// `INSTANCE LOAD in_flight rps eps seq at_ms source`.
#[must_use]
pub fn told(service: &ServiceName, count: usize) -> String {
    format!("told {service} {count}")
}

/// A line of [`told`] and its parts, as they stand under the board's keys.
pub struct ToldLine<'a> {
    /// `LOAD`.
    pub score: &'a str,
    /// `in_flight rps eps seq at_ms source`.
    pub rest: &'a str,
    /// Both.
    pub whole: &'a str,
}

/// Adds a line to a message that [`told`] began.
pub fn told_line<'a>(
    message: &'a mut String,
    report: &LoadReport,
    seq: Option<u64>,
    at: Timestamp,
) -> ToldLine<'a> {
    use std::fmt::Write;
    // Writing to a string cannot fail.
    let _never = write!(message, "\n{} ", report.instance.as_str());
    let whole = message.len();
    let _never = write!(message, "{}", Milli10(report.load.ten_thousandths()));
    let middle = message.len();
    let _never =
        write!(message, " {} {} {} {}", Counts(report), OrNone(seq), at.0, report.source.as_str());
    ToldLine {
        score: &message[whole..middle],
        rest: &message[middle + 1..],
        whole: &message[whole..],
    }
}

/// Reads the lines of one message. What cannot be read is [`Change::All`]: something changed.
#[must_use]
pub fn read_changes(text: &str) -> Vec<Change> {
    /// Changes read of one message; beyond that, everything is read anew.
    const CHANGES_MAX: usize = 1000;
    let mut changes = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        match read_change(line, &mut lines) {
            Some(change) if changes.len() < CHANGES_MAX => changes.push(change),
            _ => return vec![Change::All],
        }
    }
    changes
}

/// As [`read_changes`], but of loads the service's name alone.
#[must_use]
pub fn read_changed_names(text: &str) -> Vec<Change> {
    let first = text.lines().next().unwrap_or_default();
    let mut words = first.strip_prefix("told ").into_iter().flat_map(|rest| rest.split(' '));
    let service = words.next().and_then(|name| name.parse().ok());
    let count = words.next().and_then(|count| count.parse::<usize>().ok());
    match service.zip(count) {
        // A message of loads alone, as all are.
        Some((service, count)) if text.bytes().filter(|b| *b == b'\n').count() == count => {
            vec![Change::Loads(service)]
        }
        _ => read_changes(text),
    }
}

fn read_change(line: &str, rest: &mut std::str::Lines<'_>) -> Option<Change> {
    let (kind, words) = line.split_once(' ')?;
    if kind == "told" {
        let (service, count) = words.split_once(' ')?;
        return read_told(service.parse().ok()?, count.parse().ok()?, rest);
    }
    let service = words.parse().ok()?;
    match kind {
        "front" => Some(Change::Front(service)),
        "routes" => Some(Change::Routes(service)),
        "loads" => Some(Change::Loads(service)),
        "demand" => Some(Change::Demand(service)),
        _ => None,
    }
}

/// Readings of a service; one that is not readable makes them all something to be read.
fn read_told(service: ServiceName, count: usize, rest: &mut std::str::Lines<'_>) -> Option<Change> {
    if count > TOLD_MAX {
        return None;
    }
    let lines: Vec<&str> = rest.take(count).collect();
    let read: Option<Vec<LoadReading>> =
        lines.iter().map(|line| read_told_line(&service, line)).collect();
    match read {
        Some(readings) if readings.len() == count => Some(Change::Told(service, readings.into())),
        _ => Some(Change::Loads(service)),
    }
}

fn read_told_line(service: &ServiceName, line: &str) -> Option<LoadReading> {
    let (instance, rest) = line.split_once(' ')?;
    // Just taken: its age is what it took to come here, which nobody can know.
    let mut reading = read_plain_report(instance, rest, Timestamp(0)).ok()?;
    reading.age = std::time::Duration::ZERO;
    let of = reading.report.instance.as_str().strip_prefix(service.as_str())?;
    (of.len() == domain::id::ID_RANDOM_CHARS + 1).then_some(reading)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_change_is_every_change() {
        assert_eq!(read_changes("loads shop\nwhat"), vec![Change::All]);
        let line = change(&Change::Loads("shop".parse().unwrap())).unwrap();
        assert_eq!(read_changes(&line), vec![Change::Loads("shop".parse().unwrap())]);
    }

    #[test]
    fn readings_that_cannot_be_read_are_something_to_read() {
        let good = "shop-0000000000 0.5 - - - 7 9 pushed";
        let shop: ServiceName = "shop".parse().unwrap();
        let told = read_changes(&format!("told shop 1\n{good}"));
        assert!(matches!(&told[..], [Change::Told(of, one)] if *of == shop && one.len() == 1));
        for bad in
            ["shop-0000000000 nan - - - 7 9 pushed", "other-0000000000 0.5 - - - 7 9", "x", ""]
        {
            let message = format!("told shop 2\n{good}\n{bad}");
            assert_eq!(read_changes(&message), [Change::Loads(shop.clone())], "{bad}");
        }
        let message = format!("told shop 1\n{good}");
        assert_eq!(read_changed_names(&message), [Change::Loads(shop.clone())]);
        let both = format!("{message}\nfront shop");
        assert_eq!(read_changed_names(&both), read_changes(&both), "more than loads");
        assert_eq!(read_changed_names("told shop 2\n"), [Change::Loads(shop.clone())]);
        for bad in ["told shop", "told shop x", "told shop 1001", "told Shop 1"] {
            assert_eq!(read_changes(&format!("{bad}\n{good}")), [Change::All], "{bad}");
        }
    }
}
