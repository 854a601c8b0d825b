//! Services' loads as others read them: by HTTP, and by the real `HAProxy` as its agent.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

use chassis::{Identity, Listen, Listener, Metrics, Readiness, Shutdown, SystemClock};
use domain::{Clock, Demand, RouteState, Terms};
use load_receiver::{AgentDoor, Config, Deps, run};
use scoreboard::testing::{PATIENCE, front, instance, report, routes, service};
use scoreboard::{Board, MemoryBoard};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use wire::total::ServiceLoad;

struct Role {
    board: Arc<MemoryBoard>,
    http: SocketAddr,
    agent: SocketAddr,
    shutdown: Shutdown,
    done: tokio::task::JoinHandle<()>,
}

impl Role {
    /// Two instances of `shop`, at 0.2 and 0.6.
    async fn start(meant: Option<&str>) -> Role {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let board = Arc::new(MemoryBoard::new(Arc::clone(&clock)));
        board.publish_front(&front("shop")).await.unwrap();
        let mut table = routes("shop", "1.1", 2);
        table.entries.iter_mut().for_each(|entry| entry.state = RouteState::Ready);
        board.publish_routes(&service("shop"), &table).await.unwrap();
        let reports =
            [report(&instance("shop", 0), 2000, None), report(&instance("shop", 1), 6000, None)];
        board.record(&reports).await.unwrap();
        let http = Listener::bind(&Listen::Tcp(([127, 0, 0, 1], 0).into())).await.unwrap();
        let Listen::Tcp(address) = http.local() else { panic!("bound to TCP") };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agent = listener.local_addr().unwrap();
        let deps = Deps {
            board: Arc::clone(&board) as Arc<dyn Board>,
            clock,
            identity: Arc::new(Identity::generate()),
            listeners: vec![http],
            sockets: Vec::new(),
            agents: vec![AgentDoor { listener, service: meant.map(|name| name.parse().unwrap()) }],
            metrics: Metrics::new(),
            readiness: Readiness::new(),
        };
        let shutdown = Shutdown::new();
        let done = tokio::spawn(run(Config::default(), deps, shutdown.clone()));
        Role { board, http: address, agent, shutdown, done }
    }

    /// What an agent's asker gets that sends `name`.
    async fn line(&self, name: &str) -> String {
        let mut stream = TcpStream::connect(self.agent).await.unwrap();
        stream.write_all(name.as_bytes()).await.unwrap();
        let mut line = String::new();
        stream.read_to_string(&mut line).await.unwrap();
        line
    }

    async fn end(self) {
        self.shutdown.start();
        self.done.await.unwrap();
    }
}

async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never: {what}");
}

