//! A whole cell for tests: registry, board, node and balancer in memory; managers come and go.

use crate::doubles::{TestExecutors, TestPlacements};
use crate::{Config, Deps, LoadEnds, Policy};
use chassis::{
    Client, Identity, Listen, Listener, Metrics, RandomIds, Readiness, Shutdown, SystemClock,
};
use domain::{
    BalancerId, Bytes, Capacity, Clock, Demand, DrainOrder, MilliCpu, Node, NodeId, PricePerHour,
    Resources, RouteGen, ServiceName, Timestamp,
};
use registry::{MemoryRegistry, NodeCommit, Registry, Role};
use scoreboard::{Board, MemoryBoard};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longest wait for a state: long, because a loaded machine is slow; met at once if right.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the test's balancer says of every service.
#[derive(Debug, Clone, Default)]
pub struct Says {
    pub queued: u32,
    pub in_flight: u32,
    pub active: bool,
    /// It sees no new routes.
    pub blind: bool,
}

/// A cell: one registry, one board, one node, one balancer; managers come and go.
pub struct Cell {
    pub clock: Arc<SystemClock>,
    pub registry: Arc<MemoryRegistry>,
    pub board: Arc<MemoryBoard>,
    pub executors: Arc<TestExecutors>,
    pub placements: Arc<TestPlacements>,
    pub identity: Identity,
    pub says: Arc<Mutex<Says>>,
    pub node: NodeId,
    pub end: Shutdown,
}

/// A running manager.
pub struct Manager {
    pub client: Client,
    pub shutdown: Shutdown,
    pub ended: tokio::task::JoinHandle<Result<(), crate::Error>>,
}

impl Manager {
    pub async fn stop(self) {
        self.shutdown.start();
        self.ended.await.unwrap().unwrap();
    }
}

pub fn node(id: &NodeId, now: Timestamp) -> Node {
    Node {
        id: id.clone(),
        name: id.to_string(),
        node_type: "small".parse().unwrap(),
        provider: "local".into(),
        provider_ref: None,
        state: domain::NodeState::Ready,
        state_since: now,
        deadline: None,
        address: Some([127, 0, 0, 1].into()),
        executor_url: Some(format!("unix:/tmp/{id}")),
        capacity: Capacity {
            resources: Resources { cpu: MilliCpu(2000), memory: Bytes(1 << 32) },
            disk: Bytes(0),
        },
        cpu_class: "standard".into(),
        disk_type: "ssd".into(),
        labels: BTreeMap::new(),
        price: PricePerHour(6000),
        billing_unit: Duration::from_secs(3600),
        billing_minimum: Duration::ZERO,
        min_life: Duration::ZERO,
        stop_lead: Duration::ZERO,
        may_stop: true,
        drain: None,
        ordered_at: now,
        ready_at: Some(now),
        seen_at: Some(now),
        stopped_at: None,
        secret_hash: None,
        reason: "joined".into(),
    }
}

impl Cell {
    pub async fn new() -> Cell {
        let clock = Arc::new(SystemClock::new());
        let registry = Arc::new(MemoryRegistry::new(clock.clone()));
        let board = Arc::new(MemoryBoard::new(clock.clone()));
        let placements = Arc::new(TestPlacements::default());
        let node: NodeId = "n-0123456789".parse().unwrap();
        placements.nodes.lock().unwrap().push(node.clone());
        let cell = Cell {
            clock,
            registry,
            board,
            executors: Arc::default(),
            placements,
            identity: Identity::generate(),
            says: Arc::default(),
            node: node.clone(),
            end: Shutdown::new(),
        };
        cell.put_node(&node).await;
        cell.start_balancer();
        cell
    }

    pub async fn put_node(&self, id: &NodeId) {
        self.write_node(node(id, self.clock.now())).await;
    }

    pub async fn drain_node(&self, id: &NodeId) {
        let now = self.clock.now();
        let order = DrainOrder { reason: "cheaper".into(), deadline: now.plus(PATIENCE) };
        self.write_node(Node { drain: Some(order), ..node(id, now) }).await;
    }

    async fn write_node(&self, node: Node) {
        let role = Role::MachineManager;
        let lease = self.registry.take_lease(role, "mm", PATIENCE).await.unwrap().unwrap();
        let nodes = vec![node];
        let commit = NodeCommit { nodes, ..NodeCommit::default() };
        self.registry.commit_nodes(&lease, commit).await.unwrap();
    }

    fn start_balancer(&self) {
        let (board, says, end) = (self.board.clone(), self.says.clone(), self.end.clone());
        tokio::spawn(async move {
            let id: BalancerId = "b1".parse().unwrap();
            let mut seen: BTreeMap<ServiceName, RouteGen> = BTreeMap::new();
            while !end.has_started() {
                let now = says.lock().unwrap().clone();
                let view = board.view().await.unwrap();
                let mut demand = Vec::new();
                for (name, service) in view.services {
                    let table = service.routes.unwrap_or_default();
                    if !now.blind {
                        seen.insert(name.clone(), table.generation);
                    }
                    let in_flight =
                        table.entries.into_iter().map(|e| (e.instance, now.in_flight)).collect();
                    let last = now.active.then_some(Duration::ZERO);
                    let routes_gen = seen.get(&name).copied().unwrap_or_default();
                    demand.push((
                        name,
                        Demand {
                            queued: now.queued,
                            in_flight,
                            last_request_ago: last,
                            routes_gen,
                            ..Demand::default()
                        },
                    ));
                }
                board.write_demand(&id, &demand).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }

    pub fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    pub async fn manager(&self, holder: &str) -> Manager {
        self.manager_with(holder, |_| {}).await
    }

    pub async fn manager_with(&self, holder: &str, tune: impl FnOnce(&mut Config)) -> Manager {
        let listener = Listener::bind(&Listen::Tcp(([127, 0, 0, 1], 0).into())).await.unwrap();
        let client = Client::new(format!("http://{}", listener.local()).parse().unwrap());
        let load = LoadEnds {
            url: "http://127.0.0.1:7402/v1/load".into(),
            address: "127.0.0.1:7402".into(),
        };
        let mut config = Config::new(holder, load);
        config.beat = Duration::from_millis(100);
        config.policy = Policy {
            suspect_after: Duration::from_millis(1500),
            lost_after: Duration::from_millis(2500),
            ..Policy::demo()
        };
        config.history_every = Duration::from_millis(100);
        config.lease_ttl = Duration::from_secs(3);
        tune(&mut config);
        let deps = Deps {
            board: self.board.clone(),
            registry: self.registry.clone(),
            placements: self.placements.clone(),
            executors: Some(self.executors.clone()),
            clock: self.clock.clone(),
            ids: Box::new(RandomIds),
            identity: self.identity.clone(),
            api: vec![listener],
            metrics: Metrics::new(),
            readiness: Readiness::new(),
        };
        let shutdown = Shutdown::new();
        let ended = tokio::spawn(crate::run(config, deps, shutdown.clone()));
        Manager { client, shutdown, ended }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.end.start();
    }
}

/// Waits until `state` is there, and answers it.
pub async fn until<T, F>(what: &str, mut state: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let work = async {
        loop {
            if let Some(found) = state().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("never came: {what}"))
}
