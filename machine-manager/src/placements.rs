//! `POST /v1/placements`: answered from memory, at once, the same question with the same answer.

use crate::Manager;
use crate::status::wire_why;
use axum::Json;
use axum::extract::State;
use chassis::{ApiError, ApiJson};
use domain::{MilliCpu, Needs, Resources, ServiceGroup, Timestamp};
use machine_planner::place::{place, stops};
use machine_planner::{Placed, StopWanted, Waiting, Wanted, room};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wire::placement::{
    Granted, PlacementAnswer, PlacementRequest, WANTED_MAX, WaitingStart, WantedStart,
};
use wire::problem::Kind;

/// What a waiting start was told, in short: when it differs, the container-manager is nudged.
pub(crate) fn waiting_key(waiting: &Waiting) -> String {
    let node = waiting.node.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{} {node}", waiting.refusal.why)
}

/// The handler.
pub(crate) async fn post(
    State(manager): State<Arc<Manager>>,
    ApiJson(request): ApiJson<PlacementRequest>,
) -> Result<Json<PlacementAnswer>, ApiError> {
    if request.wire != wire::WIRE_VERSION {
        let detail = format!("this machine-manager speaks wire {}", wire::WIRE_VERSION);
        return Err(ApiError::new(Kind::Invalid, detail).with_error("/wire", "unknown version"));
    }
    if request.wanted.len() > WANTED_MAX {
        let detail = format!("at most {WANTED_MAX} starts at once");
        return Err(ApiError::new(Kind::TooLarge, detail));
    }
    let wanted: Result<Vec<Wanted>, ApiError> =
        request.wanted.iter().enumerate().map(|(i, w)| wanted(i, w)).collect();
    let stops = request.stops.iter().map(|s| StopWanted {
        service: s.service.clone(),
        count: usize::try_from(s.count).unwrap_or(usize::MAX),
        candidates: s.candidates.clone(),
    });
    answer(&manager, wanted?, stops.collect()).map(Json)
}

/// Reads a start at the edge.
fn wanted(at: usize, start: &WantedStart) -> Result<Wanted, ApiError> {
    let wrong = |field: &str, detail: String| {
        let pointer = format!("/wanted/{at}/{field}");
        ApiError::new(Kind::Invalid, format!("{pointer}: {detail}")).with_error(&pointer, detail)
    };
    let group = match start.group.as_str() {
        "node-specific" => ServiceGroup::NodeSpecific,
        "self-contained" => ServiceGroup::SelfContained,
        "system" => ServiceGroup::System,
        _ => {
            let detail = "must be node-specific, self-contained or system".to_owned();
            return Err(wrong("group", detail));
        }
    };
    let needs = Needs::try_from(&start.needs).map_err(|e| wrong("needs", e.to_string()))?;
    Ok(Wanted {
        instance: start.instance.clone(),
        service: start.service.clone(),
        resources: Resources {
            cpu: MilliCpu(start.cpu_millis),
            memory: domain::Bytes(start.memory_bytes),
        },
        needs,
        group,
        not_on: start.not_on.iter().cloned().collect(),
        wake: start.wake,
        priority: start.priority,
    })
}

fn answer(
    manager: &Arc<Manager>,
    wanted: Vec<Wanted>,
    stop: Vec<StopWanted>,
) -> Result<PlacementAnswer, ApiError> {
    let (now, mono) = (manager.clock.now(), manager.clock.monotonic());
    let mut world = manager.world();
    if !world.loaded {
        let detail = "this machine-manager does not lead, or has not read the registry yet";
        return Err(ApiError::new(Kind::Unavailable, detail).retry_after(1));
    }
    world.expire(mono);
    world.wanted = wanted;
    world.wanted_at = mono;
    let mut snapshot = world.snapshot(now, mono, Vec::new(), stop);
    // What has its row in our copy already still gets its answer: the asker may not know it yet.
    snapshot.wanted.sort_by(|a, b| a.instance.cmp(&b.instance));
    let mut rooms = room::rooms(&snapshot);
    let placement = place(&snapshot, &mut rooms);
    let chosen = stops(&snapshot, &rooms);

    let until = mono.plus(crate::world::RESERVED_FOR);
    let rows: BTreeSet<_> = snapshot.placed.iter().map(|p| &p.instance).collect();
    let starts: BTreeMap<_, _> = snapshot.wanted.iter().map(|w| (&w.instance, w)).collect();
    for grant in &placement.granted {
        let has_row = rows.contains(&grant.instance);
        let start = starts.get(&grant.instance).copied();
        if let (Some(start), false) = (start, has_row) {
            let reserved = reservation(start, grant.node.clone());
            world.reserved.insert(grant.instance.clone(), (reserved, until));
        }
    }
    let mut fresh = false;
    let mut answer = PlacementAnswer { stops: chosen, ..PlacementAnswer::default() };
    let mut told = BTreeMap::new();
    for grant in placement.granted {
        told.insert(grant.instance.clone(), "granted".to_owned());
        answer.granted.push(Granted { instance: grant.instance, node: grant.node });
    }
    let coming = placement.coming.iter().map(|(w, node)| (*w, Some(node)));
    let unplaced = placement.unplaced.iter().map(|w| (*w, None));
    for (start, node) in coming.chain(unplaced) {
        let known = world.waiting.get(&start.instance);
        fresh |= known.is_none();
        let waiting = waiting(now, start, node, known);
        told.insert(start.instance.clone(), known.map(waiting_key).unwrap_or_default());
        answer.waiting.push(waiting);
    }
    world.answered = told;
    drop(world);
    if fresh {
        // A step decides about what was never seen; it batches by itself.
        manager.nudge.nudge();
    }
    Ok(answer)
}

fn reservation(start: &Wanted, node: domain::NodeId) -> Placed {
    Placed {
        instance: start.instance.clone(),
        service: start.service.clone(),
        node,
        resources: start.resources,
        priority: start.priority,
        group: start.group,
        needs: start.needs.clone(),
    }
}

/// What the last plan said about a start, or that it will be planned at this moment.
fn waiting(
    now: Timestamp,
    start: &Wanted,
    node: Option<&domain::NodeId>,
    known: Option<&Waiting>,
) -> WaitingStart {
    let Some(known) = known else {
        let detail = match node {
            Some(node) => format!("node {node} is coming"),
            None => "no node has room; a node is being sought".to_owned(),
        };
        return WaitingStart {
            instance: start.instance.clone(),
            why: wire::placement::Why::Node,
            node: node.cloned(),
            eta_ms: None,
            needs_micros: None,
            until: None,
            detail,
        };
    };
    let eta = known.eta.map(|at| u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX));
    WaitingStart {
        instance: start.instance.clone(),
        why: wire_why(known.refusal.why),
        node: node.cloned().or_else(|| known.node.clone()),
        eta_ms: eta,
        needs_micros: (known.refusal.needs.0 > 0).then_some(known.refusal.needs.0),
        until: known.refusal.until.map(|at| at.0),
        detail: known.refusal.detail.clone(),
    }
}
