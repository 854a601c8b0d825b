//! The plan: fixed stages over every service, leaving nothing to choose and telling everything.

use crate::demand::measure;
use crate::lifecycle;
use crate::memory::Memory;
use crate::policy::Policy;
use crate::replicas::{Sizing, size};
use crate::report::{HeldBack, ServiceReport};
use crate::rollout::Members;
use crate::routes;
use crate::snapshot::{Grant, InstanceView, ServiceView, Snapshot};
use domain::{
    Decision, Event, EventKind, IdSource, Instance, InstanceId, InstanceState, Money, NodeId,
    Resources, Revision, RouteTable, ServiceName, Timestamp,
};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A start that needs a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartAsk {
    /// Which instance.
    pub instance: InstanceId,
    /// Of which service.
    pub service: ServiceName,
    /// Of which revision.
    pub revision: Revision,
    /// Room it takes.
    pub resources: Resources,
    /// Nodes it must not go to.
    pub not_on: Vec<NodeId>,
    /// Somebody waits for it.
    pub wake: bool,
}

/// Ready instances that are too many: the machine-manager says which go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopAsk {
    /// Of which service.
    pub service: ServiceName,
    /// How many go.
    pub count: u32,
    /// From these, our own preference first.
    pub candidates: Vec<InstanceId>,
}

/// What was decided for one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePlan {
    /// Which service.
    pub service: ServiceName,
    /// What the next plan must know.
    pub memory: Memory,
    /// It shall be made durable now.
    pub memory_due: bool,
    /// Its routes, whole.
    pub routes: RouteTable,
    /// They differ from those decided last.
    pub routes_changed: bool,
    /// Whether a waiting request may hope for an instance.
    pub startable: bool,
    /// It was being removed and nothing of it is left.
    pub removed: bool,
    /// In words.
    pub report: ServiceReport,
}

/// What shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// When it was made.
    pub at: Timestamp,
    /// New and changed instance records, by id.
    pub rows: Vec<Instance>,
    /// Every service, by name.
    pub services: Vec<ServicePlan>,
    /// Starts that need a place, by id.
    pub starts: Vec<StartAsk>,
    /// Stops left open for the machine-manager.
    pub stops: Vec<StopAsk>,
    /// Decisions worth a record.
    pub decisions: Vec<Decision>,
    /// Events worth telling.
    pub events: Vec<Event>,
    /// When the next deadline passes, if one is set.
    pub next_at: Option<Timestamp>,
}

impl Plan {
    /// Whether anything must be written.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.rows.is_empty()
            && self.decisions.is_empty()
            && self.events.is_empty()
            && self.services.iter().all(|s| !s.memory_due && !s.removed)
    }

    /// Notes a moment at which the world must be looked at again; what is over says nothing.
    fn look_again(&mut self, at: Option<Timestamp>) {
        if let Some(at) = at.filter(|at| *at > self.at) {
            self.next_at = Some(self.next_at.map_or(at, |known| known.min(at)));
        }
    }

    /// Puts the decided rows and memories into a snapshot, as if they had been committed.
    pub fn apply_to(&self, snapshot: &mut Snapshot) {
        let mut rows: BTreeMap<&InstanceId, &Instance> =
            self.rows.iter().map(|row| (&row.id, row)).collect();
        for service in &mut snapshot.services {
            if let Some(planned) = self.services.iter().find(|p| p.service == service.name) {
                service.memory = planned.memory.clone();
            }
            for view in &mut service.instances {
                if let Some(row) = rows.remove(&view.row.id) {
                    view.row = row.clone();
                }
            }
            let new = rows.iter().filter(|(_, row)| row.service == service.name);
            let new: Vec<Instance> = new.map(|(_, row)| (*row).clone()).collect();
            for row in new {
                rows.remove(&row.id);
                service.instances.push(InstanceView { row, observed: None, reading: None });
            }
            service.instances.retain(|view| view.row.state != InstanceState::Stopped);
        }
        snapshot.sort();
    }
}

/// From the world to what shall be. Sorted input gives sorted output; equal input equal output,
/// ids aside.
#[must_use]
pub fn plan(snapshot: &Snapshot, policy: &Policy, ids: &mut dyn IdSource) -> Plan {
    let mut plan = Plan {
        at: snapshot.now,
        rows: Vec::new(),
        services: Vec::new(),
        starts: Vec::new(),
        stops: Vec::new(),
        decisions: Vec::new(),
        events: Vec::new(),
        next_at: None,
    };
    let mut order: Vec<&ServiceView> = snapshot.services.iter().collect();
    order.sort_by(|a, b| a.name.cmp(&b.name));
    for service in order {
        plan_service(service, snapshot, policy, ids, &mut plan);
    }
    plan.rows.sort_by(|a, b| a.id.cmp(&b.id));
    plan.starts.sort_by(|a, b| a.instance.cmp(&b.instance));
    plan
}

