//! What is measured of a service: the load of each instance, what is missing, what waits.

use crate::memory::Memory;
use crate::policy::Policy;
use crate::snapshot::{InstanceView, NodeHealth, Reading, ServiceView, Snapshot};
use domain::{Instance, InstanceState, LoadSource, Timestamp};
use std::time::Duration;

/// An instance that was paused or idle counts as busy while it has something in flight; under this
/// load its control group is idle too.
const CPU_IDLE: u64 = 500;

/// What one step measured. Loads in ten-thousandths of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measure {
    /// Ready instances.
    pub ready: u32,
    /// Sum of their weights, ten-thousandths.
    pub weight: u64,
    /// Sum of weighted loads as a scale-out sees it.
    pub up: u64,
    /// Sum of weighted loads as a scale-in sees it.
    pub down: u64,
    /// Ready instances whose load is missing.
    pub missing: u32,
    /// Requests waiting at live balancers, or told by a wake.
    pub queued: u32,
    /// Longest wait.
    pub oldest_wait: Duration,
    /// Every live balancer said what it has.
    pub known: bool,
    /// Somebody uses the service now.
    pub in_use: bool,
    /// Time since the last request any balancer knows of.
    pub last_request_ago: Option<Duration>,
}

enum Judged {
    Load(u64),
    Missing { last: u64 },
    Dead,
}

/// Measures a service and writes what was heard into `memory`. Returns the instances that are to
/// be given up because nothing has been heard of them for too long.
pub fn measure(
    service: &ServiceView,
    rows: &[Instance],
    memory: &mut Memory,
    snapshot: &Snapshot,
    policy: &Policy,
) -> (Measure, Vec<domain::InstanceId>) {
    let mut measure = balancers_word(service, snapshot);
    latch_source(service, rows, memory, policy);
    let mut dead = Vec::new();
    for (row, view) in rows.iter().zip(&service.instances) {
        if row.state != InstanceState::Ready {
            continue;
        }
        measure.ready += 1;
        let weight = weight(service, row);
        measure.weight += weight;
        let target = u64::from(service.spec.load.target.0);
        let health = row.node.as_ref().map(|node| snapshot.health(node, policy));
        let judged = judge(service, view, &measure, memory, snapshot.now, policy);
        let (up, down) = match judged {
            Judged::Load(load) => (warm(row, load, target, snapshot.now, policy), load),
            Judged::Missing { last } => {
                measure.missing += 1;
                let alive = health == Some(NodeHealth::Alive);
                (if alive { last } else { 0 }, last.max(target))
            }
            Judged::Dead => {
                measure.missing += 1;
                dead.push(row.id.clone());
                (0, target)
            }
        };
        measure.up += up * weight / 10_000;
        measure.down += down * weight / 10_000;
    }
    // Silence of many at once is our deafness, not their death.
    if u64::from(measure.missing) * 10_000
        > u64::from(measure.ready) * u64::from(policy.missing_no_down.0)
        && measure.missing > 1
    {
        dead.clear();
    }
    measure.in_use |= background_use(service, rows, policy);
    (measure, dead)
}

/// CPU limit now through the declared one: a raised limit is no load change.
fn weight(service: &ServiceView, row: &Instance) -> u64 {
    let declared = u64::from(service.spec.resources.cpu.0.max(1));
    (u64::from(row.resources.cpu.0) * 10_000 / declared).max(1)
}

/// Start-up work is not load: above target it does not count.
fn warm(row: &Instance, load: u64, target: u64, now: Timestamp, policy: &Policy) -> u64 {
    let warming = row.ready_at.is_some_and(|at| now.since(at) < policy.warm_up);
    if warming { load.min(target) } else { load }
}

