//! Probes of the policy `prequal`: requests to instances' probe paths, made beside the request path,
//! their answers handed to the worker that asked without a lock.

use crate::Shared;
use crate::ask::{self, Line};
use crate::view::{Entry, Instance, Service};
use chassis::Shutdown;
use crossbeam_utils::CachePadded;
use domain::{Mono, PolicyName};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use picker::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use wire::orca::{HEADER, OrcaReport};

/// How often wishes are looked at while somebody has some: an answer is there for the next pick but
/// a few.
const TICK: Duration = Duration::from_millis(1);
/// And while nobody has: the first wish may wait so long.
const TICK_IDLE: Duration = Duration::from_millis(200);
/// Ticks without a wish after which nobody is thought to have one.
const IDLE_AFTER: u32 = 1000;
/// Probes under way at most. Beyond them wishes are dropped: fewer probes than requests are what an
/// overloaded balancer can bear, and the policy with them.
const PROBES_AT_ONCE: usize = 64;
/// A probe that takes longer tells nothing of now.
const LIMIT: Duration = Duration::from_millis(250);
/// Answers that a worker may leave lying; older ones are overwritten.
const ARRIVALS: usize = 16;
/// Idle connections kept per instance.
const LINES_MAX: usize = 4;
/// How often connections to instances that are asked no more are closed.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// One worker's wishes, and what came of them.
#[derive(Debug, Default)]
pub struct Desk {
    wanted: AtomicU32,
    /// Answers so far; the last sixteen lie in `places`.
    count: AtomicU32,
    /// Whose answer: the instance's place in the snapshot. It is only a hint; the answer itself is
    /// kept with the instance.
    places: [AtomicU32; ARRIVALS],
}

impl Desk {
    /// One more request: so many more probes. Written by the worker, taken by the prober.
    pub fn want(&self, probes: u32) {
        self.wanted.fetch_add(probes, Relaxed);
    }

    fn arrived(&self, place: usize) {
        let count = self.count.load(Relaxed);
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        self.places[count as usize % ARRIVALS].store(place, Relaxed);
        self.count.store(count.wrapping_add(1), Release);
    }

    /// The places of answers that came after the first `seen`, and how many came in all.
    pub fn news(&self, seen: u32) -> (u32, impl Iterator<Item = usize> + '_) {
        let count = self.count.load(Acquire);
        let fresh = count.wrapping_sub(seen).min(u32::try_from(ARRIVALS).unwrap_or(0));
        let places = (0..fresh).map(move |n| {
            let at = count.wrapping_sub(fresh).wrapping_add(n) as usize % ARRIVALS;
            self.places[at].load(Relaxed) as usize
        });
        (count, places)
    }
}

/// The desks of all workers for one service.
pub type Desks = Box<[CachePadded<Desk>]>;

/// What an instance answered.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Answer {
    in_flight: u32,
    latency: f64,
}

/// Reads what an answer says; what it does not say, this balancer's own view stands for.
fn read(load: Option<&[u8]>, instance: &Instance, took: Duration) -> Answer {
    let report = load.and_then(|value| OrcaReport::parse(HEADER.as_bytes(), value).ok());
    let in_flight = report.and_then(|report| report.in_flight);
    let in_flight = in_flight.unwrap_or_else(|| instance.in_flight());
    let said = load.and_then(|value| latency(std::str::from_utf8(value).ok()?));
    let seen = || instance.latency_at(in_flight);
    Answer { in_flight, latency: said.or_else(seen).unwrap_or(took.as_secs_f64()) }
}

/// `named_metrics.latency` in seconds, in the forms `TEXT` and `JSON`.
fn latency(text: &str) -> Option<f64> {
    let seconds = if let Some(json) = text.trim().strip_prefix("JSON ") {
        let report: serde_json::Value = serde_json::from_str(json).ok()?;
        report.get("named_metrics")?.get("latency")?.as_f64()?
    } else {
        text.split([',', ' ']).find_map(|pair| {
            let (name, value) = pair.split_once(['=', ':'])?;
            (name.trim() == "named_metrics.latency").then(|| value.trim().parse().ok())?
        })?
    };
    (seconds > 0.0 && seconds < 1e6).then_some(seconds)
}

/// A probe under way.
struct Probing {
    service: Arc<Service>,
    worker: usize,
    place: usize,
    instance: Arc<Instance>,
    path: Arc<str>,
    line: Option<Line>,
    began: Mono,
}

/// How it went.
struct Probed {
    probing: Probing,
    outcome: io::Result<ask::Heard>,
}

