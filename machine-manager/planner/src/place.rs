//! Where a start goes at once: first-fit decreasing over the room that is there, then over the
//! room that is coming.

use crate::plan::Grant;
use crate::room::{Room, dominant};
use crate::snapshot::{Snapshot, Wanted};
use domain::{InstanceId, NodeId, NodeState};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What became of the wanted starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement<'a> {
    /// These have a node that is ready.
    pub granted: Vec<Grant>,
    /// These have a node that is coming.
    pub coming: Vec<(&'a Wanted, NodeId)>,
    /// These fit nowhere.
    pub unplaced: Vec<&'a Wanted>,
}

/// The better node is the smaller value; the order of the fields is the policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Preference<'a> {
    /// Nodes that stay anyway come first: what is on them costs nothing more.
    would_keep_a_node: bool,
    /// One node should not hold all instances of a service when another has room.
    holds_all_of_service: bool,
    /// The tightest fit: fewer nodes stay half full.
    left: u64,
    id: Option<&'a NodeId>,
}

/// Places every wanted start that has room, taking the room in `rooms`.
///
/// What was granted before keeps its node as long as the node takes instances: the same question
/// gets the same answer.
#[must_use]
pub fn place<'a>(snapshot: &'a Snapshot, rooms: &mut [Room<'a>]) -> Placement<'a> {
    let mut placement = Placement::default();
    let index: BTreeMap<&NodeId, usize> =
        rooms.iter().enumerate().filter_map(|(i, r)| r.candidate.id.map(|id| (id, i))).collect();
    let known: BTreeMap<&InstanceId, &NodeId> = snapshot
        .reservations
        .iter()
        .chain(&snapshot.placed)
        .map(|p| (&p.instance, &p.node))
        .collect();
    let mut open: Vec<&Wanted> = Vec::new();
    for wanted in &snapshot.wanted {
        let again = known.get(&wanted.instance).filter(|node| {
            let room = index.get(*node).map(|&i| &rooms[i]);
            room.is_some_and(takes_instances) && !wanted.not_on.contains(**node)
        });
        match again {
            Some(node) => placement
                .granted
                .push(Grant { instance: wanted.instance.clone(), node: (*node).clone() }),
            None => open.push(wanted),
        }
    }
    let count = service_counts(rooms);
    let mut count = count;
    open.sort_by_cached_key(|w| order_key(w, rooms));
    for wanted in open {
        let all = count.get(wanted.service.as_str()).copied().unwrap_or(0);
        if let Some(at) = best(wanted, rooms, all, takes_instances) {
            take(wanted, &mut rooms[at], &mut count);
            if let Some(id) = rooms[at].candidate.id {
                placement
                    .granted
                    .push(Grant { instance: wanted.instance.clone(), node: id.clone() });
            }
        } else if let Some(at) = best(wanted, rooms, all, is_coming) {
            take(wanted, &mut rooms[at], &mut count);
            if let Some(id) = rooms[at].candidate.id {
                placement.coming.push((wanted, id.clone()));
            }
        } else {
            placement.unplaced.push(wanted);
        }
    }
    placement.granted.sort();
    placement
}

/// Greater priority first, then whoever is waited for, then the largest.
fn order_key(
    wanted: &Wanted,
    rooms: &[Room<'_>],
) -> (Reverse<i32>, bool, Reverse<u64>, InstanceId) {
    let share = rooms
        .iter()
        .filter(|r| r.candidate.capacity.resources.holds(wanted.resources))
        .map(|r| dominant(wanted.resources, r.candidate.capacity))
        .min();
    let share = share.unwrap_or(u64::MAX);
    (Reverse(wanted.priority), !wanted.wake, Reverse(share), wanted.instance.clone())
}

fn take<'a>(wanted: &'a Wanted, room: &mut Room<'a>, count: &mut BTreeMap<&'a str, usize>) {
    room.take(wanted.service.as_str(), wanted.resources, &wanted.needs);
    *count.entry(wanted.service.as_str()).or_default() += 1;
}

fn service_counts<'a>(rooms: &[Room<'a>]) -> BTreeMap<&'a str, usize> {
    let mut count = BTreeMap::new();
    for room in rooms {
        for (service, n) in &room.by_service {
            *count.entry(*service).or_default() += n;
        }
    }
    count
}

/// Whether a start may go there now.
#[must_use]
pub fn takes_instances(room: &Room<'_>) -> bool {
    room.candidate.state == NodeState::Ready && !room.draining && !room.hot
}

fn is_coming(room: &Room<'_>) -> bool {
    matches!(room.candidate.state, NodeState::Ordered | NodeState::Booting) && !room.draining
}

fn best(
    wanted: &Wanted,
    rooms: &[Room<'_>],
    all: usize,
    allowed: fn(&Room<'_>) -> bool,
) -> Option<usize> {
    let fitting = rooms.iter().enumerate().filter(|(_, room)| {
        allowed(room)
            && room.holds(wanted.resources, &wanted.needs)
            && room.candidate.matches(&wanted.needs, wanted.group)
            && room.candidate.id.is_none_or(|id| !wanted.not_on.contains(id))
    });
    let preferred = fitting.min_by_key(|(_, room)| {
        let here = room.by_service.get(wanted.service.as_str()).copied().unwrap_or(0);
        Preference {
            would_keep_a_node: room.candidate.may_stop && !room.candidate.price.is_free(),
            holds_all_of_service: here > 0 && here == all,
            left: dominant(room.left.minus(wanted.resources), room.candidate.capacity),
            id: room.candidate.id,
        }
    });
    preferred.map(|(at, _)| at)
}

/// The better instance to stop is the smaller value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Farewell<'a> {
    /// On a node that goes, is silent or hot: first.
    on_sound_node: bool,
    /// On a node that stays anyway: last, for it frees nothing.
    frees_no_node: bool,
    /// The fewer are on its node, the sooner the node is empty.
    company: usize,
    id: &'a InstanceId,
}

/// Which of the offered instances to stop: those whose end empties a node soonest.
#[must_use]
pub fn stops(snapshot: &Snapshot, rooms: &[Room<'_>]) -> Vec<InstanceId> {
    let by_id: BTreeMap<&NodeId, &Room<'_>> =
        rooms.iter().filter_map(|r| r.candidate.id.map(|id| (id, r))).collect();
    let on: BTreeMap<&InstanceId, &NodeId> =
        snapshot.placed.iter().map(|p| (&p.instance, &p.node)).collect();
    let mut gone: BTreeMap<&NodeId, usize> = BTreeMap::new();
    let mut chosen = Vec::new();
    for stop in &snapshot.stops {
        let mut left: Vec<&InstanceId> = stop.candidates.iter().collect();
        for _ in 0..stop.count {
            let best = left.iter().enumerate().min_by_key(|(_, id)| {
                let node = on.get(*id).copied();
                let room = node.and_then(|n| by_id.get(n));
                let left_there = room.map_or(0, |r| r.instances);
                let gone_there = node.and_then(|n| gone.get(n)).copied().unwrap_or(0);
                Farewell {
                    on_sound_node: room.is_some_and(|r| takes_instances(r)),
                    frees_no_node: room
                        .is_some_and(|r| !r.candidate.may_stop || r.candidate.price.is_free()),
                    company: left_there.saturating_sub(gone_there),
                    id,
                }
            });
            let Some((at, _)) = best else { break };
            let id = left.swap_remove(at);
            left.sort();
            if let Some(node) = on.get(id) {
                *gone.entry(node).or_default() += 1;
            }
            chosen.push(id.clone());
        }
    }
    chosen
}
