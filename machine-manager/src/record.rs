//! How what providers answered and what the plan says become records: nodes, ledger lines, events.

use crate::Manager;
use crate::provider::Stopped;
use crate::world::Outcome;
use domain::{Event, EventKind, Node, NodeId, NodeState, Timestamp};
use machine_planner::{Order, Plan, Transition};
use registry::NodeCommit;

/// Turns what providers answered into records and ledger lines.
pub(crate) fn take_outcomes(manager: &Manager, now: Timestamp, commit: &mut NodeCommit) {
    let mut world = manager.world();
    let mono = manager.clock.monotonic();
    for outcome in std::mem::take(&mut world.outcomes) {
        let (Outcome::Started(id, _)
        | Outcome::Refused(id, _)
        | Outcome::Stopped(id, _)
        | Outcome::Unsure(id, _)) = &outcome;
        let Some(mut node) = world.nodes.get(id).cloned() else { continue };
        let account = world.books.account(&node);
        let mut lines = Vec::new();
        let mut detail = String::new();
        match outcome {
            Outcome::Started(_, started) => {
                world.rest.remove(&node.id);
                if node.state == NodeState::Lost {
                    // Started again; it may take a while to speak.
                    world.let_rest(&node.id, mono);
                }
                world.backoff.remove(&node.node_type);
                if account.started_at.is_none() {
                    lines = account.begin(started.started_at, now).1;
                }
                node.provider_ref = Some(started.provider_ref);
                if node.state == NodeState::Ordered {
                    become_state(&mut node, NodeState::Booting, now, "the provider started it");
                    node.deadline = Some(now.plus(manager.config.policy.join_deadline));
                }
            }
            Outcome::Refused(_, why) => {
                lines = account.settle(now, now);
                world.back_off(&node.node_type, now, &manager.config.policy);
                detail = format!("node {} was refused: {why}", node.name);
                become_state(&mut node, NodeState::Stopped, now, &why);
            }
            Outcome::Stopped(_, Stopped { ran }) => {
                let (mut account, mut ended) = (account, now);
                if let Some((start, stop)) = ran {
                    ended = stop;
                    if account.started_at.is_none() {
                        (account, lines) = account.begin(start, now);
                    }
                }
                lines.extend(account.settle(ended, now));
                detail = format!("node {} has stopped: {}", node.name, node.reason);
                let reason = node.reason.clone();
                become_state(&mut node, NodeState::Stopped, now, &reason);
            }
            Outcome::Unsure(_, why) => {
                world.let_rest(&node.id, mono);
                tracing::warn!(node.id = %node.id, %why, "a provider did not answer; it is asked again");
            }
        }
        if !detail.is_empty() {
            commit.events.push(node_event(now, &node, node.state.as_str(), detail));
        }
        lines.iter().for_each(|l| world.books.apply(l));
        commit.ledger.extend(lines);
        if world.nodes.get(&node.id) != Some(&node) {
            keep(&mut world.nodes, &node);
            commit.nodes.push(node);
        }
    }
}

/// Keeps the model in step with a record that is being written.
fn keep(nodes: &mut std::collections::BTreeMap<NodeId, Node>, node: &Node) {
    if node.state == NodeState::Stopped {
        nodes.remove(&node.id);
    } else {
        nodes.insert(node.id.clone(), node.clone());
    }
}

/// An event about a node.
pub(crate) fn node_event(at: Timestamp, node: &Node, what: &str, detail: String) -> Event {
    let (subject, what) = (node.id.to_string(), what.to_owned());
    Event { at, kind: EventKind::Node, subject, what, detail, values: String::new() }
}

/// Moves a node, noting when and why.
pub(crate) fn become_state(node: &mut Node, to: NodeState, now: Timestamp, reason: &str) {
    if node.state != to {
        node.state_since = now;
    }
    node.state = to;
    node.deadline = None;
    node.reason = reason.to_owned();
    if to == NodeState::Stopped {
        node.stopped_at = Some(now);
    }
}

/// Applies the plan to the model and to the commit. Grants made while the plan was being made win:
/// an empty node that was given an instance meanwhile stays.
pub(crate) fn enact(manager: &Manager, now: Timestamp, made: &mut Plan, commit: &mut NodeCommit) {
    let mut world = manager.world();
    let world = &mut *world;
    let taken = |id: &NodeId| world.reserved.values().any(|(placed, _)| placed.node == *id);
    made.transitions.retain(|t| !(t.reason == "empty" && taken(&t.node)));
    for line in &made.ledger {
        world.books.apply(line);
    }
    commit.ledger.append(&mut made.ledger.clone());
    for order in &made.orders {
        let Some(row) = world.types.get(&order.node_type) else { continue };
        let node = new_node(order, &row.node_type, now);
        world.books.apply(&order.reserve);
        commit.ledger.push(order.reserve.clone());
        world.nodes.insert(node.id.clone(), node.clone());
        commit.nodes.push(node);
    }
    for change in &made.transitions {
        let Some(node) = world.nodes.get_mut(&change.node) else { continue };
        transit(node, change, now);
        world.rest.remove(&change.node);
        commit.nodes.retain(|n| n.id != node.id);
        commit.nodes.push(node.clone());
    }
    commit.events.extend(made.events.iter().cloned());
    let memory = made.memory.to_text();
    if memory != world.memory.to_text() {
        commit.memory = Some(memory);
    }
    world.memory = made.memory.clone();
    world.waiting = made.waiting.iter().map(|w| (w.instance.clone(), w.clone())).collect();
    world.plan = made.clone();
    world.planned_at = now;
}

fn transit(node: &mut Node, change: &Transition, now: Timestamp) {
    if !node.state.may_become(change.to) {
        tracing::error!(node.id = %node.id, from = %node.state, to = %change.to, "an illegal change was planned");
        return;
    }
    let first = node.state != change.to;
    become_state(node, change.to, now, &change.reason);
    node.deadline = change.deadline;
    match change.to {
        NodeState::Draining => {
            let deadline = change.deadline.unwrap_or(now);
            if first && node.drain.is_none() {
                node.drain = Some(domain::DrainOrder { reason: change.reason.clone(), deadline });
            }
            // The drain has its own deadline; the state must not have another.
            node.deadline = None;
        }
        NodeState::Ready => node.drain = None,
        NodeState::Ordered
        | NodeState::Booting
        | NodeState::Suspect
        | NodeState::Lost
        | NodeState::Stopping
        | NodeState::Stopped => {}
    }
}

fn new_node(order: &Order, of: &domain::NodeType, now: Timestamp) -> Node {
    Node {
        id: order.account.node.clone(),
        name: order.name.clone(),
        node_type: of.name.clone(),
        provider: of.provider.clone(),
        provider_ref: None,
        state: NodeState::Ordered,
        state_since: now,
        deadline: Some(order.deadline),
        address: None,
        executor_url: None,
        capacity: of.capacity,
        cpu_class: of.cpu_class.clone(),
        disk_type: of.disk_type.clone(),
        labels: of.labels.clone(),
        price: of.price,
        billing_unit: of.billing_unit,
        billing_minimum: of.billing_minimum,
        min_life: of.min_life,
        stop_lead: of.stop_lead,
        may_stop: order.may_stop,
        drain: None,
        ordered_at: order.account.ordered_at,
        ready_at: None,
        seen_at: None,
        stopped_at: None,
        secret_hash: None,
        reason: order.reason.clone(),
    }
}
