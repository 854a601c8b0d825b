//! A node under test: an executor on a unix socket, a signing manager, services, waiting.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use chassis::peer::Answer;
use chassis::{Client, Identity, Listen, Listener, Metrics, PeerUrl, Readiness, Shutdown};
use chassis::{SystemClock, Verifier};
use domain::{Epoch, Generation, IdSource, InstanceId, NodeId, Revision, ServiceName};
use executor::{Config, Deps, ShimProgram};
use std::future::Future;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;
use wire::assignment::{
    Accepted, AssignedHealth, AssignedInstance, AssignedRun, Assignment, EngineKind, InstanceSeen,
    Inventory, IsolationKind, Limits, RunState, Want,
};
use wire::operation::{Operation, Operations, Verb};

pub const HELPER: &str = env!("CARGO_BIN_EXE_executor-test-helper");
/// Everything waited for happens long before this, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);
const PORTS_PER_NODE: u16 = 40;
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

pub struct Node {
    pub dir: tempfile::TempDir,
    pub id: NodeId,
    pub ports: (u16, u16),
    pub identity: Identity,
    pub generation: AtomicU64,
    pub docker_host: String,
    running: Option<(Shutdown, tokio::task::JoinHandle<Result<(), executor::Error>>)>,
}

impl Node {
    /// A node whose executor does not run yet.
    pub fn new() -> Node {
        // Tests of one file share this process; files, by their process id, hardly ever collide,
        // and a port in use is passed over anyway.
        let slices = 10_000 / PORTS_PER_NODE;
        let pid = u16::try_from(std::process::id() % u32::from(slices)).unwrap();
        let slice = (pid * 7 + NEXT_PORT.fetch_add(1, Ordering::Relaxed)) % slices;
        let first = 20_000 + slice * PORTS_PER_NODE;
        Node {
            dir: tempfile::tempdir().unwrap(),
            id: chassis::RandomIds.node(),
            ports: (first, first + PORTS_PER_NODE - 1),
            identity: Identity::generate(),
            generation: AtomicU64::new(0),
            docker_host: "unix:///nowhere/docker.sock".to_owned(),
            running: None,
        }
    }

    /// A node with a running executor.
    pub async fn started() -> Node {
        let mut node = Node::new();
        node.start().await;
        node
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("executor.sock")
    }

    pub async fn start(&mut self) {
        let clock = Arc::new(SystemClock::new());
        let config = Config {
            node_dir: self.dir.path().join("node"),
            node: self.id.clone(),
            cluster: "test".to_owned(),
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            ports: self.ports.0..=self.ports.1,
            load_url: Some("http://127.0.0.1:7402".to_owned()),
            docker_host: self.docker_host.clone(),
            env: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
        };
        let deps = Deps {
            verifier: Verifier::new(&self.identity.public_key(), self.id.clone(), clock.clone())
                .unwrap(),
            listener: Listener::bind(&Listen::Unix(self.socket())).await.unwrap(),
            clock,
            shim: ShimProgram {
                program: HELPER.into(),
                arguments: vec!["instance-shim".to_owned()],
            },
            metrics: Metrics::new(),
            readiness: Readiness::new(),
        };
        let shutdown = Shutdown::new();
        let task = tokio::spawn(executor::run(config, deps, shutdown.clone()));
        self.running = Some((shutdown, task));
    }

    /// Ends the executor; its instances go on.
    pub async fn end(&mut self) {
        let (shutdown, task) = self.running.take().unwrap();
        shutdown.start();
        task.await.unwrap().unwrap();
    }

    /// Why the executor could not run.
    pub async fn failure(&mut self) -> executor::Error {
        let (_, task) = self.running.take().unwrap();
        tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap().unwrap_err()
    }

    pub fn client(&self) -> Client {
        let epoch = Arc::new(AtomicU64::new(1));
        let clock = Arc::new(SystemClock::new());
        let signer = self.identity.signer(self.id.clone(), epoch, clock);
        self.stranger().with_signer(signer)
    }

    /// A client without a signature.
    pub fn stranger(&self) -> Client {
        Client::new(PeerUrl::Unix(self.socket()))
    }

    /// One call with whatever signature `client` has.
    pub async fn call(client: &Client, method: http::Method, path: &str) -> Option<Answer> {
        let nothing = (http::HeaderMap::new(), bytes::Bytes::new());
        client.call(method, path, nothing.0, nothing.1, DEADLINE).await.ok()
    }

