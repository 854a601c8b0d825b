//! ORCA load reports (`endpoint-load-metrics`): one normal form of TEXT, JSON and BIN, read and written.
//!
//! Read with each answer that has one, so that TEXT and BIN are read without allocation when a
//! report names at most [`FEW`] metrics of its own. A report is refused whole when a number is not
//! finite, a share or a rate is negative, or a key stands twice; keys nobody knows are passed over,
//! so that a newer sender is still heard.

mod json;
mod names;
mod proto;
mod text;
mod write;

use domain::Load;
use names::Names;
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

pub use names::{FEW, NAMES_MAX};

/// Header or trailer that holds a report.
pub const HEADER: &str = "endpoint-load-metrics";
/// Header or trailer that holds a report as base64 of its binary form, as gRPC does.
pub const HEADER_BIN: &str = "endpoint-load-metrics-bin";
/// Request header by which an outer balancer asks for a report, and in which form.
pub const HEADER_FORMAT: &str = "endpoint-load-metrics-format";
/// Longest header value read: thirty metrics with long names.
pub const VALUE_BYTES_MAX: usize = 2048;

/// Names under which instances tell their requests in flight, the first that stands counts.
const IN_FLIGHT: [&str; 3] = ["rif", "in_flight", "requests_in_flight"];

/// What an instance says of itself in one report.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct OrcaReport {
    /// Share of its processors in use.
    pub cpu_utilization: Option<f64>,
    /// Share of its memory in use.
    pub mem_utilization: Option<f64>,
    /// Share of what it can do, by its own measure.
    pub application_utilization: Option<f64>,
    /// The greatest of its `utilization.*`.
    pub utilization: Option<f64>,
    /// Requests a second.
    pub rps: Option<f64>,
    /// Errors a second.
    pub eps: Option<f64>,
    /// Requests in flight: `named_metrics.rif`, `in_flight` or `requests_in_flight`.
    pub in_flight: Option<u32>,
}

/// A form a report is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrcaFormat {
    /// `TEXT key=value, key=value`.
    Text,
    /// `JSON {...}`.
    Json,
    /// `BIN` and base64 of the protobuf message.
    Bin,
}

impl OrcaFormat {
    /// Every form.
    pub const ALL: [OrcaFormat; 3] = [OrcaFormat::Text, OrcaFormat::Json, OrcaFormat::Bin];

    /// The word before a report of this form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OrcaFormat::Text => "TEXT",
            OrcaFormat::Json => "JSON",
            OrcaFormat::Bin => "BIN",
        }
    }
}

impl fmt::Display for OrcaFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for OrcaFormat {
    type Err = String;
    /// Capitals or not.
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|f| f.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| "must be TEXT, JSON or BIN".to_owned())
    }
}

/// Why a report is not read; the sender's fault each time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrcaError {
    /// Longer than anybody's report.
    #[error("a report has at most {VALUE_BYTES_MAX} bytes")]
    TooLong,
    /// More named metrics than are told apart.
    #[error("a report names at most {NAMES_MAX} metrics")]
    TooMany,
    /// Neither text, nor JSON, nor base64 of a message.
    #[error("unreadable: {0}")]
    Form(Cow<'static, str>),
    /// A number that cannot be.
    #[error("{0} cannot have this value")]
    Number(String),
    /// A key that stands twice.
    #[error("{0} stands twice")]
    Twice(String),
}

/// Longest part of a key that an error repeats.
const TOLD_CHARS_MAX: usize = 60;

fn told(key: &str) -> String {
    key.chars().take(TOLD_CHARS_MAX).collect()
}

fn form(what: &'static str) -> OrcaError {
    OrcaError::Form(Cow::Borrowed(what))
}

/// The single values of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Single {
    Cpu,
    Memory,
    Application,
    Rps,
    Eps,
}

impl Single {
    fn name(self) -> &'static str {
        match self {
            Single::Cpu => "cpu_utilization",
            Single::Memory => "mem_utilization",
            Single::Application => "application_utilization",
            Single::Rps => "rps_fractional",
            Single::Eps => "eps",
        }
    }
}

/// The groups of values whose names the sender chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Named,
    Utilization,
    Cost,
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Group::Named => "named_metrics",
            Group::Utilization => "utilization",
            Group::Cost => "request_cost",
        }
    }
}

/// A report being read: what was taken so far, and what may not come again.
#[derive(Debug, Default)]
struct Reading<'a> {
    report: OrcaReport,
    names: Names<'a>,
    /// Place in [`IN_FLIGHT`] of the name that counts so far.
    in_flight_rank: usize,
}

