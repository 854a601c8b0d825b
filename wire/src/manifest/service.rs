//! The service manifest as written: every field of the contract, kept as given.

use super::route::RouteManifest;
use crate::quantity::{Cpu, Percent, Size, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

fn yes() -> bool {
    true
}

fn is_true(b: &bool) -> bool {
    *b
}

/// `kind: service`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of keys")]
pub struct ServiceManifest {
    /// `service`; may be absent in a PUT body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `[a-z0-9-]`, 1 to 63; in a PUT body it must equal the path's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Default 0: started by the first request.
    #[serde(default)]
    pub min_instances: u32,
    /// Default 1.
    #[serde(default = "one")]
    pub max_instances: u32,
    /// False: no scoreboard, no route.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub load_balanced: bool,
    /// `node-specific`, `self-contained` (default), `system`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How to run it.
    pub run: RunManifest,
    /// Default 250m, 128MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesManifest>,
    /// What the node must be.
    #[serde(default, skip_serializing_if = "NeedsManifest::is_empty")]
    pub needs: NeedsManifest,
    /// What gives way first is smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// For sub-caps and usage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How load is told and what it means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadManifest>,
    /// Deadlines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<LifecycleManifest>,
    /// How a new revision comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutManifest>,
    /// Live raising of limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vertical: Option<VerticalManifest>,
    /// How requests reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteManifest>,
    /// How it shows that it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthManifest>,
    /// Kept and given back; not acted on yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Value>,
}

fn one() -> u32 {
    1
}

/// `run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table of keys")]
pub struct RunManifest {
    /// A container image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A plain process, or the container's arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Tried before signals.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop_command: Vec<String>,
    /// What a container listens on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// User to run as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Host directories.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountManifest>,
    /// `none`, `cgroup` (default), `namespaces`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
}

/// One of `run.mounts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of keys")]
pub struct MountManifest {
    /// Path on the node.
    pub source: String,
    /// Path inside.
    pub target: String,
    /// Whether the instance may not write.
    #[serde(default)]
    pub read_only: bool,
}

/// `resources`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table of keys")]
pub struct ResourcesManifest {
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
}

/// `needs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table of keys")]
pub struct NeedsManifest {
    /// The node's unique name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The node's type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_type: Option<String>,
    /// The class of its processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_class: Option<String>,
    /// The type of its disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_type: Option<String>,
    /// Labels it must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// A node of its own.
    pub dedicated: bool,
}

impl NeedsManifest {
    /// Whether any node will do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == NeedsManifest::default()
    }
}

/// `load`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table of keys")]
pub struct LoadManifest {
    /// `auto` (default), `pushed`, `header`, `agent`, `cgroup`, `balancer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// An agent on each instance's host that is asked for its load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentManifest>,
    /// Requests one instance serves at load 1.0; scaling takes 10 where it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Per instance; default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// Default 500ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_limit: Option<Time>,
    /// Default 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<Time>,
    /// Default 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Time>,
    /// Default 70%.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<Percent>,
    /// Default 40%.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<Percent>,
    /// Default the midpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Percent>,
    /// Default 60s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Time>,
    /// `manual` (default) or `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub band: Option<String>,
}

/// `load.agent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of keys")]
pub struct AgentManifest {
    /// Its port on the instance's host.
    pub port: u16,
    /// Default 2s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Time>,
}

/// `lifecycle`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table of keys")]
pub struct LifecycleManifest {
    /// Default 5m.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Time>,
    /// Default 24h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifespan: Option<Time>,
    /// Default 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_deadline: Option<Time>,
    /// Default 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_deadline: Option<Time>,
    /// `stop` (default), `pause`, `checkpoint`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hibernate: Option<String>,
    /// `start-first` (default), `stop-first`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace: Option<String>,
}

/// `rollout`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table of keys")]
pub struct RolloutManifest {
    /// Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surge: Option<u32>,
    /// Default 100%.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<Percent>,
    /// Default 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bake: Option<Time>,
}

/// `vertical`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of keys")]
pub struct VerticalManifest {
    /// Greatest CPU limit.
    pub cpu_max: Cpu,
}

/// `health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table of keys")]
pub struct HealthManifest {
    /// HTTP path; absent: the port accepts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Default 2s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Time>,
    /// Default 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Time>,
    /// Default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
}
