//! A service as its owner declared it, checked: everything in a [`ServiceSpec`] holds together.

use crate::id::{NodeTypeName, OwnerName, ServiceName};
use crate::load::{AgentCheck, LoadSource};
use crate::route::{HashRule, PolicyName, Probe, RouteMode, Sticky};
use crate::units::{Bytes, MilliCpu, Resources, Share};
use std::collections::BTreeMap;
use std::time::Duration;

/// Why a declaration cannot be: a pointer to the field and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct SpecError {
    /// JSON pointer to the field, such as `/load/up`.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

impl SpecError {
    /// An error at `pointer`.
    pub fn at(pointer: impl Into<String>, detail: impl Into<String>) -> SpecError {
        SpecError { pointer: pointer.into(), detail: detail.into() }
    }
}

/// Where instances of a service may live (I-02..I-05).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceGroup {
    /// Bound to a named node; never moved.
    NodeSpecific,
    /// On any node.
    SelfContained,
    /// Tally's own parts.
    System,
}

/// What runs the instance on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A container.
    Docker,
    /// A plain process under the instance shim.
    Process,
}

/// How far a plain process is kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Not at all.
    None,
    /// Own control group with limits.
    #[default]
    Cgroup,
    /// Control group and own namespaces.
    Namespaces,
}

/// A host directory given to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Path on the node.
    pub source: String,
    /// Path inside.
    pub target: String,
    /// Whether the instance may not write.
    pub read_only: bool,
}

/// How to run one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The container image; `None` for a plain process.
    pub image: Option<String>,
    /// Argument vector; never a shell. `{port}` and `{instance}` are filled in.
    pub command: Vec<String>,
    /// Tried before signals; empty for none.
    pub stop_command: Vec<String>,
    /// What a container listens on. A plain process is given its port.
    pub port: Option<u16>,
    /// Environment of the instance.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// User to run as.
    pub user: Option<String>,
    /// Host directories.
    pub mounts: Vec<Mount>,
    /// How far a plain process is kept apart.
    pub isolation: Isolation,
}

impl Run {
    /// What runs it.
    #[must_use]
    pub fn engine(&self) -> Engine {
        if self.image.is_some() { Engine::Docker } else { Engine::Process }
    }
}

/// What the node must be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// The node's unique name.
    pub node: Option<String>,
    /// The node's type.
    pub node_type: Option<NodeTypeName>,
    /// The class of its processors.
    pub cpu_class: Option<String>,
    /// The type of its disk.
    pub disk_type: Option<String>,
    /// Labels it must have.
    pub labels: BTreeMap<String, String>,
    /// A node just large enough, and nothing else on it (Ciel).
    pub dedicated: bool,
}

/// Who sets the thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Band {
    /// As declared.
    #[default]
    Manual,
    /// Narrowed and widened by the planner.
    Auto,
}

/// How load is told and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadPolicy {
    /// Whose word counts.
    pub source: Option<LoadSource>,
    /// An agent on each instance's host that is asked for its load.
    pub agent: Option<AgentCheck>,
    /// Requests one instance serves at load 1.0; `None` when the owner did not say.
    pub concurrency: Option<u32>,
    /// Per instance; more waits.
    pub max_in_flight: u32,
    /// A held request older than this is a burst.
    pub wait_limit: Duration,
    /// How often an instance reports at least.
    pub period: Duration,
    /// Ramp of a new instance.
    pub slow_start: Duration,
    /// Scale out above, for `window`.
    pub up: Share,
    /// Scale in below.
    pub down: Share,
    /// Where scaling aims.
    pub target: Share,
    /// Averaging window W.
    pub window: Duration,
    /// Who sets the thresholds.
    pub band: Band,
}

impl LoadPolicy {
    /// Requests one instance serves at load 1.0, when nothing was declared.
    pub const CONCURRENCY_DEFAULT: u32 = 10;

    /// Declared concurrency or the default of 10.
    #[must_use]
    pub fn concurrency_or_default(&self) -> u32 {
        self.concurrency.unwrap_or(Self::CONCURRENCY_DEFAULT).max(1)
    }
}

/// What an idle instance becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hibernate {
    /// It ends.
    #[default]
    Stop,
    /// It is frozen.
    Pause,
    /// It is written to disk.
    Checkpoint,
}

/// Order of a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replace {
    /// The successor is ready before the predecessor drains.
    #[default]
    StartFirst,
    /// The predecessor ends first: writable mounts, node-specific services.
    StopFirst,
}

/// Deadlines of an instance's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifecycle {
    /// With nothing to do for this long, a service with minimum 0 stops.
    pub idle_timeout: Duration,
    /// Any instance is replaced after this; `None`: never.
    pub lifespan: Option<Duration>,
    /// From start to ready.
    pub start_deadline: Duration,
    /// From draining to stop.
    pub drain_deadline: Duration,
    /// What an idle instance becomes.
    pub hibernate: Hibernate,
    /// Order of a replacement.
    pub replace: Replace,
}

/// How a new revision comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Instances above the wanted number while replacing.
    pub surge: u32,
    /// Share of the wanted number that stays ready.
    pub floor: Share,
    /// How long new instances must be well.
    pub bake: Duration,
}

