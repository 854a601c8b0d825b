//! One listener per service port, opened and closed as fronts change: sockets are bound here, once
//! for all workers, and handed to them.

use crate::Shared;
use crate::listener::bind;
use chassis::{Nudge, Shutdown, periodic};
use domain::ServiceName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// A port that could not be had is tried again this often.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Openings and closings a worker may be behind: it does nothing longer than a millisecond.
const NEWS_MAX: usize = 256;

/// What a worker is told.
#[derive(Debug)]
pub enum News {
    /// Accept on these.
    Open(u16, Vec<TcpListener>),
    /// No longer.
    Close(u16),
}

/// What ports keeper, workers, metrics and the board's ability share.
#[derive(Debug, Default)]
pub struct Ports {
    /// Fronts changed, or a worker came.
    pub nudge: Nudge,
    workers: Mutex<Vec<mpsc::Sender<News>>>,
    troubles: Mutex<BTreeMap<ServiceName, String>>,
    open: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every value behind these locks is replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ports {
    /// A worker listens to the news from now on.
    pub fn attend(&self) -> mpsc::Receiver<News> {
        let (tell, hear) = mpsc::channel(NEWS_MAX);
        lock(&self.workers).push(tell);
        self.nudge.nudge();
        hear
    }

    /// Services whose port could not be had, and why.
    #[must_use]
    pub fn troubles(&self) -> BTreeMap<ServiceName, String> {
        lock(&self.troubles).clone()
    }

    /// Service ports open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }
}

/// Keeps the open ports those of the fronts, until the shutdown starts.
pub async fn keep(listen: Vec<SocketAddr>, shared: Arc<Shared>, shutdown: Shutdown) {
    let keeper = tokio::sync::Mutex::new(Keeper::new(listen));
    let step = |_woke| async {
        keeper.lock().await.step(&shared).await;
    };
    periodic::run(RETRY_EVERY, &shared.ports.nudge, &shutdown, step).await;
}

struct Keeper {
    /// Where service ports are opened: the hosts of the balancer's own addresses.
    hosts: BTreeSet<IpAddr>,
    /// The balancer's own addresses; no service may have one.
    own: Vec<SocketAddr>,
    open: BTreeSet<u16>,
}

impl Keeper {
    fn new(own: Vec<SocketAddr>) -> Keeper {
        Keeper { hosts: own.iter().map(SocketAddr::ip).collect(), own, open: BTreeSet::new() }
    }

    async fn step(&mut self, shared: &Shared) {
        let workers = lock(&shared.ports.workers).clone();
        if workers.len() < shared.workers {
            // The last one nudges when it comes.
            return;
        }
        let table = shared.table.load_full();
        let closed: Vec<u16> =
            self.open.iter().copied().filter(|port| table.at_port(*port).is_none()).collect();
        for port in closed {
            self.open.remove(&port);
            for worker in &workers {
                // A worker that is gone has closed its sockets.
                let _gone = worker.send(News::Close(port)).await;
            }
            tracing::info!(port, "the service port is closed");
        }
        let mut troubles = table.port_disputes();
        for (port, service) in table.ports() {
            if self.open.contains(port) {
                continue;
            }
            match self.bind(*port, shared.workers) {
                Ok(per_worker) => {
                    self.open.insert(*port);
                    for (worker, sockets) in workers.iter().zip(per_worker) {
                        let _gone = worker.send(News::Open(*port, sockets)).await;
                    }
                    tracing::info!(port, service = %service.name, "the service port is open");
                }
                Err(why) => drop(troubles.insert(service.name.clone(), why)),
            }
        }
        shared.ports.open.store(self.open.len(), Relaxed);
        self.tell(shared, troubles);
    }

    /// Says a trouble once, when it is new.
    fn tell(&self, shared: &Shared, troubles: BTreeMap<ServiceName, String>) {
        let mut told = lock(&shared.ports.troubles);
        for (service, why) in &troubles {
            if told.get(service) != Some(why) {
                tracing::warn!(%service, why, "the service cannot be reached at its port");
            }
        }
        *told = troubles;
    }

    /// A list of sockets for each worker.
    fn bind(&self, port: u16, workers: usize) -> Result<Vec<Vec<TcpListener>>, String> {
        if self.own.iter().any(|own| own.port() == port) {
            return Err(format!(
                "port {port} is the balancer's own address for HTTP; give the service another \
                 route.port"
            ));
        }
        let mut per_worker: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        for host in &self.hosts {
            let address = SocketAddr::new(*host, port);
            let sockets = bind(address, workers).map_err(|error| {
                let why = std::error::Error::source(&error).map(ToString::to_string);
                format!(
                    "{address} cannot be listened on ({}); stop what uses it or give the service \
                     another route.port",
                    why.unwrap_or_default()
                )
            })?;
            for (worker, socket) in per_worker.iter_mut().zip(sockets) {
                worker.push(socket);
            }
        }
        Ok(per_worker)
    }
}
