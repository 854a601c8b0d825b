//! What the container-manager asks the machine-manager, and what it answers.

use crate::manifest::NeedsManifest;
use domain::{Epoch, InstanceId, NodeId, Revision, ServiceName};
use serde::{Deserialize, Serialize};

/// Starts one request may want: one cell's whole fleet at most.
pub const WANTED_MAX: usize = 20_000;

/// `POST /v1/placements`. Level-triggered: every instance not yet started, each time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlacementRequest {
    /// [`crate::WIRE_VERSION`].
    pub wire: u32,
    /// The container-manager's term.
    pub epoch: Epoch,
    /// Starts.
    pub wanted: Vec<WantedStart>,
    /// Stops.
    #[serde(default)]
    pub stops: Vec<WantedStops>,
}

/// A start that needs a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WantedStart {
    /// Its id; the same id gets the same answer.
    pub instance: InstanceId,
    /// Of which service.
    pub service: ServiceName,
    /// Of which revision.
    pub revision: Revision,
    /// Thousandths of a processor.
    pub cpu_millis: u32,
    /// Bytes.
    pub memory_bytes: u64,
    /// What the node must be.
    #[serde(default)]
    pub needs: NeedsManifest,
    /// `node-specific`, `self-contained` or `system`.
    pub group: String,
    /// Nodes it must not go to.
    #[serde(default)]
    pub not_on: Vec<NodeId>,
    /// Whether a request waits for it: no batching.
    #[serde(default)]
    pub wake: bool,
    /// How long the answer is worth having, ms.
    pub deadline_ms: u64,
    /// What gives way first is smaller.
    #[serde(default)]
    pub priority: i32,
}

/// Stops of one service: the machine-manager says which go first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedStops {
    /// Of which service.
    pub service: ServiceName,
    /// How many.
    pub count: u32,
    /// Out of these.
    pub candidates: Vec<InstanceId>,
}

/// A node for a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Which start.
    pub instance: InstanceId,
    /// Where.
    pub node: NodeId,
}

/// What a start waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// A node that is coming.
    Node,
    /// Money.
    Cap,
    /// The type's maximum count.
    TypeMax,
    /// No type fits.
    NoType,
    /// No node can ever satisfy its needs.
    Impossible,
}

/// A start that must wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingStart {
    /// Which start.
    pub instance: InstanceId,
    /// For what.
    pub why: Why,
    /// The node that is coming.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// When it is expected, ms from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_ms: Option<u64>,
    /// How much money is missing, micro-units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_micros: Option<i64>,
    /// When money comes back, unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// A sentence for people.
    pub detail: String,
}

/// The answer, from memory within 50 ms.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlacementAnswer {
    /// Starts with a node.
    pub granted: Vec<Granted>,
    /// Starts without.
    pub waiting: Vec<WaitingStart>,
    /// The instances that shall go.
    pub stops: Vec<InstanceId>,
}

/// `POST /v1/admission`: whether a service's minimum fits the cap to the month's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdmissionRequest {
    /// Which service.
    pub service: ServiceName,
    /// Its minimum instances.
    pub min_instances: u32,
    /// Thousandths of a processor, each.
    pub cpu_millis: u32,
    /// Bytes, each.
    pub memory_bytes: u64,
    /// What the node must be.
    #[serde(default)]
    pub needs: NeedsManifest,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmissionAnswer {
    /// Whether it may be accepted.
    pub admitted: bool,
    /// How much money is missing, micro-units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_micros: Option<i64>,
    /// A sentence for people.
    pub detail: String,
}
