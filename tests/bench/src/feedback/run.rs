//! One run of one workload: every contender at the same time, each before instances of its own, all
//! with the same arrivals and the same work.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::churn;
use super::contender::Contender;
use super::workload::{Making, Workload};
use crate::machine::{Busy, cpu_micros, own_cpu_micros};
use crate::openloop::{self, Course, Record, Shot};
use crate::peer::{Peer, Start, free_address, free_addresses};
use crate::proxies::{Kind, Programs, Wanted};
use crate::sleep::{Group, Plan, Sleepers};

/// Each contender's requests leave so much after the former's, so that they do not come in a heap.
const APART: Duration = Duration::from_micros(150);
/// After the last request.
const PATIENCE: Duration = Duration::from_secs(4);
/// Connections to one contender's proxies at once, where descriptors allow so many.
const CONNECTIONS_MAX: usize = 3000;
/// Descriptors that are neither a client's nor an instance's end of a connection.
const DESCRIPTORS_ELSE: usize = 1000;
/// Generator and instances may use so much of the machine.
const OWN_SHARE_MAX: f64 = 0.7;
/// With the proxies they may use so much.
const ALL_SHARE_MAX: f64 = 0.85;
/// A machine busier than this makes the proxies wait for processors.
const BUSY_SHARE_MAX: f64 = 0.9;
/// A generator later than this with one request in a hundred measured itself.
const LATE_MICROS_MAX: u64 = 5000;

/// What contenders stand in.
#[derive(Debug)]
pub struct Field<'a> {
    /// Where the proxies are.
    pub programs: &'a Programs,
    /// Where Redis is, for several balancers.
    pub redis: Option<&'a Path>,
    /// Requests before this are not recorded.
    pub warm_up: Duration,
    /// Length of the measured part.
    pub measured: Duration,
    /// Proxies at the same time.
    pub at_once: usize,
}

/// One contender's part of a run.
#[derive(Debug)]
pub struct Part {
    /// What became of its requests.
    pub record: Record,
    /// The largest share of the requests that one instance got, against an equal share.
    pub most_share: f64,
    /// The busiest instance against the mean.
    pub busy_spread: f64,
    /// Share of the machine that its proxies used.
    pub proxy_share: f64,
    /// Requests that the last of its instances got.
    pub last_requests: u64,
}

/// A run.
#[derive(Debug)]
pub struct Run {
    /// By contender.
    pub parts: Vec<Part>,
    /// Share of the machine that generator and instances used.
    pub own_share: f64,
    /// And the proxies.
    pub proxy_share: f64,
    /// Why it does not count.
    pub void: Option<String>,
}

/// The proxies of one contender, and what belongs to them.
struct Camp {
    group: Group,
    doors: Vec<SocketAddr>,
    churn: bool,
    // Held until the run is over.
    proxies: Vec<Peer>,
    _redis: Option<Peer>,
}

impl Camp {
    fn cpu_micros(&self) -> Result<u64> {
        self.proxies.iter().map(|proxy| cpu_micros(proxy.pid())).sum()
    }

    /// Its instances' addresses, and the proxy that is told of changes.
    fn first(&mut self) -> (Vec<SocketAddr>, Option<&mut Peer>) {
        let addresses = self.group.plans.iter().map(|plan| plan.address).collect();
        (addresses, self.proxies.first_mut())
    }
}

