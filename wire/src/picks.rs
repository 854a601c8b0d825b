//! `GET /v1/picks` of a balancer's admin listener: why the last requests went where they went.

use crate::stamp::Stamp;
use domain::{InstanceId, ServiceName};
use serde::{Deserialize, Serialize};

/// The last explained picks of one service, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PicksView {
    /// Whose.
    pub service: ServiceName,
    /// What concerns all its instances now.
    pub field: FieldView,
    /// Newest first. Of many picks a few a second are explained.
    pub items: Vec<PickView>,
}

/// What a pick knows of all instances together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldView {
    /// M: balancers that send to the same instances, as assumed.
    pub balancers: u32,
    /// How many of the others published what they have in flight.
    pub published: u32,
    /// Their requests in flight at all instances.
    pub others_in_flight: u64,
    /// Declared requests at load 1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Median of the reported loads.
    pub median_load: f64,
    /// Instances that get requests.
    pub standing: u32,
    /// All of them are new, and nobody is ramped.
    pub all_new: bool,
}

/// One pick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PickView {
    /// When.
    pub at: Stamp,
    /// By which policy.
    pub policy: String,
    /// Who got the request.
    pub chosen: InstanceId,
    /// Whom the policy looked at, the chosen one among them; at most sixteen.
    pub candidates: Vec<CandidateView>,
    /// Who could not be picked, and why; at most sixteen.
    pub not_eligible: Vec<NotEligibleView>,
}

/// One instance as the pick saw it, before the request was counted there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidateView {
    /// Which one.
    pub instance: InstanceId,
    /// What it cost by the policy: the least was picked.
    pub policy_cost: f64,
    /// This balancer's requests there.
    pub in_flight: u32,
    /// Its last reported load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// Its last reported requests in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_in_flight: Option<u32>,
    /// Age of that report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_age_seconds: Option<f64>,
    /// That report's say, from 1 when it is fresh to 0.
    pub report_say: f64,
    /// Requests in its queue, as estimated.
    pub estimate: f64,
    /// What a bare load adds.
    pub load_factor: f64,
    /// Capacity against the median, times the configured weight.
    pub weight: f64,
    /// Share of a new one.
    pub ramp: f64,
    /// How its requests end.
    pub success: f64,
    /// `(estimate + 1) * load_factor / (weight * ramp * success)`: what the feedback rule goes by.
    pub cost: f64,
}

/// One instance that could not be picked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotEligibleView {
    /// Which one.
    pub instance: InstanceId,
    /// `draining`, `unwell`, `ejected`, `without_weight` or `full`.
    pub why: String,
}