fn balancers_word(service: &ServiceView, snapshot: &Snapshot) -> Measure {
    let live = snapshot.balancers.as_ref();
    let mut measure = Measure {
        known: live.is_some_and(|live| {
            !live.is_empty() && live.iter().all(|b| service.demand.contains_key(b))
        }),
        ..Measure::default()
    };
    for demand in service.demand.values() {
        measure.queued = measure.queued.saturating_add(demand.queued);
        measure.oldest_wait = measure.oldest_wait.max(demand.oldest_wait);
        let busy = demand.queued > 0
            || demand.open_connections > 0
            || demand.in_flight.values().any(|n| *n > 0);
        measure.in_use |= busy;
        measure.last_request_ago = match (measure.last_request_ago, demand.last_request_ago) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    if let Some(wake) = service.wake {
        measure.queued = measure.queued.max(wake.max(1));
        measure.in_use = true;
    }
    measure
}

/// A service without balancers is in use while one of its instances says so.
fn background_use(service: &ServiceView, rows: &[Instance], policy: &Policy) -> bool {
    !service.spec.load_balanced
        && rows.iter().zip(&service.instances).any(|(row, view)| {
            let load = view.reading.filter(|r| is_fresh(service, r, policy));
            row.state == InstanceState::Ready
                && load.is_none_or(|r| u64::from(r.load.ten_thousandths()) >= CPU_IDLE)
        })
}

fn is_fresh(service: &ServiceView, reading: &Reading, policy: &Policy) -> bool {
    reading.age <= (service.spec.load.period * policy.report_periods).max(policy.report_min)
}

/// `source: auto` is the highest that ever spoke for this revision.
fn latch_source(service: &ServiceView, rows: &[Instance], memory: &mut Memory, policy: &Policy) {
    if let Some(declared) = service.spec.load.source {
        memory.source = Some((service.revision, declared));
        return;
    }
    if memory.source.is_some_and(|(revision, _)| revision != service.revision) {
        memory.source = None;
    }
    let heard = rows
        .iter()
        .zip(&service.instances)
        .filter(|(row, _)| row.state == InstanceState::Ready && row.revision == service.revision)
        .filter_map(|(_, view)| view.reading.filter(|r| is_fresh(service, r, policy)))
        .map(|reading| reading.source)
        .max();
    if let Some(heard) = heard
        && memory.source.is_none_or(|(_, known)| heard > known)
    {
        memory.source = Some((service.revision, heard));
    }
}

fn in_flight(service: &ServiceView, view: &InstanceView) -> u32 {
    service.demand.values().filter_map(|d| d.in_flight.get(&view.row.id)).sum()
}

fn judge(
    service: &ServiceView,
    view: &InstanceView,
    measure: &Measure,
    memory: &mut Memory,
    now: Timestamp,
    policy: &Policy,
) -> Judged {
    let source = memory.source.map(|(_, source)| source);
    let known = memory.instances.entry(view.row.id.clone()).or_insert_with(|| {
        crate::memory::InstanceMemory { heard_at: now, busy_at: now, ..Default::default() }
    });
    if known.heard_at == Timestamp(0) {
        known.heard_at = now;
        known.busy_at = now;
    }
    let flying = in_flight(service, view);
    if flying > 0 || !measure.known {
        known.busy_at = now;
    }
    let concurrency = u64::from(service.spec.load.concurrency_or_default());
    let seen = u64::from(flying) * 10_000 / concurrency;
    let seen = seen.min(u64::from(domain::Load::MAX.ten_thousandths()));
    let fresh = view.reading.filter(|reading| is_fresh(service, reading, policy));
    let spoken = fresh.filter(|r| source.is_none_or(|latched| r.source >= latched));
    if source != Some(LoadSource::Balancer)
        && let Some(reading) = spoken
    {
        let load = u64::from(reading.load.ten_thousandths());
        known.load = Some(load);
        known.heard_at = now;
        return Judged::Load(load);
    }
    let by_balancer = matches!(source, None | Some(LoadSource::Balancer));
    if by_balancer && measure.known {
        known.load = Some(seen);
        known.heard_at = now;
        return Judged::Load(seen);
    }
    let cpu = fresh.filter(|r| r.source == LoadSource::Cgroup);
    let cpu_idle = cpu.is_none_or(|r| u64::from(r.load.ten_thousandths()) < CPU_IDLE);
    if measure.known && cpu_idle && now.since(known.busy_at) >= service.spec.load.window {
        return Judged::Load(0);
    }
    let limit = (service.spec.load.window * 2).max(policy.missing_limit);
    if now.since(known.heard_at) < limit {
        return Judged::Missing { last: known.load.unwrap_or(0) };
    }
    match (measure.known, service.spec.load_balanced) {
        (true, true) if flying == 0 && !cpu_idle => Judged::Dead,
        (true, _) => Judged::Load(seen),
        // Nobody can be asked: that is no proof of anything.
        (false, _) => Judged::Missing { last: known.load.unwrap_or(0) },
    }
}
