//! Moments as RFC 3339 text in UTC, the form every API object uses.

use domain::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Shows a moment: `2026-11-22T04:17:00.123Z`.
#[must_use]
pub fn show(at: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(stamp) => format!("{stamp:.3}"),
        // Outside years -9999..9999: only a broken clock says that; show the raw number.
        Err(_) => format!("{}ms", at.0),
    }
}

/// Reads a moment.
///
/// # Errors
/// A sentence naming the expected form.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    text.parse::<jiff::Timestamp>()
        .map(|stamp| Timestamp(stamp.as_millisecond()))
        .map_err(|_why| format!("{text:?} is not a moment like 2026-11-22T04:17:00Z"))
}

/// First moment of the UTC calendar month that holds `at`, and of the next one.
#[must_use]
pub fn month_bounds(at: Timestamp) -> (Timestamp, Timestamp) {
    let stamp = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let date = stamp.to_zoned(jiff::tz::TimeZone::UTC).date();
    let first = date.first_of_month();
    let start = |d: jiff::civil::Date| {
        d.to_zoned(jiff::tz::TimeZone::UTC)
            .map_or(at, |z| Timestamp(z.timestamp().as_millisecond()))
    };
    let next = first.checked_add(jiff::Span::new().months(1)).unwrap_or(first);
    (start(first), start(next))
}

/// A moment in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub Timestamp);

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&show(self.0))
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Stamp, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        parse(&text).map(Stamp).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_written() {
        let at = Timestamp(1_795_321_020_123);
        assert_eq!(parse(&show(at)), Ok(at));
        assert!(parse("yesterday").is_err());
    }

    #[test]
    fn months_are_utc_calendar_months() {
        let (from, until) = month_bounds(parse("2026-12-31T23:59:59.999Z").unwrap());
        assert_eq!(show(from), "2026-12-01T00:00:00.000Z");
        assert_eq!(show(until), "2027-01-01T00:00:00.000Z");
    }
}
