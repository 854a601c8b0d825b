//! From decided instances to the whole wanted state of a node, in the executor's words.

use crate::world::World;
use chassis::Identity;
use domain::{Engine, Epoch, Generation, Instance, InstanceState, Isolation, NodeId, ServiceSpec};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use wire::assignment::{
    AssignedHealth, AssignedInstance, AssignedMount, AssignedRun, Assignment, EngineKind,
    IsolationKind, Limits, Want,
};

/// What instances are told of the load-receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadEnds {
    /// Where reports are posted: `http://host:port/v1/load`.
    pub url: String,
    /// Where datagrams go: `host:port`.
    pub address: String,
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Whether an instance in this state is part of its node's assignment. A lost one still is: its
/// node decides nothing alone, and must find it wanted when it comes back before it is replaced.
#[must_use]
pub fn is_assigned(state: InstanceState) -> bool {
    match state {
        InstanceState::Starting
        | InstanceState::Ready
        | InstanceState::Paused
        | InstanceState::Draining
        | InstanceState::Lost => true,
        InstanceState::Wanted
        | InstanceState::Stopping
        | InstanceState::Failed
        | InstanceState::Stopped => false,
    }
}

/// The content of every node's assignment.
#[must_use]
pub fn contents(
    world: &World,
    identity: &Identity,
    load: &LoadEnds,
) -> BTreeMap<NodeId, Vec<AssignedInstance>> {
    let mut nodes: BTreeMap<NodeId, Vec<AssignedInstance>> = BTreeMap::new();
    for (id, node) in &world.nodes {
        if node.executor_url.is_some() {
            nodes.insert(id.clone(), Vec::new());
        }
    }
    for row in world.rows.values().filter(|row| is_assigned(row.state)) {
        let Some(list) = row.node.as_ref().and_then(|node| nodes.get_mut(node)) else { continue };
        let Some(spec) = spec_of(world, row) else { continue };
        list.push(instance(row, &spec, identity, load));
    }
    nodes
}

/// The declaration of an instance's revision.
#[must_use]
pub fn spec_of(world: &World, row: &Instance) -> Option<Arc<ServiceSpec>> {
    let service = world.services.get(&row.service);
    match service {
        Some(service) if service.row.revision == row.revision => Some(Arc::clone(&service.spec)),
        Some(_) | None => world.former.get(&(row.service.clone(), row.revision)).cloned(),
    }
}

/// The message for one node.
#[must_use]
pub fn message(
    cluster: &str,
    epoch: Epoch,
    generation: Generation,
    node: NodeId,
    instances: Vec<AssignedInstance>,
) -> Assignment {
    let wire = wire::WIRE_VERSION;
    Assignment { wire, cluster: cluster.to_owned(), epoch, generation, node, instances }
}

fn instance(
    row: &Instance,
    spec: &ServiceSpec,
    identity: &Identity,
    load: &LoadEnds,
) -> AssignedInstance {
    let token = identity.load_token(&row.service, &row.id);
    let node = row.node.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut env = spec.run.env.clone();
    let told = [
        ("TALLY_SERVICE", row.service.to_string()),
        ("TALLY_INSTANCE", row.id.to_string()),
        ("TALLY_NODE", node),
        ("TALLY_LOAD_URL", load.url.clone()),
        ("TALLY_LOAD_ADDR", load.address.clone()),
        ("TALLY_LOAD_TOKEN", token.clone()),
    ];
    env.extend(told.map(|(key, value)| (key.to_owned(), value)));
    AssignedInstance {
        id: row.id.clone(),
        service: row.service.clone(),
        revision: row.revision,
        want: if row.state == InstanceState::Paused { Want::Paused } else { Want::Running },
        engine: match spec.run.engine() {
            Engine::Docker => EngineKind::Docker,
            Engine::Process => EngineKind::Process,
        },
        run: AssignedRun {
            image: spec.run.image.clone(),
            command: spec.run.command.clone(),
            stop_command: spec.run.stop_command.clone(),
            port: spec.run.port,
            env,
            workdir: spec.run.workdir.clone(),
            user: spec.run.user.clone(),
            mounts: mounts(spec),
            isolation: match spec.run.isolation {
                Isolation::None => IsolationKind::None,
                Isolation::Cgroup => IsolationKind::Cgroup,
                Isolation::Namespaces => IsolationKind::Namespaces,
            },
        },
        limits: Limits { cpu_millis: row.resources.cpu.0, memory_bytes: row.resources.memory.0 },
        health: AssignedHealth {
            path: spec.health.path.clone(),
            interval_ms: ms(spec.health.interval),
            timeout_ms: ms(spec.health.timeout),
            failures: spec.health.failures,
        },
        start_deadline_ms: ms(spec.lifecycle.start_deadline),
        drain_deadline_ms: ms(spec.lifecycle.drain_deadline),
        expires_at: row.expires_at.map(|at| at.0),
        restart: true,
        load_source: spec.load.source.map_or("auto", domain::LoadSource::as_str).to_owned(),
        load_token: token,
    }
}

fn mounts(spec: &ServiceSpec) -> Vec<AssignedMount> {
    let mount = |m: &domain::Mount| AssignedMount {
        source: m.source.clone(),
        target: m.target.clone(),
        read_only: m.read_only,
    };
    spec.run.mounts.iter().map(mount).collect()
}
