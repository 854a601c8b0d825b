//! Reads reports from JSON bodies and datagram lines: strict, bounded, each report by itself.

use crate::refusal::Refusal;
use domain::{InstanceId, Load, LoadSource, ServiceName};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::fmt;
use std::str::FromStr;

/// Largest body: [`BATCH_REPORTS_MAX`] reports of a hundred bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Most reports in one body or datagram: five nodes' worth at the bound of a node.
pub const BATCH_REPORTS_MAX: usize = 10_000;
/// Largest datagram there can be.
pub const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Longest token read; ours have 64 characters.
const TOKEN_CHARS_MAX: usize = 128;
/// A thousand million a second: beyond that the sender is broken.
const RATE_MAX: f64 = 1e9;

/// A readable report of whom nothing is proven yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Of which service.
    pub service: ServiceName,
    /// Of which instance; it belongs to `service`.
    pub instance: InstanceId,
    /// What it says, clipped.
    pub load: Load,
    /// Whether it said more than is kept.
    pub clipped: bool,
    /// Requests in flight.
    pub in_flight: Option<u32>,
    /// Requests a second, in thousandths.
    pub rps_milli: Option<u64>,
    /// Errors a second, in thousandths.
    pub eps_milli: Option<u64>,
    /// Number of the report.
    pub seq: Option<u64>,
    /// Its own token.
    pub token: Option<String>,
    /// Who measured.
    pub source: LoadSource,
}

/// Why a body is no list of reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyFault {
    /// It is not JSON, or neither a report nor a list of reports.
    Unreadable(String),
    /// More than [`BATCH_REPORTS_MAX`].
    TooMany,
}

/// What a body or datagram holds, in its order.
pub type Decoded = Vec<Result<Candidate, Refusal>>;

/// Elements of a list, each read later and by itself; at most [`BATCH_REPORTS_MAX`].
struct Elements<'a>(Vec<&'a RawValue>);

/// Text of the error for longer lists; told from other faults by it.
const TOO_MANY: &str = "more reports than one body may hold";

impl<'a, 'de: 'a> Deserialize<'de> for Elements<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Elements<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of reports")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element()? {
                    if elements.len() == BATCH_REPORTS_MAX {
                        return Err(A::Error::custom(TOO_MANY));
                    }
                    elements.push(element);
                }
                Ok(Elements(elements))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    reports: Elements<'a>,
}

/// Tells a list from a report.
#[derive(Deserialize)]
struct Peek {
    #[serde(default)]
    reports: Option<serde::de::IgnoredAny>,
}

/// Whether a body holds one report or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// One report.
    One(Result<Candidate, Refusal>),
    /// `{"reports": [...]}`.
    List(Decoded),
}

/// Reads a body.
///
/// # Errors
/// When it is no report and no list of reports at all.
pub fn body(bytes: &[u8]) -> Result<Body, BodyFault> {
    // The JSON library takes a list of values for an object, too; we do not.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(BodyFault::Unreadable("neither a report nor {\"reports\": [...]}".to_owned()));
    }
    let unreadable = |why: serde_json::Error| BodyFault::Unreadable(why.to_string());
    let peek: Peek = serde_json::from_slice(bytes).map_err(unreadable)?;
    if peek.reports.is_some() {
        return match serde_json::from_slice::<Batch<'_>>(bytes) {
            Ok(batch) => Ok(Body::List(batch.reports.0.into_iter().map(element).collect())),
            Err(why) if why.to_string().starts_with(TOO_MANY) => Err(BodyFault::TooMany),
            Err(why) => Err(unreadable(why)),
        };
    }
    let whole = serde_json::from_slice::<&RawValue>(bytes).map_err(unreadable)?;
    Ok(Body::One(element(whole)))
}

