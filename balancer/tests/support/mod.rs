//! A balancer on free ports, back ends made by hand, a client that sees every byte.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use async_trait::async_trait;
use balancer::{Balancer, Config, Deps};
use chassis::{Client, Listen, Shutdown, SystemClock};
use domain::{
    Ability, BalancerId, Demand, Epoch, Generation, HashRule, Health, Hold, InstanceId, LoadReport,
    PolicyName, Revision, RouteEntry, RouteGen, RouteMode, RouteState, RouteTable, ServiceFront,
    ServiceName, Terms,
};
use scoreboard::{Board, BoardError, BoardView, Changes, MemoryBoard, ServiceView};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Nothing in these tests takes this long unless it never comes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a state.
pub async fn until<F: Future<Output = bool>>(what: &str, mut state: impl FnMut() -> F) {
    let waiting = async {
        while !state().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}

/// A board that can be lost.
pub struct FlakyBoard {
    pub inner: MemoryBoard,
    pub lost: AtomicBool,
    pub reads: AtomicUsize,
}

impl FlakyBoard {
    fn there(&self) -> Result<&MemoryBoard, BoardError> {
        if self.lost.load(Relaxed) {
            let limit = Duration::ZERO;
            return Err(BoardError::Deadline { doing: "anything at all", limit });
        }
        Ok(&self.inner)
    }
}

#[async_trait]
impl Board for FlakyBoard {
    async fn publish_front(&self, front: &ServiceFront) -> Result<(), BoardError> {
        self.there()?.publish_front(front).await
    }
    async fn remove_service(&self, service: &ServiceName) -> Result<(), BoardError> {
        self.there()?.remove_service(service).await
    }
    async fn publish_routes(
        &self,
        service: &ServiceName,
        routes: &RouteTable,
    ) -> Result<RouteGen, BoardError> {
        self.there()?.publish_routes(service, routes).await
    }
    async fn record(&self, reports: &[LoadReport]) -> Result<usize, BoardError> {
        self.there()?.record(reports).await
    }
    async fn forget(&self, instances: &[InstanceId]) -> Result<(), BoardError> {
        self.there()?.forget(instances).await
    }
    async fn write_demand(
        &self,
        balancer: &BalancerId,
        demand: &[(ServiceName, Demand)],
    ) -> Result<(), BoardError> {
        self.there()?.write_demand(balancer, demand).await
    }
    async fn demand(
        &self,
    ) -> Result<BTreeMap<ServiceName, Vec<(BalancerId, Demand, Duration)>>, BoardError> {
        self.there()?.demand().await
    }
    async fn write_ability(
        &self,
        balancer: &BalancerId,
        ability: &Ability,
    ) -> Result<(), BoardError> {
        self.there()?.write_ability(balancer, ability).await
    }
    async fn abilities(&self) -> Result<BTreeMap<BalancerId, Ability>, BoardError> {
        self.there()?.abilities().await
    }
    async fn write_terms(&self, terms: &[(InstanceId, Terms)]) -> Result<(), BoardError> {
        self.there()?.write_terms(terms).await
    }
    async fn terms(&self) -> Result<BTreeMap<InstanceId, Terms>, BoardError> {
        self.there()?.terms().await
    }
    async fn service(&self, service: &ServiceName) -> Result<ServiceView, BoardError> {
        self.there()?.service(service).await
    }
    async fn view(&self) -> Result<BoardView, BoardError> {
        self.reads.fetch_add(1, Relaxed);
        self.there()?.view().await
    }
    fn watch(&self) -> Changes {
        self.inner.watch()
    }
    async fn ping(&self) -> Result<(), BoardError> {
        self.there()?.ping().await
    }
}

/// A front of `name` for any host and path.
pub fn front(name: &str) -> ServiceFront {
    ServiceFront {
        service: name.parse().unwrap(),
        hosts: Vec::new(),
        paths: vec!["/".to_owned()],
        mode: RouteMode::Http,
        port: None,
        policy: PolicyName::Feedback,
        hash: HashRule::default(),
        sticky: None,
        probe: None,
        body_max: None,
        hold: Hold::default(),
        // Tests count what comes to their instances: checks come when a test asks for them.
        health: Health { interval: Duration::from_secs(3600), ..Health::default() },
        agent: None,
        concurrency: None,
        max_in_flight: 100,
        slow_start: Duration::ZERO,
        source: None,
        load_balanced: true,
        revision: Revision(1),
        startable: true,
    }
}

/// The n-th instance of `service`.
pub fn id(service: &str, n: usize) -> InstanceId {
    format!("{service}-{n:010}").parse().unwrap()
}

/// A route to the n-th instance.
pub fn ready(service: &str, n: usize, address: SocketAddr) -> RouteEntry {
    RouteEntry {
        instance: id(service, n),
        address,
        state: RouteState::Ready,
        weight: 100,
        max_in_flight: 100,
        revision: Revision(1),
    }
}

/// How a balancer under test is set up.
#[derive(Default)]
pub struct Setup {
    pub save: Option<PathBuf>,
    pub manager: Option<Client>,
    pub board_lost: bool,
    pub workers: usize,
    pub listen: Option<SocketAddr>,
    pub limits: balancer::Limits,
}

/// A running balancer.
pub struct Running {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub board: Arc<FlakyBoard>,
    pub shutdown: Shutdown,
    generation: AtomicU64,
    pub ended: tokio::task::JoinHandle<Result<(), balancer::Error>>,
}

impl Running {
    pub async fn start() -> Running {
        Running::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Running {
        let clock = Arc::new(SystemClock::new());
        let board = Arc::new(FlakyBoard {
            inner: MemoryBoard::new(clock.clone()),
            lost: AtomicBool::new(setup.board_lost),
            reads: AtomicUsize::new(0),
        });
        let mut config = Config::new("b1".parse().unwrap());
        config.listen = vec![setup.listen.unwrap_or(([127, 0, 0, 1], 0).into())];
        config.admin = Some(Listen::Tcp(([127, 0, 0, 1], 0).into()));
        config.workers = if setup.workers == 0 { 2 } else { setup.workers };
        config.save = setup.save;
        config.grace = Duration::from_secs(10);
        config.limits = setup.limits;
        let deps = Deps { board: board.clone(), clock, manager: setup.manager };
        let balancer = Balancer::bind(config, deps).await.unwrap();
        let address = balancer.addresses()[0];
        let Some(Listen::Tcp(admin)) = balancer.admin() else { panic!("admin is on TCP") };
        let shutdown = Shutdown::new();
        let ended = tokio::spawn(balancer.run(shutdown.clone()));
        let generation = AtomicU64::new(0);
        Running { address, admin, board, shutdown, generation, ended }
    }

    /// Publishes a service with ready instances at these addresses, and waits until it is in use.
    pub async fn publish(&self, front: &ServiceFront, addresses: &[SocketAddr]) -> RouteGen {
        let name = front.service.as_str();
        let entries = addresses.iter().enumerate().map(|(n, a)| ready(name, n, *a)).collect();
        self.board.publish_front(front).await.unwrap();
        self.publish_routes(name, entries).await
    }

    /// Publishes a route table of the next generation, and waits until it is in use.
    pub async fn publish_routes(&self, service: &str, entries: Vec<RouteEntry>) -> RouteGen {
        let n = self.generation.fetch_add(1, Relaxed) + 1;
        let generation = RouteGen { epoch: Epoch(1), generation: Generation(n) };
        let service: ServiceName = service.parse().unwrap();
        self.board.publish_routes(&service, &RouteTable { generation, entries }).await.unwrap();
        until("the routes are in use", || async {
            self.demand(service.as_str()).await.is_some_and(|d| d.routes_gen >= generation)
        })
        .await;
        generation
    }

    /// What this balancer says of a service's demand.
    pub async fn demand(&self, service: &str) -> Option<Demand> {
        let service: ServiceName = service.parse().unwrap();
        let all = self.board.inner.demand().await.unwrap();
        all.get(&service)?.iter().map(|(_, demand, _)| demand.clone()).next()
    }

    /// The value of the metric whose line begins so.
    pub async fn metric(&self, line: &str) -> Option<f64> {
        let text = self.ask_admin("/metrics").await.0;
        let found = text.lines().find_map(|l| l.strip_prefix(line));
        found.and_then(|rest| rest.trim().parse().ok())
    }

    /// Asks the admin listener.
    pub async fn ask_admin(&self, path: &str) -> Answer {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        Answer(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    /// Sends bytes on a connection of their own and reads until its end.
    pub async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let reading = tokio::time::timeout(PATIENCE * 2, stream.read_to_end(&mut bytes));
        let _reset_is_an_end_too = reading.await.expect("an answer in time");
        Answer(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Answer(pub String);

impl Answer {
    pub fn status(&self) -> u16 {
        self.0.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }
    pub fn head(&self) -> &str {
        self.0.split_once("\r\n\r\n").map_or("", |(head, _)| head)
    }
    pub fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }
    pub fn has(&self, line: &str) -> bool {
        self.head().lines().any(|l| l.eq_ignore_ascii_case(line))
    }
}

/// An instance made by hand.
pub struct Backend {
    pub address: SocketAddr,
    pub hits: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Backend {
    /// Drives each connection with `talk`.
    pub async fn raw<F, T>(talk: F) -> Backend
    where
        F: Fn(TcpStream, Arc<AtomicUsize>) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hits = Arc::new(AtomicUsize::new(0));
        let counted = hits.clone();
        let task = tokio::spawn(async move {
            let mut talks = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                talks.spawn(talk(stream, counted.clone()));
            }
        });
        Backend { address, hits, task }
    }

    /// Answers each request, read whole, with what `answer` makes of it; keeps connections.
    pub async fn answering<F>(answer: F) -> Backend
    where
        F: Fn(&str) -> String + Send + Sync + 'static,
    {
        let answer = Arc::new(answer);
        Backend::raw(move |mut stream, hits| {
            let answer = answer.clone();
            async move {
                while let Some(request) = read_request(&mut stream).await {
                    hits.fetch_add(1, Relaxed);
                    if stream.write_all(answer(&request).as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// Says its name.
    pub async fn named(name: &'static str) -> Backend {
        Backend::answering(move |_| ok(name)).await
    }

    pub fn hits(&self) -> usize {
        self.hits.load(Relaxed)
    }

    /// Dies: the port is closed and so is every connection.
    pub async fn kill(self) {
        self.task.abort();
        let _aborted = self.task.await;
    }
}

/// A plain answer.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// One request with a `Content-Length` body or none; `None` at the end of the connection.
pub async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |n| n.parse().unwrap()) {
                return Some(text.into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Reads until `text` was seen.
pub async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&bytes).contains(text) {
            let n = stream.read_buf(&mut bytes).await.unwrap();
            assert!(n > 0, "ended after {:?}", String::from_utf8_lossy(&bytes));
        }
    };
    assert!(tokio::time::timeout(PATIENCE, reading).await.is_ok(), "never: {text:?}");
    String::from_utf8_lossy(&bytes).into_owned()
}
