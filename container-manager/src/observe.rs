//! The only reader of the world for a step: one snapshot, sorted, with `now` in it.

use crate::world::{Service, WAKE_LIFE, World};
use container_planner::{
    InstanceView, Memory, NodeView, Observed, ObservedState, Reading, ServiceView, Snapshot,
};
use domain::{
    BalancerId, Clock, Demand, Epoch, Instance, InstanceId, LoadReading, Money, Mono, Node,
    NodeState, Revision, ServiceName, ServiceSpec, Timestamp,
};
use registry::{Registry, RegistryError, ServiceRow};
use scoreboard::board::{BALANCER_LIVE, LOAD_TTL};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use wire::assignment::{InstanceSeen, RunState};
use wire::manifest::{ManifestError, ServiceManifest, from_value};

/// A stored declaration as a checked spec.
///
/// # Errors
/// When the document was written by something else; the service then keeps its last known spec.
pub fn parse_document(document: &str) -> Result<ServiceSpec, ManifestError> {
    let value = serde_json::from_str(document)
        .map_err(|e| ManifestError::at("", format!("the stored declaration is not JSON: {e}")))?;
    let manifest: ServiceManifest = from_value(value)?;
    ServiceSpec::try_from(&manifest)
}

/// Parses rows, keeping what did not change.
#[must_use]
pub fn services_of(
    rows: Vec<ServiceRow>,
    known: &BTreeMap<ServiceName, Service>,
) -> BTreeMap<ServiceName, Service> {
    let mut services = BTreeMap::new();
    for row in rows {
        let old = known.get(&row.name);
        let same = old.filter(|s| s.row.document == row.document).map(|s| Arc::clone(&s.spec));
        let spec = match same {
            Some(spec) => Some(spec),
            None => match parse_document(&row.document) {
                Ok(spec) => Some(Arc::new(spec)),
                Err(error) => {
                    tracing::error!(service.id = %row.name, %error, "a stored declaration cannot be read");
                    old.map(|s| Arc::clone(&s.spec))
                }
            },
        };
        if let Some(spec) = spec {
            services.insert(row.name.clone(), Service { row, spec });
        }
    }
    services
}

/// Former revisions that instances live of, or that may be gone back to, and are not known yet.
#[must_use]
pub fn former_needed(world: &World) -> BTreeSet<(ServiceName, Revision)> {
    let mut needed = BTreeSet::new();
    for row in world.rows.values() {
        needed.insert((row.service.clone(), row.revision));
    }
    for (name, memory) in &world.memories {
        needed.extend(memory.good.map(|good| (name.clone(), good)));
    }
    needed.retain(|key| {
        let current = world.services.get(&key.0).map(|s| s.row.revision);
        current.is_some() && current != Some(key.1) && !world.former.contains_key(key)
    });
    needed
}

/// Reads one former declaration.
///
/// # Errors
/// [`RegistryError`].
pub async fn read_former(
    registry: &dyn Registry,
    name: &ServiceName,
    revision: Revision,
) -> Result<Option<Arc<ServiceSpec>>, RegistryError> {
    let document = registry.revision_document(name, revision).await?;
    let spec = document.map(|text| parse_document(&text));
    match spec {
        Some(Ok(spec)) => Ok(Some(Arc::new(spec))),
        Some(Err(error)) => {
            tracing::error!(service.id = %name, %revision, %error, "a former declaration cannot be read");
            Ok(None)
        }
        None => Ok(None),
    }
}

/// The snapshot.
#[must_use]
pub fn snapshot(world: &World, clock: &dyn Clock, epoch: Epoch) -> Snapshot {
    let (now, mono) = (clock.now(), clock.monotonic());
    let mut snapshot = Snapshot::new(now, epoch, world.leader_since);
    let board_age = world.board.at.map(|at| mono.since(at));
    let fresh = board_age.filter(|age| *age < BALANCER_LIVE);
    snapshot.balancers = fresh.map(|age| {
        let live = world.board.view.balancers.iter().filter(|b| b.age + age < BALANCER_LIVE);
        live.map(|b| b.balancer.clone()).collect()
    });
    snapshot.nodes = nodes(world, mono);
    let mut by_service: BTreeMap<&ServiceName, Vec<&Instance>> = BTreeMap::new();
    for row in world.rows.values() {
        by_service.entry(&row.service).or_default().push(row);
    }
    for (name, service) in &world.services {
        let rows = by_service.get(name).map_or(&[][..], Vec::as_slice);
        snapshot.services.push(service_view(world, name, service, rows, now, mono, board_age));
    }
    snapshot.sort();
    snapshot
}

/// Sees a halted cluster: whatever was declared, every service is held at zero and nobody waits.
pub fn halt(snapshot: &mut Snapshot) {
    for service in &mut snapshot.services {
        service.spec.min_instances = 0;
        service.hold = Some(0);
        service.wake = None;
    }
}

