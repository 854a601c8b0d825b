//! What a node is to a start: its attributes, the filters they must pass, and the room that is left.

use crate::snapshot::{NodeView, Placed, Snapshot};
use domain::{Capacity, Needs, NodeId, NodeState, NodeType, PricePerHour, Resources, ServiceGroup};
use std::collections::BTreeMap;

/// A node, or one a type would give, as the filters see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// `None` for a node that is not ordered yet.
    pub id: Option<&'a NodeId>,
    /// Its unique name; a node that is not ordered yet has none that could be asked for.
    pub name: Option<&'a str>,
    /// Its type.
    pub node_type: &'a str,
    /// Where it stands.
    pub state: NodeState,
    /// What it holds.
    pub capacity: Capacity,
    /// Class of its processors.
    pub cpu_class: &'a str,
    /// Type of its disk.
    pub disk_type: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// What it costs.
    pub price: PricePerHour,
    /// False: protected.
    pub may_stop: bool,
}

impl<'a> Candidate<'a> {
    /// An existing node.
    #[must_use]
    pub fn of_node(view: &'a NodeView) -> Candidate<'a> {
        let node = &view.node;
        Candidate {
            id: Some(&node.id),
            name: Some(&node.name),
            node_type: node.node_type.as_str(),
            state: node.state,
            capacity: node.capacity,
            cpu_class: &node.cpu_class,
            disk_type: &node.disk_type,
            labels: &node.labels,
            price: node.price,
            may_stop: node.may_stop,
        }
    }

    /// A node that could be ordered.
    #[must_use]
    pub fn of_type(node_type: &'a NodeType) -> Candidate<'a> {
        Candidate {
            id: None,
            name: None,
            node_type: node_type.name.as_str(),
            state: NodeState::Ordered,
            capacity: node_type.capacity,
            cpu_class: &node_type.cpu_class,
            disk_type: &node_type.disk_type,
            labels: &node_type.labels,
            price: node_type.price,
            may_stop: true,
        }
    }

    /// Whether it is what `needs` and `group` ask for, room aside.
    ///
    /// A node-specific service must name its node; the others may.
    #[must_use]
    pub fn matches(&self, needs: &Needs, group: ServiceGroup) -> bool {
        let named = match (&needs.node, group) {
            (Some(name), _) => self.name == Some(name.as_str()),
            (None, ServiceGroup::NodeSpecific) => false,
            (None, ServiceGroup::SelfContained | ServiceGroup::System) => true,
        };
        named
            && needs.node_type.as_ref().is_none_or(|t| t.as_str() == self.node_type)
            && needs.cpu_class.as_ref().is_none_or(|c| c == self.cpu_class)
            && needs.disk_type.as_ref().is_none_or(|d| d == self.disk_type)
            && needs.labels.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

/// Whether nodes of this type can be ordered: static ones join by themselves.
#[must_use]
pub fn orderable(node_type: &NodeType) -> bool {
    node_type.provider != "static"
}

/// The greater of the two shares of `whole` that `part` takes, in ten-thousandths.
#[must_use]
pub fn dominant(part: Resources, whole: Capacity) -> u64 {
    let cpu = u64::from(part.cpu.0) * 10_000 / u64::from(whole.resources.cpu.0.max(1));
    let memory = u128::from(part.memory.0) * 10_000 / u128::from(whole.resources.memory.0.max(1));
    cpu.max(u64::try_from(memory).unwrap_or(u64::MAX))
}

/// Living nodes of each type, orders included.
#[must_use]
pub fn count_by_type<'a>(candidates: &[Candidate<'a>]) -> BTreeMap<&'a str, u32> {
    let mut counts = BTreeMap::new();
    for candidate in candidates.iter().filter(|c| c.state != NodeState::Stopped) {
        *counts.entry(candidate.node_type).or_default() += 1;
    }
    counts
}

/// Room and company on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room<'a> {
    /// The node.
    pub candidate: Candidate<'a>,
    /// What is left.
    pub left: Resources,
    /// Instances on it, granted ones included.
    pub instances: usize,
    /// Instances of each service on it.
    pub by_service: BTreeMap<&'a str, usize>,
    /// Something on it must be alone.
    pub dedicated: bool,
    /// No new instances: too busy.
    pub hot: bool,
    /// No new instances: it is being emptied.
    pub draining: bool,
}

impl<'a> Room<'a> {
    /// Takes room for one more instance.
    pub fn take(&mut self, service: &'a str, resources: Resources, needs: &Needs) {
        self.left = self.left.minus(resources);
        self.instances += 1;
        *self.by_service.entry(service).or_default() += 1;
        self.dedicated |= needs.dedicated;
    }

    /// Whether an instance fits, its node's state aside.
    #[must_use]
    pub fn holds(&self, resources: Resources, needs: &Needs) -> bool {
        let alone = !self.dedicated && (!needs.dedicated || self.instances == 0);
        alone && self.left.holds(resources)
    }
}

/// The room on every node, in the order of the snapshot.
#[must_use]
pub fn rooms(snapshot: &Snapshot) -> Vec<Room<'_>> {
    let mut rooms: Vec<Room<'_>> = snapshot
        .nodes
        .iter()
        .map(|view| Room {
            candidate: Candidate::of_node(view),
            left: view.node.capacity.resources,
            instances: 0,
            by_service: BTreeMap::new(),
            dedicated: false,
            hot: snapshot.memory.hot.contains(&view.node.id),
            draining: view.node.drain.is_some(),
        })
        .collect();
    let index: BTreeMap<&NodeId, usize> =
        snapshot.nodes.iter().enumerate().map(|(i, v)| (&v.node.id, i)).collect();
    for placed in held(snapshot) {
        if let Some(&at) = index.get(&placed.node) {
            rooms[at].take(placed.service.as_str(), placed.resources, &placed.needs);
        }
    }
    rooms
}

/// Everything that holds room: instances, and grants that have no row yet.
pub fn held(snapshot: &Snapshot) -> impl Iterator<Item = &Placed> {
    let rows: std::collections::BTreeSet<_> = snapshot.placed.iter().map(|p| &p.instance).collect();
    let waiting = snapshot.reservations.iter().filter(move |r| !rows.contains(&r.instance));
    snapshot.placed.iter().chain(waiting)
}