/// Runs one workload once, so many contenders at the same time; the others after them, with the same
/// arrivals and the same work.
///
/// # Errors
/// When a program does not start or a door does not accept.
pub fn run(
    field: &Field<'_>,
    workload: &Workload,
    contenders: &[Contender],
    seed: u64,
) -> Result<Run> {
    // Each further balancer is a process of every contender.
    let at_once = (field.at_once / workload.balancers).max(1);
    let mut whole = Run { parts: Vec::new(), own_share: 0.0, proxy_share: 0.0, void: None };
    for some in contenders.chunks(at_once) {
        let run = run_some(field, workload, some, seed)?;
        whole.parts.extend(run.parts);
        whole.own_share = whole.own_share.max(run.own_share);
        whole.proxy_share = whole.proxy_share.max(run.proxy_share);
        whole.void = whole.void.or(run.void);
    }
    Ok(whole)
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the real clock")]
fn run_some(
    field: &Field<'_>,
    workload: &Workload,
    contenders: &[Contender],
    seed: u64,
) -> Result<Run> {
    let end = field.warm_up + field.measured;
    let makings = workload.makings(field.warm_up, end, seed);
    let mut camps: Vec<Camp> = Vec::new();
    for (index, contender) in contenders.iter().enumerate() {
        let name = format!("{index}-{}", contender.kind.as_str());
        let camp = pitch(field, workload, contender, &makings, &name);
        camps.push(camp.with_context(|| contender.to_string())?);
    }
    let groups: Vec<Group> = camps.iter().map(|camp| camp.group.clone()).collect();
    let before = camps.iter().map(Camp::cpu_micros).collect::<Result<Vec<_>>>()?;
    let (busy, own) = (Busy::now()?, own_cpu_micros()?);
    let started = Instant::now();
    let sleepers = Sleepers::start(&groups, started)?;
    let doors: Vec<SocketAddr> = camps.iter().flat_map(|camp| camp.doors.clone()).collect();
    let course = Course {
        doors: &doors,
        connections_max: connections_max(contenders.len() * workload.balancers),
        parties: camps.len(),
        warm_up: field.warm_up,
        patience: PATIENCE,
    };
    let shots = shots(workload, &camps, end, seed);
    let seen = std::thread::scope(|scope| {
        for (index, camp) in camps.iter_mut().enumerate().filter(|(_, camp)| camp.churn) {
            let sleepers = &sleepers;
            scope.spawn(move || churn::churn(sleepers, index, camp.first(), started, end));
        }
        openloop::run(&course, shots)
    })?;
    let (now, took) = (Busy::now()?, started.elapsed());
    let own_share = share(own_cpu_micros()? - own, took);
    let used = camps.iter().map(Camp::cpu_micros).collect::<Result<Vec<_>>>()?;
    let used = used.iter().zip(&before).map(|(now, before)| now - before);
    let costs: Vec<u64> = used.collect();
    let proxy_share = share(costs.iter().sum(), took);
    let late = seen.lateness.value_at_quantile(0.99);
    let void = void(own_share, own_share + proxy_share, now.since(&busy), late);
    let parts = seen.records.into_iter().enumerate();
    let parts = parts.map(|(index, record)| Part {
        record,
        most_share: most_over_mean(&sleepers.requests(index)),
        busy_spread: most_over_mean(&sleepers.busy_micros(index)),
        proxy_share: share(costs[index], took),
        last_requests: sleepers.requests(index).last().copied().unwrap_or(0),
    });
    Ok(Run { parts: parts.collect(), own_share, proxy_share, void })
}

/// A connection has two ends in this process: the client's and the instance's.
fn connections_max(doors: usize) -> usize {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let each = most.saturating_sub(DESCRIPTORS_ELSE) / 2 / doors.max(1);
    each.clamp(64, CONNECTIONS_MAX)
}

/// Processor time as a share of the whole machine.
#[expect(clippy::cast_precision_loss, reason = "microseconds of minutes, and a handful of cores")]
fn share(micros: u64, took: Duration) -> f64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    micros as f64 / 1e6 / took.as_secs_f64() / cores as f64
}

