//! What one plan may look at: plain data with `now` in it, all the planner can know.

use crate::account::Account;
use crate::month::Month;
use domain::{
    Budget, InstanceId, Money, Needs, Node, NodeId, NodeType, NodeTypeName, Resources,
    ServiceGroup, ServiceName, Share, Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The world as the machine-manager knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// When it was taken.
    pub now: Timestamp,
    /// Every node that is not stopped.
    pub nodes: Vec<NodeView>,
    /// Every declared type.
    pub types: Vec<NodeType>,
    /// Every instance that holds room.
    pub placed: Vec<Placed>,
    /// Room granted to instances that have no row yet.
    pub reservations: Vec<Placed>,
    /// Starts wanted by the container-manager.
    pub wanted: Vec<Wanted>,
    /// Stops wanted by the container-manager.
    pub stops: Vec<StopWanted>,
    /// The minimum of every declared service that has one.
    pub minimums: Vec<Minimum>,
    /// Nodes an operator asked for.
    pub requested: Vec<Requested>,
    /// The operator's limits on money.
    pub budget: Budget,
    /// Account of every node that is not stopped.
    pub accounts: BTreeMap<NodeId, Account>,
    /// Sum of the ledger's lines by month: what was charged, open accounts included.
    pub charged: BTreeMap<Month, Money>,
    /// Types that rest after refusals.
    pub backoff: BTreeMap<NodeTypeName, Timestamp>,
    /// What the last plan asked to be remembered.
    pub memory: Memory,
}

/// A node and what is heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its record.
    pub node: Node,
    /// For how long it was silent, by the reader's monotonic clock; `None` when it never spoke.
    pub silent_for: Option<Duration>,
    /// Its provider says that its machine does not run: no silence to be interpreted.
    pub dead: bool,
    /// Use of its processors, if it was told.
    pub cpu: Option<Share>,
    /// Use of each instance on it, by its processors: now and a window ago.
    pub instances_cpu: Vec<(InstanceId, Share, Share)>,
}

/// An instance that holds room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Which one.
    pub instance: InstanceId,
    /// Of which service.
    pub service: ServiceName,
    /// Where.
    pub node: NodeId,
    /// How much.
    pub resources: Resources,
    /// What gives way first is smaller.
    pub priority: i32,
    /// Where it may live.
    pub group: ServiceGroup,
    /// What its node must be.
    pub needs: Needs,
}

/// A start that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which instance.
    pub instance: InstanceId,
    /// Of which service.
    pub service: ServiceName,
    /// Room it needs.
    pub resources: Resources,
    /// What its node must be.
    pub needs: Needs,
    /// Where it may live.
    pub group: ServiceGroup,
    /// Not on these.
    pub not_on: BTreeSet<NodeId>,
    /// Somebody waits for it right now.
    pub wake: bool,
    /// What gives way first is smaller.
    pub priority: i32,
}

/// Stops that are wanted; which ones is ours to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopWanted {
    /// Of which service.
    pub service: ServiceName,
    /// How many.
    pub count: usize,
    /// Out of these.
    pub candidates: Vec<InstanceId>,
}

/// The fewest instances of one service, and what each needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minimum {
    /// Which service.
    pub service: ServiceName,
    /// How many.
    pub count: u32,
    /// Room of each.
    pub resources: Resources,
    /// What their nodes must be.
    pub needs: Needs,
    /// Where they may live.
    pub group: ServiceGroup,
}

/// A node an operator asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    /// Of which type.
    pub node_type: NodeTypeName,
    /// Its name; made from its id when `None`.
    pub name: Option<String>,
    /// False: protected from the start.
    pub may_stop: bool,
}

/// What a plan remembers for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// Since when each node has been empty.
    pub empty_since: BTreeMap<NodeId, Timestamp>,
    /// Since when each node has been above `node_up`.
    pub busy_since: BTreeMap<NodeId, Timestamp>,
    /// Hot nodes already told about.
    pub hot: BTreeSet<NodeId>,
    /// Since when each start has found no room anywhere.
    pub unplaced_since: BTreeMap<InstanceId, Timestamp>,
    /// When the last node was added or drained.
    pub changed_at: Option<Timestamp>,
    /// What was said last to each service that is held back.
    pub held_back: BTreeMap<ServiceName, String>,
    /// Whether spending was over the cap.
    pub over_cap: bool,
    /// The month `threshold` is about.
    pub month: Option<Month>,
    /// The greatest share of the cap told about, in percent.
    pub threshold: u32,
    /// Whether it was told that the money ends before the month.
    pub runs_out: bool,
}

impl Snapshot {
    /// The declared type of that name.
    #[must_use]
    pub fn node_type(&self, name: &NodeTypeName) -> Option<&NodeType> {
        self.types.iter().find(|t| t.name == *name)
    }

    /// Sorted by id, so that equal worlds are equal values and shuffled input plans the same.
    pub fn normalise(&mut self) {
        self.nodes.sort_by(|a, b| a.node.id.cmp(&b.node.id));
        self.types.sort_by(|a, b| a.name.cmp(&b.name));
        self.placed.sort_by(|a, b| a.instance.cmp(&b.instance));
        self.reservations.sort_by(|a, b| a.instance.cmp(&b.instance));
        self.wanted.sort_by(|a, b| a.instance.cmp(&b.instance));
        self.stops.sort_by(|a, b| a.service.cmp(&b.service));
        self.minimums.sort_by(|a, b| a.service.cmp(&b.service));
    }
}
