//! What every part of the executor shares: engines, ports, the board, the known instances.

use crate::diff::Known;
use crate::engines::Engines;
use crate::error::Error;
use crate::events::Board;
use crate::metrics::Metrics;
use crate::operations::{Operations, Outcome};
use crate::ports::{Ports, Taken};
use crate::store::Store;
use chassis::Shutdown;
use domain::{Clock, Epoch, Generation, InstanceId, Mono};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore, watch};
use wire::assignment::{AssignedInstance, Newer};
use wire::node_file::{CgroupPaths, NodeFile, NodeFileInstance};
use wire::operation::Verb;

/// Starts at once: enough to keep every processor of a large node busy with `exec`, and few enough
/// that the first of a thousand is ready long before the last.
const STARTS_AT_ONCE: usize = 64;

/// What an instance's task is told: the newest value counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What it shall be.
    pub instance: Arc<AssignedInstance>,
    /// Whether it shall end.
    pub stop: bool,
}

/// An instance with a task.
#[derive(Debug)]
pub struct Handle {
    /// Where its task is told what to do.
    pub orders: watch::Sender<Order>,
    /// What the transmitter needs, while it runs.
    pub runs: Option<Runs>,
}

/// What the transmitter needs of a running instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs {
    /// Its control groups.
    pub cgroups: CgroupPaths,
    /// Its process.
    pub pid: i32,
}

