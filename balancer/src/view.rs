//! What the request path sees: services, their instances and counters, swapped whole, never locked.

use crate::nat::Kernel;
use crate::report_out::Said;
use crate::stats::Stats;
use crate::tcp::Counts;
use crate::wait::Queue;
use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use domain::{InstanceId, Mono, PolicyName, RouteGen, ServiceFront, ServiceName};
use picker::{Candidates, Field, Latency, Outcomes, Reported, View};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What all cores of this balancer know of one instance from their own requests. Numbers are
/// written without a lock; a lost update of a decayed count costs nothing.
#[derive(Debug, Default)]
struct Seen {
    in_flight: AtomicU32,
    kernel_flows: AtomicU32,
    failures_in_row: AtomicU32,
    window_ok: AtomicU32,
    window_total: AtomicU32,
    /// Decayed counts: ok in the high half, total in the low one, as single-precision bits.
    counts: AtomicU64,
    /// The weighted run of failures, as single-precision bits.
    failures: AtomicU32,
    latency: AtomicU32,
    last_outcome: AtomicU64,
    last_picked: AtomicU64,
    answered: AtomicU64,
}

/// One instance, shared by all cores.
#[derive(Debug)]
pub struct Instance {
    /// Which one.
    pub id: InstanceId,
    /// Where it answers.
    pub address: SocketAddr,
    /// A number of this process that no other instance has or had.
    pub serial: u64,
    seen: CachePadded<Seen>,
    /// A load that came in an answer's header and waits to be recorded, packed by `orca`; 0: none.
    pub header_load: AtomicU64,
}

fn micros(at: Mono) -> u64 {
    u64::try_from(at.0.as_micros()).unwrap_or(u64::MAX)
}

fn mono(micros: u64) -> Mono {
    Mono(Duration::from_micros(micros))
}

#[expect(clippy::cast_possible_truncation, reason = "estimates need no more than single precision")]
fn narrow(x: f64) -> u32 {
    (x as f32).to_bits()
}

fn widen(bits: u32) -> f64 {
    f64::from(f32::from_bits(bits))
}

impl Instance {
    /// An instance about which nothing is known yet.
    #[must_use]
    pub fn new(id: InstanceId, address: SocketAddr, serial: u64) -> Instance {
        Instance {
            id,
            address,
            serial,
            seen: CachePadded::new(Seen::default()),
            header_load: AtomicU64::new(0),
        }
    }

    /// Counts a request that is about to go there; false, and not counted, when another core took
    /// the last place in the meantime.
    #[must_use]
    pub fn enter(&self, max_in_flight: u32, now: Mono) -> bool {
        let kernel = self.seen.kernel_flows.load(Relaxed);
        if self.seen.in_flight.fetch_add(1, Relaxed).saturating_add(kernel) >= max_in_flight {
            self.seen.in_flight.fetch_sub(1, Relaxed);
            return false;
        }
        self.seen.last_picked.store(micros(now), Relaxed);
        true
    }

    /// Counts a request that is over, however it ended.
    pub fn leave(&self) {
        self.seen.in_flight.fetch_sub(1, Relaxed);
    }

