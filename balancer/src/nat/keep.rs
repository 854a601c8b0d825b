//! Keeps the kernel's table what the routes and loads make of it: at once when routes change, once
//! a second for loads, checks and counts.

use super::bury::{Burials, Living};
use super::conntrack::{Conntrack, Line, Phase};
use super::rules::{Front, Target, Wanted};
use super::{able, lock, nft};
use crate::Shared;
use crate::view::{Entry, Instance, Service, Snapshot};
use chassis::telemetry::Chain;
use chassis::{Shutdown, Woke, dial, periodic};
use domain::{BalancerId, Mono, RouteMode, ServiceName};
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// The pace of weights, checks and counts.
const BEAT: Duration = Duration::from_secs(1);
/// What is lacking is looked for again after so many beats.
const LACKING_BEATS: u32 = 10;
/// An instance that does not accept within this is as good as dead for new connections.
const CHECK_MAX: Duration = Duration::from_millis(500);
/// Instances checked at the same time.
const CHECKS_AT_ONCE: usize = 64;
/// Instances checked in one beat; more are checked in turn.
const CHECKS_MAX: usize = 1024;
/// Checks in a row that fail before an instance is dead: one may meet a full backlog.
const CHECKS_FAILED: u32 = 2;
/// One that failed is tried again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// A load older than this says nothing any more.
const LOAD_AGE_MAX: Duration = scoreboard::board::LOAD_TTL;
/// Connections per instance from which their number stands in for loads that nobody reports.
const FLOWS_AS_LOAD: u32 = 2;

/// The name of a balancer's table.
pub fn table_of(id: &BalancerId) -> String {
    format!("tally-{id}")
}

/// Keeps the table until the shutdown starts. It stays in the kernel then: connections go on, new
/// ones too, and the next start takes it over.
pub async fn keep(listen: Vec<SocketAddr>, shared: Arc<Shared>, shutdown: Shutdown) {
    let keeper = tokio::sync::Mutex::new(Keeper::new(listen, &shared));
    let nudge = shared.nat.nudge.clone();
    let (keeper, shared) = (&keeper, &shared);
    let step = |woke| async move {
        keeper.lock().await.step(shared, woke).await;
    };
    periodic::run(BEAT, &nudge, &shutdown, step).await;
}

/// What is remembered of one instance.
#[derive(Debug)]
struct Memory {
    weight: f64,
    checks_failed: u32,
}

/// The connections the kernel has.
struct Counted {
    /// Open ones by port and instance.
    open: HashMap<(u16, SocketAddr), u32>,
    /// Those that were not seen before, by port.
    fresh: HashMap<u16, u64>,
    seen: HashSet<(SocketAddr, u16)>,
}

impl Counted {
    fn of(
        conntrack: &mut Conntrack,
        ports: &BTreeSet<u16>,
        before: &HashSet<(SocketAddr, u16)>,
    ) -> std::io::Result<Counted> {
        let (mut open, mut fresh) = (HashMap::new(), HashMap::new());
        let mut seen = HashSet::with_capacity(before.len());
        conntrack.list(|flow| {
            let port = flow.asked.port();
            if !ports.contains(&port) {
                return;
            }
            if flow.phase == Phase::Open {
                *open.entry((port, flow.instance)).or_default() += 1;
            }
            if seen.insert((flow.client, port)) && !before.contains(&(flow.client, port)) {
                *fresh.entry(port).or_default() += 1;
            }
        })?;
        Ok(Counted { open, fresh, seen })
    }
}

struct Keeper {
    table: String,
    listen: Vec<IpAddr>,
    able: bool,
    beats: u32,
    beaten: Option<Mono>,
    turn: usize,
    /// By the instance's serial number.
    memory: HashMap<u64, Memory>,
    /// What stands in the kernel; `None`: not known.
    written: Option<Wanted>,
    chains: Vec<String>,
    burials: Burials,
    /// The kernel did not forget them when it was last asked.
    refused: bool,
    /// Connections seen before, by both ends; so that new ones are counted once.
    seen: HashSet<(SocketAddr, u16)>,
    conntrack: Line,
}

