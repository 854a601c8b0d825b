//! Doubles for tests: executors, a machine-manager and a balancer in memory, and a whole cell.

use crate::executors::{Assigned, Events, ExecutorAt, ExecutorError, Executors};
use crate::placements::Placements;
use crate::{Config, Deps, LoadEnds, Policy};
use async_trait::async_trait;
use bytes::Bytes;
use chassis::peer::Answer;
use chassis::{
    Client, Identity, Listen, Listener, Metrics, PeerError, RandomIds, Readiness, Shutdown,
    SystemClock,
};
use domain::*;
use futures_util::StreamExt;
use http::{HeaderMap, Method, StatusCode};
use registry::{MemoryRegistry, NodeCommit, Registry, Role};
use scoreboard::{Board, MemoryBoard};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::broadcast;
use wire::assignment::{Assignment, ExecutorEvent, InstanceSeen, Inventory, Newer, RunState};
use wire::operation::Logs;
use wire::placement::{
    AdmissionAnswer, AdmissionRequest, Granted, PlacementAnswer, PlacementRequest, WaitingStart,
    Why,
};

/// Longest wait for a state: long, because a loaded machine is slow; met at once if right.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct NodeState {
    epoch: Epoch,
    generation: Generation,
    seq: u64,
    seen: BTreeMap<InstanceId, InstanceSeen>,
}

#[derive(Default)]
struct Fleet {
    nodes: BTreeMap<NodeId, NodeState>,
    /// Starts that shall fail.
    fail: u32,
    /// Starts stay starting.
    slow: bool,
    /// Nodes that do not answer.
    deaf: BTreeSet<NodeId>,
    started: Vec<InstanceId>,
    port: u16,
}

/// Executors that start what they are told at once.
pub struct TestExecutors {
    fleet: Mutex<Fleet>,
    pushed: broadcast::Sender<(NodeId, ExecutorEvent)>,
}

impl Default for TestExecutors {
    fn default() -> TestExecutors {
        TestExecutors { fleet: Mutex::default(), pushed: broadcast::Sender::new(1024) }
    }
}

impl TestExecutors {
    pub fn fail_next(&self, n: u32) {
        self.fleet.lock().unwrap().fail = n;
    }

    /// Starts never get ready from now on.
    pub fn stall_starts(&self) {
        self.fleet.lock().unwrap().slow = true;
    }

    pub fn deafen(&self, node: &NodeId, deaf: bool) {
        let mut fleet = self.fleet.lock().unwrap();
        if deaf {
            fleet.deaf.insert(node.clone());
        } else {
            fleet.deaf.remove(node);
        }
        drop(fleet);
        // A stream that is open notices by itself.
        let beat = ExecutorEvent { seq: 0, seen: None };
        let _nobody_listens = self.pushed.send((node.clone(), beat));
    }

    pub fn started(&self) -> Vec<InstanceId> {
        self.fleet.lock().unwrap().started.clone()
    }

    pub fn running(&self) -> Vec<InstanceId> {
        let fleet = self.fleet.lock().unwrap();
        let seen = fleet.nodes.values().flat_map(|n| n.seen.values());
        seen.filter(|s| s.state == RunState::Ready).map(|s| s.instance.clone()).collect()
    }

    pub fn epoch(&self, node: &NodeId) -> Epoch {
        self.fleet.lock().unwrap().nodes.get(node).map_or(Epoch(0), |n| n.epoch)
    }

    /// The executor tells a new state of an instance by itself.
    pub fn tell(&self, node: &NodeId, instance: &InstanceId, state: RunState) {
        let mut fleet = self.fleet.lock().unwrap();
        let known = fleet.nodes.get_mut(node).unwrap();
        let mut seen = known.seen[instance].clone();
        seen.state = state;
        self.push(node, known, seen);
    }

    fn push(&self, node: &NodeId, state: &mut NodeState, seen: InstanceSeen) {
        state.seq += 1;
        if seen.state == RunState::Stopped {
            state.seen.remove(&seen.instance);
        } else {
            state.seen.insert(seen.instance.clone(), seen.clone());
        }
        let event = ExecutorEvent { seq: state.seq, seen: Some(seen) };
        let _nobody_listens = self.pushed.send((node.clone(), event));
    }

    fn is_deaf(&self, at: &ExecutorAt) -> Result<(), ExecutorError> {
        if self.fleet.lock().unwrap().deaf.contains(&at.node) {
            let detail = "deaf".to_owned();
            return Err(ExecutorError::Stream { node: at.node.clone(), detail });
        }
        Ok(())
    }
}

