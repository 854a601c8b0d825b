//! Spans of history in queries: `--since 1h` or a moment.

use crate::client::{Failure, encode};
use clap::Args;
use domain::{Clock, Timestamp, units};

/// Which part of a history.
#[derive(Debug, Clone, Default, Args)]
pub struct SinceArgs {
    /// From when: a span back from now (1h), or a moment (2026-11-22T04:17:00Z).
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Until when, in the same forms.
    #[arg(long, value_name = "WHEN")]
    pub until: Option<String>,
}

impl SinceArgs {
    /// As a query: empty, or `?since=...&until=...`.
    ///
    /// # Errors
    /// `Usage` when a moment is of neither form.
    pub fn query(&self) -> Result<String, Failure> {
        let now = chassis::clock::SystemClock::new().now();
        let mut query = String::new();
        for (name, when) in [("since", &self.since), ("until", &self.until)] {
            if let Some(text) = when {
                let mark = if query.is_empty() { '?' } else { '&' };
                query = format!("{query}{mark}{name}={}", encode(&moment(text, now)?));
            }
        }
        Ok(query)
    }
}

fn moment(text: &str, now: Timestamp) -> Result<String, Failure> {
    if let Ok(span) = units::parse_duration(text) {
        return Ok(wire::stamp::show(now.minus(span)));
    }
    wire::stamp::parse(text).map(wire::stamp::show).map_err(|_neither| {
        Failure::usage(format!(
            "{text:?} is neither a span like 1h nor a moment like 2026-11-22T04:17:00Z"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_moments_are_moments() {
        let now = wire::stamp::parse("2026-11-22T04:17:00Z").unwrap();
        assert_eq!(moment("1h", now).unwrap(), "2026-11-22T03:17:00.000Z");
        assert_eq!(moment("2026-11-22T05:17:00+01:00", now).unwrap(), "2026-11-22T04:17:00.000Z");
        assert_eq!(moment("yesterday", now).unwrap_err().code(), 2);
        let none = SinceArgs::default();
        assert_eq!(none.query().unwrap(), "");
    }
}
