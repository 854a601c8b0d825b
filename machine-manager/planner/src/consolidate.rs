//! Emptying an under-used node whose instances fit elsewhere: one at a time, and only in quiet.
//!
//! Absent: a cheaper set of new nodes for what runs now (moving onto nodes not yet ordered).

use crate::plan::Transition;
use crate::policy::Policy;
use crate::purse::Standing;
use crate::room::{Room, dominant};
use crate::snapshot::{Placed, Snapshot};
use domain::{NodeId, NodeState, ServiceGroup};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Nodes simulated in one step: each costs a look at every other node.
const SIMULATED_MAX: usize = 8;
/// The first words of the reason.
pub const REASON: &str = "consolidate:";

/// The node to drain, if one is worth it: the dearest of those under `node_down` whose instances
/// all fit on nodes that stay. What runs on it starts elsewhere first.
#[must_use]
pub fn consolidate(
    snapshot: &Snapshot,
    policy: &Policy,
    rooms: &[Room<'_>],
    standing: &BTreeMap<NodeId, Standing>,
) -> Option<Transition> {
    let now = snapshot.now;
    let quiet = snapshot.memory.changed_at.is_none_or(|at| now.since(at) >= policy.quiet);
    let moving = snapshot.nodes.iter().any(|v| {
        v.node.drain.is_some()
            || matches!(v.node.state, NodeState::Ordered | NodeState::Booting | NodeState::Lost)
    });
    if !policy.consolidate || !quiet || moving || !snapshot.wanted.is_empty() {
        return None;
    }
    let mut candidates: Vec<usize> = Vec::new();
    for (i, (view, room)) in snapshot.nodes.iter().zip(rooms).enumerate() {
        let whole = room.candidate.capacity;
        let used = dominant(whole.resources.minus(room.left), whole);
        let dynamic = standing.get(&view.node.id).is_none_or(|s| *s == Standing::Dynamic);
        let young = view.node.ready_at.is_none_or(|at| now.since(at) < policy.quiet);
        if view.node.takes_instances()
            && room.candidate.state == NodeState::Ready
            && view.node.may_stop
            && view.node.provider != "static"
            && dynamic
            && !young
            && room.instances > 0
            && used < u64::from(policy.node_down.0)
        {
            candidates.push(i);
        }
    }
    candidates.sort_by_key(|&i| (Reverse(rooms[i].candidate.price), rooms[i].instances, i));
    let found = candidates.into_iter().take(SIMULATED_MAX).find(|&i| moves(snapshot, rooms, i))?;
    let view = &snapshot.nodes[found];
    Some(Transition {
        node: view.node.id.clone(),
        to: NodeState::Draining,
        deadline: Some(now.plus(policy.drain_deadline)),
        reason: format!("{REASON} its {} instances fit elsewhere", rooms[found].instances),
    })
}

/// Whether all that is on `rooms[from]` fits on other ready nodes, the dearer ones of which it must
/// not be: no two nodes may want to move onto each other.
fn moves(snapshot: &Snapshot, rooms: &[Room<'_>], from: usize) -> bool {
    let id = &snapshot.nodes[from].node.id;
    let mut others: Vec<Room<'_>> = rooms
        .iter()
        .enumerate()
        .filter(|(i, room)| *i != from && crate::place::takes_instances(room))
        .filter(|(_, room)| room.instances > 0 || !room.candidate.may_stop)
        .map(|(_, room)| room.clone())
        .collect();
    let mut here: Vec<&Placed> =
        crate::room::held(snapshot).filter(|placed| placed.node == *id).collect();
    if here.iter().any(|p| p.group == ServiceGroup::NodeSpecific || p.needs.node.is_some()) {
        return false;
    }
    let whole = rooms[from].candidate.capacity;
    here.sort_by_key(|p| (Reverse(dominant(p.resources, whole)), p.instance.clone()));
    here.iter().all(|placed| {
        let room = others.iter_mut().find(|room| {
            room.holds(placed.resources, &placed.needs)
                && room.candidate.matches(&placed.needs, placed.group)
        });
        room.map(|room| room.take(placed.service.as_str(), placed.resources, &placed.needs))
            .is_some()
    })
}
