//! Nodes and node types: what can be had, what is there, and what it costs.

use crate::id::{NodeId, NodeTypeName};
use crate::money::PricePerHour;
use crate::time::{Generation, Timestamp};
use crate::units::{Bytes, Resources};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// What a node can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capacity {
    /// Processors and memory.
    pub resources: Resources,
    /// Disk space.
    pub disk: Bytes,
}

/// In which state spare nodes of a type wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PoolState {
    /// Running and empty.
    Running,
    /// Stopped.
    #[default]
    Stopped,
    /// Suspended.
    Suspended,
}

/// Spare nodes kept of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pool {
    /// At least this many.
    pub min: u32,
    /// Waiting like this.
    pub state: PoolState,
}

/// Which service groups a node takes. Kept open for node-specific hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NodeGroupRule {
    /// Any group.
    #[default]
    Any,
}

/// A kind of node that can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeType {
    /// Its unique name.
    pub name: NodeTypeName,
    /// Who provides it: `static`, `local`, `command`, ...
    pub provider: String,
    /// What one holds.
    pub capacity: Capacity,
    /// Class of its processors.
    pub cpu_class: String,
    /// Type of its disk.
    pub disk_type: String,
    /// What one costs.
    pub price: PricePerHour,
    /// What is billed at once.
    pub billing_unit: Duration,
    /// Billed at least, however short it ran.
    pub billing_minimum: Duration,
    /// Kept at least this long once ordered.
    pub min_life: Duration,
    /// How long before a unit's edge a stop must be asked for.
    pub stop_lead: Duration,
    /// Most nodes of this type, orders included.
    pub max_count: u32,
    /// Labels its nodes have.
    pub labels: BTreeMap<String, String>,
    /// Spare nodes kept.
    pub pool: Pool,
    /// Provider `command`: argument vector that starts one.
    pub start_command: Vec<String>,
    /// Provider `command`: argument vector that stops one.
    pub stop_command: Vec<String>,
    /// Provider `command`: argument vector that lists them.
    pub list_command: Vec<String>,
    /// Version of the declaration.
    pub generation: Generation,
}

/// Where a node stands. Every state but ready and the last has a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// In the ledger; the provider is being asked.
    Ordered,
    /// The provider said yes; its executor has not joined.
    Booting,
    /// Takes instances.
    Ready,
    /// Silent for more than 3 s: takes no new instances.
    Suspect,
    /// Silent for more than 10 s.
    Lost,
    /// Being emptied; takes no new instances.
    Draining,
    /// The provider is being asked to stop it.
    Stopping,
    /// Gone. Nothing follows.
    Stopped,
}

impl NodeState {
    /// Every state.
    pub const ALL: [NodeState; 8] = [
        NodeState::Ordered,
        NodeState::Booting,
        NodeState::Ready,
        NodeState::Suspect,
        NodeState::Lost,
        NodeState::Draining,
        NodeState::Stopping,
        NodeState::Stopped,
    ];

    /// The text form used in the API and the registry.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Ordered => "ordered",
            NodeState::Booting => "booting",
            NodeState::Ready => "ready",
            NodeState::Suspect => "suspect",
            NodeState::Lost => "lost",
            NodeState::Draining => "draining",
            NodeState::Stopping => "stopping",
            NodeState::Stopped => "stopped",
        }
    }

    /// Whether `next` may follow. Staying is always legal.
    #[must_use]
    pub fn may_become(self, next: NodeState) -> bool {
        use NodeState::{Booting, Draining, Lost, Ordered, Ready, Stopped, Stopping, Suspect};
        if self == next {
            return true;
        }
        match self {
            Ordered => matches!(next, Booting | Ready | Stopping | Stopped),
            Booting => matches!(next, Ready | Stopping | Stopped | Lost),
            Ready => matches!(next, Suspect | Lost | Draining | Stopping | Stopped),
            Suspect => matches!(next, Ready | Lost | Draining | Stopping | Stopped),
            Lost => matches!(next, Ready | Draining | Stopping | Stopped),
            Draining => matches!(next, Ready | Lost | Stopping | Stopped),
            Stopping => matches!(next, Stopped),
            Stopped => false,
        }
    }

    /// Whether it costs money.
    #[must_use]
    pub fn is_billed(self) -> bool {
        !matches!(self, NodeState::Stopped)
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for NodeState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no node state"))
    }
}

/// Why and until when a node is emptied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainOrder {
    /// In words.
    pub reason: String,
    /// Forced after this, unless protected or carrying a minimum.
    pub deadline: Timestamp,
}

/// The durable record of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Never reused.
    pub id: NodeId,
    /// Unique among the living; `needs.node` means this.
    pub name: String,
    /// Its type.
    pub node_type: NodeTypeName,
    /// Who provides it.
    pub provider: String,
    /// What the provider calls it (a process id, a machine's name).
    pub provider_ref: Option<String>,
    /// Where it stands.
    pub state: NodeState,
    /// Since when.
    pub state_since: Timestamp,
    /// Until when it may stay there.
    pub deadline: Option<Timestamp>,
    /// Where its instances answer.
    pub address: Option<IpAddr>,
    /// Where its executor answers: `http://host:port` or `unix:/path`.
    pub executor_url: Option<String>,
    /// What it holds.
    pub capacity: Capacity,
    /// Class of its processors.
    pub cpu_class: String,
    /// Type of its disk.
    pub disk_type: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it costs.
    pub price: PricePerHour,
    /// What is billed at once.
    pub billing_unit: Duration,
    /// Billed at least.
    pub billing_minimum: Duration,
    /// Kept at least this long.
    pub min_life: Duration,
    /// How long before a unit's edge a stop must be asked for.
    pub stop_lead: Duration,
    /// False: protected, survives every scale-in.
    pub may_stop: bool,
    /// Why it is being emptied.
    pub drain: Option<DrainOrder>,
    /// When it was ordered.
    pub ordered_at: Timestamp,
    /// When its executor joined.
    pub ready_at: Option<Timestamp>,
    /// When it was last heard.
    pub seen_at: Option<Timestamp>,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// SHA-256 of the secret it got when joining, in hex.
    pub secret_hash: Option<String>,
    /// Why it stands where it stands, in words.
    pub reason: String,
}

impl Node {
    /// Whether new instances may be placed here.
    #[must_use]
    pub fn takes_instances(&self) -> bool {
        self.state == NodeState::Ready && self.drain.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_the_end_and_every_state_reaches_it() {
        for state in NodeState::ALL {
            assert!(state.may_become(state));
            assert_eq!(state.as_str().parse(), Ok(state));
            if state != NodeState::Stopped {
                assert!(!NodeState::Stopped.may_become(state));
                assert!(state.may_become(NodeState::Stopped), "{state}");
            }
        }
    }
}
