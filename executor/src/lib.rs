//! Runs on a node exactly what the manager assigned, and keeps it well while every manager is away.
//!
//! The way in is [`run`]; `tally instance-shim DIR` calls [`shim_main`]. An assignment comes in
//! through `api`, is read by `assignment`, compared by `diff`, carried out by `reconcile`; each
//! instance is one task of `supervise` over an `engine`. What happens is told through `events`.

mod api;
mod assignment;
mod cgroup;
mod core;
mod diff;
mod engine;
mod engines;
mod error;
mod events;
mod health;
mod layout;
mod metrics;
mod operations;
mod ports;
mod proc;
mod reconcile;
mod shim;
mod shim_log;
mod shim_space;
mod stop;
mod store;
mod supervise;
#[cfg(test)]
mod testing;
mod users;
mod watch;

pub use engines::docker::DOCKER_HOST_DEFAULT;
pub use engines::process::ShimProgram;
pub use error::Error;
pub use shim::shim_main;

use chassis::{Listener, Readiness, ServerLimits, Shutdown, Verifier};
use domain::{Clock, NodeId};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Managers are two at most, each with one stream of events and a few calls.
const CONNECTIONS_MAX: usize = 64;
/// At the end tasks only have to notice it; instances go on by themselves.
const END_GRACE: Duration = Duration::from_secs(2);

/// What an executor is told about its node.
#[derive(Debug, Clone)]
pub struct Config {
    /// `DATA/node`: assignment, records, logs. One executor at a time.
    pub node_dir: PathBuf,
    /// The node's id.
    pub node: NodeId,
    /// The cluster's id; assignments of another one are refused.
    pub cluster: String,
    /// Where instances answer.
    pub address: IpAddr,
    /// Ports for instances; those of two nodes on one host must not overlap.
    pub ports: RangeInclusive<u16>,
    /// Where loads are reported, `http://host:port`, for the instances' environment.
    pub load_url: Option<String>,
    /// Where Docker answers: `unix:///path` or `tcp://host:port`; [`DOCKER_HOST_DEFAULT`].
    pub docker_host: String,
    /// What every plain process finds in its environment; `PATH` at least.
    pub env: BTreeMap<String, String>,
}

/// What an executor is handed.
pub struct Deps {
    /// Checks the manager's signature.
    pub verifier: Verifier,
    /// Where it answers.
    pub listener: Listener,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How instance shims are started.
    pub shim: ShimProgram,
    /// Where it counts.
    pub metrics: chassis::Metrics,
    /// Where it says whether it is ready.
    pub readiness: Readiness,
}

/// Runs an executor until `shutdown`. Its instances go on without it, and are taken over by the
/// next one on the same directory.
///
/// # Errors
/// When the directory cannot be used, or belongs to another node.
pub async fn run(config: Config, deps: Deps, shutdown: Shutdown) -> Result<(), Error> {
    deps.readiness.missing("instances", "those of a former run are being taken over");
    let store = store::Store::open(&config.node_dir)?;
    let engines = engines(&config, &store, deps.shim);
    let metrics = metrics::Metrics::new(&deps.metrics);
    let core = core::Core::new(config, deps.clock, engines, store, metrics, shutdown.branch());
    let core = Arc::new(core);
    let kept = reconcile::take_up(&core).await?;
    if let Some(kept) = &kept {
        let mut accepted = core.accepted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        accepted.epoch = kept.epoch;
        accepted.generation = kept.generation;
    }
    core.shutdown.spawn(Arc::clone(&core).write_node_file());
    deps.readiness.have("instances");
    let api = api::Api {
        core: Arc::clone(&core),
        verifier: Arc::new(deps.verifier),
        current: Arc::new(tokio::sync::Mutex::new(kept)),
    };
    let router = api::router(api, deps.metrics, deps.readiness);
    let limits = ServerLimits { connections_max: CONNECTIONS_MAX, ..ServerLimits::default() };
    tracing::info!(
        node.id = %core.config.node, listen = %deps.listener.local(),
        dir = %core.config.node_dir.display(), "the executor answers"
    );
    chassis::serve(deps.listener, router, limits, &shutdown).await;
    if !core.shutdown.finished(END_GRACE).await {
        tracing::warn!("some tasks did not end in time");
    }
    Ok(())
}

fn engines(config: &Config, store: &store::Store, shim: ShimProgram) -> engines::Engines {
    let cgroups = cgroup::Cgroups::of_host(&config.node);
    let place = engines::docker_spec::Place {
        node: config.node.clone(),
        cluster: config.cluster.clone(),
        address: config.address,
    };
    let layout = cgroups.layout().clone();
    let docker = engines::docker::DockerEngine::new(&config.docker_host, place, layout);
    let process = engines::process::ProcessEngine {
        store: store.clone(),
        cgroups,
        address: config.address,
        node: config.node.clone(),
        shim,
        env: config.env.clone(),
    };
    engines::Engines { process: Arc::new(process), docker: Arc::new(docker) }
}