/// The service with its instances by id; a copy only where the observer did not sort.
fn in_order(service: &ServiceView) -> Cow<'_, ServiceView> {
    if service.instances.is_sorted_by(|a, b| a.row.id <= b.row.id) {
        return Cow::Borrowed(service);
    }
    let mut sorted = service.clone();
    sorted.instances.sort_by(|a, b| a.row.id.cmp(&b.row.id));
    Cow::Owned(sorted)
}

fn plan_service(
    unsorted: &ServiceView,
    snapshot: &Snapshot,
    policy: &Policy,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    let sorted = in_order(unsorted);
    let service = &*sorted;
    let now = snapshot.now;
    let mut memory = service.memory.clone();
    let mut rows: Vec<Instance> = service.instances.iter().map(|v| v.row.clone()).collect();

    memory.guard.follow(service.revision);
    let returned = lifecycle::follow(service, &mut rows, &mut memory, snapshot, policy);
    let (measured, dead) = measure(service, &rows, &mut memory, snapshot, policy);
    for row in rows.iter_mut().filter(|row| dead.contains(&row.id)) {
        lifecycle::fail(row, now, policy, "nothing was heard of it for too long");
    }
    judge_revision(service, &rows, &mut memory, now, policy);
    let mut sizing = size(service, measured, &mut memory, snapshot, policy);

    let mut members = Members {
        service,
        snapshot,
        policy,
        wanted: sizing.wanted,
        why: sizing.why,
        returned,
        held_back: Vec::new(),
    };
    let choice = members.leave(&mut rows, &memory);
    members.come(&mut rows, &memory, ids);
    sizing.held_back.append(&mut members.held_back);
    if let Some(choice) = choice {
        let service = service.name.clone();
        plan.stops.push(StopAsk { service, count: choice.count, candidates: choice.candidates });
    }
    sizing.held_back.extend(places_waited_for(&rows, snapshot));
    if snapshot.fleet_is_silent(policy) {
        sizing.held_back.push(HeldBack::SilentFleet);
    }
    if memory.guard.given_up {
        sizing.held_back.push(HeldBack::RolledBack(memory.guard.revision));
    }
    ask_for_places(service, &rows, measured.queued > 0, snapshot, plan);
    let (routes, routes_changed) = routes::table(service, &rows, &mut memory, snapshot);
    forget_ended(&rows, &mut memory);

    let changed = collect_rows(service, &rows, plan);
    plan.look_again(memory.guard.wait_until(now, policy));
    let told = tell(service, &sizing, &mut memory, snapshot, plan);
    let due = memory.saved_at.is_none_or(|at| now.since(at) >= policy.remember_every);
    let memory_due = due || changed || told || routes_changed;
    if memory_due {
        memory.saved_at = Some(now);
    }
    let blocked = sizing.held_back.iter().any(|h| matches!(h, HeldBack::CrashGuard { .. }));
    let left = rows.iter().any(|row| row.state != InstanceState::Stopped);
    plan.services.push(ServicePlan {
        service: service.name.clone(),
        memory,
        memory_due,
        routes,
        routes_changed,
        startable: !service.deleting && !blocked,
        removed: service.deleting && !left,
        report: report(service, sizing, &rows, measured.queued),
    });
}

fn report(service: &ServiceView, sizing: Sizing, rows: &[Instance], queued: u32) -> ServiceReport {
    let count = |states: &[InstanceState]| {
        let n = rows.iter().filter(|row| states.contains(&row.state)).count();
        u32::try_from(n).unwrap_or(u32::MAX)
    };
    ServiceReport {
        service: service.name.clone(),
        from: sizing.from,
        wanted: sizing.wanted,
        ready: count(&[InstanceState::Ready]),
        starting: count(&[InstanceState::Wanted, InstanceState::Starting]),
        draining: count(&[InstanceState::Draining, InstanceState::Stopping]),
        why: sizing.why,
        inputs: sizing.inputs,
        load: sizing.load,
        queued,
        held_back: sizing.held_back,
    }
}

/// Notes a revision that was well for its bake time, and gives up one that fails.
fn judge_revision(
    service: &ServiceView,
    rows: &[Instance],
    memory: &mut Memory,
    now: Timestamp,
    policy: &Policy,
) {
    let tripped = memory.guard.is_tripped(now, policy);
    if tripped
        && service.fallback.is_some()
        && service.fallback.as_ref().map(|f| f.0) == memory.good
    {
        memory.guard.given_up = true;
    }
    let bake = service.spec.rollout.bake;
    let baked = rows.iter().any(|row| {
        row.state == InstanceState::Ready
            && row.revision == service.revision
            && row.ready_at.is_some_and(|at| now.since(at) >= bake)
    });
    if baked && !tripped && !memory.guard.given_up {
        memory.good = Some(service.revision);
    }
}

