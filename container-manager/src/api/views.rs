//! What the API answers: services, instances, decisions, as their wire forms.

use crate::world::World;
use container_planner::HeldBack;
use domain::{Decision, Instance, InstanceId, InstanceState, ServiceName};
use registry::{InstanceStat, ServiceRow, ServiceStat};
use serde_json::{Map, Value};
use wire::operator::{DecisionView, InstanceView, ServiceStatView, ServiceState, ServiceView};
use wire::stamp::Stamp;

/// A service's row and state.
pub fn service(row: &ServiceRow, instances: &[Instance], world: &World) -> ServiceView {
    let manifest = match serde_json::from_str(&row.document) {
        Ok(Value::Object(manifest)) => manifest,
        Ok(_) | Err(_) => Map::new(),
    };
    ServiceView {
        manifest,
        revision: row.revision,
        generation: row.generation,
        state: state(row, instances, world),
    }
}

fn state(row: &ServiceRow, instances: &[Instance], world: &World) -> ServiceState {
    let own: Vec<&Instance> = instances.iter().filter(|i| i.service == row.name).collect();
    let count = |states: &[InstanceState]| {
        let n = own.iter().filter(|i| states.contains(&i.state)).count();
        u32::try_from(n).unwrap_or(u32::MAX)
    };
    let report = world.reports.get(&row.name);
    let remembered = world.memories.get(&row.name).and_then(|m| m.wanted);
    let held = report.map_or(&[][..], |r| r.held_back.as_slice());
    let guarded = held.iter().find(|h| matches!(h, HeldBack::CrashGuard { .. }));
    let place = held.iter().find_map(HeldBack::place).map(str::to_owned);
    let waiting = place.or_else(|| guarded.map(ToString::to_string));
    let waiting = waiting.or_else(|| unreachable_at(world, &row.name));
    ServiceState {
        desired: report.map(|r| r.wanted).or(remembered).unwrap_or(0),
        ready: count(&[InstanceState::Ready]),
        starting: count(&[InstanceState::Wanted, InstanceState::Starting]),
        draining: count(&[InstanceState::Draining, InstanceState::Stopping]),
        paused: count(&[InstanceState::Paused]),
        load: report.and_then(|r| r.load).map(ratio),
        held_requests: held_requests(world, &row.name),
        waiting_for: waiting,
        deleting: row.deleting,
        held_at: row.scale_hold,
        report: report.map(ToString::to_string),
    }
}

/// What the first balancer that cannot serve the service as declared says about it.
fn unreachable_at(world: &World, service: &ServiceName) -> Option<String> {
    let said = world.board.abilities.iter();
    let mut troubles = said.filter_map(|(b, ability)| Some((b, ability.troubles.get(service)?)));
    troubles.next().map(|(balancer, why)| format!("balancer {balancer}: {why}"))
}

fn held_requests(world: &World, service: &ServiceName) -> u32 {
    let demand = world.board.demand.get(service);
    demand.map_or(0, |all| all.iter().map(|(_, d, _)| d.queued).sum())
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
fn ratio(ten_thousandths: u64) -> f64 {
    ten_thousandths as f64 / 10_000.0
}

/// An instance; `stat` is its last measurement.
pub fn instance(row: &Instance, stat: Option<&InstanceStat>, world: &World) -> InstanceView {
    let board = world.board.view.services.get(&row.service);
    let reading = board.and_then(|s| s.loads.iter().find(|l| l.report.instance == row.id));
    InstanceView {
        id: row.id.clone(),
        service: row.service.clone(),
        revision: row.revision,
        node: row.node.clone(),
        address: row.address.map(|a| a.to_string()),
        state: row.state.as_str().to_owned(),
        load: reading.map(|r| r.report.load.ratio()),
        load_age_seconds: reading.map(|r| r.age.as_secs_f64()),
        in_flight: in_flight(world, &row.service, &row.id),
        cpu_millis: stat.map(|s| s.cpu_millis),
        memory_bytes: stat.map(|s| s.memory_bytes),
        cpu_limit_millis: row.resources.cpu.0,
        tier: row.tier.as_str().to_owned(),
        created_at: Stamp(row.created_at),
        ready_at: row.ready_at.map(Stamp),
        expires_at: row.expires_at.map(Stamp),
        restarts: row.restarts,
        reason: row.reason.clone(),
    }
}

fn in_flight(world: &World, service: &ServiceName, id: &InstanceId) -> Option<u32> {
    let demand = world.board.demand.get(service)?;
    Some(demand.iter().filter_map(|(_, d, _)| d.in_flight.get(id)).sum())
}

/// A decision; `currency` is the cluster's.
pub fn decision(decision: Decision, currency: &str) -> DecisionView {
    DecisionView {
        at: Stamp(decision.at),
        service: decision.service,
        from: decision.from,
        to: decision.to,
        reason: decision.reason,
        inputs: decision.inputs,
        clamps: decision.clamps,
        waiting_for: decision.waiting_for,
        cost_delta_per_hour: format!("{} {currency}", decision.cost_delta_per_hour),
        actor: decision.actor,
    }
}

/// A point of a service's history.
pub fn stat(stat: &ServiceStat) -> ServiceStatView {
    #[expect(clippy::cast_precision_loss, reason = "shown to people")]
    let rps = stat.rps_milli as f64 / 1000.0;
    ServiceStatView {
        at: Stamp(stat.at),
        load: stat.load.map(|load| f64::from(load) / 10_000.0),
        desired: stat.desired,
        ready: stat.ready,
        starting: stat.starting,
        draining: stat.draining,
        queued: stat.queued,
        rps,
    }
}