fn void(own: f64, all: f64, busy: f64, late: u64) -> Option<String> {
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    if own > OWN_SHARE_MAX {
        return Some(format!("generator and instances used {} of the machine", percent(own)));
    }
    if all > ALL_SHARE_MAX {
        return Some(format!("with the proxies they used {} of the machine", percent(all)));
    }
    if busy > BUSY_SHARE_MAX {
        return Some(format!("the machine was {} busy", percent(busy)));
    }
    (late > LATE_MICROS_MAX).then(|| format!("the generator was late by {late} us"))
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run are far below 2^53")]
fn most_over_mean(values: &[u64]) -> f64 {
    let sum: u64 = values.iter().sum();
    let most = values.iter().max().copied().unwrap_or(0);
    if sum == 0 { 0.0 } else { most as f64 * values.len() as f64 / sum as f64 }
}

/// All contenders' requests in one stream.
fn shots(workload: &Workload, camps: &[Camp], end: Duration, seed: u64) -> Vec<Shot> {
    let arrivals = workload.arrivals(end, seed);
    let mut first = 0;
    let mut shots = Vec::with_capacity(arrivals.len() * camps.len());
    for (party, camp) in camps.iter().enumerate() {
        let after = APART * u32::try_from(party).unwrap_or(0);
        for (number, (at, demand_micros)) in arrivals.iter().enumerate() {
            let door = first + number % camp.doors.len();
            shots.push(Shot { at: *at + after, door, party, demand_micros: *demand_micros });
        }
        first += camp.doors.len();
    }
    shots.sort_unstable();
    shots
}

/// Starts a contender's proxies in front of instances that will be there in a moment.
fn pitch(
    field: &Field<'_>,
    workload: &Workload,
    contender: &Contender,
    makings: &[Making],
    name: &str,
) -> Result<Camp> {
    let unready = makings.first().filter(|_| contender.unready);
    let addresses = free_addresses(makings.len() + usize::from(unready.is_some()))?;
    let all = makings.iter().chain(unready).zip(&addresses).enumerate();
    let plans = all.map(|(index, (making, address))| Plan {
        address: *address,
        workers: workload.workers,
        foreign: making.foreign,
        speed: making.speed,
        phases: making.phases.clone(),
        fails: making.fails,
        open: index < makings.len(),
    });
    let mut group = Group {
        plans: plans.collect(),
        report_to: None,
        report_every: contender.every,
        report_delay: contender.late,
        in_header: contender.header,
    };
    let redis = match (contender.kind, workload.balancers) {
        (Kind::Tally, 2..) => Some(start_redis(field.redis.context("there is no Redis")?)?),
        _ => None,
    };
    let mut proxies = Vec::new();
    for number in 0..workload.balancers {
        let mut extra = Vec::new();
        if contender.kind == Kind::Tally {
            extra = tally_words(workload, contender, redis.as_ref(), number, &mut group)?;
        }
        let name = format!("{name}-{number}");
        let wanted = Wanted {
            name: &name,
            cores: None,
            threads: 1,
            policy: &contender.policy,
            retries: false,
            extra: &extra,
            input: contender.kind == Kind::Tally,
        };
        proxies.push(field.programs.start(contender.kind, &wanted, &addresses)?);
    }
    let doors = proxies.iter().map(|proxy| proxy.address).collect();
    Ok(Camp { group, doors, churn: contender.churn, proxies, _redis: redis })
}

/// The first balancer publishes routes and takes reports in; the others follow.
fn tally_words(
    workload: &Workload,
    contender: &Contender,
    redis: Option<&Peer>,
    number: usize,
    group: &mut Group,
) -> Result<Vec<String>> {
    let mut words = vec!["--concurrency".to_owned(), workload.workers.to_string()];
    words.extend(["--id".to_owned(), format!("bench-{number}")]);
    if contender.policy == "prequal" {
        words.extend(["--probe".to_owned(), "/probe".to_owned()]);
    }
    if let Some(redis) = redis {
        words.extend(["--redis".to_owned(), format!("redis://{}", redis.address)]);
    }
    if number > 0 {
        words.push("--follow".to_owned());
    } else if contender.header || contender.mute {
        words.extend(["--report-every".to_owned(), "0".to_owned()]);
    } else {
        let receiver = free_address()?;
        words.extend(["--receiver".to_owned(), receiver.to_string()]);
        group.report_to = Some(receiver);
    }
    Ok(words)
}

fn start_redis(program: &Path) -> Result<Peer> {
    let address = free_address()?;
    let port = address.port().to_string();
    let words = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let args: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    Peer::start("redis", program, &Start { args: &args, ..Start::default() }, address)
}
