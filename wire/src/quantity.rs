//! Quantities in messages: units in text, parsed into domain units with serde.

use domain::{Bytes, MilliCpu, Share, units};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

/// Longest span that can be declared: what lasts longer is never; sums stay far below overflow.
const SPAN_MAX: Duration = Duration::from_secs(3650 * 24 * 3600);

/// A span of time, written `30s`; at most ten years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = domain::UnitError;
    fn from_str(text: &str) -> Result<Span, Self::Err> {
        match units::parse_duration(text)? {
            span if span <= SPAN_MAX => Ok(Span(span)),
            _ => Err(domain::UnitError::Range {
                text: text.chars().take(40).collect(),
                what: "a duration",
                range: "at most 3650d",
            }),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&units::show_duration(self.0))
    }
}

/// A quantity that is text in messages: `250m`, `64MiB`, `70%`, `30s`. Where a bare number has one
/// meaning (processors), it is taken too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Q<T>(pub T);

/// Processors: `250m` or `2`.
pub type Cpu = Q<MilliCpu>;
/// Memory or disk: `64MiB`.
pub type Size = Q<Bytes>;
/// A share: `70%`.
pub type Percent = Q<Share>;
/// A duration: `30s`.
pub type Time = Q<Span>;

impl<T: fmt::Display> Serialize for Q<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de, T> Deserialize<'de> for Q<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Q<T>, D::Error> {
        d.deserialize_any(Visitor(PhantomData))
    }
}

struct Visitor<T>(PhantomData<T>);

impl<T> de::Visitor<'_> for Visitor<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    type Value = Q<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quantity with its unit")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Q<T>, E> {
        text.parse().map(Q).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Q<T>, E> {
        self.visit_str(&n.to_string())
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<Q<T>, E> {
        self.visit_str(&n.to_string())
    }

    fn visit_f64<E: de::Error>(self, n: f64) -> Result<Q<T>, E> {
        self.visit_str(&n.to_string())
    }
}