fn nat_services(shared: &Shared) -> Vec<(u16, Arc<Service>)> {
    let table = shared.table.load();
    let all = table.ports().iter();
    all.filter(|(_, s)| s.front.load().mode == RouteMode::Nat).cloned().collect()
}

impl Keeper {
    fn new(own: Vec<SocketAddr>, shared: &Shared) -> Keeper {
        let listen: BTreeSet<IpAddr> = own.iter().map(SocketAddr::ip).collect();
        Keeper {
            table: table_of(&shared.id),
            listen: listen.into_iter().collect(),
            able: false,
            beats: 0,
            beaten: None,
            turn: 0,
            memory: HashMap::new(),
            written: None,
            chains: Vec::new(),
            burials: Burials::default(),
            refused: false,
            seen: HashSet::new(),
            conntrack: Line::default(),
        }
    }

    async fn step(&mut self, shared: &Arc<Shared>, woke: Woke) {
        let now = shared.clock.monotonic();
        let beat =
            woke != Woke::Nudge || self.beaten.is_none_or(|beaten| now.since(beaten) >= BEAT);
        if beat {
            self.beaten = Some(now);
            self.beats = self.beats.wrapping_add(1);
            self.look_around(shared).await;
        }
        let services = nat_services(shared);
        if beat && !self.able {
            *lock(&shared.nat.troubles) = unserved(shared, &services);
        }
        if !self.able
            || (services.is_empty() && self.is_clean())
            || self.is_early(shared, &services)
        {
            return;
        }
        if beat {
            self.check(&services).await;
            self.count(&services, now).await;
            self.weigh(&services, now);
            *lock(&shared.nat.troubles) = troubles(&services);
        }
        let wrote = self.write(shared, &services, now).await;
        if self.written.is_some() {
            self.look_for_dead(shared, &services);
        }
        // What the kernel refused is tried again at the pace of the beat.
        if wrote || beat {
            self.bury(shared).await;
        }
    }

    fn is_clean(&self) -> bool {
        self.written.as_ref().is_some_and(|w| w.fronts.is_empty()) && self.burials.are_over()
    }

    /// Whether too little is known to touch what a former life left: it was right when it was
    /// written, and connections live by it.
    fn is_early(&self, shared: &Shared, services: &[(u16, Arc<Service>)]) -> bool {
        let unread = !shared.nat.known.load(Relaxed);
        let unknown = |service: &Service| {
            let chain = |family| self.chains.contains(&format!("{family}-{}", service.name));
            service.snapshot.load().generation.is_none() && (chain("ip") || chain("ip6"))
        };
        self.written.is_none() && (unread || services.iter().any(|(_, s)| unknown(s)))
    }

    /// Finds out what is lacking; at the start, and while something is.
    async fn look_around(&mut self, shared: &Shared) {
        if self.able || (self.beats % LACKING_BEATS != 1) {
            return;
        }
        let lacks = able::lacks().await;
        self.able = lacks.is_none();
        if self.able {
            // What a former life of this balancer left is taken over.
            self.chains = nft::chains(&self.table).await;
            let services = nat_services(shared);
            if self.chains.is_empty() && services.is_empty() {
                self.written = Some(self.wanted(&[], Mono::default()));
            }
        }
        let mut told = lock(&shared.nat.lacks);
        if *told != lacks {
            if let Some(why) = &lacks {
                tracing::info!(why, "mode nat cannot be served here");
            }
            *told = lacks;
        }
    }