fn element(raw: &RawValue) -> Result<Candidate, Refusal> {
    if !raw.get().starts_with('{') {
        return Err(Refusal::Unreadable("a report is an object".to_owned()));
    }
    let report: wire::report::Report =
        serde_json::from_str(raw.get()).map_err(|why| Refusal::Unreadable(why.to_string()))?;
    let source = match report.source.as_deref() {
        None | Some("pushed") => LoadSource::Pushed,
        Some("cgroup") => LoadSource::Cgroup,
        Some(other) => {
            let text: String = other.chars().take(40).collect();
            return Err(Refusal::Unreadable(format!("source cannot be {text:?}")));
        }
    };
    let (service, instance) = names(&report.service, &report.instance)?;
    let (load, clipped) = load(report.load)?;
    Ok(Candidate {
        service,
        instance,
        load,
        clipped,
        in_flight: report.in_flight,
        rps_milli: rate("rps", report.rps)?,
        eps_milli: rate("eps", report.eps)?,
        seq: report.seq,
        token: token(report.token)?,
        source,
    })
}

fn names(service: &str, instance: &str) -> Result<(ServiceName, InstanceId), Refusal> {
    let service: ServiceName = service.parse().map_err(Refusal::name)?;
    let instance: InstanceId = instance.parse().map_err(Refusal::name)?;
    if instance.service() == service {
        Ok((service, instance))
    } else {
        Err(Refusal::Unreadable("the instance is not of this service".to_owned()))
    }
}

fn load(reported: f64) -> Result<(Load, bool), Refusal> {
    let load = Load::from_reported(reported).ok_or(Refusal::Insane)?;
    Ok((load, reported > Load::MAX.ratio()))
}

fn rate(what: &str, reported: Option<f64>) -> Result<Option<u64>, Refusal> {
    let Some(number) = reported else { return Ok(None) };
    if number.is_finite() && (0.0..=RATE_MAX).contains(&number) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "range checked"
        )]
        Ok(Some((number * 1000.0).round() as u64))
    } else {
        Err(Refusal::Unreadable(format!("{what} must be from 0 to {RATE_MAX}")))
    }
}

fn token(token: Option<String>) -> Result<Option<String>, Refusal> {
    match token {
        Some(token) if token.len() > TOKEN_CHARS_MAX => Err(Refusal::WrongToken),
        other => Ok(other),
    }
}

/// Reads a datagram: a report on each line that is not empty.
#[must_use]
pub fn datagram(bytes: &[u8]) -> Decoded {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return vec![Err(Refusal::Unreadable("not UTF-8".to_owned()))];
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.take(BATCH_REPORTS_MAX).map(line).collect()
}

/// `shop/INSTANCE 0.42 in_flight=3 rps=120 eps=0 seq=17 token=...`
fn line(line: &str) -> Result<Candidate, Refusal> {
    let mut words = line.split_ascii_whitespace();
    let missing = |what| Refusal::Unreadable(format!("{what} is missing"));
    let who = words.next().ok_or_else(|| missing("SERVICE/INSTANCE"))?;
    let (service, instance) = who.split_once('/').ok_or_else(|| missing("/INSTANCE"))?;
    let (service, instance) = names(service, instance)?;
    let (load, clipped) = load(number("load", words.next().ok_or_else(|| missing("load"))?)?)?;
    let mut candidate = Candidate {
        service,
        instance,
        load,
        clipped,
        in_flight: None,
        rps_milli: None,
        eps_milli: None,
        seq: None,
        token: None,
        source: LoadSource::Pushed,
    };
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| missing("= after a name"))?;
        let c = &mut candidate;
        let fresh = match key {
            "in_flight" => c.in_flight.replace(number(key, value)?).is_none(),
            "rps" => {
                std::mem::replace(&mut c.rps_milli, rate(key, Some(number(key, value)?))?).is_none()
            }
            "eps" => {
                std::mem::replace(&mut c.eps_milli, rate(key, Some(number(key, value)?))?).is_none()
            }
            "seq" => c.seq.replace(number(key, value)?).is_none(),
            "token" => std::mem::replace(&mut c.token, token(Some(value.to_owned()))?).is_none(),
            _ => return Err(Refusal::Unreadable("an unknown name before =".to_owned())),
        };
        if !fresh {
            return Err(Refusal::Unreadable(format!("{key} stands twice")));
        }
    }
    Ok(candidate)
}

