//! Takes load reports in, refuses the insane ones, records the rest on the board.
//!
//! A report goes `listen` -> `decode` -> `admit` -> `record`; `world` follows the board, so that
//! services, instances and sources are known.

pub mod admit;
pub mod agent;
mod datagrams;
pub mod decode;
pub mod listen;
pub mod metrics;
pub mod receive;
pub mod record;
pub mod refusal;
mod tell;
mod total;
pub mod world;

use crate::admit::Door;
use crate::agent::Asker;
use crate::metrics::Counts;
use crate::receive::Receiver;
use crate::record::Recorder;
use crate::total::Totals;
use crate::world::World;
use chassis::{Identity, Listener, Metrics, Readiness, ServerLimits, Shutdown};
use domain::Clock;
use scoreboard::Board;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;

pub use listen::bind;
pub use refusal::Refusal;
pub use tell::AgentDoor;

/// For requests in hand and the last write, after the shutdown started.
const GRACE: Duration = Duration::from_secs(5);

/// The role's part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// HTTP and datagrams.
    pub listen: String,
    /// The address instances on other nodes are told; by default `listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Connections at once; more wait.
    pub connections_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { listen: "127.0.0.1:7402".to_owned(), advertise: None, connections_max: 4096 }
    }
}

/// What the role works with.
pub struct Deps {
    /// Where loads go.
    pub board: Arc<dyn Board>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Holds the load key by which tokens are known.
    pub identity: Arc<Identity>,
    /// Ways in for HTTP; see [`bind`].
    pub listeners: Vec<Listener>,
    /// Ways in for datagrams.
    pub sockets: Vec<UdpSocket>,
    /// Ports at which `HAProxy` asks for services' loads.
    pub agents: Vec<AgentDoor>,
    /// Where the role's metrics are registered.
    pub metrics: Metrics,
    /// What the role misses.
    pub readiness: Readiness,
}

/// Receives until the shutdown starts; then ends requests in hand and writes once more.
pub async fn run(config: Config, deps: Deps, shutdown: Shutdown) {
    let counts = Counts::new(&deps.metrics);
    let world = Arc::new(World::default());
    let door = Door::new(deps.identity, Arc::clone(&deps.clock), Arc::clone(&world));
    let recorder = Recorder::new(Arc::clone(&deps.board), Arc::clone(&deps.clock), counts.clone());
    let recorder = Arc::new(recorder);
    let receiver =
        Receiver { door: Arc::new(door), recorder: Arc::clone(&recorder), counts: counts.clone() };
    let ways = shutdown.branch();
    let asker = Asker {
        world: Arc::clone(&world),
        receiver: receiver.clone(),
        board: Arc::clone(&deps.board),
        clock: Arc::clone(&deps.clock),
        counts,
    };
    ways.spawn(asker.run(shutdown.clone()));
    for socket in deps.sockets {
        ways.spawn(datagrams::receive(socket, receiver.clone(), shutdown.clone()));
    }
    let totals = Arc::new(Totals::new(Arc::clone(&deps.board), Arc::clone(&deps.clock)));
    for door in deps.agents {
        ways.spawn(tell::answer(door, Arc::clone(&totals), shutdown.clone()));
    }
    let limits = ServerLimits {
        connections_max: config.connections_max.max(1),
        grace: GRACE,
        ..ServerLimits::default()
    };
    for listener in deps.listeners {
        let router = listen::router(receiver.clone())
            .merge(tell::router(Arc::clone(&totals)))
            .merge(chassis::admin::router(deps.metrics.clone(), deps.readiness.clone()));
        let shutdown = shutdown.clone();
        ways.spawn(async move { chassis::serve(listener, router, limits, &shutdown).await });
    }
    let (board, clock, readiness) = (deps.board, deps.clock, deps.readiness);
    let following = shutdown.clone();
    ways.spawn(async move {
        world::follow(&world, board.as_ref(), clock.as_ref(), &readiness, &following).await;
    });
    // The recorder outlives the ways in: what they took in hand is still written.
    let writing = Shutdown::new();
    let writer = {
        let (recorder, writing) = (Arc::clone(&recorder), writing.clone());
        writing.clone().spawn(async move { recorder.run(&writing).await })
    };
    shutdown.started().await;
    ways.finished(GRACE).await;
    writing.start();
    if let Err(why) = writer.await {
        tracing::error!(%why, "the writer of loads ended badly");
    }
}