    /// Tries every instance's port: in the kernel nobody sees a connection fail.
    async fn check(&mut self, services: &[(u16, Arc<Service>)]) {
        let mut all: Vec<(u64, SocketAddr)> = Vec::new();
        for (_, service) in services {
            let snapshot = service.snapshot.load();
            let ready = snapshot.entries.iter().filter(|e| e.ready);
            all.extend(ready.map(|e| (e.instance.serial, e.instance.address)));
        }
        let serials: HashSet<u64> = all.iter().map(|(serial, _)| *serial).collect();
        self.memory.retain(|serial, _| serials.contains(serial));
        let count = all.len().min(CHECKS_MAX);
        if !all.is_empty() {
            self.turn %= all.len();
            all.rotate_left(self.turn);
            self.turn += count;
        }
        all.truncate(count);
        let failed = self.check_all(&all).await;
        // Every new connection that goes there meanwhile is lost.
        all.retain(|(serial, _)| failed.contains(serial) && !self.is_dead(*serial));
        if !all.is_empty() {
            tokio::time::sleep(AGAIN_AFTER).await;
            self.check_all(&all).await;
        }
    }

    /// Tries these; answers with those that failed.
    async fn check_all(&mut self, all: &[(u64, SocketAddr)]) -> HashSet<u64> {
        let checks = all.iter().copied().map(|(serial, address)| async move {
            let connecting = tokio::time::timeout(CHECK_MAX, dial::connect(address));
            let accepts = match connecting.await {
                Ok(Ok(_)) => Some(true),
                // It could not be tried.
                Ok(Err(error)) if dial::is_our_lack(&error) => None,
                Ok(Err(_)) | Err(_) => Some(false),
            };
            (serial, accepts)
        });
        let results: Vec<(u64, Option<bool>)> =
            futures_util::stream::iter(checks).buffer_unordered(CHECKS_AT_ONCE).collect().await;
        let mut failed = HashSet::new();
        for (serial, accepts) in results {
            let Some(accepts) = accepts else { continue };
            let memory = self.remember(serial);
            memory.checks_failed = if accepts { 0 } else { memory.checks_failed + 1 };
            if !accepts {
                failed.insert(serial);
            }
        }
        failed
    }

    fn remember(&mut self, serial: u64) -> &mut Memory {
        self.memory.entry(serial).or_insert(Memory { weight: 1.0, checks_failed: 0 })
    }

    fn is_dead(&self, serial: u64) -> bool {
        self.memory.get(&serial).is_some_and(|m| m.checks_failed >= CHECKS_FAILED)
    }

    /// Counts the connections the kernel has, for safe stop, idle time-out, limits and demand.
    async fn count(&mut self, services: &[(u16, Arc<Service>)], now: Mono) {
        let ports: BTreeSet<u16> = services.iter().map(|(port, _)| *port).collect();
        let before = std::mem::take(&mut self.seen);
        let counting = self.conntrack.ask(move |conntrack| Counted::of(conntrack, &ports, &before));
        let Counted { open, fresh, seen } = match counting.await {
            Ok(counted) => counted,
            Err(error) => {
                tracing::debug!(%error, "the kernel's connections cannot be counted");
                return;
            }
        };
        self.seen = seen;
        for (port, service) in services {
            let count = |instance: &Instance| {
                let n = open.get(&(*port, instance.address)).copied().unwrap_or(0);
                instance.take_kernel_flows(n);
            };
            service.snapshot.load().entries.iter().for_each(|e| count(&e.instance));
            let departed = service.departed.lock().unwrap_or_else(PoisonError::into_inner);
            departed.iter().for_each(|instance| count(instance));
            drop(departed);
            let all = open.iter().filter(|((p, _), _)| p == port).map(|(_, n)| n).sum();
            let fresh = fresh.get(port).copied().unwrap_or(0);
            service.kernel.take(all, fresh, now);
            if all > 0 || fresh > 0 {
                service.touch(now);
            }
            crate::wait::pump(service, now);
        }
    }

    /// Moves the weights by the loads.
    fn weigh(&mut self, services: &[(u16, Arc<Service>)], now: Mono) {
        for (_, service) in services {
            let snapshot = service.snapshot.load();
            let standing: Vec<&Entry> = snapshot.entries.iter().filter(|e| e.ready).collect();
            let loads = loads(&standing, now);
            let mut targets: Vec<picker::nat::Target> = standing
                .iter()
                .zip(loads)
                .map(|(entry, load)| {
                    let weight = self.remember(entry.instance.serial).weight;
                    picker::nat::Target { weight, load }
                })
                .collect();
            picker::nat::step(&mut targets);
            for (entry, target) in standing.iter().zip(targets) {
                self.remember(entry.instance.serial).weight = target.weight;
            }
        }
    }

