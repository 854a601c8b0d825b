//! A machine-manager over a unix socket, with a registry in memory, a clock moved by hand, and a
//! provider that can be told to be slow, deaf or unwilling.

use async_trait::async_trait;
use chassis::{
    Client, Identity, Listen, Listener, Metrics, PeerError, PeerUrl, RandomIds, Shutdown,
};
use domain::{Clock, Mono, NodeId, Timestamp};
use machine_manager::provider::{
    Machine, NodeProvider, ProviderError, StartOrder, Started, Stopped,
};
use machine_manager::{Config, Deps, FirstNode};
use machine_planner::Policy;
use registry::{MemoryRegistry, Registry};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wire::join::{JoinAnswer, JoinRequest, NodeMeasure, StatsReport};

/// 2026-11-21 00:00 UTC.
pub const NOW: i64 = 1_795_219_200_000;
/// Nothing in these tests takes longer; what does, hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A clock that goes when it is told to.
pub struct HandClock(Mutex<Duration>);

impl HandClock {
    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp(NOW).plus(*self.0.lock().unwrap())
    }
    fn monotonic(&self) -> Mono {
        Mono(*self.0.lock().unwrap())
    }
}

/// How the cloud behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Willing,
    /// A definite no to orders of the type `dear`.
    Unwilling,
    /// It does what it is told and does not say so.
    Deaf,
    /// It does nothing and says nothing.
    Slow,
}

/// A provider of made-up machines.
pub struct Cloud {
    pub mood: Mutex<Mood>,
    pub orders: Mutex<BTreeMap<NodeId, StartOrder>>,
    pub running: Mutex<BTreeMap<NodeId, Timestamp>>,
    pub calls: AtomicUsize,
    /// Starts that were asked for without a reservation in the ledger: must stay zero.
    pub unwritten: AtomicUsize,
    clock: Arc<HandClock>,
    registry: Arc<MemoryRegistry>,
}

impl Cloud {
    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }
    fn deaf() -> ProviderError {
        ProviderError::Unsure { provider: "cloud".into(), detail: "the line is dead".into() }
    }
}

#[async_trait]
impl NodeProvider for Cloud {
    fn name(&self) -> &str {
        "cloud"
    }

    async fn start(&self, order: &StartOrder) -> Result<Started, ProviderError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let lines = self.registry.ledger(Timestamp(0), Timestamp(i64::MAX)).await.unwrap();
        if !lines.iter().any(|l| l.node == order.node) {
            self.unwritten.fetch_add(1, Ordering::SeqCst);
        }
        self.orders.lock().unwrap().insert(order.node.clone(), order.clone());
        match self.mood() {
            Mood::Slow => std::future::pending().await,
            Mood::Unwilling if order.node_type.name.as_str() == "dear" => {
                Err(ProviderError::Refused { provider: "cloud".into(), detail: "sold out".into() })
            }
            Mood::Willing | Mood::Unwilling | Mood::Deaf => {
                let now = self.clock.now();
                let mut running = self.running.lock().unwrap();
                let started_at = *running.entry(order.node.clone()).or_insert(now);
                drop(running);
                if self.mood() == Mood::Deaf {
                    return Err(Cloud::deaf());
                }
                Ok(Started { provider_ref: format!("vm-{}", order.node), started_at })
            }
        }
    }

    async fn stop(&self, node: &NodeId) -> Result<Stopped, ProviderError> {
        if self.mood() == Mood::Deaf {
            return Err(Cloud::deaf());
        }
        let started = self.running.lock().unwrap().remove(node);
        Ok(Stopped { ran: started.map(|at| (at, self.clock.now())) })
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        let running = self.running.lock().unwrap();
        let machine = |node: &NodeId| Machine {
            node: node.clone(),
            provider_ref: String::new(),
            running: true,
        };
        Ok(running.keys().map(machine).collect())
    }
}

/// Everything at once.
pub struct House {
    pub clock: Arc<HandClock>,
    pub registry: Arc<MemoryRegistry>,
    pub cloud: Arc<Cloud>,
    pub folder: tempfile::TempDir,
    pub managers: usize,
}

/// One running machine-manager.
pub struct Running {
    pub client: Client,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<Result<(), machine_manager::Error>>,
}