#[tokio::test]
async fn a_services_load_is_told_over_http() {
    let role = Role::start(None).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/v1/load", role.http);
    let told = async |query: &str, header: Option<(&str, &str)>| {
        let mut request = http.get(format!("{url}{query}"));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let mut demand = Demand { rps_milli: 12_500, queued: 0, ..Demand::default() };
    demand.in_flight.insert(instance("shop", 0), 3);
    let balancer = "b-1".parse().unwrap();
    role.board.write_demand(&balancer, &[(service("shop"), demand)]).await.unwrap();
    let (status, body) = told("?service=shop", None).await;
    let document: ServiceLoad = serde_json::from_str(&body).unwrap();
    assert_eq!((status, document.load, document.ready), (200, Some(0.4), 2));
    assert_eq!((document.in_flight, document.rps, document.reporting), (6, 12.5, 2));
    let text =
        "TEXT application_utilization=0.4,rps_fractional=12.5,eps=0,named_metrics.in_flight=6\n";
    let accept = Some(("accept", "text/plain"));
    assert_eq!(told("?service=shop", accept).await, (200, text.to_owned()));
    let format = Some(("endpoint-load-metrics-format", "JSON"));
    assert!(told("?service=shop", format).await.1.starts_with("JSON {"));
    for (query, status) in
        [("", 400), ("?service=No", 400), ("?servic=shop", 400), ("?service=gone", 404)]
    {
        let (got, body) = told(query, None).await;
        assert_eq!(got, status, "{query}: {body}");
        assert!(body.contains("/problems/"), "{body}");
    }
    role.end().await;
}

#[tokio::test]
async fn askers_name_a_service_or_mean_the_only_one() {
    let role = Role::start(None).await;
    for name in ["shop\n", "shop\r\n", ""] {
        assert_eq!(role.line(name).await, "60% up maxconn:20\n", "{name:?}");
    }
    assert_eq!(role.line("gone\n").await, "");
    assert_eq!(role.line("No Name\n").await, "");
    role.board.publish_front(&front("cart")).await.unwrap();
    assert_eq!(role.line("").await, "", "there are two now");
    assert_eq!(role.line("cart\n").await, "100% up\n", "its first request starts it");
    role.end().await;
    let role = Role::start(Some("shop")).await;
    role.board.publish_front(&front("cart")).await.unwrap();
    assert_eq!(role.line("").await, "60% up maxconn:20\n");
    role.end().await;
}

/// A running `HAProxy` with one server whose agent we are.
struct Haproxy {
    child: Child,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Haproxy {
    fn start(server: SocketAddr, agent: SocketAddr) -> Option<Haproxy> {
        let program = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"]
            .into_iter()
            .find(|p| Path::new(p).exists());
        let Some(program) = program else {
            println!("SKIPPED: haproxy_follows_the_load: haproxy is not installed");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("stats.sock");
        let front = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let configuration = format!(
            "global\n  stats socket {} mode 600 level admin\n  maxconn 64\n\
             defaults\n  mode http\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n\
             frontend door\n  bind {front}\n  default_backend tally\n\
             backend tally\n  server first {server} weight 100 check inter 100ms agent-check agent-addr {} \
             agent-port {} agent-inter 100ms agent-send \"shop\\n\"\n",
            socket.display(),
            agent.ip(),
            agent.port()
        );
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, configuration).unwrap();
        let child = Command::new(program)
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Haproxy { child, socket, _dir: dir })
    }

    async fn ask(&self, command: &str) -> String {
        let Ok(mut stream) = UnixStream::connect(&self.socket).await else { return String::new() };
        let mut answer = String::new();
        if stream.write_all(format!("{command}\n").as_bytes()).await.is_ok() {
            let _broken_off = stream.read_to_string(&mut answer).await;
        }
        answer.trim().to_owned()
    }

    /// Weight, status and bound of our server, as the statistics show them.
    async fn server(&self) -> Option<(String, String, String)> {
        let table = self.ask("show stat").await;
        let names: Vec<&str> = table.lines().next()?.trim_start_matches("# ").split(',').collect();
        let line = table.lines().find(|line| line.starts_with("tally,first,"))?;
        let of = |name: &str| {
            let place = names.iter().position(|n| *n == name)?;
            line.split(',').nth(place).map(str::to_owned)
        };
        Some((of("weight")?, of("status")?, of("slim")?))
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

#[tokio::test]
async fn haproxy_follows_the_load() {
    let role = Role::start(None).await;
    let Some(haproxy) = Haproxy::start(role.http, role.agent) else { return };
    let shows = async |weight: &str, status: &str, bound: &str| {
        let seen = haproxy.server().await;
        seen == Some((weight.to_owned(), status.to_owned(), bound.to_owned()))
    };
    until("60 % of 100", async || shows("60", "UP", "20").await).await;
    let full = [report(&instance("shop", 0), 9000, None), report(&instance("shop", 1), 9000, None)];
    role.board.record(&full).await.unwrap();
    until("10 % of 100", async || shows("10", "UP", "20").await).await;
    role.board.write_terms(&[(instance("shop", 1), Terms::NOTHING_NEW)]).await.unwrap();
    until("half the bound", async || shows("10", "UP", "10").await).await;
    let mut never = front("shop");
    never.startable = false;
    role.board.publish_front(&never).await.unwrap();
    role.board.publish_routes(&service("shop"), &routes("shop", "1.2", 0)).await.unwrap();
    let status = async || haproxy.server().await.map(|(_, status, _)| status).unwrap_or_default();
    until("down", async || status().await.starts_with("DOWN")).await;
    role.board.publish_front(&front("shop")).await.unwrap();
    until("up again", async || status().await == "UP").await;
    role.end().await;
}