    fn wanted(&self, services: &[(u16, Arc<Service>)], now: Mono) -> Wanted {
        let front = |(port, service): &(u16, Arc<Service>)| {
            let snapshot = service.snapshot.load();
            let weights: Vec<f64> =
                snapshot.entries.iter().map(|e| self.weight(&snapshot, e, now)).collect();
            let slots = picker::nat::slots(&weights);
            let targets = snapshot.entries.iter().zip(slots);
            let targets = targets.map(|(e, slots)| Target { address: e.instance.address, slots });
            Front { service: service.name.clone(), port: *port, targets: targets.collect() }
        };
        Wanted {
            table: self.table.clone(),
            listen: self.listen.clone(),
            fronts: services.iter().map(front).collect(),
        }
    }

    /// What an instance's share of new connections is proportional to; 0: none.
    fn weight(&self, snapshot: &Snapshot, entry: &Entry, now: Mono) -> f64 {
        let full = entry.instance.in_flight() >= entry.max_in_flight;
        let stands = entry.ready && !entry.ejected && entry.healthy;
        if !stands || full || self.is_dead(entry.instance.serial) {
            return 0.0;
        }
        let learned = self.memory.get(&entry.instance.serial).map_or(1.0, |m| m.weight);
        let (slow_start, age) = (snapshot.field.slow_start, now.since(entry.ready_since));
        let ramp = if snapshot.field.all_new || age >= slow_start {
            1.0
        } else {
            (age.as_secs_f64() / slow_start.as_secs_f64()).max(RAMP_MIN)
        };
        learned * entry.weight * ramp
    }

    /// Brings the kernel to what is wanted, if that moved far enough; true when it did.
    async fn write(
        &mut self,
        shared: &Shared,
        services: &[(u16, Arc<Service>)],
        now: Mono,
    ) -> bool {
        let wanted = self.wanted(services, now);
        if self.written.as_ref().is_some_and(|written| !differs(written, &wanted)) {
            return false;
        }
        match nft::apply(&wanted.transaction(&self.chains)).await {
            Ok(()) => {
                shared.nat.writes.fetch_add(1, Relaxed);
                self.chains = wanted.own_chains();
                self.written = Some(wanted);
                true
            }
            Err(error) => {
                shared.nat.write_failures.fetch_add(1, Relaxed);
                let error = Chain(&error).to_string();
                tracing::warn!(error, "the kernel's table could not be changed; trying again");
                // Somebody may have changed the table by hand, or taken nftables away.
                self.able = false;
                self.beats = 0;
                self.written = None;
                false
            }
        }
    }

    /// Finds out whose connections the kernel must forget.
    fn look_for_dead(&mut self, shared: &Shared, services: &[(u16, Arc<Service>)]) {
        // Before the snapshots: they are then as new as the reading.
        let read = shared.nat.read.load(Acquire);
        let fronts = self.written.iter().flat_map(|written| &written.fronts);
        let mut standing: BTreeMap<u16, BTreeSet<SocketAddr>> = BTreeMap::new();
        for front in fronts {
            let addresses = front.targets.iter().filter(|t| t.slots > 0).map(|t| t.address);
            standing.entry(front.port).or_default().extend(addresses);
        }
        let living = |(port, service): &(u16, Arc<Service>)| {
            let snapshot = service.snapshot.load();
            let entries = snapshot.entries.iter();
            let living = entries.filter(|e| !self.is_dead(e.instance.serial));
            let mut alive = standing.remove(port).unwrap_or_default();
            alive.extend(living.map(|e| e.instance.address));
            Living { port: *port, known: read && snapshot.generation.is_some(), alive }
        };
        let now = services.iter().map(living).collect();
        self.burials.take(now);
    }

