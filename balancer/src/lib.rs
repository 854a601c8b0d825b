//! The front door: holds, picks, forwards and tells what it saw.
//!
//! A request goes `listener` -> `route` -> `view` -> `picker` -> `forward` -> instance; `outcome`
//! records what was seen. It takes no lock and makes no call to the board. Control tasks read the
//! board, judge, and swap in what the request path sees.

mod able;
mod admin;
mod ask;
mod choose;
mod conn;
mod control;
mod demand;
mod doors;
mod feedback;
mod forward;
#[cfg(feature = "testing")]
pub mod fuzzing;
mod health;
mod hold;
pub mod http;
mod instance;
mod learn;
pub mod limited;
pub mod limits;
mod listener;
pub mod measure;
pub mod nat;
mod orca;
mod others;
mod outcome;
mod picks;
mod pool;
mod probe;
mod refuse;
mod report_out;
mod route;
mod save;
mod stats;
mod tcp;
mod terms;
#[cfg(test)]
mod testing;
mod tunnel;
mod upstream;
mod view;
mod wait;
mod worker;

pub use crate::http::access::AccessLog;
pub use limits::Limits;

use crate::http::access::Log;

use arc_swap::ArcSwap;
use chassis::{Client, Listen, Listener, Nudge, Readiness, Shutdown};
use domain::{BalancerId, Clock, RouteTable, ServiceFront, ServiceName};
use scoreboard::Board;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How a balancer is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name among balancers.
    pub id: BalancerId,
    /// Where clients come; port 0 picks a free one.
    pub listen: Vec<SocketAddr>,
    /// Hosts on which services' own ports are opened, besides those of `listen`.
    pub hosts: Vec<IpAddr>,
    /// Where `/livez`, `/readyz` and `/metrics` answer; `None`: nowhere.
    pub admin: Option<Listen>,
    /// Worker threads; 0: one per processor, at most [`WORKERS_MAX`].
    pub workers: usize,
    /// Where the last view is kept over a restart; `None`: nowhere.
    pub save: Option<PathBuf>,
    /// Services that are served from the start, until the board says otherwise.
    pub known: Vec<(ServiceFront, RouteTable)>,
    /// Time for requests in hand after the shutdown started.
    pub grace: Duration,
    /// What protects it.
    pub limits: Limits,
    /// Where requests are logged; `None`: nowhere.
    pub access_log: Option<AccessLog>,
}

/// More threads than this need more than one listen address to be of use.
pub const WORKERS_MAX: usize = 64;

impl Config {
    /// The defaults: 127.0.0.1:8080, admin at 127.0.0.1:7404, 30 s grace, nothing saved.
    #[must_use]
    pub fn new(id: BalancerId) -> Config {
        Config {
            id,
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            hosts: Vec::new(),
            admin: Some(Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 7404)))),
            workers: 0,
            save: None,
            known: Vec::new(),
            grace: Duration::from_secs(30),
            limits: Limits::default(),
            access_log: None,
        }
    }
}

/// What a balancer needs from outside.
#[derive(Clone)]
pub struct Deps {
    /// The board.
    pub board: Arc<dyn Board>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The container-manager's API, for wakes, with the balancer's token; `None`: wakes go by the
    /// board's demand alone.
    pub manager: Option<Client>,
}

