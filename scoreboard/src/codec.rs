//! Text and JSON forms of what stands in Redis; strict and bounded on the way in, since another
//! program may have written it.

mod ability;
mod front;
mod json;
mod terms;

use domain::{
    Change, Load, LoadReading, LoadReport, LoadSource, Revision, RouteEntry, RouteGen, RouteState,
    RouteTable, ServiceSpec, Timestamp,
};
use std::str::FromStr;

pub use ability::{ability, read_ability};
pub use front::{front, read_front};
pub use json::{demand, read_demand};
pub use terms::{read_terms, terms};

/// Longest route or report text read: an IPv6 address and a handful of numbers, several times over.
pub const LINE_BYTES_MAX: usize = 512;
/// Most instances of a table or board read: twice the most a service may have, as during a rollout.
pub const INSTANCES_MAX: usize = 2 * ServiceSpec::INSTANCES_MAX as usize;

/// Most instances whose terms are read: the size of a cell.
pub const TERMS_MAX: usize = 150_000;

/// Stands for a value nobody told.
const NONE: &str = "-";

fn bounded(text: &str, max: usize) -> Result<(), String> {
    if text.len() <= max { Ok(()) } else { Err(format!("{} bytes, more than {max}", text.len())) }
}

fn word<T: FromStr>(
    words: &mut std::str::SplitAsciiWhitespace<'_>,
    what: &str,
) -> Result<T, String> {
    let text = words.next().ok_or_else(|| format!("{what} is missing"))?;
    text.parse().map_err(|_why| format!("{what} cannot be {text:?}"))
}

fn optional<T: FromStr>(
    words: &mut std::str::SplitAsciiWhitespace<'_>,
    what: &str,
) -> Result<Option<T>, String> {
    match words.clone().next() {
        Some(NONE) => {
            words.next();
            Ok(None)
        }
        _ => word(words, what).map(Some),
    }
}

/// Thousandths, written as people write numbers: `120`, `12.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Milli(u64);

impl std::fmt::Display for Milli {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1000, self.0 % 1000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl FromStr for Milli {
    type Err = ();
    fn from_str(text: &str) -> Result<Milli, ()> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) {
            return Err(());
        }
        let thousandths: u64 =
            format!("{:0<3}", decimals.get(..3).unwrap_or(decimals)).parse().map_err(drop)?;
        let whole = whole.parse::<u64>().map_err(drop)?.checked_mul(1000).ok_or(())?;
        whole.checked_add(thousandths).map(Milli).ok_or(())
    }
}

fn or_none<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| NONE.to_owned(), |v| v.to_string())
}

/// A load as the score of a sorted set: `0.42`.
#[must_use]
pub fn score(load: Load) -> String {
    Milli10(load.ten_thousandths()).to_string()
}

/// Ten-thousandths, written as a ratio without trailing zeros.
struct Milli10(u16);

impl std::fmt::Display for Milli10 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{:04}", self.0 / Load::ONE, self.0 % Load::ONE);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Reads a score as Redis shows it.
///
/// # Errors
/// What is wrong with it.
pub fn read_score(text: &str) -> Result<Load, String> {
    let number: f64 = text.parse().map_err(|_nan| format!("a load cannot be {text:?}"))?;
    Load::from_reported(number).ok_or_else(|| format!("a load cannot be {text:?}"))
}

/// What a report says besides the load, without `seq` and the time: `in_flight rps eps`.
#[must_use]
pub fn counts(report: &LoadReport) -> String {
    let rates = [report.rps_milli, report.eps_milli].map(|r| or_none(r.map(Milli)));
    format!("{} {} {}", or_none(report.in_flight), rates[0], rates[1])
}

