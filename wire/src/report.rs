//! Load reports as instances send them.

use serde::{Deserialize, Serialize};

/// One report. Only the first three fields are required.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Of which service.
    pub service: String,
    /// Of which instance.
    pub instance: String,
    /// 1.0 = fully used by the instance's own measure.
    pub load: f64,
    /// Requests in flight there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
    /// Requests a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rps: Option<f64>,
    /// Errors a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// Grows with each report of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The instance's load token, where a batch carries several instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// `pushed` (default) or `cgroup` (the transmitter).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// One report or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportBatch {
    /// In the order of the answer's indices.
    pub reports: Vec<Report>,
}

/// Why one report of a batch was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedReport {
    /// Its place in the batch.
    pub index: usize,
    /// In words.
    pub reason: String,
}

/// The answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportsAnswer {
    /// How many were taken.
    pub accepted: usize,
    /// The others.
    pub rejected: Vec<RejectedReport>,
}
