//! What the control tasks know of the world, and how it becomes the snapshots that picks look at.

mod checks;
mod crew;
mod member;

use crate::route::Table;
use crate::view::{Entry, Service, Snapshot};
use crate::{Shared, wait};
use crew::Told;
use domain::{
    InstanceId, LoadReading, Mono, PolicyName, RouteState, RouteTable, ServiceFront, ServiceName,
    Terms, Timestamp,
};
use member::Member;
use picker::{Crowd, Field, Rng, capacity, crowd, outlier};
use scoreboard::{BoardView, ServiceView};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// A service whose front is gone from a readable board, and whose last routes name no instance, is
/// forgotten after this: long enough for an emptied board to be filled again.
pub const FORGET_AFTER: Duration = Duration::from_secs(60);

/// One service and what was learned of it.
struct Known {
    service: Arc<Service>,
    table: Option<RouteTable>,
    table_since: Mono,
    members: BTreeMap<InstanceId, Member>,
    interval_began: Mono,
    front_missing_since: Option<Mono>,
    others: Told,
}

/// Everything known. Owned by the control tasks; picks see snapshots alone.
pub struct World {
    services: BTreeMap<ServiceName, Known>,
    crowd: Crowd,
    rng: Rng,
    serial: u64,
    scratch: Vec<f64>,
}

