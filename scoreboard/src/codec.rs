//! Text and JSON forms of what stands in Redis; strict and bounded on the way in, since another
//! program may have written it.

mod ability;
mod changes;
mod front;
mod json;
mod terms;

use domain::{
    Load, LoadReading, LoadReport, LoadSource, Revision, RouteEntry, RouteGen, RouteState,
    RouteTable, ServiceSpec, Timestamp,
};
use std::str::FromStr;

pub use ability::{ability, read_ability};
pub use changes::{change, read_changed_names, read_changes, told, told_line};
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
        decimals(f, self.0 / 1000, self.0 % 1000, 3)
    }
}

/// Writes `whole` and so many decimals of `part`, without trailing zeros.
fn decimals(
    f: &mut std::fmt::Formatter<'_>,
    whole: u64,
    mut part: u64,
    mut width: usize,
) -> std::fmt::Result {
    if part == 0 {
        return write!(f, "{whole}");
    }
    while part.is_multiple_of(10) {
        (part, width) = (part / 10, width - 1);
    }
    write!(f, "{whole}.{part:0width$}")
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

/// A value, or the word for none.
struct OrNone<T>(Option<T>);

impl<T: std::fmt::Display> std::fmt::Display for OrNone<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str(NONE),
        }
    }
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
        decimals(f, u64::from(self.0 / Load::ONE), u64::from(self.0 % Load::ONE), 4)
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

struct Counts<'a>(&'a LoadReport);

impl std::fmt::Display for Counts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts(report) = self;
        let [rps, eps] = [report.rps_milli, report.eps_milli].map(|r| OrNone(r.map(Milli)));
        write!(f, "{} {rps} {eps}", OrNone(report.in_flight))
    }
}

/// What a report says besides the load, without `seq` and the time: `in_flight rps eps`.
#[must_use]
pub fn counts(report: &LoadReport) -> String {
    Counts(report).to_string()
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

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Change, ServiceName};
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
            prop_assert_eq!(read_plain_report("shop-0000000000", &plain, NOW), Ok(read.clone()));
            let shop: ServiceName = "shop".parse().unwrap();
            let mut message = super::told(&shop, 1);
            let line = told_line(&mut message, &report, report.seq, read.at);
            prop_assert_eq!((line.whole, line.rest), (plain.as_str(), text.as_str()));
            prop_assert_eq!(line.score, score(report.load));
            message.push_str("\nfront else");
            let else_ = Change::Front("else".parse().unwrap());
            let told = LoadReading { age: std::time::Duration::ZERO, ..read };
            prop_assert_eq!(read_changes(&message), [Change::Told(shop, [told].into()), else_]);
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
}
