//! What the container-manager tells an executor, and what an executor tells back.

use domain::{Epoch, Generation, InstanceId, NodeId, Revision, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Most instances one node may be assigned: far above what a node holds, and bounds the message.
pub const ASSIGNED_INSTANCES_MAX: usize = 2000;

/// A node's whole wanted state. What is absent stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// [`crate::WIRE_VERSION`].
    pub wire: u32,
    /// The cluster's id; an executor of another cluster refuses.
    pub cluster: String,
    /// The container-manager's term.
    pub epoch: Epoch,
    /// Counted within the term, per node.
    pub generation: Generation,
    /// For which node.
    pub node: NodeId,
    /// Sorted by id.
    pub instances: Vec<AssignedInstance>,
}

/// What an instance shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// Up and well.
    Running,
    /// Frozen.
    Paused,
    /// Written to disk.
    Checkpointed,
}

/// What runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// A container.
    Docker,
    /// A plain process under the instance shim.
    Process,
}

/// How far a plain process is kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum IsolationKind {
    /// Not at all.
    None,
    /// Own control group with limits.
    #[default]
    Cgroup,
    /// Control group and own namespaces.
    Namespaces,
}

/// One instance of an assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedInstance {
    /// Never reused.
    pub id: InstanceId,
    /// Of which service.
    pub service: ServiceName,
    /// Of which revision.
    pub revision: Revision,
    /// What it shall be.
    pub want: Want,
    /// What runs it.
    pub engine: EngineKind,
    /// How.
    pub run: AssignedRun,
    /// Its limits.
    pub limits: Limits,
    /// How it shows that it is well.
    pub health: AssignedHealth,
    /// From start to ready, ms.
    pub start_deadline_ms: u64,
    /// From the stop command to SIGKILL, ms.
    pub drain_deadline_ms: u64,
    /// The end of its lifespan, unix ms; for display, the manager decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// Whether the executor restarts it after a crash.
    pub restart: bool,
    /// `auto`, `pushed`, `header`, `cgroup` or `balancer`: whose word on its load counts.
    pub load_source: String,
    /// Its load token, for the transmitter.
    pub load_token: String,
}

/// How an instance is run. `{port}` and `{instance}` in arguments are filled in by the executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct AssignedRun {
    /// The container image, for `docker`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Argument vector; for `docker`, the container's arguments.
    pub command: Vec<String>,
    /// Tried before signals; empty for none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop_command: Vec<String>,
    /// What a container listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Environment, Tally's own variables included (the executor adds `PORT`).
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// User to run as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Host directories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<AssignedMount>,
    /// How far a plain process is kept apart.
    #[serde(default)]
    pub isolation: IsolationKind,
}

/// A host directory given to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedMount {
    /// Path on the node.
    pub source: String,
    /// Path inside.
    pub target: String,
    /// Whether the instance may not write.
    #[serde(default)]
    pub read_only: bool,
}

/// Limits of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a processor.
    pub cpu_millis: u32,
    /// Bytes.
    pub memory_bytes: u64,
}

/// How an instance shows that it is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedHealth {
    /// HTTP path that must answer 2xx or 3xx; absent: the port accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Between probes of a ready instance, ms.
    pub interval_ms: u64,
    /// One probe's deadline, ms.
    pub timeout_ms: u64,
    /// Failures in a row that make it unwell.
    pub failures: u32,
}

/// 200: the assignment is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// True.
    pub accepted: bool,
}

/// 409: a newer assignment was accepted already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Newer {
    /// Its term.
    pub epoch: Epoch,
    /// Its number.
    pub generation: Generation,
}

/// What the executor sees of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Being started; not yet well.
    Starting,
    /// Up and well.
    Ready,
    /// Up, but its health check fails.
    Unwell,
    /// Frozen, as asked.
    Paused,
    /// Ended by itself; the executor will start it again.
    Restarting,
    /// The executor gave up on it.
    Failed,
    /// Being stopped.
    Stopping,
    /// Gone.
    Stopped,
}

/// One instance as its executor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSeen {
    /// Which one.
    pub instance: InstanceId,
    /// Where it stands.
    pub state: RunState,
    /// Where it answers, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Its port there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How it last ended, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<String>,
    /// Local restarts so far.
    #[serde(default)]
    pub restarts: u32,
    /// From the decision to start until the process was there, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spawn_ms: Option<u64>,
    /// From the start until well, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_ms: Option<u64>,
}

/// One pushed line of `GET /v1/events?after=SEQ` (server-sent: `id:` is `seq`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorEvent {
    /// Grows by one; a gap means: read the inventory.
    pub seq: u64,
    /// `None`: only a beat, sent every second.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<InstanceSeen>,
}

/// `GET /v1/inventory`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Whose.
    pub node: NodeId,
    /// The newest accepted assignment.
    pub epoch: Epoch,
    /// Its number.
    pub generation: Generation,
    /// The event number up to which this speaks.
    pub seq: u64,
    /// Sorted by id.
    pub instances: Vec<InstanceSeen>,
}
