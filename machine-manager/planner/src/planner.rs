//! The stages of a plan, in order.

use crate::account::Account;
use crate::carry::carriers;
use crate::consolidate::consolidate;
use crate::health;
use crate::order::{Bought, Buyer};
use crate::place::{self, Placement};
use crate::plan::{Plan, Refusal, Transition, Waiting, Why};
use crate::policy::Policy;
use crate::purse::{Purse, Standing, standing_of};
use crate::renew;
use crate::room::{self, Candidate, Room};
use crate::snapshot::{Memory, Snapshot, Wanted};
use crate::tell;
use domain::{IdSource, Money, NodeId, NodeState, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Decides everything that is to be decided now. The snapshot must be normalised.
#[must_use]
pub fn plan(snapshot: &Snapshot, policy: &Policy, ids: &mut dyn IdSource) -> Plan {
    let mut memory = snapshot.memory.clone();
    let mut accounts = snapshot.accounts.clone();
    let mut plan = Plan { ledger: renew::facts(snapshot, &mut accounts), ..Plan::default() };

    let health = health::judge(snapshot, policy, &mut memory);
    let mut changes: BTreeMap<NodeId, Transition> = BTreeMap::new();
    note(&mut changes, health.transitions);
    let hot: BTreeSet<NodeId> = health.hot.iter().map(|(id, _)| id.clone()).collect();

    let mut rooms = room::rooms(snapshot);
    overlay(&mut rooms, &changes, &hot);
    let placement = place::place(snapshot, &mut rooms);
    plan.stops = place::stops(snapshot, &rooms);
    remember_empty(snapshot, &rooms, &mut memory);

    let protected = protected(snapshot);
    let standing = standing(snapshot, &protected, &changes);
    let mut purse = first_purse(snapshot, policy, &accounts, &protected, &changes);
    let renewals =
        renew::renew(snapshot, policy, &rooms, &standing, &mut accounts, &mut purse, &memory);
    plan.ledger.extend(renewals.lines);
    let moved = renewals.transitions.into_iter().filter(|t| !health.deaf || is_money(t));
    note(&mut changes, moved.collect());

    let ending = ending(&changes);
    let mut buyer = Buyer {
        snapshot,
        policy,
        accounts: &accounts,
        protected: &protected,
        ending: &ending,
        ids,
        fresh_ids: Vec::new(),
    };
    let mut bought = Bought::default();
    for (at, asked) in snapshot.requested.iter().enumerate() {
        if let Err(refusal) = buyer.request(asked, &mut bought) {
            plan.refused.push((at, refusal));
        }
    }
    let due = batch(snapshot, policy, &placement.unplaced, &mut memory);
    match due {
        _ if health.deaf => hold_all(&mut plan, &placement, "too many nodes are silent"),
        Batch::Due => buyer.buy(&placement.unplaced, &mut bought),
        Batch::At(at) => {
            hold_all(&mut plan, &placement, "demand is being collected");
            plan.plan_again_at = Some(at);
        }
    }
    plan.orders = bought.orders(snapshot, policy, &buyer.fresh_ids);
    plan.waiting.append(&mut bought.waiting);
    wait_for_nodes(snapshot, policy, &placement, &bought, &mut plan);
    plan.granted = placement.granted;

    if !health.deaf && plan.orders.is_empty() {
        note(&mut changes, consolidate(snapshot, policy, &rooms, &standing).into_iter().collect());
    }
    plan.transitions = changes.into_values().collect();
    remember_change(snapshot, &plan, &mut memory);
    plan.report.hot = health.hot;
    plan.report.deaf = health.deaf;
    tell::tell(snapshot, policy, &accounts, &protected, &standing, &purse, &mut plan, &mut memory);
    memory.hot = hot;
    plan_again(snapshot, policy, &accounts, &mut plan, &memory);
    plan.memory = memory;
    plan
}

/// A later stage overrules an earlier one, but for an end: that stays.
fn note(changes: &mut BTreeMap<NodeId, Transition>, more: Vec<Transition>) {
    for transition in more {
        let ends = |t: &Transition| t.to == NodeState::Stopping;
        if changes.get(&transition.node).is_none_or(|old| !ends(old)) {
            changes.insert(transition.node.clone(), transition);
        }
    }
}

/// Whether a change is made for want of money, which silence does not excuse.
fn is_money(transition: &Transition) -> bool {
    transition.reason.starts_with(renew::CAP_REASON)
}

fn overlay(rooms: &mut [Room<'_>], changes: &BTreeMap<NodeId, Transition>, hot: &BTreeSet<NodeId>) {
    for room in rooms {
        let Some(id) = room.candidate.id else { continue };
        room.hot = hot.contains(id);
        if let Some(change) = changes.get(id) {
            room.candidate.state = change.to;
            room.draining |= change.to == NodeState::Draining;
        }
    }
}

/// Nodes that stay whatever their load.
#[must_use]
pub fn protected(snapshot: &Snapshot) -> BTreeSet<NodeId> {
    let stays = snapshot.nodes.iter().filter(|v| {
        !v.node.may_stop && !matches!(v.node.state, NodeState::Stopping | NodeState::Stopped)
    });
    stays.map(|v| v.node.id.clone()).collect()
}

fn ending(changes: &BTreeMap<NodeId, Transition>) -> BTreeSet<NodeId> {
    let ends = changes.values().filter(|t| t.to == NodeState::Stopping);
    ends.map(|t| t.node.clone()).collect()
}

fn candidates<'a>(
    snapshot: &'a Snapshot,
    changes: &BTreeMap<NodeId, Transition>,
) -> Vec<Candidate<'a>> {
    let all = snapshot.nodes.iter().map(|view| {
        let state = changes.get(&view.node.id).map_or(view.node.state, |t| t.to);
        Candidate { state, ..Candidate::of_node(view) }
    });
    all.filter(|c| c.state != NodeState::Stopping).collect()
}