async fn probe(mut probing: Probing) -> Probed {
    let host = probing.instance.address.to_string();
    let (kept, path) = (probing.line.take(), Arc::clone(&probing.path));
    if let Some(line) = kept
        && let Ok(heard) = line.get(&host, &path, true, LIMIT).await
    {
        return Probed { probing, outcome: Ok(heard) };
    }
    // An idle connection may have ended; a new one tells for certain.
    let outcome = match ask::connect(probing.instance.address, LIMIT).await {
        Ok(line) => line.get(&host, &path, true, LIMIT).await,
        Err(error) => Err(error),
    };
    Probed { probing, outcome }
}

/// Idle connections by the instance's serial.
type Lines = BTreeMap<u64, Vec<Line>>;

/// Probes until the shutdown starts.
pub async fn watch(shared: Arc<Shared>, shutdown: Shutdown) {
    let mut rng = Rng::new(shared.seed.rotate_left(17));
    let mut lines = Lines::new();
    let mut under_way = FuturesUnordered::new();
    let mut idle = IDLE_AFTER;
    let mut tick = ticking(TICK_IDLE);
    let mut swept = shared.clock.monotonic();
    loop {
        tokio::select! {
            () = shutdown.started() => return,
            Some(probed) = under_way.next(), if !under_way.is_empty() => {
                settle(probed, &mut lines, shared.clock.monotonic());
            }
            _at = tick.tick() => {
                let free = PROBES_AT_ONCE.saturating_sub(under_way.len());
                let wishes = wishes(&shared, free, &mut lines, &mut rng);
                let was_idle = idle >= IDLE_AFTER;
                idle = if wishes.is_empty() { idle.saturating_add(1) } else { 0 };
                under_way.extend(wishes.into_iter().map(probe));
                if was_idle != (idle >= IDLE_AFTER) {
                    tick = ticking(if was_idle { TICK } else { TICK_IDLE });
                    lines.retain(|_, _| was_idle);
                }
                let now = shared.clock.monotonic();
                if now.since(swept) >= SWEEP_EVERY {
                    sweep(&mut lines, shared.table.load().services());
                    swept = now;
                }
            }
        }
    }
}

/// Closes connections to instances that no probe goes to any more: those that left the routes,
/// drain, or whose service is no longer probed.
fn sweep(lines: &mut Lines, services: &[Arc<Service>]) {
    if lines.is_empty() {
        return;
    }
    let mut asked = BTreeSet::new();
    for service in services {
        let snapshot = service.snapshot.load();
        if snapshot.field.probed {
            let ready = snapshot.entries.iter().filter(|entry| entry.ready);
            asked.extend(ready.map(|entry| entry.instance.serial));
        }
    }
    lines.retain(|serial, _| asked.contains(serial));
}