/// Live raising of limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vertical {
    /// Greatest CPU limit.
    pub cpu_max: MilliCpu,
}

/// Bounds of what may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Requests held at most.
    pub requests: u32,
    /// Bytes of held requests at most.
    pub bytes: Bytes,
    /// A request waits at most this long.
    pub deadline: Duration,
}

impl Default for Hold {
    fn default() -> Hold {
        // KEDA http-add-on #1733: an unbounded hold exhausts memory and descriptors for everybody.
        Hold { requests: 1000, bytes: Bytes(64 << 20), deadline: Duration::from_secs(30) }
    }
}

/// How requests reach the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Host names, lower case; empty: any host.
    pub hosts: Vec<String>,
    /// Path prefixes; `/` when empty.
    pub paths: Vec<String>,
    /// HTTP, TCP or kernel NAT.
    pub mode: RouteMode,
    /// Front port, for TCP and NAT.
    pub port: Option<u16>,
    /// How an instance is picked.
    pub policy: PolicyName,
    /// What is hashed, for policy `hash`.
    pub hash: HashRule,
    /// Whether clients stay at their instance.
    pub sticky: Option<Sticky>,
    /// How policy `prequal` asks instances.
    pub probe: Option<Probe>,
    /// Bytes of a request's body at most; `None`: any number.
    pub body_max: Option<Bytes>,
    /// Bounds of what may wait.
    pub hold: Hold,
}

impl Route {
    /// Bytes of a request's body at most, when nothing was declared. Bodies are passed on as they
    /// come and cost no memory here; the bound is for the instance behind.
    pub const BODY_MAX_DEFAULT: Bytes = Bytes(1 << 30);
}

/// How a ready instance shows that it is well. Default: the port accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// HTTP path that must answer 2xx or 3xx; `None`: the port accepts.
    pub path: Option<String>,
    /// Time between probes of a ready instance.
    pub interval: Duration,
    /// One probe's deadline.
    pub timeout: Duration,
    /// Failures in a row that make it unwell.
    pub failures: u32,
}

impl Default for Health {
    fn default() -> Health {
        Health {
            path: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            failures: 3,
        }
    }
}

/// A service, declared and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its unique name.
    pub name: ServiceName,
    /// Fewest instances; 0: started by the first request.
    pub min_instances: u32,
    /// Most instances wanted for traffic.
    pub max_instances: u32,
    /// False: no scoreboard, no route.
    pub load_balanced: bool,
    /// Where it may live.
    pub group: ServiceGroup,
    /// How to run it.
    pub run: Run,
    /// Room of one instance.
    pub resources: Resources,
    /// What the node must be.
    pub needs: Needs,
    /// What gives way first is smaller.
    pub priority: i32,
    /// For sub-caps and usage.
    pub owner: Option<OwnerName>,
    /// How load is told and what it means.
    pub load: LoadPolicy,
    /// Deadlines.
    pub lifecycle: Lifecycle,
    /// How a new revision comes.
    pub rollout: Rollout,
    /// Live raising of limits; `None`: never.
    pub vertical: Option<Vertical>,
    /// How requests reach it.
    pub route: Route,
    /// How it shows that it is well.
    pub health: Health,
}

impl ServiceSpec {
    /// Most instances one service may have: one cell is planned for 150,000.
    pub const INSTANCES_MAX: u32 = 10_000;

    /// Checks what one field alone cannot know.
    ///
    /// # Errors
    /// The first rule that is broken, with a pointer to the field.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.max_instances == 0 || self.max_instances > Self::INSTANCES_MAX {
            let detail = format!("must be 1 to {}", Self::INSTANCES_MAX);
            return Err(SpecError::at("/max_instances", detail));
        }
        if self.min_instances > self.max_instances {
            return Err(SpecError::at("/min_instances", "must not exceed max_instances"));
        }
        self.check_run()?;
        self.check_load()
    }

    fn check_run(&self) -> Result<(), SpecError> {
        match self.run.engine() {
            Engine::Process if self.run.command.is_empty() => Err(SpecError::at(
                "/run",
                "needs an image (a container) or a command (a plain process)",
            )),
            Engine::Docker if self.run.port.is_none() && self.load_balanced => {
                Err(SpecError::at("/run/port", "a container needs the port it listens on"))
            }
            Engine::Process | Engine::Docker => Ok(()),
        }
    }

    /// `down < target <= up - 5 points`: then constant demand cannot cycle (algorithms 2.5).
    fn check_load(&self) -> Result<(), SpecError> {
        let load = &self.load;
        if load.target <= load.down {
            let detail = format!("target {} must be above down {}", load.target, load.down);
            return Err(SpecError::at("/load/target", detail));
        }
        if load.target.0 + 500 > load.up.0 {
            let detail = format!(
                "target {} must be at least 5 points below up {}, or constant demand would cycle",
                load.target, load.up
            );
            return Err(SpecError::at("/load/target", detail));
        }
        if load.window < Duration::from_secs(1) || load.window > Duration::from_secs(3600) {
            return Err(SpecError::at("/load/window", "must be 1s to 1h"));
        }
        if load.max_in_flight == 0 {
            return Err(SpecError::at("/load/max_in_flight", "must be at least 1"));
        }
        Ok(())
    }
}
