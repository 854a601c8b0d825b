//! Which nodes carry all minimum instances: the set that is paid to the month's end.

use crate::room::{self, Candidate};
use crate::snapshot::{Minimum, Snapshot};
use domain::{Capacity, NodeId, NodeState, PricePerHour, Resources};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// The carrying set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Carriers {
    /// Existing nodes in it that are neither free nor protected (those cost nothing extra).
    pub nodes: BTreeSet<NodeId>,
    /// Prices of the nodes that must still be ordered for what no existing node can carry.
    pub missing: Vec<PricePerHour>,
    /// Minimum instances that no existing node and no declared type can carry.
    pub impossible: u32,
}

/// A node the minimum may lie on, as if it were empty.
struct Bin<'a> {
    candidate: Candidate<'a>,
    left: Resources,
    /// Already paid for, so that using it costs nothing more.
    taken: bool,
    price: PricePerHour,
    id: Option<&'a NodeId>,
}

/// Greedy: the largest first, into what is already paid for, else onto the cheapest existing node,
/// else onto the cheapest type. Not always the smallest set, but the same one each time.
#[must_use]
pub fn carriers(snapshot: &Snapshot, candidates: &[Candidate<'_>]) -> Carriers {
    let mut found = Carriers::default();
    if snapshot.minimums.iter().all(|m| m.count == 0) {
        return found;
    }
    let mut bins: Vec<Bin<'_>> = candidates
        .iter()
        .filter(|c| !matches!(c.state, NodeState::Stopping | NodeState::Stopped))
        .filter(|c| !matches!(c.state, NodeState::Lost | NodeState::Draining))
        .map(|c| Bin {
            candidate: c.clone(),
            left: c.capacity.resources,
            taken: !c.may_stop || c.price.is_free(),
            price: c.price,
            id: c.id,
        })
        .collect();
    bins.sort_by_key(|b| (!b.taken, b.price, b.id.cloned()));
    let mut order: Vec<&Minimum> = snapshot.minimums.iter().filter(|m| m.count > 0).collect();
    let whole = largest(snapshot);
    order.sort_by_key(|m| (Reverse(room::dominant(m.resources, whole)), m.service.clone()));
    let mut counts = room::count_by_type(candidates);
    for minimum in order {
        for done in 0..minimum.count {
            if !carry_one(snapshot, minimum, &mut bins, &mut counts, &mut found) {
                found.impossible += minimum.count - done;
                break;
            }
        }
    }
    found
}

fn carry_one<'a>(
    snapshot: &'a Snapshot,
    minimum: &Minimum,
    bins: &mut Vec<Bin<'a>>,
    counts: &mut BTreeMap<&'a str, u32>,
    found: &mut Carriers,
) -> bool {
    let fits = |b: &Bin<'_>| {
        b.left.holds(minimum.resources) && b.candidate.matches(&minimum.needs, minimum.group)
    };
    let at = bins.iter().position(|b| b.taken && fits(b)).or_else(|| bins.iter().position(fits));
    if let Some(at) = at {
        let bin = &mut bins[at];
        bin.left = bin.left.minus(minimum.resources);
        if !bin.taken {
            bin.taken = true;
            match bin.id {
                Some(id) => drop(found.nodes.insert(id.clone())),
                None => found.missing.push(bin.price),
            }
        }
        return true;
    }
    let cheapest = snapshot
        .types
        .iter()
        .filter(|t| room::orderable(t) && t.capacity.resources.holds(minimum.resources))
        .filter(|t| Candidate::of_type(t).matches(&minimum.needs, minimum.group))
        .filter(|t| counts.get(t.name.as_str()).copied().unwrap_or(0) < t.max_count)
        .min_by_key(|t| (t.price, t.name.clone()));
    let Some(node_type) = cheapest else { return false };
    *counts.entry(node_type.name.as_str()).or_default() += 1;
    let left = node_type.capacity.resources.minus(minimum.resources);
    if !node_type.price.is_free() {
        found.missing.push(node_type.price);
    }
    let candidate = Candidate::of_type(node_type);
    bins.push(Bin { candidate, left, taken: true, price: node_type.price, id: None });
    true
}

fn largest(snapshot: &Snapshot) -> Capacity {
    let all = snapshot.types.iter().map(|t| t.capacity);
    let all = all.chain(snapshot.nodes.iter().map(|v| v.node.capacity));
    all.fold(Capacity::default(), |best, c| Capacity {
        resources: Resources {
            cpu: best.resources.cpu.max(c.resources.cpu),
            memory: best.resources.memory.max(c.resources.memory),
        },
        disk: best.disk.max(c.disk),
    })
}