    /// This balancer's requests there now.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.seen.in_flight.load(Relaxed).saturating_add(self.seen.kernel_flows.load(Relaxed))
    }

    /// Takes the number of connections that the kernel passes to it by itself.
    pub fn take_kernel_flows(&self, n: u32) {
        self.seen.kernel_flows.store(n, Relaxed);
    }

    /// Requests answered since this balancer knows it.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.seen.answered.load(Relaxed)
    }

    /// How its requests ended so far.
    #[must_use]
    pub fn outcomes(&self) -> Outcomes {
        let counts = self.seen.counts.load(Relaxed);
        Outcomes {
            ok: widen((counts >> 32) as u32),
            #[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
            total: widen(counts as u32),
            failures: widen(self.seen.failures.load(Relaxed)),
            last: mono(self.seen.last_outcome.load(Relaxed)),
        }
    }

    fn latency(&self) -> Latency {
        Latency {
            seconds: widen(self.seen.latency.load(Relaxed)),
            at: mono(self.seen.last_outcome.load(Relaxed)),
        }
    }

    /// Records how one request ended: whether well, and how long its answer's head took.
    pub fn record(&self, ok: bool, took: Duration, now: Mono) {
        let latency = self.latency().after(took, ok, now);
        let outcomes = self.outcomes().after(ok, now);
        let seen = &self.seen;
        let counts = (u64::from(narrow(outcomes.ok)) << 32) | u64::from(narrow(outcomes.total));
        seen.counts.store(counts, Relaxed);
        seen.failures.store(narrow(outcomes.failures), Relaxed);
        seen.latency.store(narrow(latency.seconds), Relaxed);
        seen.last_outcome.store(micros(now), Relaxed);
        seen.window_total.store(seen.window_total.load(Relaxed).saturating_add(1), Relaxed);
        if ok {
            seen.failures_in_row.store(0, Relaxed);
            seen.window_ok.store(seen.window_ok.load(Relaxed).saturating_add(1), Relaxed);
            seen.answered.store(seen.answered.load(Relaxed).wrapping_add(1), Relaxed);
        } else {
            seen.failures_in_row.fetch_add(1, Relaxed);
        }
    }

    /// Failures in a row, and the window's ok and total, for the judge.
    #[must_use]
    pub fn window(&self) -> (u32, u32, u32) {
        let total = self.seen.window_total.load(Relaxed);
        let ok = self.seen.window_ok.load(Relaxed).min(total);
        (self.seen.failures_in_row.load(Relaxed), ok, total)
    }

    /// Begins a new window of counts; `forgive` also ends the run of failures.
    pub fn new_window(&self, forgive: bool) {
        self.seen.window_ok.store(0, Relaxed);
        self.seen.window_total.store(0, Relaxed);
        if forgive {
            self.seen.failures_in_row.store(0, Relaxed);
        }
    }
}

/// One instance as the control tasks last published it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The shared counters.
    pub instance: Arc<Instance>,
    /// Takes new requests.
    pub ready: bool,
    /// Set aside for failing.
    pub ejected: bool,
    /// Capacity against the median times configured weight.
    pub weight: f64,
    /// Requests it takes at once.
    pub max_in_flight: u32,
    /// The last report.
    pub reported: Option<Reported>,
    /// Since when it is ready, or ready again.
    pub ready_since: Mono,
}

/// All instances of a service at one moment. Immutable.
#[derive(Debug)]
pub struct Snapshot {
    /// Sorted by instance id.
    pub entries: Vec<Entry>,
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
        let seen = &entry.instance.seen;
        View {
            ready: entry.ready,
            ejected: entry.ejected,
            in_flight: entry.instance.in_flight(),
            max_in_flight: entry.max_in_flight,
            reported: entry.reported,
            weight: entry.weight,
            ready_since: entry.ready_since,
            outcomes: entry.instance.outcomes(),
            latency: entry.instance.latency(),
            last_picked: mono(seen.last_picked.load(Relaxed)),
        }
    }
}

impl Snapshot {
    /// A snapshot without instances.
    #[must_use]
    pub fn empty() -> Snapshot {
        let field = Field {
            balancers: 1,
            concurrency: None,
            median_load: 0.0,
            slow_start: Duration::ZERO,
            all_new: true,
        };
        Snapshot {
            entries: Vec::new(),
            field,
            policy: PolicyName::Feedback,
            generation: None,
            generation_since: Mono::default(),
        }
    }

    /// Whether any instance takes requests.
    #[must_use]
    pub fn any_standing(&self) -> bool {
        self.entries.iter().any(|e| e.ready && !e.ejected && e.weight > 0.0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_views() {
        let id = "shop-0123456789".parse().unwrap();
        let instance = Instance::new(id, "127.0.0.1:1".parse().unwrap(), 1);
        let now = Mono(Duration::from_secs(5));
        assert!(instance.enter(1, now) && !instance.enter(1, now));
        instance.record(false, Duration::from_millis(3), now);
        instance.record(true, Duration::from_millis(3), now);
        instance.record(false, Duration::from_millis(3), now);
        assert_eq!(instance.in_flight(), 1);
        assert_eq!(instance.window(), (1, 1, 3));
        let outcomes = instance.outcomes();
        assert!((outcomes.ok - 1.0).abs() < 1e-6 && (outcomes.total - 3.0).abs() < 1e-6);
        assert!((outcomes.failures - 1.5).abs() < 1e-6);
        assert_eq!(outcomes.last, now);
        instance.leave();
        instance.new_window(true);
        assert_eq!((instance.in_flight(), instance.window()), (0, (0, 0, 0)));
    }
}
