//! What the receiver knows of services, instances and latched sources; kept while the board is away.

use crate::agent::AgentAt;
use domain::{
    AgentCheck, Change, Clock, InstanceId, LoadReading, LoadSource, Mono, Revision, RouteGen,
    ServiceName,
};
use scoreboard::{Board, BoardView, ServiceView};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A service missing on the board this long is gone. A board that was lost and comes back empty is
/// filled anew within seconds; until then the last view holds.
pub const MISSING_IS_GONE: Duration = Duration::from_secs(60);
/// Revisions whose sources are remembered, per service: the present one, the one before, and two
/// that were rolled back.
const REVISIONS_MAX: usize = 4;
/// Everything is read anew this often, whatever the board tells in between.
pub const READ_EVERY: Duration = Duration::from_secs(1);

/// One service as last seen.
#[derive(Debug, Default)]
struct Known {
    seen: Mono,
    revision: Revision,
    source: Option<LoadSource>,
    generation: RouteGen,
    instances: BTreeMap<InstanceId, Revision>,
    agent: Option<AgentCheck>,
    /// Of each instance in the routes.
    hosts: BTreeMap<InstanceId, IpAddr>,
    latched: BTreeMap<Revision, LoadSource>,
}

impl Known {
    fn revision_of(&self, instance: &InstanceId) -> Revision {
        self.instances.get(instance).copied().unwrap_or(self.revision)
    }

    fn latch_all(&mut self, readings: &[LoadReading]) {
        for reading in readings {
            let revision = self.revision_of(&reading.report.instance);
            self.latch(revision, reading.report.source);
        }
    }

    /// The highest source that spoke for a revision stays.
    fn latch(&mut self, revision: Revision, source: LoadSource) {
        let latched = self.latched.entry(revision).or_insert(source);
        *latched = source.max(*latched);
        while self.latched.len() > REVISIONS_MAX {
            self.latched.pop_first();
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// Whether the board was ever read.
    read: bool,
    services: BTreeMap<ServiceName, Known>,
}

/// Shared by the listeners and the reader of the board.
#[derive(Debug, Default)]
pub struct World(Mutex<Inner>);

/// What is known of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The service is not known and the board was read.
    NoService,
    /// The service is known or the board was never read; the instance is not in the routes.
    NotRouted,
    /// The instance is in the routes.
    Routed,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of an instance.
    #[must_use]
    pub fn standing(&self, service: &ServiceName, instance: &InstanceId) -> Standing {
        let inner = self.lock();
        match inner.services.get(service) {
            Some(known) if known.instances.contains_key(instance) => Standing::Routed,
            Some(_) => Standing::NotRouted,
            None if !inner.read => Standing::NotRouted,
            None => Standing::NoService,
        }
    }

    /// Whether a report of `source` counts now. Latches it where sources are automatic.
    #[must_use]
    pub fn counts(&self, service: &ServiceName, instance: &InstanceId, source: LoadSource) -> bool {
        let mut inner = self.lock();
        let Some(known) = inner.services.get_mut(service) else { return true };
        if let Some(declared) = known.source {
            return source == declared;
        }
        let revision = known.revision_of(instance);
        known.latch(revision, source);
        known.latched.get(&revision) == Some(&source)
    }

    fn learn(inner: &mut Inner, service: &ServiceName, view: &ServiceView, now: Mono) {
        let Some(front) = &view.front else { return };
        let known = inner.services.entry(service.clone()).or_default();
        known.seen = now;
        known.revision = front.revision;
        known.source = front.source;
        known.agent = front.agent;
        // An unknown table is not an empty one, and an older one is no news.
        if let Some(table) = view.routes.as_ref().filter(|t| t.generation >= known.generation) {
            known.generation = table.generation;
            known.instances =
                table.entries.iter().map(|e| (e.instance.clone(), e.revision)).collect();
            known.hosts =
                table.entries.iter().map(|e| (e.instance.clone(), e.address.ip())).collect();
        }
        known.latch_all(&view.loads);
    }

    /// The agents of the instances in the routes.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentAt> {
        let inner = self.lock();
        let mut agents = Vec::new();
        for known in inner.services.values() {
            let Some(AgentCheck { port, interval }) = known.agent else { continue };
            agents.extend(known.hosts.iter().map(|(instance, host)| AgentAt {
                instance: instance.clone(),
                address: SocketAddr::new(*host, port),
                interval,
            }));
        }
        agents
    }

    /// Takes in the whole board.
    pub fn learn_all(&self, view: &BoardView, now: Mono) {
        let mut inner = self.lock();
        inner.read = true;
        for (service, view) in &view.services {
            World::learn(&mut inner, service, view, now);
        }
        inner.services.retain(|_, known| now.since(known.seen) < MISSING_IS_GONE);
    }

