//! What silence and deadlines do to nodes: suspect, lost, back again, given up. And which are hot.

use crate::plan::Transition;
use crate::policy::Policy;
use crate::snapshot::{Memory, NodeView, Snapshot};
use domain::{NodeId, NodeState, Share, Timestamp};
use std::time::Duration;

/// What this stage found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Nodes whose state changes.
    pub transitions: Vec<Transition>,
    /// So many nodes are silent that the fault is ours: nothing may move.
    pub deaf: bool,
    /// Hot nodes, each with the reason.
    pub hot: Vec<(NodeId, String)>,
}

/// Judges every node by how long it has been silent and where it stands.
#[must_use]
pub fn judge(snapshot: &Snapshot, policy: &Policy, memory: &mut Memory) -> Health {
    let speaking = |v: &&NodeView| {
        matches!(
            v.node.state,
            NodeState::Ready | NodeState::Suspect | NodeState::Lost | NodeState::Draining
        )
    };
    let silent = |v: &NodeView| v.silent_for.is_some_and(|s| s > policy.suspect_after);
    let living = || snapshot.nodes.iter().filter(speaking).filter(|v| !v.dead);
    let known = living().count();
    let quiet = living().filter(|v| silent(v)).count();
    let deaf = quiet >= policy.silent_nodes
        && quiet as u64 * 10_000 > known as u64 * u64::from(policy.silent_share.0);
    let mut health = Health { deaf, ..Health::default() };
    for view in &snapshot.nodes {
        if let Some(transition) = judge_one(snapshot.now, policy, view, deaf) {
            health.transitions.push(transition);
        }
        if let Some(reason) = heat(snapshot.now, policy, view, memory) {
            health.hot.push((view.node.id.clone(), reason));
        }
    }
    let here = |id: &NodeId| snapshot.nodes.iter().any(|v| v.node.id == *id);
    memory.busy_since.retain(|id, _| here(id));
    health
}

fn judge_one(now: Timestamp, policy: &Policy, view: &NodeView, deaf: bool) -> Option<Transition> {
    let node = &view.node;
    let overdue = node.deadline.is_some_and(|d| now >= d);
    let to = |to: NodeState, deadline: Option<Duration>, reason: &str| {
        let deadline = deadline.map(|d| now.plus(d));
        Some(Transition { node: node.id.clone(), to, deadline, reason: reason.to_owned() })
    };
    let lost = |silent: Duration| {
        let reason = format!("silent for {} s", silent.as_secs());
        to(NodeState::Lost, Some(policy.lost_deadline), &reason)
    };
    let serving = matches!(node.state, NodeState::Ready | NodeState::Suspect | NodeState::Draining);
    if view.dead && serving {
        let reason = "its provider says that it does not run";
        return to(NodeState::Lost, Some(policy.lost_deadline), reason);
    }
    match (node.state, view.silent_for) {
        (NodeState::Ordered, _) if overdue => {
            to(NodeState::Stopping, Some(policy.stop_deadline), "provider did not accept in time")
        }
        (NodeState::Booting, _) if overdue => {
            to(NodeState::Stopping, Some(policy.stop_deadline), "did not join in time")
        }
        (NodeState::Stopping, _) if overdue => to(
            NodeState::Stopping,
            Some(policy.stop_deadline),
            "stop overdue: asking the provider again; it is still billed",
        ),
        (NodeState::Lost, Some(silent)) if silent <= policy.suspect_after => {
            let back = if node.drain.is_some() { NodeState::Draining } else { NodeState::Ready };
            to(back, None, "heard again")
        }
        (NodeState::Suspect, Some(silent)) if silent <= policy.suspect_after => {
            to(NodeState::Ready, None, "heard again")
        }
        (NodeState::Lost, _) if overdue && !deaf && node.may_stop && node.provider != "static" => {
            to(NodeState::Stopping, Some(policy.stop_deadline), "lost for too long")
        }
        (NodeState::Ready | NodeState::Suspect | NodeState::Draining, Some(silent))
            if silent > policy.lost_after && !deaf =>
        {
            lost(silent)
        }
        (NodeState::Ready, Some(silent)) if silent > policy.suspect_after && !deaf => {
            to(NodeState::Suspect, None, &format!("silent for {} s", silent.as_secs()))
        }
        _ => None,
    }
}

/// Why the node takes no further instances: above `node_up` for the whole window, with the culprit.
fn heat(now: Timestamp, policy: &Policy, view: &NodeView, memory: &mut Memory) -> Option<String> {
    let id = &view.node.id;
    let busy = view.cpu.filter(|cpu| *cpu > policy.node_up && view.node.state == NodeState::Ready);
    let Some(cpu) = busy else {
        memory.busy_since.remove(id);
        return None;
    };
    let since = *memory.busy_since.entry(id.clone()).or_insert(now);
    if now.since(since) < policy.hot_window {
        return None;
    }
    Some(format!("processors {cpu} busy for {} s; {}", now.since(since).as_secs(), culprit(view)))
}

/// The hottest instance if it stands out (twice the next), else the fastest growing one.
fn culprit(view: &NodeView) -> String {
    let mut by_use: Vec<_> = view.instances_cpu.iter().collect();
    by_use.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let next = by_use.get(1).map_or(Share(0), |i| i.1);
    match by_use.first() {
        None => "no instance was measured".to_owned(),
        Some((id, cpu, _)) if cpu.0 >= next.0.saturating_mul(2) => {
            format!("culprit {id} with {cpu}")
        }
        Some(first) => {
            let growth = |i: &(domain::InstanceId, Share, Share)| i.1.0.saturating_sub(i.2.0);
            let fastest = by_use
                .iter()
                .fold(first, |best, i| if growth(i) > growth(best) { i } else { best });
            format!("none stands out; {} grows fastest, now {}", fastest.0, fastest.1)
        }
    }
}