/// Reads `in_flight rps eps seq at_ms source` beside a load. The source may be missing: `pushed`.
///
/// # Errors
/// What is wrong with it.
pub fn read_report(
    instance: &str,
    load: Load,
    rest: &str,
    now: Timestamp,
) -> Result<LoadReading, String> {
    bounded(rest, LINE_BYTES_MAX)?;
    let mut words = rest.split_ascii_whitespace();
    let in_flight = optional(&mut words, "in_flight")?;
    let rps = optional::<Milli>(&mut words, "rps")?;
    let eps = optional::<Milli>(&mut words, "eps")?;
    let seq = optional(&mut words, "seq")?;
    let at = Timestamp(word(&mut words, "at_ms")?);
    let source = match words.next() {
        None => LoadSource::Pushed,
        Some(text) => text.parse()?,
    };
    let report = LoadReport {
        instance: instance.parse().map_err(|why: domain::IdError| why.to_string())?,
        load,
        in_flight,
        rps_milli: rps.map(|r| r.0),
        eps_milli: eps.map(|r| r.0),
        seq,
        source,
    };
    Ok(LoadReading { report, at, age: now.since(at) })
}

/// Reads `load in_flight rps eps seq at_ms source`.
///
/// # Errors
/// What is wrong with it.
pub fn read_plain_report(
    instance: &str,
    text: &str,
    now: Timestamp,
) -> Result<LoadReading, String> {
    bounded(text, LINE_BYTES_MAX)?;
    let (load, rest) = text.split_once(' ').ok_or("a report has seven words")?;
    read_report(instance, read_score(load)?, rest, now)
}

/// A route: `address state weight max_in_flight revision`.
#[must_use]
pub fn route(entry: &RouteEntry) -> String {
    let state = match entry.state {
        RouteState::Ready => "ready",
        RouteState::Draining => "draining",
    };
    let RouteEntry { address, weight, max_in_flight, revision, .. } = entry;
    format!("{address} {state} {weight} {max_in_flight} {revision}")
}

/// Reads a route.
///
/// # Errors
/// What is wrong with it.
pub fn read_route(instance: &str, text: &str) -> Result<RouteEntry, String> {
    bounded(text, LINE_BYTES_MAX)?;
    let mut words = text.split_ascii_whitespace();
    Ok(RouteEntry {
        instance: instance.parse().map_err(|why: domain::IdError| why.to_string())?,
        address: word(&mut words, "address")?,
        state: match words.next() {
            Some("ready") => RouteState::Ready,
            Some("draining") => RouteState::Draining,
            other => return Err(format!("a route's state cannot be {other:?}")),
        },
        weight: word(&mut words, "weight")?,
        max_in_flight: word(&mut words, "max_in_flight")?,
        revision: Revision(word(&mut words, "revision")?),
    })
}

/// Reads a whole route hash, as field and value in turn. An empty hash is an unknown table.
///
/// # Errors
/// What is wrong with it: one bad entry makes the table unreadable, for half a table would
/// take instances out of use.
pub fn read_routes(fields: &[(String, String)]) -> Result<Option<RouteTable>, String> {
    if fields.is_empty() {
        return Ok(None);
    }
    if fields.len() > INSTANCES_MAX + 1 {
        return Err(format!("{} entries, more than {INSTANCES_MAX}", fields.len()));
    }
    let mut generation = None;
    let mut entries = Vec::with_capacity(fields.len());
    for (field, value) in fields {
        if field == crate::keys::ROUTES_GEN {
            generation = Some(value.parse::<RouteGen>()?);
        } else {
            entries.push(read_route(field, value)?);
        }
    }
    entries.sort_by(|a, b| a.instance.cmp(&b.instance));
    let generation = generation.ok_or_else(|| "_gen is missing".to_owned())?;
    Ok(Some(RouteTable { generation, entries }))
}

/// A change as one line; `None` for [`Change::All`], which is never sent.
#[must_use]
pub fn change(change: &Change) -> Option<String> {
    match change {
        Change::Front(service) => Some(format!("front {service}")),
        Change::Routes(service) => Some(format!("routes {service}")),
        Change::Loads(service) => Some(format!("loads {service}")),
        Change::Demand(service) => Some(format!("demand {service}")),
        Change::All => None,
    }
}

