//! The board inside one process: plain maps behind one lock that is held for moments.

use crate::board::{
    BALANCER_LIVE, BalancerSeen, Board, BoardError, BoardView, CHANGES_BUFFERED, Changes,
    HEARTBEAT_TTL, LOAD_TTL, ServiceView, TOLD_MAX,
};
use async_trait::async_trait;
use domain::{
    Ability, BalancerId, Change, Clock, Demand, InstanceId, LoadReading, LoadReport, Mono,
    RouteGen, RouteTable, ServiceFront, ServiceName, Terms, Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;

/// One instance's last report.
struct Kept {
    report: LoadReport,
    at: Timestamp,
    seen: Mono,
}

/// One service's part of the board.
#[derive(Default)]
struct Shelf {
    front: Option<ServiceFront>,
    routes: Option<RouteTable>,
    loads: BTreeMap<InstanceId, Kept>,
    demand: BTreeMap<BalancerId, (Demand, Mono)>,
}

impl Shelf {
    fn sweep(&mut self, now: Mono) {
        self.loads.retain(|_, kept| now.since(kept.seen) < LOAD_TTL);
    }

    /// Takes one report; `None` when its `seq` is not above the last one's.
    fn take(&mut self, report: &LoadReport, at: Timestamp, now: Mono) -> Option<LoadReading> {
        let mut report = report.clone();
        let mut at = at;
        let last = self.loads.get(&report.instance);
        if let Some(last) = last.filter(|last| now.since(last.seen) < LOAD_TTL) {
            if matches!((report.seq, last.report.seq), (Some(new), Some(old)) if new <= old) {
                return None;
            }
            // A report without a number does not open the door to older numbered ones.
            report.seq = report.seq.or(last.report.seq);
            at = at.max(last.at.plus(Duration::from_millis(1)));
        }
        let reading = LoadReading { report: report.clone(), at, age: Duration::ZERO };
        self.loads.insert(report.instance.clone(), Kept { report, at, seen: now });
        Some(reading)
    }

    fn view(&self, now: Mono) -> ServiceView {
        let fresh = self.loads.values().filter(|kept| now.since(kept.seen) < LOAD_TTL);
        ServiceView {
            front: self.front.clone(),
            routes: self.routes.clone(),
            loads: fresh
                .map(|kept| LoadReading {
                    report: kept.report.clone(),
                    at: kept.at,
                    age: now.since(kept.seen),
                })
                .collect(),
        }
    }
}

#[derive(Default)]
struct Shelves {
    services: BTreeMap<ServiceName, Shelf>,
    balancers: BTreeMap<BalancerId, Mono>,
    abilities: BTreeMap<BalancerId, Ability>,
    terms: BTreeMap<InstanceId, (Terms, Mono)>,
}

/// The board of `tally up` without Redis, and of tests and the simulator.
pub struct MemoryBoard {
    clock: Arc<dyn Clock>,
    shelves: Mutex<Shelves>,
    changes: broadcast::Sender<Change>,
}

impl MemoryBoard {
    /// An empty board whose ages are `clock`'s.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> MemoryBoard {
        MemoryBoard {
            clock,
            shelves: Mutex::new(Shelves::default()),
            changes: broadcast::channel(CHANGES_BUFFERED).0,
        }
    }

    /// Forgets everything, as a scoreboard that is lost and comes back empty does.
    pub fn wipe(&self) {
        *self.lock() = Shelves::default();
        self.tell(Change::All);
    }

    /// What a writer left half done by a panic is still a board: every field is whole by itself.
    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: Change) {
        // An error means that nobody watches.
        drop(self.changes.send(change));
    }
}

#[async_trait]
impl Board for MemoryBoard {
    async fn publish_front(&self, front: &ServiceFront) -> Result<(), BoardError> {
        let mut shelves = self.lock();
        shelves.services.entry(front.service.clone()).or_default().front = Some(front.clone());
        drop(shelves);
        self.tell(Change::Front(front.service.clone()));
        Ok(())
    }

    async fn remove_service(&self, service: &ServiceName) -> Result<(), BoardError> {
        self.lock().services.remove(service);
        self.tell(Change::Front(service.clone()));
        self.tell(Change::Routes(service.clone()));
        Ok(())
    }

    async fn publish_routes(
        &self,
        service: &ServiceName,
        routes: &RouteTable,
    ) -> Result<RouteGen, BoardError> {
        let mut shelves = self.lock();
        let shelf = shelves.services.entry(service.clone()).or_default();
        if let Some(present) = shelf.routes.as_ref().map(|table| table.generation)
            && present >= routes.generation
        {
            return Ok(present);
        }
        let mut routes = routes.clone();
        routes.entries.sort_by(|a, b| a.instance.cmp(&b.instance));
        let generation = routes.generation;
        shelf.routes = Some(routes);
        drop(shelves);
        self.tell(Change::Routes(service.clone()));
        Ok(generation)
    }

