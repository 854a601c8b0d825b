//! Nodes: what there are, and what an operator asks of them.

use super::budget::{moment, snapshot};
use super::{LIST_MAX, WriteQuery, leading, registry_error};
use crate::Manager;
use crate::record::{become_state, node_event};
use crate::status::{node_view, stats_view};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chassis::{ApiError, ApiJson, ApiPath, ApiQuery};
use domain::{DrainOrder, Node, NodeState, Timestamp};
use machine_planner::{Requested, Why, admit_protection};
use registry::NodeCommit;
use serde::Deserialize;
use std::sync::Arc;
use wire::operator::{List, NodeOrder, NodePatch, NodeStatsView, NodeView};
use wire::problem::Kind;

/// Measurements in one answer at most: an hour of seconds.
const STATS_MAX: usize = 3600;

/// `GET /v1/nodes`.
pub(crate) async fn list(
    State(manager): State<Arc<Manager>>,
) -> Result<Json<List<NodeView>>, ApiError> {
    leading(&manager)?;
    let world = manager.world();
    let views = world.nodes.values().take(LIST_MAX).map(|n| node_view(&world, n));
    Ok(Json(List::whole(views.collect())))
}

/// A living node by its id or its name.
fn living(manager: &Manager, wanted: &str) -> Result<Node, ApiError> {
    leading(manager)?;
    let world = manager.world();
    let found = world.nodes.values().find(|n| n.id.as_str() == wanted || n.name == wanted);
    found.cloned().ok_or_else(|| {
        let shown: String = wanted.chars().take(63).collect();
        ApiError::new(Kind::NotFound, format!("no living node is {shown:?}; see `tally node ls`"))
    })
}

/// `GET /v1/nodes/{id}`; stopped ones too while the registry keeps them.
pub(crate) async fn get(
    State(manager): State<Arc<Manager>>,
    ApiPath(wanted): ApiPath<String>,
) -> Result<Json<NodeView>, ApiError> {
    match living(&manager, &wanted) {
        Ok(node) => Ok(Json(node_view(&manager.world(), &node))),
        Err(error) => {
            let Ok(id) = wanted.parse() else { return Err(error) };
            let kept = manager.registry.node(&id).await.map_err(|e| registry_error(&e, false))?;
            let node = kept.ok_or(error)?;
            Ok(Json(node_view(&manager.world(), &node)))
        }
    }
}

/// `POST /v1/nodes {"type": "small"}`.
pub(crate) async fn order(
    State(manager): State<Arc<Manager>>,
    ApiQuery(query): ApiQuery<WriteQuery>,
    ApiJson(order): ApiJson<NodeOrder>,
) -> Result<(StatusCode, Json<NodeView>), ApiError> {
    let node_type = super::types::known(&manager, &order.node_type)?;
    let requested = Requested { node_type: node_type.name, name: None, may_stop: true };
    if query.dry_run {
        let detail = "an order has no dry run; `tally plan` shows what would be ordered";
        return Err(ApiError::new(Kind::Invalid, detail));
    }
    let ordered = crate::reconcile::order(&manager, requested).await;
    match ordered.map_err(|e| registry_error(&e, false))? {
        Ok(order) => {
            let node = living(&manager, order.account.node.as_str())?;
            Ok((StatusCode::CREATED, Json(node_view(&manager.world(), &node))))
        }
        Err(refusal) => {
            let kind = match refusal.why {
                Why::Cap => Kind::Cap,
                // The state of things forbids it now: a guard, or as many as may be.
                Why::TypeMax | Why::Node => Kind::Conflict,
                Why::NoType | Why::Impossible => Kind::Invalid,
            };
            Err(ApiError::new(kind, refusal.detail).with_error("/type", refusal.why.as_str()))
        }
    }
}