fn standing(
    snapshot: &Snapshot,
    protected: &BTreeSet<NodeId>,
    changes: &BTreeMap<NodeId, Transition>,
) -> BTreeMap<NodeId, Standing> {
    let carriers = carriers(snapshot, &candidates(snapshot, changes));
    let all = snapshot.nodes.iter().map(|v| v.node.id.clone());
    all.map(|id| (id.clone(), standing_of(&id, protected, &carriers))).collect()
}

fn first_purse(
    snapshot: &Snapshot,
    policy: &Policy,
    accounts: &BTreeMap<NodeId, Account>,
    protected: &BTreeSet<NodeId>,
    changes: &BTreeMap<NodeId, Transition>,
) -> Purse {
    let carriers = carriers(snapshot, &candidates(snapshot, changes));
    Purse::new(snapshot, policy, accounts, protected, &carriers)
}

/// Keeps since when each node has been empty. A node with a coming start is not empty.
fn remember_empty(snapshot: &Snapshot, rooms: &[Room<'_>], memory: &mut Memory) {
    let mut next = BTreeMap::new();
    for (view, room) in snapshot.nodes.iter().zip(rooms) {
        if room.instances == 0 && view.node.ready_at.is_some() {
            let since = memory.empty_since.get(&view.node.id).copied();
            next.insert(view.node.id.clone(), since.unwrap_or(snapshot.now));
        }
    }
    memory.empty_since = next;
}

fn remember_change(snapshot: &Snapshot, plan: &Plan, memory: &mut Memory) {
    let ready = snapshot.nodes.iter().filter_map(|v| v.node.ready_at).max();
    let drained = plan.transitions.iter().any(|t| t.to == NodeState::Draining);
    let now = (!plan.orders.is_empty() || drained).then_some(snapshot.now);
    memory.changed_at = memory.changed_at.max(ready).max(now);
}

/// Whether unplaced demand has been collected long enough.
enum Batch {
    Due,
    At(Timestamp),
}

fn batch(snapshot: &Snapshot, policy: &Policy, unplaced: &[&Wanted], memory: &mut Memory) -> Batch {
    let now = snapshot.now;
    let old = std::mem::take(&mut memory.unplaced_since);
    for wanted in unplaced {
        let since = old.get(&wanted.instance).copied().unwrap_or(now);
        memory.unplaced_since.insert(wanted.instance.clone(), since);
    }
    let first = memory.unplaced_since.values().min().copied().unwrap_or(now);
    let last = memory.unplaced_since.values().max().copied().unwrap_or(now);
    let at = last.plus(policy.batch_idle).min(first.plus(policy.batch_max));
    if unplaced.is_empty() || unplaced.iter().any(|w| w.wake) || now >= at {
        Batch::Due
    } else {
        Batch::At(at)
    }
}

fn hold_all(plan: &mut Plan, placement: &Placement<'_>, why: &str) {
    for wanted in &placement.unplaced {
        plan.waiting.push(Waiting {
            instance: wanted.instance.clone(),
            service: wanted.service.clone(),
            node_type: None,
            node: None,
            eta: None,
            refusal: for_node(why.to_owned()),
        });
    }
}

fn for_node(detail: String) -> Refusal {
    Refusal { why: Why::Node, needs: Money::ZERO, until: None, detail }
}

/// Starts that have a node which is coming, or was just ordered.
fn wait_for_nodes(
    snapshot: &Snapshot,
    policy: &Policy,
    placement: &Placement<'_>,
    bought: &Bought<'_>,
    plan: &mut Plan,
) {
    let mut add = |wanted: &Wanted, node: &NodeId, ordered_at: Timestamp| {
        plan.waiting.push(Waiting {
            instance: wanted.instance.clone(),
            service: wanted.service.clone(),
            node_type: None,
            node: Some(node.clone()),
            eta: Some(ordered_at.plus(policy.boot_guess).max(snapshot.now)),
            refusal: for_node(format!("node {node} is coming")),
        });
    };
    for (wanted, node) in &placement.coming {
        let view = snapshot.nodes.iter().find(|v| v.node.id == *node);
        add(wanted, node, view.map_or(snapshot.now, |v| v.node.ordered_at));
    }
    for (fresh, order) in bought.content.iter().zip(&plan.orders) {
        for wanted in &fresh.content {
            add(wanted, &order.account.node, snapshot.now);
        }
    }
    plan.waiting.sort_by(|a, b| a.instance.cmp(&b.instance));
}

/// The nearest moment at which something falls due.
fn plan_again(
    snapshot: &Snapshot,
    policy: &Policy,
    accounts: &BTreeMap<NodeId, Account>,
    plan: &mut Plan,
    memory: &Memory,
) {
    let now = snapshot.now;
    let edges = accounts.values().filter(|a| !a.price.is_free()).flat_map(|a| {
        let must = a.paid_until().minus(a.stop_lead).minus(policy.renew_ahead);
        [must, must.minus(policy.drain_lead)]
    });
    let empties = memory.empty_since.values().map(|at| at.plus(policy.empty_after));
    let deadlines = snapshot.nodes.iter().filter_map(|v| v.node.deadline);
    let drains = snapshot.nodes.iter().filter_map(|v| v.node.drain.as_ref().map(|d| d.deadline));
    let all = edges.chain(empties).chain(deadlines).chain(drains).chain(plan.plan_again_at);
    plan.plan_again_at = all.filter(|at| *at > now).min();
}