/// Why a balancer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be had.
    #[error("cannot listen on {listen}; stop what uses it or choose another address")]
    Listen {
        /// The wanted address.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The admin address cannot be had.
    #[error("{detail}")]
    Admin {
        /// Which and why.
        detail: String,
    },
    /// The access log cannot be written.
    #[error("the access log {} cannot be written; choose another balancer.access_log.path", path.display())]
    AccessLog {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A thread cannot be started.
    #[error("a worker thread cannot be started; the system's limits are too low")]
    Worker {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// What workers and control tasks share.
pub struct Shared {
    id: BalancerId,
    workers: usize,
    seed: u64,
    clock: Arc<dyn Clock>,
    table: ArcSwap<route::Table>,
    limits: Limits,
    access: Option<Log>,
    doors: doors::Doors,
    demand_nudge: Nudge,
    wake_nudge: Nudge,
    ports: tcp::Ports,
    nat: nat::State,
    able_nudge: Nudge,
}

impl Shared {
    /// Services that cannot be served as declared, and why.
    fn troubles(&self) -> BTreeMap<ServiceName, String> {
        let mut troubles = self.nat.troubles();
        troubles.extend(self.ports.troubles());
        troubles
    }

    /// A request waits: the first one is told at once. A queue that is empty in between for less
    /// than a look of the control tasks counts as the same waiting.
    fn waits(&self, service: &view::Service) {
        if !service.wait_told.load(Relaxed) && !service.wait_told.swap(true, Relaxed) {
            self.wake_nudge.nudge();
            self.demand_nudge.nudge();
        }
    }

    /// The control tasks' look at a service's queue.
    fn look_at_queue(&self, service: &view::Service) {
        if service.queue.held() > 0 {
            self.waits(service);
        } else {
            service.wait_told.store(false, Relaxed);
        }
    }
}

/// A balancer that holds its addresses and is ready to run.
pub struct Balancer {
    config: Config,
    deps: Deps,
    shared: Arc<Shared>,
    sockets: Vec<Vec<TcpListener>>,
    admin: Option<Listener>,
}

impl Balancer {
    /// Binds all addresses.
    ///
    /// # Errors
    /// [`Error::Listen`] or [`Error::Admin`].
    pub async fn bind(config: Config, deps: Deps) -> Result<Balancer, Error> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = if config.workers == 0 { processors } else { config.workers };
        let workers = workers.clamp(1, WORKERS_MAX);
        let sockets = config.listen.iter().map(|listen| listener::bind(*listen, workers));
        let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
        let admin = match &config.admin {
            None => None,
            Some(listen) => {
                let bound = Listener::bind(listen).await;
                Some(bound.map_err(|detail| Error::Admin { detail })?)
            }
        };
        let access = match &config.access_log {
            None => None,
            Some(log) => Some(
                Log::open(log, Arc::clone(&deps.clock))
                    .map_err(|source| Error::AccessLog { path: log.path.clone(), source })?,
            ),
        };
        let shared = Arc::new(Shared {
            id: config.id.clone(),
            limits: config.limits.clone().sane().within(chassis::descriptors::limit()),
            access,
            doors: doors::Doors::default(),
            workers,
            seed: chassis::ids::seed(),
            clock: Arc::clone(&deps.clock),
            table: ArcSwap::from_pointee(route::Table::default()),
            demand_nudge: Nudge::new(),
            wake_nudge: Nudge::new(),
            ports: tcp::Ports::default(),
            nat: nat::State::default(),
            able_nudge: Nudge::new(),
        });
        Ok(Balancer { config, deps, shared, sockets, admin })
    }

    /// Its name among balancers.
    #[must_use]
    pub fn id(&self) -> &BalancerId {
        &self.config.id
    }

    /// Where clients may come, in the order of the configuration, with real ports.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        own_addresses(&self.sockets)
    }

    /// Where the admin paths answer.
    #[must_use]
    pub fn admin(&self) -> Option<Listen> {
        self.admin.as_ref().map(Listener::local)
    }

    /// Serves until the shutdown starts and requests in hand are over, or the grace is.
    ///
    /// # Errors
    /// [`Error::Worker`].
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let Balancer { config, deps, shared, sockets, admin } = self;
        let control = shutdown.branch();
        let mut addresses = own_addresses(&sockets);
        // Port 0 is no service's: only the host counts.
        addresses.extend(config.hosts.iter().map(|host| SocketAddr::new(*host, 0)));
        control.spawn(tcp::keep(addresses.clone(), Arc::clone(&shared), control.clone()));
        control.spawn(nat::keep(addresses, Arc::clone(&shared), control.clone()));
        let board = Arc::clone(&deps.board);
        control.spawn(able::tell(board, Arc::clone(&shared), control.clone()));
        let readiness = Readiness::new();
        control::start(&config, &deps, &shared, &readiness, &control);
        if let Some(listener) = admin {
            admin::start(listener, &shared, &readiness, &control);
        }
        // One list per address becomes one list per worker.
        let mut per_worker: Vec<Vec<TcpListener>> =
            (0..shared.workers).map(|_| Vec::new()).collect();
        for address in sockets {
            for (worker, socket) in per_worker.iter_mut().zip(address) {
                worker.push(socket);
            }
        }
        let mut ends = Vec::new();
        for (index, sockets) in per_worker.into_iter().enumerate() {
            let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
            ends.push(listener::start(index, shared, sockets, shutdown, config.grace)?);
        }
        for end in ends {
            // An error means that the thread is gone, which is what is waited for.
            let _gone = end.await;
        }
        control.start();
        control.finished(CONTROL_GRACE).await;
        Ok(())
    }
}

fn own_addresses(sockets: &[Vec<TcpListener>]) -> Vec<SocketAddr> {
    let first = |sockets: &Vec<TcpListener>| sockets.first()?.local_addr().ok();
    sockets.iter().filter_map(first).collect()
}

/// Control tasks end within one call to the board.
const CONTROL_GRACE: Duration = Duration::from_secs(3);

/// Binds and serves until the shutdown starts.
///
/// # Errors
/// [`Error`], when it cannot start.
pub async fn run(config: Config, deps: Deps, shutdown: Shutdown) -> Result<(), Error> {
    Balancer::bind(config, deps).await?.run(shutdown).await
}