    async fn record(&self, reports: &[LoadReport]) -> Result<usize, BoardError> {
        let (at, now) = (self.clock.now(), self.clock.monotonic());
        let mut told: BTreeMap<ServiceName, Vec<LoadReading>> = BTreeMap::new();
        let mut shelves = self.lock();
        for report in reports {
            let service = report.instance.service();
            let reading =
                shelves.services.entry(service.clone()).or_default().take(report, at, now);
            if let Some(reading) = reading {
                told.entry(service).or_default().push(reading);
            }
        }
        for service in told.keys() {
            if let Some(shelf) = shelves.services.get_mut(service) {
                shelf.sweep(now);
            }
        }
        drop(shelves);
        let new = told.values().map(Vec::len).sum();
        for (service, readings) in told {
            self.tell(if readings.len() > TOLD_MAX {
                Change::Loads(service)
            } else {
                Change::Told(service, readings.into())
            });
        }
        Ok(new)
    }

    async fn forget(&self, instances: &[InstanceId]) -> Result<(), BoardError> {
        let mut changed = BTreeSet::new();
        let mut shelves = self.lock();
        for instance in instances {
            let service = instance.service();
            let shelf = shelves.services.get_mut(&service);
            if shelf.is_some_and(|shelf| shelf.loads.remove(instance).is_some()) {
                changed.insert(service);
            }
        }
        drop(shelves);
        for service in changed {
            self.tell(Change::Loads(service));
        }
        Ok(())
    }

    async fn write_demand(
        &self,
        balancer: &BalancerId,
        demand: &[(ServiceName, Demand)],
    ) -> Result<(), BoardError> {
        let now = self.clock.monotonic();
        let mut shelves = self.lock();
        shelves.balancers.retain(|_, beat| now.since(*beat) < HEARTBEAT_TTL);
        shelves.balancers.insert(balancer.clone(), now);
        for (service, demand) in demand {
            let shelf = shelves.services.entry(service.clone()).or_default();
            shelf.demand.retain(|_, (_, at)| now.since(*at) < BALANCER_LIVE);
            shelf.demand.insert(balancer.clone(), (demand.clone(), now));
        }
        drop(shelves);
        for (service, _) in demand {
            self.tell(Change::Demand(service.clone()));
        }
        Ok(())
    }

    async fn demand(
        &self,
    ) -> Result<BTreeMap<ServiceName, Vec<(BalancerId, Demand, Duration)>>, BoardError> {
        let now = self.clock.monotonic();
        let shelves = self.lock();
        let fresh = |shelf: &Shelf| -> Vec<(BalancerId, Demand, Duration)> {
            let all =
                shelf.demand.iter().map(|(b, (d, at))| (b.clone(), d.clone(), now.since(*at)));
            all.filter(|(_, _, age)| *age < BALANCER_LIVE).collect()
        };
        let all = shelves.services.iter().filter(|(_, shelf)| shelf.front.is_some());
        let all = all.map(|(service, shelf)| (service.clone(), fresh(shelf)));
        Ok(all.filter(|(_, demand)| !demand.is_empty()).collect())
    }

    async fn write_ability(
        &self,
        balancer: &BalancerId,
        ability: &Ability,
    ) -> Result<(), BoardError> {
        self.lock().abilities.insert(balancer.clone(), ability.clone());
        Ok(())
    }

    async fn abilities(&self) -> Result<BTreeMap<BalancerId, Ability>, BoardError> {
        let now = self.clock.monotonic();
        let mut guard = self.lock();
        let Shelves { balancers, abilities, .. } = &mut *guard;
        let live =
            |b: &BalancerId| balancers.get(b).is_some_and(|beat| now.since(*beat) < BALANCER_LIVE);
        abilities.retain(|balancer, _| balancers.contains_key(balancer));
        Ok(abilities.iter().filter(|(b, _)| live(b)).map(|(b, a)| (b.clone(), a.clone())).collect())
    }

    async fn write_terms(&self, terms: &[(InstanceId, Terms)]) -> Result<(), BoardError> {
        let now = self.clock.monotonic();
        let mut shelves = self.lock();
        for (instance, terms) in terms {
            if *terms == Terms::AS_CONFIGURED {
                shelves.terms.remove(instance);
            } else {
                shelves.terms.insert(instance.clone(), (*terms, now));
            }
        }
        Ok(())
    }

    async fn terms(&self) -> Result<BTreeMap<InstanceId, Terms>, BoardError> {
        let now = self.clock.monotonic();
        let mut shelves = self.lock();
        shelves.terms.retain(|_, (_, at)| now.since(*at) < LOAD_TTL);
        Ok(shelves.terms.iter().map(|(id, (terms, _))| (id.clone(), *terms)).collect())
    }

    async fn service(&self, service: &ServiceName) -> Result<ServiceView, BoardError> {
        let now = self.clock.monotonic();
        Ok(self.lock().services.get(service).map(|shelf| shelf.view(now)).unwrap_or_default())
    }

    async fn view(&self) -> Result<BoardView, BoardError> {
        let now = self.clock.monotonic();
        let mut shelves = self.lock();
        let mut view = BoardView::default();
        for (service, shelf) in &mut shelves.services {
            shelf.sweep(now);
            if shelf.front.is_some() {
                view.services.insert(service.clone(), shelf.view(now));
            }
        }
        let beats = shelves.balancers.iter();
        let beats = beats.map(|(b, at)| BalancerSeen { balancer: b.clone(), age: now.since(*at) });
        view.balancers = beats.filter(|seen| seen.age < HEARTBEAT_TTL).collect();
        Ok(view)
    }

    fn watch(&self) -> Changes {
        Changes(self.changes.subscribe())
    }

    async fn ping(&self) -> Result<(), BoardError> {
        Ok(())
    }
}