    /// Takes in loads that somebody recorded: their sources count for all receivers.
    pub fn hear(&self, service: &ServiceName, readings: &[LoadReading]) {
        if let Some(known) = self.lock().services.get_mut(service) {
            known.latch_all(readings);
        }
    }

    /// Takes in one service.
    pub fn learn_one(&self, service: &ServiceName, view: &ServiceView, now: Mono) {
        World::learn(&mut self.lock(), service, view, now);
    }
}

/// Follows the board until the shutdown starts.
pub async fn follow(
    world: &World,
    board: &dyn Board,
    clock: &dyn Clock,
    readiness: &chassis::Readiness,
    shutdown: &chassis::Shutdown,
) {
    const NAME: &str = "scoreboard";
    readiness.missing(NAME, "not read yet");
    let mut changes = board.watch_names();
    let mut beat = tokio::time::interval(READ_EVERY);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let change = tokio::select! {
            () = shutdown.started() => return,
            _ = beat.tick() => Change::All,
            change = changes.next() => match change {
                Some(change) => change,
                None => return,
            },
        };
        let outcome = match change {
            Change::Front(service) | Change::Routes(service) => {
                board.service(&service).await.map(|view| {
                    world.learn_one(&service, &view, clock.monotonic());
                })
            }
            Change::All => board.view().await.map(|view| world.learn_all(&view, clock.monotonic())),
            Change::Told(service, readings) => {
                world.hear(&service, &readings);
                continue;
            }
            Change::Loads(_) | Change::Demand(_) => continue,
        };
        match outcome {
            Ok(()) => readiness.have(NAME),
            Err(why) => readiness.missing(NAME, why.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scoreboard::testing::{front, instance, report, routes, service};

    fn view(revision: u64, source: Option<LoadSource>) -> ServiceView {
        let mut front = front("shop");
        front.revision = Revision(revision);
        front.source = source;
        ServiceView { front: Some(front), routes: None, loads: vec![] }
    }

    #[test]
    fn the_highest_source_that_spoke_is_latched_per_revision() {
        let (world, shop, now) = (World::default(), service("shop"), Mono::default());
        let who = instance("shop", 1);
        let counts = |source| world.counts(&shop, &who, source);
        world.learn_one(&shop, &view(1, None), now);
        assert!(counts(LoadSource::Cgroup), "the first that speaks");
        assert!(counts(LoadSource::Pushed), "a higher one takes over");
        assert!(!counts(LoadSource::Cgroup) && !counts(LoadSource::Header), "lower ones do not");
        assert!(counts(LoadSource::Pushed));
        world.learn_one(&shop, &view(2, None), now);
        assert!(counts(LoadSource::Cgroup), "a new revision latches anew");
    }

    #[test]
    fn a_declared_source_alone_counts() {
        let (world, shop, now) = (World::default(), service("shop"), Mono::default());
        world.learn_one(&shop, &view(1, Some(LoadSource::Cgroup)), now);
        assert!(!world.counts(&shop, &instance("shop", 1), LoadSource::Pushed));
        assert!(world.counts(&shop, &instance("shop", 1), LoadSource::Cgroup));
    }

    #[test]
    fn what_stands_on_the_board_latches_too() {
        let (world, shop, now) = (World::default(), service("shop"), Mono::default());
        let mut seen = view(1, None);
        let mut header = report(&instance("shop", 1), 1, None);
        header.source = LoadSource::Header;
        let at = domain::Timestamp(0);
        seen.loads = vec![domain::LoadReading { report: header, at, age: Duration::ZERO }];
        world.learn_one(&shop, &seen, now);
        assert!(!world.counts(&shop, &instance("shop", 2), LoadSource::Cgroup));
    }

    #[test]
    fn a_wiped_board_takes_nothing_away_at_once() {
        let (world, shop) = (World::default(), service("shop"));
        let at = |s| Mono(Duration::from_secs(s));
        assert_eq!(world.standing(&shop, &instance("shop", 1)), Standing::NotRouted);
        let mut seen = view(1, None);
        seen.routes = Some(routes("shop", "1.5", 2));
        let mut all = BoardView::default();
        all.services.insert(shop.clone(), seen);
        world.learn_all(&all, at(1));
        world.learn_all(&BoardView::default(), at(2));
        assert_eq!(world.standing(&shop, &instance("shop", 1)), Standing::Routed);
        let mut older = view(1, None);
        older.routes = Some(routes("shop", "1.4", 0));
        world.learn_one(&shop, &older, at(3));
        assert_eq!(world.standing(&shop, &instance("shop", 1)), Standing::Routed);
        world.learn_all(&BoardView::default(), at(64));
        assert_eq!(world.standing(&shop, &instance("shop", 1)), Standing::NoService);
    }
}