fn ticking(period: Duration) -> tokio::time::Interval {
    let mut tick = tokio::time::interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

/// The probes that workers wish for, at most `free`.
fn wishes(shared: &Shared, mut free: usize, lines: &mut Lines, rng: &mut Rng) -> Vec<Probing> {
    let mut all = Vec::new();
    for service in shared.table.load().services() {
        let front = service.front.load();
        let Some(probe) = front.probe.as_ref().filter(|_| front.policy == PolicyName::Prequal)
        else {
            continue;
        };
        let path: Arc<str> = probe.path.as_str().into();
        let snapshot = service.snapshot.load();
        for (worker, desk) in service.desks.iter().enumerate() {
            let wanted = desk.wanted.swap(0, Relaxed) as usize;
            for _ in 0..wanted.min(free) {
                let Some(place) = anyone(&snapshot.entries, rng) else { break };
                let instance = Arc::clone(&snapshot.entries[place].instance);
                let line = lines.get_mut(&instance.serial).and_then(Vec::pop);
                let (service, path) = (Arc::clone(service), Arc::clone(&path));
                let began = shared.clock.monotonic();
                all.push(Probing { service, worker, place, instance, path, line, began });
                free -= 1;
            }
        }
    }
    all
}

/// The place of a random instance that gets requests.
fn anyone(entries: &[Entry], rng: &mut Rng) -> Option<usize> {
    let start = rng.below(entries.len());
    (0..entries.len()).map(|n| (start + n) % entries.len()).find(|n| entries[*n].stands())
}

/// Keeps an answer with its instance, and tells the worker.
fn settle(probed: Probed, lines: &mut Lines, now: Mono) {
    let Probed { probing, outcome } = probed;
    let instance = &probing.instance;
    match outcome {
        Ok(heard) if heard.status < 400 => {
            let took = now.since(probing.began);
            let answer = read(heard.load.as_deref(), instance, took);
            instance.probed(answer.in_flight, answer.latency, now);
            probing.service.desks[probing.worker].arrived(probing.place);
            let kept = lines.entry(instance.serial).or_default();
            kept.extend(heard.line.filter(|_| kept.len() < LINES_MAX));
        }
        Ok(heard) => {
            let status = heard.status;
            tracing::debug!(instance = %instance.id, status, "a probe was not answered");
        }
        Err(error) => tracing::debug!(instance = %instance.id, %error, "a probe failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::World;
    use crate::testing::{front, shared};
    use domain::{
        Epoch, Generation, Probe, Revision, RouteEntry, RouteGen, RouteState, RouteTable,
        ServiceFront,
    };
    use scoreboard::ServiceView;

    #[tokio::test]
    async fn connections_to_instances_that_left_are_closed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shared, mut world, mut lines) = (shared(), World::new(1), Lines::new());
        let route = |n: usize, state| RouteEntry {
            instance: format!("shop-{n:010}").parse().unwrap(),
            address,
            state,
            weight: 100,
            max_in_flight: 10,
            revision: Revision(1),
        };
        let mut take = |policy, generation, entries| {
            let probe = Some(Probe { path: "/probe".to_owned() });
            let front = Some(ServiceFront { policy, probe, ..front("shop") });
            let generation = RouteGen { epoch: Epoch(1), generation: Generation(generation) };
            let routes = Some(RouteTable { generation, entries });
            let view = ServiceView { front, routes, loads: Vec::new() };
            world.take_service(&shared, &"shop".parse().unwrap(), &view, Mono::default());
        };
        let serials = || -> Vec<u64> {
            let table = shared.table.load();
            let snapshot = table.services()[0].snapshot.load();
            snapshot.entries.iter().map(|entry| entry.instance.serial).collect()
        };
        let all: Vec<_> = (0..3).map(|n| route(n, RouteState::Ready)).collect();
        take(PolicyName::Prequal, 1, all);
        let known = serials();
        for serial in &known {
            lines.insert(*serial, vec![ask::connect(address, LIMIT * 20).await.unwrap()]);
        }
        sweep(&mut lines, shared.table.load().services());
        assert_eq!(lines.keys().copied().collect::<Vec<_>>(), known, "all are asked");
        let left = vec![route(0, RouteState::Draining), route(2, RouteState::Ready)];
        take(PolicyName::Prequal, 2, left);
        sweep(&mut lines, shared.table.load().services());
        assert_eq!(lines.keys().copied().collect::<Vec<_>>(), known[2..]);
        take(PolicyName::Feedback, 3, vec![route(2, RouteState::Ready)]);
        sweep(&mut lines, shared.table.load().services());
        assert!(lines.is_empty(), "nobody probes there now");
    }

    #[test]
    fn a_worker_sees_each_answer_once_and_the_latest_of_many() {
        let desk = Desk::default();
        let take = |seen: u32| {
            let (count, places) = desk.news(seen);
            (count, places.collect::<Vec<_>>())
        };
        assert_eq!(take(0), (0, vec![]));
        desk.arrived(7);
        desk.arrived(3);
        assert_eq!(take(0), (2, vec![7, 3]));
        assert_eq!(take(2), (2, vec![]));
        (0..40).for_each(|n| desk.arrived(n));
        assert_eq!(take(2), (42, (24..40).collect()));
    }

    #[test]
    fn an_answer_says_its_latency_or_what_was_seen_stands_for_it() {
        for (text, expected) in [
            ("TEXT named_metrics.rif=3, named_metrics.latency=0.25", Some(0.25)),
            ("JSON {\"named_metrics\": {\"rif\": 3, \"latency\": 0.5}}", Some(0.5)),
            ("TEXT named_metrics.rif=3", None),
            ("TEXT named_metrics.latency=-1", None),
            ("TEXT named_metrics.latency=nan", None),
            ("JSON {", None),
        ] {
            assert_eq!(latency(text), expected, "{text}");
        }
        let id = "shop-0123456789".parse().unwrap();
        let instance = Instance::new(id, "127.0.0.1:1".parse().unwrap(), 1);
        let took = Duration::from_millis(2);
        let said = b"TEXT cpu_utilization=0.1,named_metrics.rif=9,named_metrics.latency=0.25";
        let answer = read(Some(said), &instance, took);
        assert_eq!(answer, Answer { in_flight: 9, latency: 0.25 });
        assert_eq!(read(None, &instance, took), Answer { in_flight: 0, latency: 0.002 });
        instance.record(true, Duration::from_millis(40), Mono::default());
        assert!((read(None, &instance, took).latency - 0.04).abs() < 1e-6);
    }
}
