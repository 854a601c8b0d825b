//! Keeps every service at the right number of instances.
//!
//! [`run`] is the whole role: one loop ([`reconcile`]), one link per executor ([`link`]), the
//! board's reader and writer ([`publish`]), the history and the operators' API ([`api`]).

pub mod act;
pub mod api;
pub mod assignment;
pub mod executors;
pub mod history;
pub mod link;
pub mod observe;
pub mod placements;
pub mod places;
pub mod publish;
pub mod reconcile;
pub mod status;
pub mod world;

#[cfg(test)]
mod api_tests;
#[cfg(test)]
mod cell;
#[cfg(test)]
mod doubles;
#[cfg(test)]
mod loop_tests;
#[cfg(test)]
mod random_bodies;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod route_tests;

pub use assignment::LoadEnds;
pub use container_planner::Policy;
pub use executors::{Executors, HttpExecutors};
pub use placements::{HttpPlacements, Placements};

use chassis::{Halt, Identity, Listener, Metrics, Readiness, Shutdown};
use domain::{Clock, IdSource};
use reconcile::Reconciler;
use registry::Registry;
use scoreboard::Board;
use status::Status;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use world::Shared;

/// What an operator chooses.
#[derive(Debug, Clone)]
pub struct Config {
    /// Constants of the planner.
    pub policy: Policy,
    /// Time between two steps when nothing happens (1 s).
    pub beat: Duration,
    /// How long leadership lasts without renewal; a dead leader is replaced after this.
    pub lease_ttl: Duration,
    /// Time between two points of a service's history.
    pub history_every: Duration,
    /// Who we are among managers: unique per process.
    pub holder: String,
    /// What instances are told of the load-receiver.
    pub load: LoadEnds,
    /// After the shutdown started, for the step in hand and requests.
    pub grace: Duration,
    /// Once set, every service is wanted at zero (`tally down`).
    pub halt: Halt,
}

impl Config {
    /// The defaults, for a manager called `holder`.
    #[must_use]
    pub fn new(holder: impl Into<String>, load: LoadEnds) -> Config {
        Config {
            policy: Policy::default(),
            beat: Duration::from_secs(1),
            lease_ttl: Duration::from_secs(10),
            history_every: Duration::from_secs(5),
            holder: holder.into(),
            load,
            grace: Duration::from_secs(5),
            halt: Halt::default(),
        }
    }
}

/// What the role rides on.
pub struct Deps {
    /// The live board.
    pub board: Arc<dyn Board>,
    /// The durable record.
    pub registry: Arc<dyn Registry>,
    /// The machine-manager; [`HttpPlacements`] outside tests.
    pub placements: Arc<dyn Placements>,
    /// Executors; `None`: over HTTP, signed.
    pub executors: Option<Arc<dyn Executors>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// New ids.
    pub ids: Box<dyn IdSource>,
    /// The cluster's secrets.
    pub identity: Identity,
    /// Where the API is served: TCP and unix sockets, already bound.
    pub api: Vec<Listener>,
    /// What the role measures.
    pub metrics: Metrics,
    /// What the role misses before it can serve.
    pub readiness: Readiness,
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deps").field("api", &self.api).finish_non_exhaustive()
    }
}

/// Why the role could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Work was still going on when the grace was over.
    #[error("the container-manager did not end within {0:?}; it will be ended by force")]
    Grace(Duration),
}

/// Without a deadline the alarm sleeps this long: any time will do.
const FAR: Duration = Duration::from_secs(3600);