fn nodes(world: &World, now: Mono) -> BTreeMap<domain::NodeId, NodeView> {
    let view = |node: &Node| {
        let link = world.links.get(&node.id);
        let silent = match link {
            Some(link) => now.since(link.heard.unwrap_or(link.since)),
            // Without an address it cannot be heard; its record says whether it lives.
            None if node.state == NodeState::Lost => Duration::MAX,
            None => Duration::ZERO,
        };
        NodeView { name: node.name.clone(), state: node.state, silent, drain: node.drain.clone() }
    };
    world.nodes.iter().map(|(id, node)| (id.clone(), view(node))).collect()
}

fn service_view(
    world: &World,
    name: &ServiceName,
    service: &Service,
    rows: &[&Instance],
    now: Timestamp,
    mono: Mono,
    board_age: Option<Duration>,
) -> ServiceView {
    let memory = world.memories.get(name).cloned().unwrap_or_default();
    let loads = world.board.view.services.get(name).map_or(&[][..], |v| v.loads.as_slice());
    let loads: BTreeMap<&InstanceId, &LoadReading> =
        loads.iter().map(|reading| (&reading.report.instance, reading)).collect();
    let instances = rows.iter().map(|row| {
        let mut row = (*row).clone();
        if world.expire.contains(&row.id) {
            row.expires_at = Some(row.expires_at.map_or(now, |at| at.min(now)));
        }
        let reading = loads.get(&row.id).and_then(|r| reading(r, board_age));
        InstanceView { observed: observed(world, &row), reading, row }
    });
    let wake = world.wakes.get(name).filter(|wake| mono.since(wake.at) < WAKE_LIFE);
    ServiceView {
        name: name.clone(),
        spec: (*service.spec).clone(),
        revision: service.row.revision,
        fallback: fallback(world, name, service, &memory),
        deleting: service.row.deleting,
        hold: service.row.scale_hold,
        wake: wake.map(|wake| wake.queued),
        demand: demand(world, name, board_age),
        instances: instances.collect(),
        cost_per_hour: cost(world, &service.spec),
        memory,
    }
}

fn fallback(
    world: &World,
    name: &ServiceName,
    service: &Service,
    memory: &Memory,
) -> Option<(Revision, ServiceSpec)> {
    let good = memory.good.filter(|good| *good != service.row.revision)?;
    let spec = world.former.get(&(name.clone(), good))?;
    Some((good, (**spec).clone()))
}

fn reading(reading: &LoadReading, board_age: Option<Duration>) -> Option<Reading> {
    let age = reading.age + board_age?;
    let report = &reading.report;
    (age < LOAD_TTL).then_some(Reading { load: report.load, age, source: report.source })
}

fn demand(
    world: &World,
    name: &ServiceName,
    board_age: Option<Duration>,
) -> BTreeMap<BalancerId, Demand> {
    let Some(since) = board_age else { return BTreeMap::new() };
    let known = world.board.demand.get(name).map_or(&[][..], Vec::as_slice);
    known
        .iter()
        .filter(|(_, _, age)| *age + since < BALANCER_LIVE)
        .map(|(balancer, demand, _)| (balancer.clone(), demand.clone()))
        .collect()
}

/// What the node's executor says. Before its first inventory nothing is known; afterwards an
/// instance that is not in it is not there.
fn observed(world: &World, row: &Instance) -> Option<Observed> {
    let link = world.links.get(row.node.as_ref()?)?;
    if let Some(seen) = link.seen.get(&row.id) {
        return Some(from_wire(seen));
    }
    link.complete.then(|| Observed {
        state: ObservedState::Gone,
        address: None,
        restarts: row.restarts,
        detail: String::new(),
    })
}

fn from_wire(seen: &InstanceSeen) -> Observed {
    let state = match seen.state {
        RunState::Starting | RunState::Restarting | RunState::Unwell => ObservedState::Starting,
        RunState::Ready => ObservedState::Ready,
        RunState::Paused => ObservedState::Paused,
        RunState::Failed => ObservedState::Failed,
        RunState::Stopping => ObservedState::Stopping,
        RunState::Stopped => ObservedState::Gone,
    };
    let address = seen.address.zip(seen.port).map(|(ip, port)| SocketAddr::new(ip, port));
    let detail = seen.exit.clone().unwrap_or_default();
    Observed { state, address, restarts: seen.restarts, detail }
}

/// What one instance costs an hour: its greater share of a node, at the mean price of the nodes.
fn cost(world: &World, spec: &ServiceSpec) -> Money {
    let (mut sum, mut count) = (0i64, 0i64);
    for node in world.nodes.values() {
        let room = node.capacity.resources;
        let (cpu, memory) = (u64::from(room.cpu.0.max(1)), room.memory.0.max(1));
        let price = u128::try_from(node.price.0.max(0)).unwrap_or(0);
        let by_cpu = price * u128::from(spec.resources.cpu.0) / u128::from(cpu);
        let by_memory = price * u128::from(spec.resources.memory.0) / u128::from(memory);
        let share = i64::try_from(by_cpu.max(by_memory)).unwrap_or(i64::MAX);
        sum = sum.saturating_add(share);
        count += 1;
    }
    Money(sum / count.max(1))
}