#[async_trait]
impl Executors for TestExecutors {
    async fn assign(
        &self,
        at: &ExecutorAt,
        assignment: &Assignment,
    ) -> Result<Assigned, ExecutorError> {
        self.is_deaf(at)?;
        let mut fleet = self.fleet.lock().unwrap();
        let Fleet { nodes, fail, slow, started, port, .. } = &mut *fleet;
        let node = nodes.entry(at.node.clone()).or_default();
        let newest = (node.epoch, node.generation);
        if (assignment.epoch, assignment.generation) < newest {
            return Ok(Assigned::Newer(Newer { epoch: newest.0, generation: newest.1 }));
        }
        (node.epoch, node.generation) = (assignment.epoch, assignment.generation);
        let wanted: BTreeSet<_> = assignment.instances.iter().map(|i| i.id.clone()).collect();
        let gone: Vec<_> = node.seen.keys().filter(|id| !wanted.contains(*id)).cloned().collect();
        for id in gone {
            let seen = InstanceSeen { state: RunState::Stopped, ..node.seen[&id].clone() };
            self.push(&at.node, node, seen);
        }
        for instance in &assignment.instances {
            if node.seen.contains_key(&instance.id) {
                continue;
            }
            started.push(instance.id.clone());
            *port += 1;
            let state = if *fail > 0 {
                *fail -= 1;
                RunState::Failed
            } else if *slow {
                RunState::Starting
            } else {
                RunState::Ready
            };
            assert_eq!(instance.run.env["TALLY_INSTANCE"], instance.id.as_str());
            let seen = InstanceSeen {
                instance: instance.id.clone(),
                state,
                address: Some([127, 0, 0, 1].into()),
                port: Some(20_000 + *port),
                exit: None,
                restarts: 0,
                spawn_ms: None,
                ready_ms: None,
            };
            self.push(&at.node, node, seen);
        }
        Ok(Assigned::Accepted)
    }

    async fn inventory(&self, at: &ExecutorAt) -> Result<Inventory, ExecutorError> {
        self.is_deaf(at)?;
        let mut fleet = self.fleet.lock().unwrap();
        let node = fleet.nodes.entry(at.node.clone()).or_default();
        Ok(Inventory {
            node: at.node.clone(),
            epoch: node.epoch,
            generation: node.generation,
            seq: node.seq,
            instances: node.seen.values().cloned().collect(),
        })
    }

    async fn events(&self, at: &ExecutorAt, after: u64) -> Result<Events, ExecutorError> {
        let pushed = self.pushed.subscribe();
        self.is_deaf(at)?;
        let node = at.node.clone();
        // What was pushed between inventory and subscription is a gap that the first beat shows.
        let now = self.fleet.lock().unwrap().nodes.get(&node).map_or(0, |n| n.seq);
        let first = ExecutorEvent { seq: now.max(after), seen: None };
        let beats =
            futures_util::stream::unfold((pushed, node, now), |(mut rx, node, last)| async move {
                loop {
                    match tokio::time::timeout(Duration::from_secs(1), rx.recv()).await {
                        Ok(Ok((from, event))) if from == node && event.seq > 0 => {
                            let seq = event.seq;
                            return Some((Ok(event), (rx, node, seq)));
                        }
                        Ok(Ok((from, _deafened))) if from == node => return None,
                        Ok(Ok(_other_node)) => {}
                        Ok(Err(_closed)) => return None,
                        Err(_quiet) => {
                            let beat = ExecutorEvent { seq: last, seen: None };
                            return Some((Ok(beat), (rx, node, last)));
                        }
                    }
                }
            });
        Ok(futures_util::stream::iter([Ok(first)]).chain(beats).boxed())
    }

    async fn logs(
        &self,
        _at: &ExecutorAt,
        instance: &InstanceId,
        lines: usize,
    ) -> Result<Logs, ExecutorError> {
        let lines = (0..lines.min(3)).map(|n| format!("line {n}")).collect();
        Ok(Logs { instance: instance.clone(), lines })
    }
}

/// A machine-manager with one answer.
#[derive(Default)]
pub struct TestPlacements {
    /// Where everything goes; empty: nothing fits the cap.
    pub nodes: Mutex<Vec<NodeId>>,
    /// Minimums refused.
    pub refuse: Mutex<bool>,
    /// Questions so far.
    pub asked: Mutex<u32>,
}

#[async_trait]
impl Placements for TestPlacements {
    async fn ask(&self, request: &PlacementRequest) -> Result<PlacementAnswer, PeerError> {
        *self.asked.lock().unwrap() += 1;
        let nodes = self.nodes.lock().unwrap();
        let mut answer = PlacementAnswer::default();
        for wanted in &request.wanted {
            let instance = wanted.instance.clone();
            match nodes.iter().find(|node| !wanted.not_on.contains(node)) {
                Some(node) => answer.granted.push(Granted { instance, node: node.clone() }),
                None => answer.waiting.push(WaitingStart {
                    instance,
                    why: Why::Cap,
                    node: None,
                    eta_ms: None,
                    needs_micros: Some(40_000),
                    until: None,
                    detail: "needs 0.04 EUR more".to_owned(),
                }),
            }
        }
        for stops in &request.stops {
            let last = stops.candidates.iter().rev().take(stops.count as usize);
            answer.stops.extend(last.cloned());
        }
        Ok(answer)
    }

    async fn admit(
        &self,
        _request: &AdmissionRequest,
    ) -> Result<Option<AdmissionAnswer>, PeerError> {
        let admitted = !*self.refuse.lock().unwrap();
        let detail = "needs 12.00 EUR more until the month's end".to_owned();
        Ok(Some(AdmissionAnswer { admitted, needs_micros: None, detail }))
    }

    async fn pass(
        &self,
        method: Method,
        path: &str,
        _headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, PeerError> {
        let text = format!("{method} {path} {}", String::from_utf8_lossy(&body));
        Ok(Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: text.into() })
    }
}

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
        let role = Role::MachineManager;
        let lease = self.registry.take_lease(role, "mm", PATIENCE).await.unwrap().unwrap();
        let nodes = vec![node(id, self.clock.now())];
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