/// Runs the role until the shutdown.
///
/// # Errors
/// [`Error`].
pub async fn run(config: Config, deps: Deps, shutdown: Shutdown) -> Result<(), Error> {
    let shared = Shared::default();
    let status = Status::new(&deps.metrics);
    let epoch = Arc::new(AtomicU64::new(0));
    let executors = deps.executors.unwrap_or_else(|| {
        let clock = Arc::clone(&deps.clock);
        Arc::new(HttpExecutors::new(deps.identity.clone(), Arc::clone(&epoch), clock))
    });
    let work = shutdown.branch();
    let api = api::Api {
        shared: shared.clone(),
        registry: Arc::clone(&deps.registry),
        board: Arc::clone(&deps.board),
        placements: Arc::clone(&deps.placements),
        executors: Arc::clone(&executors),
        clock: Arc::clone(&deps.clock),
        identity: deps.identity.clone(),
        policy: config.policy.clone(),
        status: status.clone(),
        followers: Arc::new(tokio::sync::Semaphore::new(api::FOLLOWERS_MAX)),
        shutdown: work.clone(),
    };
    for listener in deps.api {
        let admin = chassis::admin::router(deps.metrics.clone(), deps.readiness.clone());
        let router = api::router(api.clone(), listener.local().is_local()).merge(admin);
        let end = work.clone();
        work.spawn(async move {
            chassis::serve(listener, router, chassis::ServerLimits::default(), &end).await;
        });
    }
    let board = &deps.board;
    work.spawn(publish::show(Arc::clone(board), shared.clone(), work.clone()));
    let clock = Arc::clone(&deps.clock);
    work.spawn(publish::read(Arc::clone(board), shared.clone(), clock, work.clone()));
    let clock = Arc::clone(&deps.clock);
    let registry = Arc::clone(&deps.registry);
    let every = config.history_every;
    work.spawn(history::write(shared.clone(), registry, clock, every, work.clone()));

    work.spawn(ring_at_deadlines(shared.clone(), Arc::clone(&deps.clock), work.clone()));
    let links = link::Links { shared: shared.clone(), executors, clock: Arc::clone(&deps.clock) };
    let reconciler = Reconciler {
        shared: shared.clone(),
        registry: deps.registry,
        placements: deps.placements,
        links,
        running: link::Running::default(),
        policy: config.policy,
        clock: deps.clock,
        ids: deps.ids,
        identity: deps.identity,
        load: config.load,
        halt: config.halt,
        epoch,
        holder: config.holder,
        lease_ttl: config.lease_ttl,
        status,
        shutdown: work.clone(),
        renewed: None,
        read_at: None,
    };
    lead(reconciler, config.beat, deps.readiness, &shutdown).await;
    work.start();
    if work.finished(config.grace).await { Ok(()) } else { Err(Error::Grace(config.grace)) }
}

/// Wakes the loop when a deadline passes before the next beat.
async fn ring_at_deadlines(shared: Shared, clock: Arc<dyn Clock>, shutdown: Shutdown) {
    let mut alarm = shared.alarm.subscribe();
    loop {
        let at = *alarm.borrow_and_update();
        let wait = at.map_or(FAR, |at| at.since(clock.monotonic()));
        // Every arm only waits; a changed alarm stays marked as changed.
        tokio::select! {
            () = shutdown.started() => return,
            changed = alarm.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {
                shared.alarm.send_replace(None);
                shared.nudge.nudge();
            }
        }
    }
}

/// Steps until the shutdown, then gives the lease back.
async fn lead(reconciler: Reconciler, beat: Duration, readiness: Readiness, shutdown: &Shutdown) {
    let (nudge, shared) = (reconciler.shared.nudge.clone(), reconciler.shared.clone());
    let registry = Arc::clone(&reconciler.registry);
    let reconciler = Arc::new(tokio::sync::Mutex::new(reconciler));
    readiness.missing("registry", "no step was made yet");
    chassis::periodic::run(beat, &nudge, shutdown, |woke| {
        let (reconciler, readiness) = (Arc::clone(&reconciler), readiness.clone());
        async move {
            match reconciler.lock().await.step(woke).await {
                reconcile::StepResult::Failed(why) => readiness.missing("registry", why),
                reconcile::StepResult::Skipped(_)
                | reconcile::StepResult::Refused(_)
                | reconcile::StepResult::Superseded
                | reconcile::StepResult::Done(_) => readiness.have("registry"),
            }
        }
    })
    .await;
    let lease = shared.world().lease.take();
    if let Some(lease) = lease
        && let Err(error) = registry.give_back_lease(&lease).await
    {
        tracing::warn!(error = %chassis::telemetry::Chain(&error), "the lease was not given back");
    }
}
