//! The only way out: nodes' assignments and the board's content follow from the committed world.

use crate::assignment::{LoadEnds, contents, message};
use crate::publish::{ENDED_MAX, Wanted};
use crate::world::{Service, Shared, World};
use chassis::Identity;
use container_planner::Plan;
use domain::{Epoch, InstanceId, InstanceState, NodeId, ServiceFront, ServiceName};
use std::collections::BTreeMap;
use std::sync::Arc;
use wire::assignment::Assignment;

/// Hands every node whose content changed its next assignment; links send it.
pub fn assign(shared: &Shared, identity: &Identity, load: &LoadEnds, epoch: Epoch) {
    let mut world = shared.world();
    let contents = contents(&world, identity, load);
    let present = shared.assignments.borrow().clone();
    let mut next: BTreeMap<NodeId, Arc<Assignment>> = BTreeMap::new();
    let mut changed = present.len() != contents.len();
    for (node, instances) in contents {
        let known = present.get(&node);
        let number = world.generations.entry(node.clone()).or_default();
        let kept = known.filter(|known| {
            known.epoch == epoch && known.generation >= *number && known.instances == instances
        });
        if let Some(kept) = kept {
            next.insert(node, Arc::clone(kept));
            continue;
        }
        changed = true;
        *number = number.next();
        let made = message(identity.cluster(), epoch, *number, node.clone(), instances);
        next.insert(node, Arc::new(made));
    }
    drop(world);
    if changed {
        shared.assignments.send_replace(next);
    }
}

/// What balancers must know of a service.
#[must_use]
pub fn front(service: &Service, startable: bool) -> ServiceFront {
    let spec = &service.spec;
    ServiceFront {
        service: spec.name.clone(),
        hosts: spec.route.hosts.clone(),
        paths: spec.route.paths.clone(),
        mode: spec.route.mode,
        port: spec.route.port,
        policy: spec.route.policy,
        hash: spec.route.hash.clone(),
        sticky: spec.route.sticky.clone(),
        probe: spec.route.probe.clone(),
        body_max: spec.route.body_max,
        hold: spec.route.hold.clone(),
        health: spec.health.clone(),
        agent: spec.load.agent,
        concurrency: spec.load.concurrency,
        max_in_flight: spec.load.max_in_flight,
        slow_start: spec.load.slow_start,
        source: spec.load.source,
        load_balanced: spec.load_balanced,
        revision: service.row.revision,
        startable,
    }
}

/// States what the board shall show after this plan; the publisher writes what differs.
pub fn show(shared: &Shared, plan: &Plan) {
    let services = {
        let world = shared.world();
        let mut services = BTreeMap::new();
        for planned in plan.services.iter().filter(|planned| !planned.removed) {
            if let Some(service) = world.services.get(&planned.service) {
                let front = front(service, planned.startable);
                services.insert(planned.service.clone(), (front, planned.routes.clone()));
            }
        }
        services
    };
    let removed: Vec<ServiceName> =
        plan.services.iter().filter(|p| p.removed).map(|p| p.service.clone()).collect();
    let ended: Vec<InstanceId> = plan
        .rows
        .iter()
        .filter(|row| row.state == InstanceState::Stopped)
        .map(|row| row.id.clone())
        .collect();
    shared.board.send_if_modified(|wanted| {
        let news = wanted.services != services || !removed.is_empty() || !ended.is_empty();
        if news {
            let mut next = Wanted { services, ..std::mem::take(wanted) };
            next.removed.retain(|name| !next.services.contains_key(name));
            next.removed.extend(removed);
            next.ended.extend(ended);
            next.ended.truncate(ENDED_MAX);
            *wanted = next;
        }
        news
    });
}

/// Writes a committed plan into the world.
pub fn remember(world: &mut World, plan: &Plan) {
    for row in &plan.rows {
        if row.state == InstanceState::Stopped {
            world.rows.remove(&row.id);
            world.expire.remove(&row.id);
        } else {
            world.rows.insert(row.id.clone(), row.clone());
        }
    }
    for planned in &plan.services {
        if planned.removed {
            world.services.remove(&planned.service);
            world.memories.remove(&planned.service);
            world.reports.remove(&planned.service);
            world.startable.remove(&planned.service);
            world.wakes.remove(&planned.service);
            world.former.retain(|(name, _), _| *name != planned.service);
        } else {
            world.memories.insert(planned.service.clone(), planned.memory.clone());
            world.reports.insert(planned.service.clone(), planned.report.clone());
            world.startable.insert(planned.service.clone(), planned.startable);
        }
    }
}