fn places_waited_for(rows: &[Instance], snapshot: &Snapshot) -> Option<HeldBack> {
    let waiting = rows.iter().filter(|row| row.state == InstanceState::Wanted);
    let mut details = waiting.filter_map(|row| match snapshot.grants.get(&row.id) {
        Some(Grant::Waiting(waiting)) => {
            Some(HeldBack::Place(format!("{}: {}", waiting.why.as_str(), waiting.detail)))
        }
        Some(Grant::On(_)) | None => None,
    });
    details.next()
}

fn ask_for_places(
    service: &ServiceView,
    rows: &[Instance],
    wake: bool,
    snapshot: &Snapshot,
    plan: &mut Plan,
) {
    let leaving: Vec<NodeId> =
        snapshot.nodes.keys().filter(|node| snapshot.is_leaving(node)).cloned().collect();
    for row in rows.iter().filter(|row| row.state == InstanceState::Wanted) {
        plan.starts.push(StartAsk {
            instance: row.id.clone(),
            service: service.name.clone(),
            revision: row.revision,
            resources: row.resources,
            not_on: leaving.clone(),
            wake,
        });
    }
}

fn forget_ended(rows: &[Instance], memory: &mut Memory) {
    let living: std::collections::BTreeSet<&InstanceId> =
        rows.iter().filter(|r| r.state != InstanceState::Stopped).map(|r| &r.id).collect();
    memory.instances.retain(|id, _| living.contains(id));
}

/// Writes what changed into the plan; true when anything did.
fn collect_rows(service: &ServiceView, rows: &[Instance], plan: &mut Plan) -> bool {
    let mut changed = false;
    for (n, row) in rows.iter().enumerate() {
        let before = service.instances.get(n).map(|view| &view.row);
        plan.look_again(row.deadline);
        if before == Some(row) {
            continue;
        }
        changed = true;
        plan.rows.push(row.clone());
        let from = before.map(|row| row.state);
        if from != Some(row.state) {
            let was = from.map_or_else(String::new, |state| format!(" after {state}"));
            plan.events.push(Event {
                at: plan.at,
                kind: EventKind::Instance,
                subject: row.id.to_string(),
                what: row.state.as_str().to_owned(),
                detail: format!("{}{was}: {}", row.state, row.reason),
                values: format!("service={} revision={}", row.service, row.revision),
            });
        }
    }
    changed
}

/// Records a decision when the number changed or a new obstacle appeared.
fn tell(
    service: &ServiceView,
    sizing: &Sizing,
    memory: &mut Memory,
    snapshot: &Snapshot,
    plan: &mut Plan,
) -> bool {
    let now = snapshot.now;
    let news: Vec<&HeldBack> = sizing.held_back.iter().filter(|h| h.is_news()).collect();
    let words: Vec<&str> = news.iter().map(|held| held.word()).collect();
    let obstacle = routes::digest(&words.join(" "));
    let changed = sizing.from != sizing.wanted;
    // Starts without an answer yet: the same step plans again with it, and then knows what is in
    // the way. Telling now would tell the same obstacle as new in every step.
    let unanswered = |ask: &StartAsk| {
        ask.service == service.name && !snapshot.grants.contains_key(&ask.instance)
    };
    let open = snapshot.awaiting_stops && plan.starts.iter().any(unanswered);
    if open && !changed {
        return false;
    }
    let new_obstacle = !open && memory.told != obstacle;
    if !open {
        memory.told = obstacle;
    }
    if !changed && (!new_obstacle || news.is_empty()) {
        return new_obstacle;
    }
    let waiting_for = sizing.held_back.iter().find_map(HeldBack::place).map(str::to_owned);
    let more = i64::from(sizing.wanted) - i64::from(sizing.from);
    let reason = if changed { sizing.why } else { words.first().copied().unwrap_or("steady") };
    plan.decisions.push(Decision {
        at: now,
        service: service.name.clone(),
        from: sizing.from,
        to: sizing.wanted,
        reason: reason.to_owned(),
        inputs: sizing.inputs.clone(),
        clamps: sizing.held_back.iter().map(ToString::to_string).collect(),
        waiting_for,
        cost_delta_per_hour: Money(service.cost_per_hour.0.saturating_mul(more)),
        actor: if service.hold.is_some() { "operator" } else { "planner" }.to_owned(),
    });
    plan.events.push(Event {
        at: now,
        kind: EventKind::Scale,
        subject: service.name.to_string(),
        what: reason.to_owned(),
        detail: format!("from {} to {} instances: {reason}", sizing.from, sizing.wanted),
        values: sizing.inputs.clone(),
    });
    true
}