impl Running {
    pub async fn end(self) {
        self.shutdown.start();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

impl House {
    pub fn new() -> House {
        let clock = Arc::new(HandClock(Mutex::new(Duration::ZERO)));
        let registry = Arc::new(MemoryRegistry::new(Arc::clone(&clock) as Arc<dyn Clock>));
        let cloud = Arc::new(Cloud {
            mood: Mutex::new(Mood::Willing),
            orders: Mutex::default(),
            running: Mutex::default(),
            calls: AtomicUsize::new(0),
            unwritten: AtomicUsize::new(0),
            clock: Arc::clone(&clock),
            registry: Arc::clone(&registry),
        });
        House { clock, registry, cloud, folder: tempfile::tempdir().unwrap(), managers: 0 }
    }

    /// Starts a manager known as `holder`.
    pub async fn manager(&mut self, holder: &str, first_node: Option<FirstNode>) -> Running {
        self.managers += 1;
        let socket = self.folder.path().join(format!("{}.sock", self.managers));
        let listener = Listener::bind(&Listen::Unix(socket.clone())).await.unwrap();
        let shutdown = Shutdown::new();
        let config = Config {
            holder: holder.to_owned(),
            policy: Policy::demo(),
            beat: Duration::from_millis(10),
            load_url: "http://127.0.0.1:7402".into(),
            stats_url: format!("unix:{}", socket.display()),
            first_node,
            halt: chassis::Halt::default(),
        };
        let deps = Deps {
            registry: Arc::clone(&self.registry) as Arc<dyn Registry>,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            ids: Box::new(RandomIds),
            identity: Identity::generate(),
            listener,
            container_manager: None,
            providers: vec![Arc::clone(&self.cloud) as Arc<dyn NodeProvider>],
            metrics: Metrics::new(),
        };
        let task = tokio::spawn(machine_manager::run(config, deps, shutdown.clone()));
        Running { client: Client::new(PeerUrl::Unix(socket)), shutdown, task }
    }

    /// A manager that leads, with the type `small` and a budget.
    pub async fn ready(&mut self) -> Running {
        let running = self.manager("one", None).await;
        let client = running.client.clone();
        until("the manager leads", async || get(&client, "/v1/nodes").await.is_ok()).await;
        put(&client, "/v1/node-types/small", &small()).await.unwrap();
        put(&client, "/v1/budget", &json!({"monthly_cap": "10 EUR"})).await.unwrap();
        running
    }

    /// Joins the machine of `node`, as its executor would.
    pub async fn join(&self, client: &Client, node: &NodeId) -> JoinAnswer {
        let order = self.cloud.orders.lock().unwrap()[node].clone();
        client.post("/v1/nodes/join", &joining(&order.token, &order.name), PATIENCE).await.unwrap()
    }

    /// Waits for an order that no test has seen yet.
    pub async fn ordered(&self, count: usize) -> NodeId {
        until("the provider has the order", async || {
            self.cloud.orders.lock().unwrap().len() >= count
        })
        .await;
        self.cloud.orders.lock().unwrap().keys().last().unwrap().clone()
    }
}

/// Two processors for 0.20 an hour, by the second.
pub fn small() -> Value {
    json!({
        "provider": "cloud", "cpu": "2", "memory": "2GiB", "price_per_hour": "0.20 EUR",
        "billing_unit": "1s", "max_count": 3,
    })
}

pub fn joining(token: &str, name: &str) -> JoinRequest {
    JoinRequest {
        wire: wire::WIRE_VERSION,
        token: Some(token.to_owned()),
        node: None,
        node_secret: None,
        name: name.to_owned(),
        address: "127.0.0.1".parse().unwrap(),
        executor_url: "http://127.0.0.1:7403".into(),
        cpu_millis: 2000,
        memory_bytes: 2 << 30,
        disk_bytes: 0,
        labels: BTreeMap::new(),
    }
}

/// A measurement of a node.
pub fn measured(node: &NodeId, seq: u64) -> StatsReport {
    let measure = NodeMeasure { cpu_millis: 500, memory_bytes: 1 << 20, ..NodeMeasure::default() };
    StatsReport { wire: wire::WIRE_VERSION, node: node.clone(), seq, measure, instances: vec![] }
}

/// One start of a service, as the container-manager asks for it.
pub fn start(instance: &str, cpu_millis: u32) -> Value {
    let service = instance.rsplit_once('-').unwrap().0;
    json!({
        "instance": instance, "service": service, "revision": 1, "cpu_millis": cpu_millis,
        "memory_bytes": 1 << 20, "group": "self-contained", "wake": true, "deadline_ms": 30000,
    })
}

pub async fn place(client: &Client, wanted: &[Value]) -> Value {
    let body = json!({"wire": wire::WIRE_VERSION, "epoch": 1, "wanted": wanted});
    client.post("/v1/placements", &body, PATIENCE).await.unwrap()
}

pub async fn get(client: &Client, path: &str) -> Result<Value, PeerError> {
    client.get(path, PATIENCE).await
}

pub async fn put(client: &Client, path: &str, body: &Value) -> Result<Value, PeerError> {
    client.json(http::Method::PUT, path, Some(body), PATIENCE).await
}

/// The state of a node, `gone` when it does not live.
pub async fn state(client: &Client, node: &NodeId) -> String {
    let list = get(client, "/v1/nodes").await.unwrap();
    let items = list["items"].as_array().unwrap();
    let found = items.iter().find(|n| n["id"] == node.as_str());
    found.map_or("gone".to_owned(), |n| n["state"].as_str().unwrap().to_owned())
}

/// The problem a call must have ended in: status and detail.
pub fn refused<T: std::fmt::Debug>(result: Result<T, PeerError>) -> (u16, String) {
    match result {
        Err(PeerError::Refused { status, problem, .. }) => (status.as_u16(), problem.detail),
        other => panic!("not refused: {other:?}"),
    }
}

/// Waits for a state, never for a time.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never: {what}");
}