/// Shared by all tasks of one executor.
pub struct Core {
    /// Its configuration.
    pub config: crate::Config,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What runs instances.
    pub engines: Engines,
    /// The node's directory.
    pub store: Store,
    /// What is told.
    pub board: Board,
    /// What was done.
    pub operations: Operations,
    /// What is counted.
    pub metrics: Metrics,
    /// Ends all tasks; instances go on.
    pub shutdown: Shutdown,
    /// Wakes the writer of the node file.
    pub node_file_due: Notify,
    /// Bounds the starts at once.
    pub starting: Semaphore,
    /// The newest accepted assignment's place in the order of all.
    pub accepted: Mutex<Newer>,
    instances: Mutex<BTreeMap<InstanceId, Handle>>,
    ports: Mutex<Ports>,
    told_missing: Mutex<std::collections::BTreeSet<String>>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Core {
    /// Puts the parts together.
    pub fn new(
        config: crate::Config,
        clock: Arc<dyn Clock>,
        engines: Engines,
        store: Store,
        metrics: Metrics,
        shutdown: Shutdown,
    ) -> Core {
        let freed = store.freed_ports();
        let ports = Ports::new(config.ports.clone(), config.address, &freed)
            .beginning_by(config.node.as_str());
        Core {
            board: Board::new(clock.now()),
            operations: Operations::default(),
            node_file_due: Notify::new(),
            starting: Semaphore::new(STARTS_AT_ONCE),
            accepted: Mutex::new(Newer { epoch: Epoch(0), generation: Generation(0) }),
            instances: Mutex::default(),
            ports: Mutex::new(ports),
            told_missing: Mutex::default(),
            config,
            clock,
            engines,
            store,
            metrics,
            shutdown,
        }
    }

    /// The known instances.
    pub fn instances(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Handle>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same as plain data.
    #[must_use]
    pub fn known(&self) -> BTreeMap<InstanceId, Known> {
        let known = |handle: &Handle| {
            let order = handle.orders.borrow();
            Known { instance: (*order.instance).clone(), stopping: order.stop }
        };
        self.instances().iter().map(|(id, handle)| (id.clone(), known(handle))).collect()
    }

    fn ports(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives out a port.
    #[must_use]
    pub fn take_port(&self) -> Option<u16> {
        let Taken { port, early } = self.ports().take(self.clock.now())?;
        if early {
            tracing::warn!(
                port,
                "every port of executor.ports is used or rests; one is used again before its time, \
                 so widen the range"
            );
        }
        Some(port)
    }

    /// Notes the port of an instance that runs already.
    pub fn claim_port(&self, port: u16) {
        self.ports().claim(port);
    }

    /// Whether nobody listens on it.
    #[must_use]
    pub fn port_is_free(&self, port: u16) -> bool {
        self.ports().free_now(port)
    }

    /// Takes a port back.
    pub fn free_port(&self, port: u16) {
        let freed = {
            let mut ports = self.ports();
            ports.free(port, self.clock.now());
            ports.freed()
        };
        self.store.keep_freed_ports(&freed);
    }

    /// Notes an operation that began at `began`.
    pub fn note(&self, began: Mono, id: &InstanceId, verb: Verb, outcome: Outcome) {
        let took = self.clock.monotonic().since(began);
        self.operations.note(self.clock.now(), took, id, verb, outcome);
    }

    /// Says once what instances of this node run without; a thousand starts would say the same.
    pub fn say_missing(&self, missing: &[String], id: &InstanceId) {
        let mut told = self.told_missing.lock().unwrap_or_else(PoisonError::into_inner);
        for what in missing {
            // Paths differ by instance; the sentence is the same.
            if told.insert(what.replace(id.as_str(), "INSTANCE")) {
                tracing::warn!(instance.id = %id, %what, "an instance runs without a limit");
            }
        }
    }

    /// Notes what runs, or that nothing does, for the transmitter.
    pub fn set_runs(&self, id: &InstanceId, runs: Option<Runs>) {
        if let Some(handle) = self.instances().get_mut(id) {
            handle.runs = runs;
        }
        self.node_file_due.notify_one();
    }

    /// What the transmitter shall know now.
    #[must_use]
    pub fn node_file(&self) -> NodeFile {
        let line = |id: &InstanceId, handle: &Handle| {
            let runs = handle.runs.clone()?;
            let order = handle.orders.borrow();
            let no_group = runs.cgroups == CgroupPaths::default();
            Some(NodeFileInstance {
                id: id.clone(),
                service: order.instance.service.clone(),
                cgroups: runs.cgroups,
                pid: no_group.then_some(runs.pid),
                load_source: order.instance.load_source.clone(),
                load_token: order.instance.load_token.clone(),
                limits: order.instance.limits,
            })
        };
        let instances = self.instances();
        NodeFile { instances: instances.iter().filter_map(|(id, h)| line(id, h)).collect() }
    }

    /// Writes the node file whenever it is due, until the executor ends.
    pub async fn write_node_file(self: Arc<Core>) {
        loop {
            if let Err(error) = self.store.keep_node_file(&self.node_file()) {
                tracing::warn!(%error, "the transmitter cannot be told about the instances");
            }
            tokio::select! {
                () = self.shutdown.started() => return,
                () = self.node_file_due.notified() => {}
            }
        }
    }

    /// The accepted assignment's place in the order of all.
    #[must_use]
    pub fn accepted(&self) -> Newer {
        *self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tally's own part of an instance's environment.
    #[must_use]
    pub fn tally_env(&self, instance: &AssignedInstance) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        env.insert("TALLY_SERVICE".to_owned(), instance.service.to_string());
        env.insert("TALLY_INSTANCE".to_owned(), instance.id.to_string());
        env.insert("TALLY_NODE".to_owned(), self.config.node.to_string());
        env.insert("TALLY_LOAD_TOKEN".to_owned(), instance.load_token.clone());
        if let Some(url) = &self.config.load_url {
            let base = url.trim_end_matches('/');
            env.insert("TALLY_LOAD_URL".to_owned(), format!("{base}/v1/load"));
            let address = base.split_once("://").map_or(base, |(_, address)| address);
            env.insert("TALLY_LOAD_ADDR".to_owned(), address.to_owned());
        }
        env
    }

    /// Whether an assignment kept on disk is ours.
    ///
    /// # Errors
    /// When it is another node's: two nodes must not share a directory.
    pub fn check_ours(&self, kept: &wire::assignment::Assignment) -> Result<(), Error> {
        if kept.node == self.config.node && kept.cluster == self.config.cluster {
            return Ok(());
        }
        Err(Error::Foreign {
            found: format!("{} of cluster {}", kept.node, kept.cluster),
            ours: format!("{} of cluster {}", self.config.node, self.config.cluster),
        })
    }
}
