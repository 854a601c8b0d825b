//! What the request path sees: services, their instances and counters, swapped whole, never locked.

use crate::feedback::Feedback;
pub use crate::instance::Instance;
use crate::instance::{micros, mono};
use crate::nat::Kernel;
use crate::orca;
use crate::picks::Kept;
use crate::probe::Desks;
use crate::report_out::Said;
use crate::stats::Stats;
use crate::tcp::Counts;
use crate::wait::Queue;
use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use domain::{Mono, PolicyName, RouteGen, ServiceFront, ServiceName};
use picker::{Candidates, Field, Glance, Others, Reported, View};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One instance as the control tasks last published it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The shared counters.
    pub instance: Arc<Instance>,
    /// Takes new requests.
    pub ready: bool,
    /// Set aside for failing.
    pub ejected: bool,
    /// False while it fails its health checks and others do not.
    pub healthy: bool,
    /// It fails its health checks.
    pub unwell: bool,
    /// Capacity against the median times configured weight.
    pub weight: f64,
    /// Requests it takes at once from this balancer.
    pub max_in_flight: u32,
    /// What the other balancers have there.
    pub others: Others,
    /// The last report that came by the board.
    pub reported: Option<Reported>,
    /// Whether what it says in its answers counts, and at once.
    pub hears: bool,
    /// Since when it is ready, or ready again.
    pub ready_since: Mono,
}

impl Entry {
    /// Whether it may be picked when it has room.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.ready && !self.ejected && self.healthy && self.weight > 0.0
    }

    /// The newest report: by the board, or in an answer.
    #[must_use]
    pub fn newest(&self) -> Option<Reported> {
        if !self.hears {
            return self.reported;
        }
        let heard = orca::heard(&self.instance);
        match (self.reported, heard) {
            (Some(reported), Some(heard)) if reported.at >= heard.at => Some(reported),
            (reported, heard) => heard.or(reported),
        }
    }
}

/// All instances of a service at one moment. Immutable.
#[derive(Debug)]
pub struct Snapshot {
    /// Sorted by instance id.
    pub entries: Vec<Entry>,
    /// Each one's key, close together: consistent hashing reads them all.
    pub keys: Vec<u64>,
    /// What concerns all of them.
    pub field: Field,
    /// How one is picked.
    pub policy: PolicyName,
    /// The route table it was made of; `None` while none was ever seen.
    pub generation: Option<RouteGen>,
    /// Since when that table is in use.
    pub generation_since: Mono,
}

impl Candidates for Snapshot {
    fn count(&self) -> usize {
        self.entries.len()
    }

    fn view(&self, index: usize) -> View {
        let entry = &self.entries[index];
        let instance = &entry.instance;
        View {
            ready: entry.ready,
            ejected: entry.ejected,
            healthy: entry.healthy,
            in_flight: instance.in_flight(),
            max_in_flight: entry.max_in_flight,
            others: entry.others,
            reported: entry.newest(),
            weight: entry.weight,
            ready_since: entry.ready_since,
            outcomes: instance.outcomes(),
            latency: instance.latency(),
            last_picked: instance.last_picked(),
        }
    }

    fn key(&self, index: usize) -> u64 {
        self.keys[index]
    }

    fn glance(&self, index: usize) -> Glance {
        let entry = &self.entries[index];
        let in_flight = entry.instance.in_flight();
        Glance {
            stands: entry.stands(),
            has_room: in_flight < entry.max_in_flight,
            in_flight,
            weight: entry.weight,
        }
    }

    fn load(&self, index: usize) -> Option<f64> {
        self.entries[index].newest().map(|reported| reported.load)
    }

    fn latency_at(&self, index: usize, in_flight: u32) -> Option<f64> {
        self.entries[index].instance.latency_at(in_flight)
    }

    fn in_flight(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.instance.in_flight())).sum()
    }
}

impl Snapshot {
    /// A snapshot without instances.
    #[must_use]
    pub fn empty() -> Snapshot {
        Snapshot {
            entries: Vec::new(),
            keys: Vec::new(),
            field: Field::default(),
            policy: PolicyName::Feedback,
            generation: None,
            generation_since: Mono::default(),
        }
    }

    /// The place of the instance with this key.
    #[must_use]
    pub fn place(&self, key: u64) -> Option<usize> {
        self.keys.iter().position(|other| *other == key)
    }

    /// Whether any instance takes requests.
    #[must_use]
    pub fn any_standing(&self) -> bool {
        self.entries.iter().any(Entry::stands)
    }
}

/// One service as the request path knows it.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// A number of this process that no other service has or had.
    pub serial: u64,
    /// Its place in each worker's table.
    pub slot: usize,
    /// What was published of it.
    pub front: ArcSwap<ServiceFront>,
    /// Its instances.
    pub snapshot: ArcSwap<Snapshot>,
    /// Requests that wait.
    pub queue: Queue,
    /// One set of counters per worker.
    pub stats: Box<[CachePadded<Stats>]>,
    /// What is counted of connections to its own port, by worker.
    pub links: Box<[CachePadded<Counts>]>,
    /// What the kernel passes on by itself.
    pub kernel: Kernel,
    /// How good the feedback is.
    pub feedback: Feedback,
    /// The last explained picks.
    pub picks: Kept,
    /// Workers' wishes for probes.
    pub desks: Desks,
    /// Tunnels and connections to its own port open now.
    pub tunnels: AtomicU32,
    /// When the last request came, microseconds of this process; 0: never.
    pub last_request: AtomicU64,
    /// The control tasks were told that somebody waits. They take it back when nobody does.
    pub wait_told: AtomicBool,
    /// What an outer balancer was last told of it.
    pub said: Said,
    /// Instances that left the routes while requests were in flight there. Not for the request path.
    pub departed: Mutex<Vec<Arc<Instance>>>,
}

impl Service {
    /// A service without instances.
    #[must_use]
    pub fn new(front: ServiceFront, serial: u64, slot: usize, workers: usize) -> Service {
        Service {
            name: front.service.clone(),
            serial,
            slot,
            front: ArcSwap::from_pointee(front),
            snapshot: ArcSwap::from_pointee(Snapshot::empty()),
            queue: Queue::default(),
            stats: (0..workers).map(|_| CachePadded::new(Stats::default())).collect(),
            links: (0..workers).map(|_| CachePadded::default()).collect(),
            kernel: Kernel::default(),
            feedback: Feedback::default(),
            picks: Kept::default(),
            desks: (0..workers).map(|_| CachePadded::default()).collect(),
            tunnels: AtomicU32::new(0),
            last_request: AtomicU64::new(0),
            wait_told: AtomicBool::new(false),
            said: Said::default(),
            departed: Mutex::default(),
        }
    }

    /// Notes the moment of a request.
    pub fn touch(&self, now: Mono) {
        let coarse = micros(now).max(1);
        // Shared by all cores: written at most a thousand times a second.
        if coarse.saturating_sub(self.last_request.load(Relaxed)) > 1000 {
            self.last_request.store(coarse, Relaxed);
        }
    }

    /// Time since the last request; `None`: none yet.
    #[must_use]
    pub fn last_request_ago(&self, now: Mono) -> Option<Duration> {
        let last = self.last_request.load(Relaxed);
        (last > 0).then(|| now.since(mono(last)))
    }
}