    pub fn assignment(&self, instances: &[AssignedInstance]) -> Assignment {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        Assignment {
            wire: wire::WIRE_VERSION,
            cluster: "test".to_owned(),
            epoch: Epoch(1),
            generation: Generation(generation),
            node: self.id.clone(),
            instances: instances.to_vec(),
        }
    }

    pub async fn assign(&self, instances: &[AssignedInstance]) {
        let assignment = self.assignment(instances);
        let accepted: Accepted =
            self.client().post("/v1/assignment", &assignment, DEADLINE).await.unwrap();
        assert!(accepted.accepted);
    }

    pub async fn inventory(&self) -> Inventory {
        self.client().get("/v1/inventory", DEADLINE).await.unwrap()
    }

    pub async fn seen(&self, id: &InstanceId) -> Option<InstanceSeen> {
        self.inventory().await.instances.into_iter().find(|i| i.instance == *id)
    }

    /// Waits until the instance is in `state`.
    pub async fn until(&self, id: &InstanceId, state: RunState) -> InstanceSeen {
        self.until_seen(id, &format!("{state:?}"), |seen| seen.state == state).await
    }

    pub async fn until_seen(
        &self,
        id: &InstanceId,
        what: &str,
        right: impl Fn(&InstanceSeen) -> bool,
    ) -> InstanceSeen {
        let mut last = None;
        let found = tokio::time::timeout(DEADLINE, async {
            loop {
                last = self.seen(id).await;
                if let Some(seen) = last.clone().filter(&right) {
                    return seen;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        match found {
            Ok(seen) => seen,
            Err(_) => panic!("{id} is never {what}; last seen {last:?}; {:?}", self.done().await),
        }
    }

    /// Waits until the instance is gone.
    pub async fn until_gone(&self, id: &InstanceId) {
        eventually("it is gone", || async { self.seen(id).await.is_none() }).await;
    }

    pub async fn done(&self) -> Vec<Operation> {
        let all: Operations = self.client().get("/v1/operations", DEADLINE).await.unwrap();
        all.items
    }

    pub async fn verbs(&self) -> Vec<Verb> {
        self.done().await.into_iter().map(|o| o.verb).collect()
    }

    /// Stops everything and ends the executor.
    pub async fn down(mut self) {
        self.assign(&[]).await;
        eventually("nothing is left", || async { self.inventory().await.instances.is_empty() })
            .await;
        self.end().await;
    }
}

impl Drop for Node {
    /// A failed test leaves no process behind either.
    fn drop(&mut self) {
        let mark = format!("TALLY_NODE={}", self.id);
        for pid in std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok())
        {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let ours = environ.split(|b| *b == 0).any(|v| v == mark.as_bytes());
            if let Some(pid) = rustix::process::Pid::from_raw(pid).filter(|_| ours) {
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// Waits until `right` says yes.
pub async fn eventually<F, R>(what: &str, right: F)
where
    F: Fn() -> R,
    R: Future<Output = bool>,
{
    let waiting = async {
        while !right().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "never: {what}");
}

/// An instance of the misbehaving service.
pub fn service(name: &str, command: &[&str]) -> AssignedInstance {
    let service: ServiceName = name.parse().unwrap();
    AssignedInstance {
        id: chassis::RandomIds.instance(&service),
        service,
        revision: Revision(1),
        want: Want::Running,
        engine: EngineKind::Process,
        run: AssignedRun {
            command: command.iter().map(|w| (*w).to_owned()).collect(),
            isolation: IsolationKind::None,
            ..AssignedRun::default()
        },
        limits: Limits { cpu_millis: 500, memory_bytes: 256 << 20 },
        health: AssignedHealth { path: None, interval_ms: 100, timeout_ms: 1000, failures: 2 },
        start_deadline_ms: 20_000,
        drain_deadline_ms: 10_000,
        expires_at: None,
        restart: true,
        load_source: "auto".to_owned(),
        load_token: "token-of-it".to_owned(),
    }
}

pub fn server(name: &str) -> AssignedInstance {
    service(name, &[HELPER, "serve", "{port}"])
}

/// Asks an instance for `path`; its body.
pub fn get(seen: &InstanceSeen, path: &str) -> String {
    let address = (seen.address.unwrap(), seen.port.unwrap());
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    let _reset_by_a_crash = stream.read_to_string(&mut text);
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

pub fn pid(seen: &InstanceSeen) -> i32 {
    get(seen, "/pid").parse().unwrap()
}

/// Whether a process runs; one that waits to be collected does not.
pub fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Whether somebody can listen on `port`.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