    /// Makes the kernel forget the connections of instances that are dead or gone.
    async fn bury(&mut self, shared: &Shared) {
        if self.burials.are_over() {
            return;
        }
        let work = Arc::new(self.burials.work(&self.listen));
        let ours = Arc::clone(&work);
        match self.conntrack.ask(move |conntrack| ours.run(conntrack)).await {
            Ok(n) => {
                shared.nat.flushed.fetch_add(n, Relaxed);
                self.burials.done(&work);
                self.refused = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.refused, true) {
                    tracing::warn!(
                        %error,
                        "connections of dead instances cannot be ended; trying again"
                    );
                }
            }
        }
    }
}

/// The least share of a new instance, as for requests.
const RAMP_MIN: f64 = 0.1;

/// Reported loads; where nobody reports, the connections each has stand in for them.
fn loads(standing: &[&Entry], now: Mono) -> Vec<Option<f64>> {
    let reported = |entry: &&Entry| {
        let fresh = entry.reported.filter(|r| now.since(r.at) < LOAD_AGE_MAX);
        fresh.map(|r| r.load)
    };
    let loads: Vec<Option<f64>> = standing.iter().map(reported).collect();
    if loads.iter().any(Option::is_some) {
        return loads;
    }
    let flows = || standing.iter().map(|e| e.instance.in_flight());
    let enough = flows().sum::<u32>() as usize >= standing.len() * FLOWS_AS_LOAD as usize;
    flows().map(|n| enough.then(|| f64::from(n))).collect()
}

/// Whether a write is worth its while.
fn differs(written: &Wanted, wanted: &Wanted) -> bool {
    let alike = |old: &Front, new: &Front| {
        let slots = |front: &Front| front.targets.iter().map(|t| t.slots).collect::<Vec<_>>();
        let places = |front: &Front| front.targets.iter().map(|t| t.address).collect::<Vec<_>>();
        let opened = |front: &Front| front.targets.iter().map(|t| t.slots > 0).collect::<Vec<_>>();
        old.service == new.service
            && old.port == new.port
            && places(old) == places(new)
            && opened(old) == opened(new)
            && !picker::nat::moved(&slots(old), &slots(new))
    };
    written.fronts.len() != wanted.fronts.len()
        || written.listen != wanted.listen
        || !written.fronts.iter().zip(&wanted.fronts).all(|(old, new)| alike(old, new))
}

/// Services that were accepted when it could be done and now cannot.
fn unserved(shared: &Shared, services: &[(u16, Arc<Service>)]) -> BTreeMap<ServiceName, String> {
    let Some(lacks) = shared.nat.lacks() else { return BTreeMap::new() };
    let why = format!("served in user space instead of mode nat: {lacks}");
    services.iter().map(|(_, service)| (service.name.clone(), why.clone())).collect()
}

/// Services that the kernel cannot pass on to other hosts, because it does not forward.
fn troubles(services: &[(u16, Arc<Service>)]) -> BTreeMap<ServiceName, String> {
    let forwards = |family: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/{family}")).unwrap_or_default();
        text.trim() == "1"
    };
    let (v4, v6) = (forwards("ipv4/ip_forward"), forwards("ipv6/conf/all/forwarding"));
    let mut troubles = BTreeMap::new();
    for (_, service) in services {
        let snapshot = service.snapshot.load();
        let addresses = || snapshot.entries.iter().map(|e| e.instance.address.ip());
        let far = |ip: &IpAddr| !ip.is_loopback();
        let setting = if !v4 && addresses().any(|ip| ip.is_ipv4() && far(&ip)) {
            "net.ipv4.ip_forward"
        } else if !v6 && addresses().any(|ip| ip.is_ipv6() && far(&ip)) {
            "net.ipv6.conf.all.forwarding"
        } else {
            continue;
        };
        let why = format!(
            "instances on other hosts are reached from this host alone: it does not forward; \
             `sysctl -w {setting}=1`"
        );
        troubles.insert(service.name.clone(), why);
    }
    troubles
}
