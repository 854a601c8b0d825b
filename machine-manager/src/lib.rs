//! Keeps the cheapest set of nodes that holds the instances, within the cap.
//!
//! The loop: `observe` refreshes the world model, `machine_planner::plan` decides, `check` reads the
//! decision as a stranger, the registry records it under our epoch, `act` carries it out.

mod act;
mod api;
mod join;
mod observe;
mod placements;
pub mod provider;
pub mod providers;
#[cfg(test)]
mod random_bodies;
#[cfg(test)]
mod random_tests;
mod reconcile;
mod record;
mod stats;
mod status;
mod world;

use chassis::{
    Client, Halt, Identity, Listener, Metrics, Nudge, Readiness, ServerLimits, Shutdown,
};
use domain::{Clock, IdSource};
pub use machine_planner::Policy;
use provider::NodeProvider;
use registry::{Lease, Registry};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::manifest::NodeTypeManifest;
use world::World;

/// A lease is renewed each step and lost after this: longer than a slow disk, shorter than a pair
/// of managers should be without a leader.
pub(crate) const LEASE_TTL: Duration = Duration::from_secs(10);
/// Background work (provider calls, nudges) is waited for at the end for this long.
const GRACE: Duration = Duration::from_secs(5);

/// A node that is there from the start: `tally up` makes this host one.
#[derive(Debug, Clone)]
pub struct FirstNode {
    /// Its type; declared at the start when it is not there. Usually provider `local`, price 0.
    pub node_type: NodeTypeManifest,
    /// The node's unique name.
    pub name: String,
}

/// What an operator sets.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who we are in the lease; the same after a restart, so that nobody waits for the old lease.
    pub holder: String,
    /// The planner's constants.
    pub policy: Policy,
    /// A step at least this often (1 s).
    pub beat: Duration,
    /// Where instances report their load: `http://host:port`, told to joining nodes.
    pub load_url: String,
    /// Where transmitters send measurements, told to joining nodes: `http://host:port` or
    /// `unix:/path` of the API through which nodes reach us.
    pub stats_url: String,
    /// A protected node to have from the start; ordered once, adopted afterwards.
    pub first_node: Option<FirstNode>,
    /// Once set, there is no first node any more (`tally down`).
    pub halt: Halt,
}

/// What we ride on.
pub struct Deps {
    /// The durable record.
    pub registry: Arc<dyn Registry>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Makes node ids.
    pub ids: Box<dyn IdSource>,
    /// The cluster's secrets.
    pub identity: Identity,
    /// Where the API answers. Beyond loopback it asks for the admin token.
    pub listener: Listener,
    /// Who is nudged when placements change; `None` in tests.
    pub container_manager: Option<Client>,
    /// How nodes are started and stopped, by the name that types use.
    pub providers: Vec<Arc<dyn NodeProvider>>,
    /// Where our metrics go.
    pub metrics: Metrics,
}

/// Why the machine-manager ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The first node's type cannot be.
    #[error("the type of the first node is not acceptable: {0}")]
    FirstNode(#[from] wire::manifest::ManifestError),
}

/// All that handlers and the loop share.
pub(crate) struct Manager {
    pub(crate) config: Config,
    pub(crate) first_type: Option<domain::NodeType>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) identity: Identity,
    pub(crate) container_manager: Option<Client>,
    pub(crate) providers: BTreeMap<String, Arc<dyn NodeProvider>>,
    pub(crate) nudge: Nudge,
    pub(crate) shutdown: Shutdown,
    pub(crate) meters: status::Meters,
    pub(crate) readiness: Readiness,
    /// Whether the API must see the admin token.
    pub(crate) guarded: bool,
    ids: Mutex<Box<dyn IdSource>>,
    world: Mutex<World>,
    /// Held by whoever changes nodes in the registry, with the lease it does so under.
    pub(crate) writer: tokio::sync::Mutex<Option<Lease>>,
}

impl Manager {
    /// The world model. Held for memory work only, never across an await.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ids(&self) -> MutexGuard<'_, Box<dyn IdSource>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until the shutdown starts. Nodes go on without us.
///
/// # Errors
/// [`Error`]. Failures of the registry or of a provider are no reason to end: the next step is the
/// retry.
pub async fn run(config: Config, deps: Deps, shutdown: Shutdown) -> Result<(), Error> {
    let first_type = match &config.first_node {
        Some(first) => Some(first.node_type.check()?.0),
        None => None,
    };
    let readiness = Readiness::new();
    readiness.missing("lease", "another machine-manager leads, or the registry does not answer");
    let local = deps.listener.local();
    let beat = config.beat;
    let manager = Arc::new(Manager {
        first_type,
        registry: deps.registry,
        clock: deps.clock,
        identity: deps.identity,
        container_manager: deps.container_manager,
        providers: deps.providers.into_iter().map(|p| (p.name().to_owned(), p)).collect(),
        nudge: Nudge::new(),
        shutdown: shutdown.branch(),
        meters: deps.metrics.register(status::Meters::register),
        readiness: readiness.clone(),
        guarded: !local.is_local(),
        ids: Mutex::new(deps.ids),
        world: Mutex::new(World::default()),
        writer: tokio::sync::Mutex::new(None),
        config,
    });
    let router = api::router(Arc::clone(&manager))
        .merge(chassis::admin::router(deps.metrics.clone(), readiness));
    tracing::info!(listen = %local, "the machine-manager answers");
    let served = chassis::serve(deps.listener, router, ServerLimits::default(), &shutdown);
    let looped = reconcile::run(&manager, beat, &shutdown);
    tokio::join!(served, looped);
    manager.shutdown.start();
    manager.shutdown.finished(GRACE).await;
    reconcile::resign(&manager).await;
    Ok(())
}

/// Node ids with work in hand.
pub(crate) type Busy = BTreeSet<domain::NodeId>;
