//! Writes reports in the TEXT and JSON forms.

use super::{IN_FLIGHT, OrcaReport, Single};
use std::fmt::Write;

/// Name under which the greatest utilization is written.
pub(super) const UTILIZATION: &str = "greatest";

/// The single values that a report has, in their fixed order.
pub(super) fn singles(report: &OrcaReport) -> impl Iterator<Item = (Single, f64)> {
    [
        (Single::Application, report.application_utilization),
        (Single::Cpu, report.cpu_utilization),
        (Single::Memory, report.mem_utilization),
        (Single::Rps, report.rps),
        (Single::Eps, report.eps),
    ]
    .into_iter()
    .filter_map(|(single, value)| Some((single, value?)))
}

pub(super) fn text(report: &OrcaReport) -> String {
    let mut text = String::from("TEXT ");
    let mut first = true;
    let mut pair = |key: std::fmt::Arguments<'_>, value: f64| {
        let comma = if std::mem::take(&mut first) { "" } else { "," };
        // Writing to a text does not fail.
        let _unused = write!(text, "{comma}{key}={value}");
    };
    for (single, value) in singles(report) {
        pair(format_args!("{}", single.name()), value);
    }
    if let Some(value) = report.utilization {
        pair(format_args!("utilization.{UTILIZATION}"), value);
    }
    if let Some(count) = report.in_flight {
        pair(format_args!("named_metrics.{}", IN_FLIGHT[1]), f64::from(count));
    }
    text
}

pub(super) fn json(report: &OrcaReport) -> String {
    let mut text = String::from("JSON {");
    let mut first = true;
    let mut pair = |before: &str, key: &str, value: f64, after: &str| {
        let comma = if std::mem::take(&mut first) { "" } else { "," };
        // Writing to a text does not fail.
        let _unused = write!(text, "{comma}{before}\"{key}\":{value}{after}");
    };
    for (single, value) in singles(report) {
        pair("", single.name(), value, "");
    }
    if let Some(value) = report.utilization {
        pair("\"utilization\":{", UTILIZATION, value, "}");
    }
    if let Some(count) = report.in_flight {
        pair("\"named_metrics\":{", IN_FLIGHT[1], f64::from(count), "}");
    }
    text.push('}');
    text
}