/// Reads the lines of one message. What cannot be read is [`Change::All`]: something changed.
#[must_use]
pub fn read_changes(text: &str) -> Vec<Change> {
    /// Lines read of one message; beyond that, everything is read anew.
    const LINES_MAX: usize = 1000;
    let line = |line: &str| {
        let (kind, service) = line.split_once(' ')?;
        let service = service.parse().ok()?;
        match kind {
            "front" => Some(Change::Front(service)),
            "routes" => Some(Change::Routes(service)),
            "loads" => Some(Change::Loads(service)),
            "demand" => Some(Change::Demand(service)),
            _ => None,
        }
    };
    let changes: Option<Vec<Change>> = text.lines().take(LINES_MAX + 1).map(line).collect();
    changes.filter(|c| c.len() <= LINES_MAX).unwrap_or_else(|| vec![Change::All])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn maybe() -> impl Strategy<Value = Option<u64>> {
        proptest::option::of(0..u64::MAX / 2)
    }

    proptest! {
        #[test]
        fn reports_read_as_written(
            load in 0u32..=40_000, in_flight in proptest::option::of(any::<u32>()),
            rps in maybe(), eps in maybe(), seq in maybe(), age in 0i64..10_000,
        ) {
            let report = LoadReport {
                instance: "shop-0000000000".parse().unwrap(),
                load: Load::from_ten_thousandths(load),
                in_flight, rps_milli: rps, eps_milli: eps, seq,
                source: LoadSource::Header,
            };
            let seq = seq.map_or("-".to_owned(), |s| s.to_string());
            let text = format!("{} {seq} {} header", counts(&report), NOW.0 - age);
            let read = read_score(&score(report.load))
                .and_then(|load| read_report("shop-0000000000", load, &text, NOW)).unwrap();
            prop_assert_eq!(&read.report, &report);
            prop_assert_eq!(read.age.as_millis(), u128::from(age.unsigned_abs()));
            let plain = format!("{} {text}", score(report.load));
            prop_assert_eq!(read_plain_report("shop-0000000000", &plain, NOW), Ok(read));
        }

        #[test]
        fn routes_read_as_written(port: u16, v6: bool, draining: bool, n in any::<(u32, u32, u64)>()) {
            let address = if v6 { format!("[fd00::1]:{port}") } else { format!("10.0.0.1:{port}") };
            let entry = RouteEntry {
                instance: "shop-0000000000".parse().unwrap(),
                address: address.parse().unwrap(),
                state: if draining { RouteState::Draining } else { RouteState::Ready },
                weight: n.0,
                max_in_flight: n.1,
                revision: Revision(n.2),
            };
            prop_assert_eq!(read_route("shop-0000000000", &route(&entry)), Ok(entry));
        }

        #[test]
        fn no_text_panics(field in "\\PC{0,30}", text in "[-0-9. a-z:\\PC]{0,80}") {
            let _unused = (read_route(&field, &text), read_plain_report(&field, &text, NOW));
            let _unused = (read_report(&field, Load::ZERO, &text, NOW), read_changes(&text));
            let _unused = read_routes(&[("_gen".into(), text.clone()), (field, text)]);
        }
    }

    #[test]
    fn a_load_of_another_program_is_taken_if_sane() {
        assert_eq!(read_score("7"), Ok(Load::MAX));
        for bad in ["nan", "inf", "-1", "101", "x", ""] {
            assert!(read_score(bad).is_err(), "{bad}");
        }
        let five_words = read_report("shop-0000000000", Load::ZERO, "3 - - 9 5", Timestamp(8));
        assert_eq!(five_words.unwrap().report.source, LoadSource::Pushed);
    }

    #[test]
    fn half_a_table_is_no_table() {
        let field = |f: &str, v: &str| (f.to_owned(), v.to_owned());
        let good = field("shop-0000000000", "10.0.0.1:80 ready 100 10 1");
        assert_eq!(read_routes(&[]), Ok(None));
        assert!(read_routes(std::slice::from_ref(&good)).is_err());
        assert!(read_routes(&[field("_gen", "1.1"), field("shop-0000000001", "?")]).is_err());
        let table = read_routes(&[good, field("_gen", "1.1")]).unwrap().unwrap();
        assert_eq!(table.entries.len(), 1);
    }

    #[test]
    fn an_unreadable_change_is_every_change() {
        assert_eq!(read_changes("loads shop\nwhat"), vec![Change::All]);
        let line = change(&Change::Loads("shop".parse().unwrap())).unwrap();
        assert_eq!(read_changes(&line), vec![Change::Loads("shop".parse().unwrap())]);
    }
}
