//! `POST /v1/stats`: what nodes measure, and that they live.

use crate::Manager;
use crate::world::{Heard, STATS_WAITING_MAX};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use chassis::{ApiError, ApiJson, identity};
use domain::NodeState;
use registry::{InstanceStat, NodeStat};
use std::collections::BTreeMap;
use std::sync::Arc;
use wire::assignment::ASSIGNED_INSTANCES_MAX;
use wire::join::StatsReport;
use wire::problem::Kind;

/// The bearer token of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// The handler.
pub(crate) async fn post(
    State(manager): State<Arc<Manager>>,
    headers: HeaderMap,
    ApiJson(report): ApiJson<StatsReport>,
) -> Result<StatusCode, ApiError> {
    if report.wire != wire::WIRE_VERSION {
        let detail = format!("this machine-manager speaks wire {}", wire::WIRE_VERSION);
        return Err(ApiError::new(Kind::Invalid, detail).with_error("/wire", "unknown version"));
    }
    if report.instances.len() > ASSIGNED_INSTANCES_MAX {
        let detail = format!("at most {ASSIGNED_INSTANCES_MAX} instances in one report");
        return Err(ApiError::new(Kind::TooLarge, detail).with_error("/instances", "too many"));
    }
    let secret = bearer(&headers).ok_or_else(|| {
        ApiError::new(Kind::Unauthorized, "send the node's secret as a bearer token")
    })?;
    let silent = record(&manager, secret, report)?;
    if silent {
        manager.nudge.nudge();
    }
    Ok(StatusCode::ACCEPTED)
}

/// Takes a report in; answers whether the node had been given up for silence.
fn record(manager: &Manager, secret: &str, report: StatsReport) -> Result<bool, ApiError> {
    let (at, mono) = (manager.clock.now(), manager.clock.monotonic());
    let mut world = manager.world();
    if !world.loaded {
        let detail = "this machine-manager does not lead, or has not read the registry yet";
        return Err(ApiError::new(Kind::Unavailable, detail).retry_after(1));
    }
    let hash = identity::digest(secret);
    let node = world
        .nodes
        .get(&report.node)
        .filter(|node| node.secret_hash.as_ref().is_some_and(|known| identity::same(known, &hash)));
    let Some(node) = node else {
        let detail =
            format!("{} is not a node of this cluster, or not with this secret", report.node);
        return Err(ApiError::new(Kind::Unauthorized, detail));
    };
    let silent = matches!(node.state, NodeState::Suspect | NodeState::Lost);
    let id = node.id.clone();
    let old = world.heard.get(&id);
    if old.is_some_and(|old| report.seq <= old.seq && old.stat.is_some()) {
        // Out of order or sent twice; a newer one was heard already.
        return Ok(false);
    }
    let stat = NodeStat {
        node: id.clone(),
        at,
        cpu_millis: report.measure.cpu_millis,
        memory_bytes: report.measure.memory_bytes,
        disk_bytes: report.measure.disk_bytes,
        rx_bytes_per_second: report.measure.rx_bytes_per_second,
        tx_bytes_per_second: report.measure.tx_bytes_per_second,
    };
    let first = |instance: &domain::InstanceId, cpu: u32| {
        old.and_then(|h| h.instances.get(instance)).map_or(cpu, |(_, first)| *first)
    };
    let instances: BTreeMap<_, _> = report
        .instances
        .iter()
        .map(|i| (i.instance.clone(), (i.cpu_millis, first(&i.instance, i.cpu_millis))))
        .collect();
    let heard = Heard { at: mono, seq: report.seq, stat: Some(stat.clone()), instances };
    world.heard.insert(id.clone(), heard);
    world.dead.remove(&id);
    if world.node_stats.len() + world.instance_stats.len() < STATS_WAITING_MAX {
        world.node_stats.push(stat);
        world.instance_stats.extend(report.instances.into_iter().map(|i| InstanceStat {
            instance: i.instance,
            at,
            cpu_millis: i.cpu_millis,
            memory_bytes: i.memory_bytes,
            throttled_share: i.throttled_share,
        }));
    }
    Ok(silent)
}

/// Writes what has come in since the last step. Measurements that cannot be written are dropped:
/// they lose their worth sooner than a full disk is mended.
pub(crate) async fn flush(manager: &Manager) {
    let (nodes, instances) = {
        let mut world = manager.world();
        let living: std::collections::BTreeSet<_> = world.nodes.keys().cloned().collect();
        world.heard.retain(|id, _| living.contains(id));
        world.dead.retain(|id| living.contains(id));
        world.rest.retain(|id, _| living.contains(id));
        (std::mem::take(&mut world.node_stats), std::mem::take(&mut world.instance_stats))
    };
    if nodes.is_empty() && instances.is_empty() {
        return;
    }
    if let Err(error) = manager.registry.add_stats(nodes, instances).await {
        tracing::warn!(%error, "measurements could not be written and are dropped");
    }
}