impl<'a> Reading<'a> {
    fn single(&mut self, single: Single, value: f64) -> Result<(), OrcaError> {
        let report = &mut self.report;
        let place = match single {
            Single::Cpu => &mut report.cpu_utilization,
            Single::Memory => &mut report.mem_utilization,
            Single::Application => &mut report.application_utilization,
            Single::Rps => &mut report.rps,
            Single::Eps => &mut report.eps,
        };
        if !value.is_finite() || value < 0.0 {
            return Err(OrcaError::Number(single.name().to_owned()));
        }
        match place.replace(value) {
            None => Ok(()),
            Some(_first) => Err(OrcaError::Twice(single.name().to_owned())),
        }
    }

    /// Costs are read for their form alone: they are per request, no load.
    fn member(&mut self, group: Group, name: Cow<'a, str>, value: f64) -> Result<(), OrcaError> {
        let key = |name: &str| format!("{}.{}", group.name(), told(name));
        if name.is_empty() {
            return Err(form("a metric without a name"));
        }
        if !value.is_finite() || group == Group::Utilization && value < 0.0 {
            return Err(OrcaError::Number(key(&name)));
        }
        match group {
            Group::Utilization => {
                let greatest = self.report.utilization.map_or(value, |u| u.max(value));
                self.report.utilization = Some(greatest);
            }
            Group::Named => {
                if let Some(rank) = IN_FLIGHT.iter().position(|known| *known == name) {
                    let count = count(value).ok_or_else(|| OrcaError::Number(key(&name)))?;
                    if self.report.in_flight.is_none() || rank < self.in_flight_rank {
                        (self.report.in_flight, self.in_flight_rank) = (Some(count), rank);
                    }
                }
            }
            Group::Cost => {}
        }
        self.names.add(group, name)
    }
}

/// A number of requests said as a fraction.
fn count(value: f64) -> Option<u32> {
    let sane = (0.0..=f64::from(u32::MAX)).contains(&value);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range checked")]
    sane.then(|| value.round() as u32)
}

impl OrcaReport {
    /// Reads a header or trailer. A value of [`HEADER`] that opens with none of the three words is
    /// a list as in TEXT.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(header_name: &[u8], value: &[u8]) -> Result<OrcaReport, OrcaError> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(OrcaError::TooLong);
        }
        let value = value.trim_ascii();
        if header_name.eq_ignore_ascii_case(HEADER_BIN.as_bytes()) {
            return proto::read_base64(value);
        }
        let after = |format: OrcaFormat| {
            let (word, rest) = value.split_at_checked(format.as_str().len())?;
            let known = word.eq_ignore_ascii_case(format.as_str().as_bytes());
            let apart = rest.is_empty() || rest.first().is_some_and(u8::is_ascii_whitespace);
            (known && apart).then(|| rest.trim_ascii())
        };
        if let Some(list) = after(OrcaFormat::Text) {
            text::read(list)
        } else if let Some(object) = after(OrcaFormat::Json) {
            json::read(object)
        } else if let Some(base64) = after(OrcaFormat::Bin) {
            proto::read_base64(base64)
        } else {
            text::read(value)
        }
    }

    /// How loaded the instance is: `application_utilization`, since it is made to say just that;
    /// else the greatest of `utilization.*`, the resource that runs out first; else
    /// `cpu_utilization`. Memory in use says nothing of the next request. `None` when it says none
    /// of them, or more than a load can be: silence is not idleness.
    #[must_use]
    pub fn load(&self) -> Option<Load> {
        let said = self.application_utilization.or(self.utilization).or(self.cpu_utilization)?;
        Load::from_reported(said)
    }

    /// Requests a second in thousandths.
    #[must_use]
    pub fn rps_milli(&self) -> Option<u64> {
        self.rps.map(milli)
    }

    /// Errors a second in thousandths.
    #[must_use]
    pub fn eps_milli(&self) -> Option<u64> {
        self.eps.map(milli)
    }

    /// Writes a header's value in a form, the form's word first.
    #[must_use]
    pub fn write(&self, format: OrcaFormat) -> String {
        match format {
            OrcaFormat::Text => write::text(self),
            OrcaFormat::Json => write::json(self),
            OrcaFormat::Bin => proto::write_base64(self),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float saturates, and no rate is negative"
)]
fn milli(rate: f64) -> u64 {
    (rate * 1000.0).round() as u64
}

#[cfg(test)]
mod tests;
