//! What operators and programs read through the API: services, instances, nodes, money, decisions.

use crate::stamp::Stamp;
use domain::{Generation, InstanceId, NodeId, Revision, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct List<T> {
    /// The objects.
    pub items: Vec<T>,
    /// Opaque cursor of the next page; absent: this was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> List<T> {
    /// All of it.
    #[must_use]
    pub fn whole(items: Vec<T>) -> List<T> {
        List { items, next: None }
    }
}

/// A service: its manifest and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceView {
    /// The declaration as given.
    #[serde(flatten)]
    pub manifest: serde_json::Map<String, serde_json::Value>,
    /// Version of what instances are.
    pub revision: Revision,
    /// Version of the declaration; also its `ETag`.
    pub generation: Generation,
    /// Where it stands.
    pub state: ServiceState,
}

/// Where a service stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct ServiceState {
    /// Instances wanted now.
    pub desired: u32,
    /// Taking requests.
    pub ready: u32,
    /// Coming.
    pub starting: u32,
    /// Going.
    pub draining: u32,
    /// Frozen.
    pub paused: u32,
    /// Average load of ready instances; absent: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// Requests held by balancers.
    pub held_requests: u32,
    /// What its starts wait for, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Being removed.
    #[serde(default)]
    pub deleting: bool,
    /// Held at this number by an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_at: Option<u32>,
    /// The planner's last word on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceView {
    /// Never reused.
    pub id: InstanceId,
    /// Of which service.
    pub service: ServiceName,
    /// Of which revision.
    pub revision: Revision,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// `host:port` where it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `wanted`, `starting`, `ready`, `paused`, `draining`, `stopping`, `lost`, `failed`, `stopped`.
    pub state: String,
    /// Its last reported load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// Age of that report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_age_seconds: Option<f64>,
    /// Requests in flight there, by all balancers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
    /// Used processors, thousandths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Used memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Its limit, thousandths.
    pub cpu_limit_millis: u32,
    /// How it came up.
    pub tier: String,
    /// When it was decided.
    pub created_at: Stamp,
    /// When it was first well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Stamp>,
    /// When its lifespan ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Stamp>,
    /// Local restarts after crashes.
    #[serde(default)]
    pub restarts: u32,
    /// Why it stands where it stands.
    pub reason: String,
}

/// A decision about a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionView {
    /// When.
    pub at: Stamp,
    /// About which service.
    pub service: ServiceName,
    /// Goal before.
    pub from: u32,
    /// Goal after.
    pub to: u32,
    /// `load`, `burst`, `wake`, `idle`, ...
    pub reason: String,
    /// The formula's inputs and values.
    pub inputs: String,
    /// Each bound that changed the number.
    pub clamps: Vec<String>,
    /// What a start waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Difference of the running cost, in the cluster's currency.
    pub cost_delta_per_hour: String,
    /// Who decided.
    pub actor: String,
}

/// One point of a service's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatView {
    /// When.
    pub at: Stamp,
    /// Average load of ready instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// Wanted instances.
    pub desired: u32,
    /// Ready instances.
    pub ready: u32,
    /// Starting instances.
    pub starting: u32,
    /// Draining instances.
    pub draining: u32,
    /// Requests held.
    pub queued: u32,
    /// Requests a second.
    pub rps: f64,
}

/// Room on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct RoomView {
    /// Thousandths of a processor.
    pub cpu_millis: u32,
    /// Bytes.
    pub memory_bytes: u64,
    /// Bytes; 0 where it does not apply.
    #[serde(default)]
    pub disk_bytes: u64,
}

/// The last measurement of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatsView {
    /// Used processors, thousandths.
    pub cpu_millis: u32,
    /// Used share of its processors.
    pub cpu: f64,
    /// Used memory, bytes.
    pub memory: u64,
    /// Used disk, bytes.
    pub disk: u64,
    /// Bytes a second, both ways.
    pub bandwidth: u64,
    /// When it arrived.
    pub at: Stamp,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Never reused.
    pub id: NodeId,
    /// Unique among the living.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub node_type: String,
    /// Who provides it.
    pub provider: String,
    /// `ordered`, `booting`, `ready`, `suspect`, `lost`, `draining`, `stopping`, `stopped`.
    pub state: String,
    /// Where its instances answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// False: protected.
    pub may_stop: bool,
    /// `0.0060 EUR`.
    pub price_per_hour: String,
    /// What it holds.
    pub capacity: RoomView,
    /// What is taken.
    pub allocated: RoomView,
    /// Instances on it.
    pub instances: u32,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was ordered.
    pub ordered_at: Stamp,
    /// When its executor joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Stamp>,
    /// The last measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<NodeStatsView>,
    /// Why it stands where it stands.
    pub reason: String,
}

