//! The second reader: what must never be in a plan, computed without the planner's helpers.

use crate::plan::Plan;
use crate::policy::Policy;
use crate::snapshot::{ServiceView, Snapshot};
use domain::{Instance, InstanceId, InstanceState, NodeState, Replace};
use std::collections::{BTreeMap, BTreeSet};

/// What is wrong with a plan. Always a fault of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// One id twice.
    #[error("{0} is in the plan twice")]
    Twice(InstanceId),
    /// A record of an unknown service.
    #[error("{0} belongs to no service in the snapshot")]
    NoService(InstanceId),
    /// A way that is not legal.
    #[error("{id} goes from {from} to {to}")]
    IllegalMove {
        /// Which.
        id: InstanceId,
        /// From.
        from: InstanceState,
        /// To.
        to: InstanceState,
    },
    /// A new record that is not a wanted instance.
    #[error("{0} is new and not wanted")]
    NewNotWanted(InstanceId),
    /// More instances than the maximum and its surge.
    #[error("{service} would have {count} instances, {max} with surge are allowed")]
    TooMany {
        /// Which service.
        service: String,
        /// Planned.
        count: u32,
        /// Allowed.
        max: u32,
    },
    /// A number outside the declared bounds.
    #[error("{service} would want {wanted}, {min} to {max} are declared")]
    OutOfBounds {
        /// Which service.
        service: String,
        /// Wanted.
        wanted: u32,
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
    /// Drained below the declared minimum.
    #[error("{service} would have {ready} ready instances, {floor} must stay")]
    BelowFloor {
        /// Which service.
        service: String,
        /// Left.
        ready: u32,
        /// To stay.
        floor: u32,
    },
    /// A start on a node that cannot be heard or is being emptied.
    #[error("{0} would start on a node that takes none")]
    BadNode(InstanceId),
    /// Given up before the declared patience passed.
    #[error("{0} would be lost although its node was heard")]
    LostTooEarly(InstanceId),
    /// Stopped while a balancer may still send to it.
    #[error("{0} would stop before every balancer let go of it")]
    StoppedInUse(InstanceId),
}

/// Reads a plan against the snapshot it was made from.
///
/// # Errors
/// The first violation; the plan must then be thrown away.
pub fn check(snapshot: &Snapshot, plan: &Plan, policy: &Policy) -> Result<(), Violation> {
    let mut ids = BTreeSet::new();
    for row in &plan.rows {
        if !ids.insert(&row.id) {
            return Err(Violation::Twice(row.id.clone()));
        }
        if !snapshot.services.iter().any(|s| s.name == row.service) {
            return Err(Violation::NoService(row.id.clone()));
        }
    }
    for service in &snapshot.services {
        let mut before: BTreeMap<&InstanceId, &Instance> = BTreeMap::new();
        for view in &service.instances {
            before.insert(&view.row.id, &view.row);
        }
        let mut after = before.clone();
        for row in plan.rows.iter().filter(|row| row.service == service.name) {
            check_move(row, before.get(&row.id).copied(), service, snapshot, policy)?;
            after.insert(&row.id, row);
        }
        check_numbers(service, &before, &after, snapshot, plan)?;
    }
    Ok(())
}

fn check_move(
    row: &Instance,
    before: Option<&Instance>,
    service: &ServiceView,
    snapshot: &Snapshot,
    policy: &Policy,
) -> Result<(), Violation> {
    let id = || row.id.clone();
    let Some(before) = before else {
        let right = row.state == InstanceState::Wanted && row.node.is_none();
        return right.then_some(()).ok_or_else(|| Violation::NewNotWanted(id()));
    };
    if !before.state.may_become(row.state) {
        return Err(Violation::IllegalMove { id: id(), from: before.state, to: row.state });
    }
    let node = row.node.as_ref().and_then(|node| snapshot.nodes.get(node));
    if before.state == InstanceState::Wanted && row.state == InstanceState::Starting {
        let fit = node.is_some_and(|n| n.drain.is_none() && n.silent < policy.suspect_after);
        if !fit {
            return Err(Violation::BadNode(id()));
        }
    }
    if row.state == InstanceState::Lost && before.state != InstanceState::Lost {
        let silent = node.is_none_or(|n| n.silent >= policy.lost_after);
        if !silent {
            return Err(Violation::LostTooEarly(id()));
        }
    }
    let ends = before.state == InstanceState::Draining && row.state == InstanceState::Stopping;
    if ends && service.spec.load_balanced && before.deadline.is_none_or(|at| at > snapshot.now) {
        let heard = service.demand.iter().filter(|(balancer, _)| {
            snapshot.balancers.as_ref().is_none_or(|live| live.contains(*balancer))
        });
        for (_, demand) in heard {
            if demand.in_flight.get(&row.id).is_some_and(|n| *n > 0) {
                return Err(Violation::StoppedInUse(id()));
            }
        }
    }
    Ok(())
}

fn check_numbers(
    service: &ServiceView,
    before: &BTreeMap<&InstanceId, &Instance>,
    after: &BTreeMap<&InstanceId, &Instance>,
    snapshot: &Snapshot,
    plan: &Plan,
) -> Result<(), Violation> {
    let name = || service.name.to_string();
    let active = |rows: &BTreeMap<&InstanceId, &Instance>| {
        let states = [InstanceState::Wanted, InstanceState::Starting, InstanceState::Ready];
        let n = rows.values().filter(|row| states.contains(&row.state)).count();
        u32::try_from(n).unwrap_or(u32::MAX)
    };
    let (min, max) = (service.spec.min_instances, service.spec.max_instances);
    let surge = service.spec.rollout.surge.max(1);
    // A lost instance that returns with its node was not started by this plan; the surplus drains
    // once enough others are ready.
    let returned = after.iter().filter(|(id, row)| {
        let was_lost = before.get(*id).is_some_and(|b| b.state == InstanceState::Lost);
        was_lost && row.state != InstanceState::Lost
    });
    let returned = u32::try_from(returned.count()).unwrap_or(u32::MAX);
    let allowed = max.saturating_add(surge).max(active(before)).saturating_add(returned);
    if active(after) > allowed {
        return Err(Violation::TooMany { service: name(), count: active(after), max: allowed });
    }
    if let Some(planned) = plan.services.iter().find(|p| p.service == service.name) {
        let wanted = planned.report.wanted;
        let idle = service.deleting || (min == 0 && wanted == 0);
        if !idle && (wanted < min || wanted > max) {
            return Err(Violation::OutOfBounds { service: name(), wanted, min, max });
        }
    }
    let may_fall = service.deleting || service.spec.lifecycle.replace == Replace::StopFirst;
    let drained = after.iter().filter(|(id, row)| {
        let was_ready = before.get(*id).is_some_and(|b| b.state == InstanceState::Ready);
        let node = row.node.as_ref().and_then(|node| snapshot.nodes.get(node));
        let forced = node.is_none_or(|n| {
            matches!(n.state, NodeState::Draining | NodeState::Stopping) || n.drain.is_some()
        });
        was_ready && row.state == InstanceState::Draining && !forced
    });
    if !may_fall && drained.count() > 0 {
        let ready = after.values().filter(|row| row.state == InstanceState::Ready).count();
        let ready = u32::try_from(ready).unwrap_or(u32::MAX);
        let share = service.spec.rollout.floor.0.min(10_000);
        let floor = (u64::from(min) * u64::from(share)).div_ceil(10_000);
        let floor = u32::try_from(floor).unwrap_or(min);
        if ready < floor {
            return Err(Violation::BelowFloor { service: name(), ready, floor });
        }
    }
    Ok(())
}