/// Changes one node's record under the lease, with an event.
async fn change(
    manager: &Arc<Manager>,
    wanted: &str,
    make: impl FnOnce(&mut Node, Timestamp) -> Result<(&'static str, String), ApiError>,
) -> Result<Node, ApiError> {
    let writer = manager.writer.lock().await;
    let Some(lease) = writer.clone() else {
        let detail = "no machine-manager leads here at the moment; try again";
        return Err(ApiError::new(Kind::Unavailable, detail).retry_after(1));
    };
    let mut node = living(manager, wanted)?;
    let before = node.clone();
    let now = manager.clock.now();
    let (what, detail) = make(&mut node, now)?;
    if node == before {
        return Ok(node);
    }
    let events = vec![node_event(now, &node, what, detail)];
    let commit = NodeCommit { nodes: vec![node.clone()], events, ..NodeCommit::default() };
    manager.registry.commit_nodes(&lease, commit).await.map_err(|e| {
        manager.world().loaded = false;
        registry_error(&e, false)
    })?;
    {
        let mut world = manager.world();
        if node.state == NodeState::Stopped {
            world.nodes.remove(&node.id);
        } else {
            world.nodes.insert(node.id.clone(), node.clone());
        }
    }
    drop(writer);
    manager.nudge.nudge();
    crate::reconcile::nudge_container_manager(manager);
    Ok(node)
}

/// `PATCH /v1/nodes/{id} {"may_stop": false}`.
pub(crate) async fn patch(
    State(manager): State<Arc<Manager>>,
    ApiPath(wanted): ApiPath<String>,
    ApiQuery(query): ApiQuery<WriteQuery>,
    ApiJson(patch): ApiJson<NodePatch>,
) -> Result<Json<NodeView>, ApiError> {
    let node = living(&manager, &wanted)?;
    let protect = node.may_stop && !patch.may_stop;
    if protect && !node.price.is_free() && !query.force {
        let policy = &manager.config.policy;
        admit_protection(&snapshot(&manager), policy, &node.id).map_err(|refusal| {
            ApiError::new(Kind::Cap, refusal.detail.clone()).with_error("/may_stop", refusal.detail)
        })?;
    }
    if query.dry_run {
        let would = Node { may_stop: patch.may_stop, ..node };
        return Ok(Json(node_view(&manager.world(), &would)));
    }
    let node = change(&manager, &wanted, |node, _now| {
        node.may_stop = patch.may_stop;
        let word = if patch.may_stop { "unprotected" } else { "protected" };
        Ok((word, format!("node {} is {word} now", node.name)))
    })
    .await?;
    Ok(Json(node_view(&manager.world(), &node)))
}

/// `POST /v1/nodes/{id}/drain`: what runs on it starts elsewhere first; then it stops, unless it is
/// protected.
pub(crate) async fn drain(
    State(manager): State<Arc<Manager>>,
    ApiPath(wanted): ApiPath<String>,
) -> Result<(StatusCode, Json<NodeView>), ApiError> {
    let lasts = manager.config.policy.drain_deadline;
    let node = change(&manager, &wanted, |node, now| {
        if node.drain.is_some() || node.state == NodeState::Stopping {
            return Ok(("draining", String::new()));
        }
        if !node.state.may_become(NodeState::Draining) {
            let detail = format!("node {} is {}: it holds nothing yet", node.name, node.state);
            return Err(ApiError::new(Kind::Conflict, detail));
        }
        become_state(node, NodeState::Draining, now, "operator: drain");
        let reason = "operator: drain".to_owned();
        node.drain = Some(DrainOrder { reason, deadline: now.plus(lasts) });
        Ok(("draining", format!("node {} is being drained by an operator", node.name)))
    })
    .await?;
    Ok((StatusCode::ACCEPTED, Json(node_view(&manager.world(), &node))))
}

/// `DELETE /v1/nodes/{id}`: stops an empty node, or takes a silent or static one off the books.
pub(crate) async fn remove(
    State(manager): State<Arc<Manager>>,
    ApiPath(wanted): ApiPath<String>,
    ApiQuery(query): ApiQuery<WriteQuery>,
) -> Result<StatusCode, ApiError> {
    let node = living(&manager, &wanted)?;
    let lost = node.state == NodeState::Lost;
    let fixed = node.provider == crate::providers::static_::NAME;
    if !node.may_stop && !fixed {
        let name = &node.name;
        let detail = format!("node {name} is protected; `tally node unprotect {name}` first");
        return Err(ApiError::new(Kind::Conflict, detail));
    }
    let instances = node_view(&manager.world(), &node).instances;
    if instances > 0 && !lost && !query.force {
        let name = &node.name;
        let detail = format!(
            "{instances} instances are on node {name}; `tally node drain {name}` first, or remove it \
             with force"
        );
        return Err(ApiError::new(Kind::Conflict, detail));
    }
    if query.dry_run {
        return Ok(StatusCode::NO_CONTENT);
    }
    if fixed {
        forget(&manager, &wanted).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    let deadline = manager.config.policy.stop_deadline;
    change(&manager, &wanted, |node, now| {
        become_state(node, NodeState::Stopping, now, "operator: removed");
        node.deadline = Some(now.plus(deadline));
        Ok(("stopping", format!("node {} is being stopped by an operator", node.name)))
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A static node ends in our books alone: its host is somebody else's.
async fn forget(manager: &Arc<Manager>, wanted: &str) -> Result<(), ApiError> {
    let writer = manager.writer.lock().await;
    let Some(lease) = writer.clone() else {
        let detail = "no machine-manager leads here at the moment; try again";
        return Err(ApiError::new(Kind::Unavailable, detail).retry_after(1));
    };
    let mut node = living(manager, wanted)?;
    let now = manager.clock.now();
    let ledger = manager.world().books.account(&node).settle(now, now);
    become_state(&mut node, NodeState::Stopped, now, "operator: removed");
    let detail = format!("node {} was removed by an operator", node.name);
    let events = vec![node_event(now, &node, "stopped", detail)];
    let nodes = vec![node.clone()];
    let commit = NodeCommit { nodes, ledger: ledger.clone(), events, memory: None };
    manager.registry.commit_nodes(&lease, commit).await.map_err(|e| {
        manager.world().loaded = false;
        registry_error(&e, false)
    })?;
    let mut world = manager.world();
    ledger.iter().for_each(|line| world.books.apply(line));
    world.nodes.remove(&node.id);
    drop(world);
    drop(writer);
    crate::reconcile::nudge_container_manager(manager);
    Ok(())
}

/// Which measurements are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StatsQuery {
    since: Option<String>,
    limit: Option<usize>,
}

/// `GET /v1/nodes/{id}/stats?since=`: oldest first.
pub(crate) async fn stats(
    State(manager): State<Arc<Manager>>,
    ApiPath(wanted): ApiPath<String>,
    ApiQuery(query): ApiQuery<StatsQuery>,
) -> Result<Json<List<NodeStatsView>>, ApiError> {
    let node = living(&manager, &wanted)?;
    let since = moment(query.since.as_deref(), "since")?.unwrap_or(Timestamp(0));
    let limit = query.limit.unwrap_or(STATS_MAX).min(STATS_MAX);
    let stats = manager.registry.node_stats(&node.id, since, limit).await;
    let stats = stats.map_err(|e| registry_error(&e, false))?;
    Ok(Json(List::whole(stats.iter().map(|s| stats_view(&node, s)).collect())))
}