impl World {
    /// A world without services.
    #[must_use]
    pub fn new(seed: u64) -> World {
        World {
            services: BTreeMap::new(),
            crowd: Crowd::default(),
            rng: Rng::new(seed),
            serial: 0,
            scratch: Vec::new(),
        }
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Takes a whole reading of the board. What is missing there is unknown, not gone.
    pub fn take_view(&mut self, shared: &Shared, view: &BoardView, now: Mono) {
        let live = view.balancers.iter().filter(|b| b.age < scoreboard::board::BALANCER_LIVE);
        let others = live.filter(|b| b.balancer != shared.id).count();
        self.take_balancers(u32::try_from(others + 1).ok(), now);
        for (name, service) in &view.services {
            self.absorb(shared, name, service, now);
        }
        self.forget_missing(shared, view, now);
        self.refresh(now);
    }

    /// Takes the number of live balancers, this one included; `None` while it cannot be read.
    pub fn take_balancers(&mut self, live: Option<u32>, now: Mono) {
        self.crowd.observe(live, now);
    }

    /// Takes what the board says of one service.
    pub fn take_service(
        &mut self,
        shared: &Shared,
        name: &ServiceName,
        view: &ServiceView,
        now: Mono,
    ) {
        self.absorb(shared, name, view, now);
        self.publish(name, now);
    }

    /// Takes readings that were told, of one service or several; nothing else changed there.
    pub fn take_told(&mut self, told: &[(ServiceName, Arc<[LoadReading]>)], now: Mono) {
        for (name, readings) in told {
            self.take_loads(name, readings, now);
        }
        let names: BTreeSet<&ServiceName> = told.iter().map(|(name, _)| name).collect();
        for name in names {
            self.publish(name, now);
        }
    }

    fn absorb(&mut self, shared: &Shared, name: &ServiceName, view: &ServiceView, now: Mono) {
        if let Some(front) = &view.front {
            self.take_front(shared, front, now);
        }
        if let Some(table) = &view.routes {
            self.take_routes(name, table, now);
        }
        self.take_loads(name, &view.loads, now);
    }

    /// Takes a front: a new service is routed from now on, a changed one otherwise.
    pub fn take_front(&mut self, shared: &Shared, front: &ServiceFront, now: Mono) {
        if let Some(known) = self.services.get_mut(&front.service) {
            known.front_missing_since = None;
            if **known.service.front.load() != *front {
                known.service.front.store(Arc::new(front.clone()));
                self.publish_table(shared);
            }
            return;
        }
        let mut taken: Vec<usize> = self.services.values().map(|k| k.service.slot).collect();
        taken.sort_unstable();
        let slot = (0..).zip(&taken).find(|(n, slot)| n != *slot).map_or(taken.len(), |(n, _)| n);
        let serial = self.next_serial();
        let service = Arc::new(Service::new(front.clone(), serial, slot, shared.workers));
        let known = Known {
            service,
            table: None,
            table_since: now,
            members: BTreeMap::new(),
            interval_began: now,
            front_missing_since: None,
            others: Told::default(),
        };
        self.services.insert(front.service.clone(), known);
        self.publish_table(shared);
    }

    /// Takes a route table, if it is newer than the one in use.
    pub fn take_routes(&mut self, name: &ServiceName, table: &RouteTable, now: Mono) {
        let Some(known) = self.services.get(name) else { return };
        if known.table.as_ref().is_some_and(|have| have.generation >= table.generation) {
            return;
        }
        let mut serial = self.serial;
        let Some(known) = self.services.get_mut(name) else { return };
        let mut old = std::mem::take(&mut known.members);
        for route in &table.entries {
            let member = match old.remove(&route.instance) {
                Some(mut member) if member.route.address == route.address => {
                    let again =
                        member.route.state != RouteState::Ready && route.state == RouteState::Ready;
                    if again {
                        member.ready_since = now;
                    }
                    member.route = route.clone();
                    member
                }
                moved => {
                    depart(&known.service, moved);
                    serial += 1;
                    Member::new(route, serial, now)
                }
            };
            known.members.insert(route.instance.clone(), member);
        }
        for (_, member) in old {
            depart(&known.service, Some(member));
        }
        known.table = Some(table.clone());
        known.table_since = now;
        self.serial = serial;
    }

    /// Takes readings; a reading seen before keeps its first sight as its time.
    fn take_loads(&mut self, name: &ServiceName, readings: &[LoadReading], now: Mono) {
        let Some(known) = self.services.get_mut(name) else { return };
        let snapshot = known.service.snapshot.load();
        for reading in readings {
            let Some(member) = known.members.get_mut(&reading.report.instance) else { continue };
            if member.reading.is_none_or(|last| is_later(reading.at, last)) {
                known.service.feedback.compare(&snapshot, &reading.report, now);
                member.take(reading, &snapshot.field, now);
            }
        }
    }

    /// Takes the terms that stand; who is not named goes by what was configured.
    pub fn take_terms(&mut self, terms: &BTreeMap<InstanceId, Terms>, now: Mono) {
        let mut changed = Vec::new();
        for (name, known) in &mut self.services {
            let mut any = false;
            for (id, member) in &mut known.members {
                let terms = terms.get(id).copied().unwrap_or_default();
                let before = std::mem::replace(&mut member.terms, terms);
                any |= before != terms;
                if (before.weight == 0) != (terms.weight == 0) {
                    let takes = terms.weight > 0;
                    tracing::info!(instance = %id, takes, "its agent says whether it takes requests");
                }
            }
            if any {
                changed.push(name.clone());
            }
        }
        for name in changed {
            self.publish(&name, now);
        }
    }

    /// Publishes a service's snapshot, and lets those go who wait for it.
    fn publish(&mut self, name: &ServiceName, now: Mono) {
        let balancers = self.crowd.size(now);
        let Some(known) = self.services.get(name) else { return };
        let front = known.service.front.load();
        let known_capacities: Vec<_> =
            known.members.values().map(|m| m.capacity.known(now)).collect();
        let mut weights = vec![1.0; known_capacities.len()];
        capacity::weigh(&known_capacities, &mut self.scratch, &mut weights);
        // Were all unwell, the checks would be as likely to be wrong as the instances.
        let any_well = known.members.values().any(|m| m.is_ready() && !m.check.unwell);
        let entries: Vec<Entry> = known
            .members
            .values()
            .zip(weights)
            .map(|(m, weight)| Entry {
                healthy: !m.check.unwell || !any_well,
                unwell: m.check.unwell,
                hears: m.hears(front.source),
                max_in_flight: crowd::room(m.max_in_flight(), m.others.in_flight, balancers),
                ..m.entry(weight)
            })
            .collect();
        let field = Field {
            balancers,
            published: known.others.balancers,
            published_at: known.others.at,
            others_in_flight: known.members.values().map(|m| u64::from(m.others.in_flight)).sum(),
            concurrency: front.concurrency,
            slow_start: front.slow_start,
            balance: front.hash.balance.ratio(),
            probed: front.probe.is_some() && front.policy == PolicyName::Prequal,
            ..Field::default()
        };
        let mut snapshot = Snapshot {
            keys: entries.iter().map(|e| e.instance.key).collect(),
            entries,
            policy: front.policy,
            generation: known.table.as_ref().map(|t| t.generation),
            generation_since: known.table_since,
            ..Snapshot::empty()
        };
        snapshot.field = field.surveyed(&snapshot, now, &mut self.scratch);
        known.service.snapshot.store(Arc::new(snapshot));
        wait::pump(&known.service, now);
    }

    fn publish_table(&self, shared: &Shared) {
        let services = self.services.values().map(|k| Arc::clone(&k.service)).collect();
        shared.table.store(Arc::new(Table::new(services)));
        // Whoever declared the service may be waiting to hear that it is known here.
        shared.demand_nudge.nudge();
        shared.ports.nudge.nudge();
        shared.nat.nudge.nudge();
    }

    fn forget_missing(&mut self, shared: &Shared, view: &BoardView, now: Mono) {
        let before = self.services.len();
        self.services.retain(|name, known| {
            let empty = known.table.as_ref().is_some_and(|t| t.entries.is_empty());
            if view.services.contains_key(name) || !empty {
                known.front_missing_since = None;
                return true;
            }
            let since = *known.front_missing_since.get_or_insert(now);
            now.since(since) < FORGET_AFTER
        });
        if self.services.len() != before {
            self.publish_table(shared);
        }
    }

    /// Judges who is set aside; to be called several times a second.
    pub fn judge(&mut self, now: Mono) {
        let mut changed = Vec::new();
        for (name, known) in &mut self.services {
            let interval_over = now.since(known.interval_began) >= outlier::INTERVAL;
            if known.judge(interval_over, now, &mut self.rng) {
                changed.push(name.clone());
            }
        }
        for name in changed {
            self.publish(&name, now);
        }
    }

    /// Publishes everything anew: ages, ramps and the number of balancers moved on.
    pub fn refresh(&mut self, now: Mono) {
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for name in names {
            self.publish(&name, now);
        }
    }

    /// What is worth saving: each service's front and routes.
    #[must_use]
    pub fn saved(&self) -> Vec<(ServiceFront, Option<RouteTable>)> {
        let each = |k: &Known| ((**k.service.front.load()).clone(), k.table.clone());
        self.services.values().map(each).collect()
    }
}

/// Whether `at` comes after `last`. What is told may overtake what is read, so that older readings
/// come later; a board whose clock was set back by more than a load's life begins anew.
fn is_later(at: Timestamp, last: Timestamp) -> bool {
    at > last || last.since(at) >= scoreboard::board::LOAD_TTL
}

/// Keeps an instance that left the routes in sight until its requests are over.
fn depart(service: &Service, member: Option<Member>) {
    let Some(member) = member else { return };
    let mut departed = service.departed.lock().unwrap_or_else(PoisonError::into_inner);
    departed.retain(|instance| instance.in_flight() + instance.aside() > 0);
    departed.push(member.instance);
}

#[cfg(test)]
mod tests;
