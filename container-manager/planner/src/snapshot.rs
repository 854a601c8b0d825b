//! All the planner can know: plain data, sorted by id, with `now` in it.

use crate::memory::Memory;
use crate::policy::Policy;
use domain::{
    BalancerId, Demand, DrainOrder, Epoch, Instance, InstanceId, Load, LoadSource, Money, NodeId,
    NodeState, Revision, ServiceName, ServiceSpec, Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// What an executor last said about an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObservedState {
    /// It runs and is not well yet, or is being restarted.
    Starting,
    /// It is well.
    Ready,
    /// It is frozen.
    Paused,
    /// It is being ended.
    Stopping,
    /// The executor gave up on it.
    Failed,
    /// The executor does not have it (any more).
    Gone,
}

/// An executor's word about one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Where it stands.
    pub state: ObservedState,
    /// Where it answers.
    pub address: Option<SocketAddr>,
    /// Local restarts.
    pub restarts: u32,
    /// Why, for people.
    pub detail: String,
}

/// A load as read from the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The load.
    pub load: Load,
    /// How old.
    pub age: Duration,
    /// Who measured.
    pub source: LoadSource,
}

/// One instance: its record, what its executor says, what it says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// The durable record.
    pub row: Instance,
    /// The executor's word; `None`: nothing heard yet.
    pub observed: Option<Observed>,
    /// The last load; `None`: never heard.
    pub reading: Option<Reading>,
}

/// One service and all that concerns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView {
    /// Its name.
    pub name: ServiceName,
    /// The current declaration.
    pub spec: ServiceSpec,
    /// Its revision.
    pub revision: Revision,
    /// An earlier revision that was well, to go back to.
    pub fallback: Option<(Revision, ServiceSpec)>,
    /// It is being removed.
    pub deleting: bool,
    /// Number held by the operator.
    pub hold: Option<u32>,
    /// Requests said to wait by a wake call not older than a few seconds.
    pub wake: Option<u32>,
    /// What the last plan remembered.
    pub memory: Memory,
    /// What live balancers say, fresh fields only.
    pub demand: BTreeMap<BalancerId, Demand>,
    /// Its instances, by id, ended ones left out.
    pub instances: Vec<InstanceView>,
    /// What one instance costs an hour, for the decision's record.
    pub cost_per_hour: Money,
}

/// One node, as far as instances are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its unique name.
    pub name: String,
    /// Where its record stands.
    pub state: NodeState,
    /// How long its executor has been silent.
    pub silent: Duration,
    /// Why it is being emptied.
    pub drain: Option<DrainOrder>,
}

/// What is known about a node's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeHealth {
    /// Heard.
    Alive,
    /// Silent for a moment.
    Suspect,
    /// Silent for long.
    Lost,
    /// It ended, or there is no such node.
    Gone,
}

/// Why a start waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitWhy {
    /// A node is coming.
    Node,
    /// The cost cap.
    Cap,
    /// The greatest count of a node type.
    TypeMax,
    /// No node type would do.
    NoType,
    /// Nothing could ever do.
    Impossible,
    /// The machine-manager cannot be asked.
    Away,
}

impl WaitWhy {
    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            WaitWhy::Node => "node",
            WaitWhy::Cap => "cap",
            WaitWhy::TypeMax => "type_max",
            WaitWhy::NoType => "no_type",
            WaitWhy::Impossible => "impossible",
            WaitWhy::Away => "away",
        }
    }
}

/// What a start waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The kind of obstacle.
    pub why: WaitWhy,
    /// In words, with node, ETA or amount.
    pub detail: String,
}

/// The machine-manager's answer about one start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Room is reserved on this node.
    On(NodeId),
    /// Not yet.
    Waiting(Waiting),
}

/// The world as one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The only time the planner knows.
    pub now: Timestamp,
    /// Our term.
    pub epoch: Epoch,
    /// Since when we lead.
    pub leader_since: Timestamp,
    /// Every service, by name.
    pub services: Vec<ServiceView>,
    /// Every node that has not ended.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Balancers heard within 3 s; `None`: the board cannot be read.
    pub balancers: Option<BTreeSet<BalancerId>>,
    /// Answers about starts.
    pub grants: BTreeMap<InstanceId, Grant>,
    /// Answers about stops: which instances may go, best first.
    pub stop_answers: BTreeMap<ServiceName, Vec<InstanceId>>,
    /// The machine-manager will still be asked which instances go: leave that choice open.
    pub awaiting_stops: bool,
}

impl Snapshot {
    /// An empty world.
    #[must_use]
    pub fn new(now: Timestamp, epoch: Epoch, leader_since: Timestamp) -> Snapshot {
        Snapshot {
            now,
            epoch,
            leader_since,
            services: Vec::new(),
            nodes: BTreeMap::new(),
            balancers: None,
            grants: BTreeMap::new(),
            stop_answers: BTreeMap::new(),
            awaiting_stops: false,
        }
    }

    /// Puts everything in order, so that equal worlds are equal values.
    pub fn sort(&mut self) {
        self.services.sort_by(|a, b| a.name.cmp(&b.name));
        for service in &mut self.services {
            service.instances.sort_by(|a, b| a.row.id.cmp(&b.row.id));
        }
    }

    /// Whether so many nodes are silent that it is we who are cut off.
    #[must_use]
    pub fn fleet_is_silent(&self, policy: &Policy) -> bool {
        let silent = self.nodes.values().filter(|n| n.silent >= policy.suspect_after).count();
        silent >= policy.silent_nodes
            && silent * 10_000 > self.nodes.len() * policy.silent_share.0 as usize
    }

    /// What is known about a node's life. With the fleet silent nobody is lost.
    #[must_use]
    pub fn health(&self, node: &NodeId, policy: &Policy) -> NodeHealth {
        let Some(view) = self.nodes.get(node) else { return NodeHealth::Gone };
        match view.state {
            NodeState::Stopped => NodeHealth::Gone,
            NodeState::Ordered
            | NodeState::Booting
            | NodeState::Ready
            | NodeState::Suspect
            | NodeState::Lost
            | NodeState::Draining
            | NodeState::Stopping => {
                if view.silent < policy.suspect_after {
                    NodeHealth::Alive
                } else if view.silent < policy.lost_after || self.fleet_is_silent(policy) {
                    NodeHealth::Suspect
                } else {
                    NodeHealth::Lost
                }
            }
        }
    }

    /// Whether a node is being emptied or ended.
    #[must_use]
    pub fn is_leaving(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|view| {
            view.drain.is_some() || matches!(view.state, NodeState::Draining | NodeState::Stopping)
        })
    }
}
