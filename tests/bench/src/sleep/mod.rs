//! Instances that sleep instead of burning: many in one thread, each on its own port.

mod latencies;
pub mod queue;
mod serve;
mod tell;

pub use queue::{Phase, Queue, State};

use latencies::Latencies;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::LocalSet;

/// One instance, as planned.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where it listens.
    pub address: SocketAddr,
    /// Requests it works on at once.
    pub workers: usize,
    /// Of them, busy with other people's work all the time.
    pub foreign: usize,
    /// Its speed; 1.0 is normal.
    pub speed: f64,
    /// When it is faster or slower.
    pub phases: Vec<Phase>,
    /// Answers 500 at once, and says that it has nothing to do.
    pub fails: bool,
    /// Whether it listens from the start.
    pub open: bool,
}

/// Instances behind one proxy, and how they tell their loads.
#[derive(Debug, Clone)]
pub struct Group {
    /// The instances; their place is their number in reports.
    pub plans: Vec<Plan>,
    /// Where reports go, as datagrams; `None`: nowhere.
    pub report_to: Option<SocketAddr>,
    /// Time between reports.
    pub report_every: Duration,
    /// Reports say what was true so long ago.
    pub report_delay: Duration,
    /// Answers carry the load in the header `endpoint-load-metrics`.
    pub in_header: bool,
}

/// What one instance did.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests it got.
    pub requests: AtomicU64,
    /// Requests it has now.
    pub in_flight: AtomicU64,
    /// Microseconds its workers worked for us, as of the last look.
    pub busy_micros: AtomicU64,
}

/// One instance at work; lives in the sleepers' thread.
struct Sleeper {
    plan: Plan,
    queue: RefCell<Queue>,
    latencies: RefCell<Latencies>,
    counts: Arc<Counts>,
    start: Instant,
    in_header: bool,
}

impl Sleeper {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn state(&self) -> State {
        if self.plan.fails {
            return State::default();
        }
        let now = self.now();
        let mut queue = self.queue.borrow_mut();
        let busy = u64::try_from(queue.busy(now).as_micros()).unwrap_or(u64::MAX);
        self.counts.busy_micros.store(busy, Relaxed);
        queue.state(now)
    }
}

/// All instances of a run, until the value goes.
#[derive(Debug)]
pub struct Sleepers {
    /// By group and instance.
    counts: Vec<Vec<Arc<Counts>>>,
    open: Vec<Vec<watch::Sender<bool>>>,
    end: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Sleepers {
    /// Starts them; `start` is the moment from which phases count.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(groups: &[Group], start: Instant) -> Result<Sleepers> {
        let (end, ended) = watch::channel(false);
        let mut sleepers = Sleepers { counts: Vec::new(), open: Vec::new(), end, thread: None };
        let mut openings = Vec::new();
        for group in groups {
            let counts: Vec<Arc<Counts>> = group.plans.iter().map(|_| Arc::default()).collect();
            let switches = group.plans.iter().map(|plan| watch::channel(plan.open));
            let (senders, receivers): (Vec<_>, Vec<_>) = switches.unzip();
            sleepers.counts.push(counts.clone());
            sleepers.open.push(senders);
            openings.push((group.clone(), counts, receivers));
        }
        let thread = std::thread::Builder::new().name("sleepers".to_owned());
        let body = move || run(openings, start, ended);
        sleepers.thread = Some(thread.spawn(body).context("start the instances")?);
        Ok(sleepers)
    }

    /// Lets an instance listen, or stops it and breaks its connections.
    pub fn open(&self, group: usize, instance: usize, open: bool) {
        self.open[group][instance].send_replace(open);
    }

    /// Requests of each instance of a group.
    #[must_use]
    pub fn requests(&self, group: usize) -> Vec<u64> {
        self.counts[group].iter().map(|counts| counts.requests.load(Relaxed)).collect()
    }

    /// Requests that an instance has now.
    #[must_use]
    pub fn in_flight(&self, group: usize, instance: usize) -> u64 {
        self.counts[group][instance].in_flight.load(Relaxed)
    }

    /// Worked microseconds of each instance of a group.
    #[must_use]
    pub fn busy_micros(&self, group: usize) -> Vec<u64> {
        self.counts[group].iter().map(|counts| counts.busy_micros.load(Relaxed)).collect()
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        self.end.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // How it ended no longer matters.
            let _ended = thread.join();
        }
    }
}

type Opening = (Group, Vec<Arc<Counts>>, Vec<watch::Receiver<bool>>);

fn run(openings: Vec<Opening>, start: Instant, mut ended: watch::Receiver<bool>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        for (group, counts, switches) in openings {
            let in_header = group.in_header;
            let mut members = Vec::new();
            for ((plan, counts), switch) in group.plans.iter().zip(counts).zip(switches) {
                let queue = Queue::new(plan.workers, plan.foreign, plan.speed, plan.phases.clone());
                let sleeper = Rc::new(Sleeper {
                    plan: plan.clone(),
                    queue: RefCell::new(queue),
                    latencies: RefCell::default(),
                    counts,
                    start,
                    in_header,
                });
                members.push(Rc::clone(&sleeper));
                tokio::task::spawn_local(serve::listen(sleeper, switch));
            }
            tokio::task::spawn_local(tell::reports(group, members));
        }
        // An error means that the owner is gone, which is an end, too.
        let _ended = ended.wait_for(|end| *end).await;
    });
    Ok(())
}
