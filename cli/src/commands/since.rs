//! Spans of history in queries: `--since 1h` or a moment.

use crate::client::{Failure, encode};
use clap::Args;
use domain::{Clock, Timestamp, units};

/// Which part of a history.
#[derive(Debug, Clone, Args)]
pub struct SinceArgs {
    /// From when: a span back from now (1h), or a moment (2026-11-22T04:17:00Z).
    #[arg(long, value_name = "WHEN", default_value = "1h")]
    pub since: String,
    /// Until when, in the same forms.
    #[arg(long, value_name = "WHEN")]
    pub until: Option<String>,
}

impl SinceArgs {
    /// As a query: `?since=...&until=...`.
    ///
    /// # Errors
    /// `Usage` when a moment is of neither form.
    pub fn query(&self) -> Result<String, Failure> {
        let now = chassis::clock::SystemClock::new().now();
        let mut query = format!("?since={}", encode(&moment(&self.since, now)?));
        if let Some(until) = &self.until {
            query = format!("{query}&until={}", encode(&moment(until, now)?));
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
        let since = "2026-11-22T04:17:00Z".to_owned();
        let args = SinceArgs { until: Some(since.clone()), since };
        let at = "2026-11-22T04%3A17%3A00.000Z";
        assert_eq!(args.query().unwrap(), format!("?since={at}&until={at}"));
    }
}