fn number<T: FromStr>(what: &str, text: &str) -> Result<T, Refusal> {
    // Plain numbers only: no `nan`, `inf` or `infinity`, which the parser would take.
    let plain = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E'));
    let parsed = if plain { text.parse().ok() } else { None };
    parsed.ok_or_else(|| Refusal::Unreadable(format!("{what} is not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    const WHO: &str = "shop-0123456789";

    fn one(json: &str) -> Result<Candidate, Refusal> {
        match body(json.as_bytes()) {
            Ok(Body::One(one)) => one,
            other => panic!("{json} is {other:?}"),
        }
    }

    #[test]
    fn one_report_and_lists_are_read() {
        let json = format!(
            r#"{{"service": "shop", "instance": "{WHO}", "load": 0.42, "in_flight": 3,
                "rps": 120.5, "eps": 0.0, "seq": 17, "token": "t", "source": "cgroup"}}"#
        );
        let report = one(&json).unwrap();
        assert_eq!(report.load.ten_thousandths(), 4200);
        assert_eq!((report.rps_milli, report.eps_milli), (Some(120_500), Some(0)));
        assert_eq!((report.seq, report.source), (Some(17), LoadSource::Cgroup));
        let list = format!(r#"{{"reports": [{json}, {{"load": 1}}, 5]}}"#);
        let Ok(Body::List(reports)) = body(list.as_bytes()) else { panic!("no list") };
        assert_eq!(reports[0], Ok(report));
        assert!(reports[1].is_err() && reports[2].is_err() && reports.len() == 3);
        assert_eq!(body(b"{\"reports\": []}"), Ok(Body::List(vec![])));
    }

    #[test]
    fn insane_loads_are_refused_and_high_ones_clipped() {
        // As in the contract: not finite, negative or above 100; from 4 to 100 it is 4.
        let table = [
            ("0", Some((0, false))),
            ("4", Some((40_000, false))),
            ("4.01", Some((40_000, true))),
            ("100", Some((40_000, true))),
            ("100.001", None),
            ("-0.001", None),
            ("1e999", None),
            ("NaN", None),
            ("\"0.5\"", None),
            ("null", None),
        ];
        for (load, wanted) in table {
            let json = format!(r#"{{"service": "shop", "instance": "{WHO}", "load": {load}}}"#);
            let got = match body(json.as_bytes()) {
                Ok(Body::One(one)) => one.ok(),
                Ok(Body::List(_)) => panic!("no list"),
                Err(_) => None,
            };
            assert_eq!(got.map(|c| (c.load.ten_thousandths(), c.clipped)), wanted, "{load}");
            if load.starts_with('"') || load == "null" {
                continue;
            }
            let got = datagram(format!("shop/{WHO} {load}").as_bytes()).remove(0).ok();
            assert_eq!(got.map(|c| (c.load.ten_thousandths(), c.clipped)), wanted, "line {load}");
        }
    }

    #[test]
    fn what_is_not_exactly_a_report_is_refused() {
        let report = |extra: &str| {
            format!(r#"{{"service": "shop", "instance": "{WHO}", "load": 1{extra}}}"#)
        };
        assert!(one(&report("")).is_ok());
        for bad in [
            r#", "load": 2"#,
            r#", "lode": 2"#,
            r#", "seq": -1"#,
            r#", "seq": 1.5"#,
            r#", "rps": -1"#,
            r#", "rps": 1e10"#,
            r#", "in_flight": 5000000000"#,
            r#", "source": "balancer"#,
        ] {
            let got = body(report(bad).as_bytes());
            assert!(!matches!(got, Ok(Body::One(Ok(_)))), "{bad}");
        }
        assert!(one(r#"{"service": "shop", "instance": "other-0123456789", "load": 1}"#).is_err());
        let positional = format!(r#"["shop", "{WHO}", 1]"#);
        assert!(body(positional.as_bytes()).is_err());
        let Ok(Body::List(one)) = body(format!("{{\"reports\": [{positional}]}}").as_bytes())
        else {
            panic!("no list")
        };
        assert!(one[0].is_err());
        for bad in
            ["", "[]", "[[]]", "7", "null", "{", "{\"reports\": 5}", "{\"reports\": [], \"a\": 1}"]
        {
            assert!(matches!(body(bad.as_bytes()), Err(BodyFault::Unreadable(_))), "{bad}");
        }
        let many = format!("{{\"reports\": [{}0]}}", "0,".repeat(BATCH_REPORTS_MAX));
        assert_eq!(body(many.as_bytes()), Err(BodyFault::TooMany));
    }

    #[test]
    fn datagrams_are_lines() {
        let text = format!("shop/{WHO} 0.42 in_flight=3 seq=17 token=abc\n\nshop/{WHO} 1\r\nx\n");
        let lines = datagram(text.as_bytes());
        let first = lines[0].as_ref().unwrap();
        assert_eq!((first.in_flight, first.seq), (Some(3), Some(17)));
        assert_eq!(first.token.as_deref(), Some("abc"));
        assert!(lines[1].is_ok() && lines[2].is_err() && lines.len() == 3);
        for bad in ["seq=1 seq=2", "sek=1", "seq", "seq=inf", "rps=nan", "in_flight=-1", "seq="] {
            assert!(datagram(format!("shop/{WHO} 1 {bad}").as_bytes())[0].is_err(), "{bad}");
        }
        assert!(datagram(&[0xff, 0xfe])[0].is_err());
    }

    /// Nothing decoded is larger than what came in, whatever came in.
    fn bounded(decoded: &Decoded, bytes: usize) -> bool {
        decoded.len() <= BATCH_REPORTS_MAX.min(bytes + 1)
            && decoded.iter().all(|one| match one {
                Ok(candidate) => {
                    candidate.token.as_ref().is_none_or(|t| t.len() <= TOKEN_CHARS_MAX)
                }
                Err(why) => why.reason().len() <= bytes + 500,
            })
    }

    fn decoded(bytes: &[u8]) -> Decoded {
        match body(bytes) {
            Ok(Body::One(one)) => vec![one],
            Ok(Body::List(list)) => list,
            Err(_) => vec![],
        }
    }

    #[test]
    fn a_hundred_thousand_inputs_neither_panic_nor_grow() {
        let json = r#"[{}\[\]":,0-9.eE+\-a-z \\]{0,120}"#;
        let almost = r#"\{("reports": ?\[)?\{?("(service|instance|load|seq|token|rps)": ?("shop(-0123456789)?"|-?[0-9]{1,3}(\.[0-9]+)?|null|1e999),? ?){0,5}\}?\]?\}?"#;
        let line = r"(shop|x|-)(/shop-0123456789)? ?[-+0-9.naif]{0,6}( (seq|token|rps|in_flight|x)=?[-0-9a-f.=]{0,20}){0,4}\n?";
        let real = format!(
            "{{\"reports\": [{{\"service\": \"shop\", \"instance\": \"{WHO}\", \"load\": 0.25, \"seq\": 1}}]}}"
        );
        let real_line = format!("shop/{WHO} 0.25 in_flight=3 rps=1.5 seq=17 token=abc");
        let spoilt = (any::<bool>(), any::<prop::sample::Index>(), any::<u8>(), 0usize..3)
            .prop_map(move |(json, place, byte, count)| {
                let mut bytes = if json { real.clone() } else { real_line.clone() }.into_bytes();
                let at = place.index(bytes.len());
                bytes.splice(at..(at + 1).min(bytes.len()), std::iter::repeat_n(byte, count));
                bytes
            });
        let strategy = prop_oneof![
            spoilt,
            proptest::collection::vec(any::<u8>(), 0..200),
            json.prop_map(String::into_bytes),
            almost.prop_map(String::into_bytes),
            line.prop_map(String::into_bytes),
        ];
        let config = Config { cases: 100_000, failure_persistence: None, ..Config::default() };
        let readable = std::cell::Cell::new(0);
        let outcome = TestRunner::new(config).run(&strategy, |bytes| {
            let (json, lines) = (decoded(&bytes), datagram(&bytes));
            prop_assert!(bounded(&json, bytes.len()) && bounded(&lines, bytes.len()));
            let good = json.iter().chain(&lines).filter(|one| one.is_ok()).count();
            readable.set(readable.get() + u32::from(good > 0));
            Ok(())
        });
        outcome.unwrap();
        assert!(readable.get() > 1000, "the inputs come near to real ones: {}", readable.get());
    }
}