/// `POST /v1/nodes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeOrder {
    /// Of which type.
    #[serde(rename = "type")]
    pub node_type: String,
}

/// `PATCH /v1/nodes/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePatch {
    /// False: protected.
    pub may_stop: bool,
}

/// `POST /v1/node-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeTokenRequest {
    /// Of which type the node will be.
    #[serde(rename = "type")]
    pub node_type: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Default `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<crate::quantity::Time>,
}

/// The answer: shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTokenAnswer {
    /// The one-time token.
    pub token: String,
    /// Useless after.
    pub expires_at: Stamp,
}

/// An order that the cap holds back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBackView {
    /// Of which type.
    pub node_type: String,
    /// For which service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// How much money is missing: `0.04 EUR`.
    pub needs: String,
    /// When money comes back.
    pub until: Stamp,
    /// A sentence for people.
    pub detail: String,
}

/// `GET /v1/budget`. Amounts as `12.50 EUR`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetView {
    /// `EUR`.
    pub currency: String,
    /// The amount, `none`, or `unset`.
    pub monthly_cap: String,
    /// What stays free.
    pub reserve: String,
    /// This month, so far.
    pub spent: String,
    /// Money already promised.
    pub obligations: String,
    /// What may still be promised.
    pub free: String,
    /// Expected spend of the whole month.
    pub forecast: String,
    /// When the cap is reached at this pace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exhausted_at: Option<Stamp>,
    /// Facts from outside put the state above the cap.
    #[serde(default)]
    pub over_cap: bool,
    /// `off` or `strict`.
    pub pacing: String,
    /// What the cap holds back.
    pub held_back: Vec<HeldBackView>,
    /// Version; also its `ETag`.
    pub generation: Generation,
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerView {
    /// When.
    pub at: Stamp,
    /// For which node.
    pub node: NodeId,
    /// Of which type.
    pub node_type: String,
    /// `reserve`, `release`, `start`, `renew`, `stop`, `external`.
    pub kind: String,
    /// How much.
    pub amount: String,
    /// The period it pays for.
    pub from: Stamp,
    /// Its end.
    pub until: Stamp,
    /// In words.
    pub note: String,
}

/// `POST /v1/services/{name}/scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleRequest {
    /// Holds until `null`.
    pub instances: Option<u32>,
}

/// `POST /v1/services/{name}/wake`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct WakeRequest {
    /// Which balancer asks; absent: an operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balancer: Option<String>,
    /// Requests it holds.
    pub queued: u32,
}

/// What one manifest of a plan would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedChange {
    /// `service`, `node-type`, `budget`.
    pub kind: String,
    /// Its name; empty for the budget.
    pub name: String,
    /// `create`, `change`, `none`.
    pub action: String,
    /// Fields that differ: pointer, from, to.
    pub fields: Vec<PlannedField>,
    /// What would follow, in words with numbers.
    pub effects: Vec<String>,
    /// The present generation; 0 when it does not exist.
    pub generation: Generation,
}

/// One differing field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedField {
    /// JSON pointer.
    pub pointer: String,
    /// Present value.
    pub from: serde_json::Value,
    /// Planned value.
    pub to: serde_json::Value,
}

/// The answer to `POST /v1/plan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanAnswer {
    /// In the order of the manifests.
    pub changes: Vec<PlannedChange>,
}

/// One event, on `GET /v1/events` (server-sent: `id:` is `seq`, `event:` is `kind`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Its place in the order.
    pub seq: u64,
    /// When.
    pub at: Stamp,
    /// `service`, `scale`, `instance`, `node`, `budget`, `refusal`, `control`.
    pub kind: String,
    /// Which one.
    pub subject: String,
    /// One short stable word.
    pub what: String,
    /// A sentence for people.
    pub detail: String,
    /// `name=value` words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub values: String,
}
