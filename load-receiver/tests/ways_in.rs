//! The role as its senders see it: HTTP, datagrams and a unix socket in, the board behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use async_trait::async_trait;
use chassis::{Identity, Listen, Metrics, PeerUrl, Readiness, Shutdown, SystemClock};
use domain::{
    Ability, BalancerId, Clock, Demand, InstanceId, LoadReport, LoadSource, RouteGen, RouteTable,
    ServiceFront, ServiceName, Terms,
};
use load_receiver::{Config, Deps, run};
use scoreboard::testing::{PATIENCE, front, instance, routes, service};
use scoreboard::{Board, BoardError, BoardView, Changes, MemoryBoard, ServiceView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// A board in memory that can be taken away.
struct Board1 {
    inner: MemoryBoard,
    away: AtomicBool,
    writes: AtomicUsize,
}

impl Board1 {
    fn here(&self, doing: &'static str) -> Result<(), BoardError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(BoardError::Deadline { doing, limit: Duration::ZERO });
        }
        Ok(())
    }
}

#[async_trait]
impl Board for Board1 {
    async fn publish_front(&self, front: &ServiceFront) -> Result<(), BoardError> {
        self.inner.publish_front(front).await
    }
    async fn remove_service(&self, service: &ServiceName) -> Result<(), BoardError> {
        self.inner.remove_service(service).await
    }
    async fn publish_routes(
        &self,
        service: &ServiceName,
        routes: &RouteTable,
    ) -> Result<RouteGen, BoardError> {
        self.inner.publish_routes(service, routes).await
    }
    async fn record(&self, reports: &[LoadReport]) -> Result<usize, BoardError> {
        self.here("record")?;
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.inner.record(reports).await
    }
    async fn forget(&self, instances: &[InstanceId]) -> Result<(), BoardError> {
        self.inner.forget(instances).await
    }
    async fn write_demand(
        &self,
        balancer: &BalancerId,
        demand: &[(ServiceName, Demand)],
    ) -> Result<(), BoardError> {
        self.inner.write_demand(balancer, demand).await
    }
    async fn demand(
        &self,
    ) -> Result<BTreeMap<ServiceName, Vec<(BalancerId, Demand, Duration)>>, BoardError> {
        self.inner.demand().await
    }
    async fn write_ability(
        &self,
        balancer: &BalancerId,
        ability: &Ability,
    ) -> Result<(), BoardError> {
        self.inner.write_ability(balancer, ability).await
    }
    async fn abilities(&self) -> Result<BTreeMap<BalancerId, Ability>, BoardError> {
        self.inner.abilities().await
    }
    async fn write_terms(&self, terms: &[(InstanceId, Terms)]) -> Result<(), BoardError> {
        self.inner.write_terms(terms).await
    }
    async fn terms(&self) -> Result<BTreeMap<InstanceId, Terms>, BoardError> {
        self.inner.terms().await
    }
    async fn service(&self, service: &ServiceName) -> Result<ServiceView, BoardError> {
        self.here("read")?;
        self.inner.service(service).await
    }
    async fn view(&self) -> Result<BoardView, BoardError> {
        self.here("read")?;
        self.inner.view().await
    }
    fn watch(&self) -> Changes {
        self.inner.watch()
    }
    async fn ping(&self) -> Result<(), BoardError> {
        self.here("ping")
    }
}

struct Role {
    board: Arc<Board1>,
    identity: Arc<Identity>,
    address: SocketAddr,
    socket: std::path::PathBuf,
    shutdown: Shutdown,
    done: tokio::task::JoinHandle<()>,
    http: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl Role {
    async fn start() -> Role {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let board = Arc::new(Board1 {
            inner: MemoryBoard::new(Arc::clone(&clock)),
            away: AtomicBool::new(false),
            writes: AtomicUsize::new(0),
        });
        board.publish_front(&front("shop")).await.unwrap();
        board.publish_routes(&service("shop"), &routes("shop", "1.1", 3)).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("load.sock");
        let tcp = Listen::Tcp(([127, 0, 0, 1], 0).into());
        let (tcp, udp) = load_receiver::bind(&tcp).await.unwrap();
        let (unix, none) = load_receiver::bind(&Listen::Unix(socket.clone())).await.unwrap();
        assert!(none.is_none());
        let Listen::Tcp(address) = tcp.local() else { panic!("bound to TCP") };
        let udp = udp.unwrap();
        assert_eq!(udp.local_addr().unwrap(), address, "one port for both");
        let identity = Arc::new(Identity::generate());
        let deps = Deps {
            board: Arc::clone(&board) as Arc<dyn Board>,
            clock,
            identity: Arc::clone(&identity),
            listeners: vec![tcp, unix],
            sockets: vec![udp],
            agents: Vec::new(),
            metrics: Metrics::new(),
            readiness: Readiness::new(),
        };
        let shutdown = Shutdown::new();
        let done = tokio::spawn(run(Config::default(), deps, shutdown.clone()));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let role = Role { board, identity, address, socket, shutdown, done, http, _dir: dir };
        role.until("ready", async || role.get("/readyz").await.0 == 200).await;
        role
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.http.get(format!("http://{}{path}", self.address)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn post(&self, body: impl Into<reqwest::Body>, token: Option<&str>) -> (u16, Value) {
        let mut request = self.http.post(format!("http://{}/v1/load", self.address)).body(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn until(&self, what: &str, mut check: impl AsyncFnMut() -> bool) {
        let wait = async {
            while !check().await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    async fn load_of(&self, instance: &InstanceId) -> Option<u16> {
        let view = self.board.inner.service(&instance.service()).await.unwrap();
        let reading = view.loads.into_iter().find(|l| l.report.instance == *instance);
        reading.map(|l| l.report.load.ten_thousandths())
    }

    async fn until_load(&self, instance: &InstanceId, load: u16) {
        self.until("the load is on the board", async || self.load_of(instance).await == Some(load))
            .await;
    }

    async fn counted(&self, result: &str) -> u64 {
        let text = self.get("/metrics").await.1;
        let start = format!("tally_load_reports_total{{result=\"{result}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.map_or(0, |n| n.parse().unwrap())
    }
}

fn json_report(n: u32, load: f64) -> Value {
    json!({"service": "shop", "instance": instance("shop", n), "load": load})
}

#[tokio::test]
async fn a_post_reaches_the_board() {
    let role = Role::start().await;
    let (status, answer) = role.post(json_report(1, 0.42).to_string(), None).await;
    assert_eq!((status, answer), (202, json!({"accepted": 1, "rejected": []})));
    role.until_load(&instance("shop", 1), 4_200).await;
    assert_eq!(role.counted("accepted").await, 1);
    let (status, _) = role.post(json_report(1, 7.0).to_string(), None).await;
    assert_eq!((status, role.counted("clipped").await), (202, 1));
    role.until_load(&instance("shop", 1), 40_000).await;
}

#[tokio::test]
async fn a_batch_is_taken_in_part_and_says_what_was_not() {
    let role = Role::start().await;
    let reports = json!({"reports": [
        json_report(1, 0.5), json_report(1, -1.0), json_report(9, 0.5), {"load": true}, json_report(2, 0.6),
    ]});
    let (status, answer) = role.post(reports.to_string(), None).await;
    assert_eq!((status, answer["accepted"].as_u64()), (202, Some(2)));
    let places: Vec<_> =
        answer["rejected"].as_array().unwrap().iter().map(|r| r["index"].as_u64()).collect();
    assert_eq!(places, [Some(1), Some(2), Some(3)]);
    role.until_load(&instance("shop", 2), 6_000).await;
    for (result, count) in
        [("accepted", 2), ("insane", 1), ("unknown_instance", 1), ("unreadable", 1)]
    {
        assert_eq!(role.counted(result).await, count, "{result}");
    }
    let refused = json!({"reports": [json_report(9, 0.5), json_report(1, 101.0)]});
    let (status, problem) = role.post(refused.to_string(), None).await;
    assert_eq!((status, problem["type"].as_str()), (422, Some("/problems/invalid")));
    assert_eq!(problem["errors"][1]["pointer"], "/reports/1");
    assert_eq!(problem["rejected"][0]["index"], 0);
    assert_eq!(role.load_of(&instance("shop", 9)).await, None, "it never reaches the board");
}

#[tokio::test]
async fn tokens_are_looked_at_wherever_they_stand() {
    let role = Role::start().await;
    let token = |n| role.identity.load_token(&service("shop"), &instance("shop", n));
    // Not routed yet, but its token is right.
    let (status, _) = role.post(json_report(8, 0.1).to_string(), Some(&token(8))).await;
    assert_eq!(status, 202);
    let (status, problem) = role.post(json_report(1, 0.1).to_string(), Some(&token(8))).await;
    assert_eq!((status, problem["errors"][0]["pointer"].as_str()), (422, Some("")));
    let mut own = json_report(7, 0.2);
    own["token"] = json!(token(7));
    own["source"] = json!("cgroup");
    let (status, _) = role.post(json!({"reports": [own]}).to_string(), None).await;
    assert_eq!(status, 202);
    // The service speaks for itself by now, so that its control groups are not asked.
    assert_eq!(role.counted("outranked").await, 1);
    role.until_load(&instance("shop", 8), 1_000).await;
    assert_eq!(role.load_of(&instance("shop", 7)).await, None);
    let wrong = role.http.post(format!("http://{}/v1/load", role.address));
    let wrong = wrong.header("authorization", "Basic x").body("{}").send().await.unwrap();
    assert_eq!(wrong.status(), 401);
}

#[tokio::test]
async fn replays_are_refused_and_counted() {
    let role = Role::start().await;
    let mut report = json_report(1, 0.5);
    report["seq"] = json!(5);
    assert_eq!(role.post(report.to_string(), None).await.0, 202);
    report["load"] = json!(0.9);
    assert_eq!(role.post(report.to_string(), None).await.0, 422);
    assert_eq!(role.counted("replay").await, 1);
    role.until_load(&instance("shop", 1), 5_000).await;
}

#[tokio::test]
async fn datagrams_and_unix_sockets_are_ways_in() {
    let role = Role::start().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let token = role.identity.load_token(&service("shop"), &instance("shop", 8));
    let lines = format!(
        "shop/{} 0.31 in_flight=3 seq=1\nshop/{} 0.32 token={token}\nnonsense\n",
        instance("shop", 1),
        instance("shop", 8)
    );
    socket.send_to(lines.as_bytes(), role.address).await.unwrap();
    role.until_load(&instance("shop", 1), 3_100).await;
    role.until_load(&instance("shop", 8), 3_200).await;
    assert_eq!((role.counted("accepted").await, role.counted("unreadable").await), (2, 1));

    let peer = chassis::Client::new(PeerUrl::Unix(role.socket.clone()));
    let answer: Value = peer.post("/v1/load", &json_report(2, 0.33), PATIENCE).await.unwrap();
    assert_eq!(answer["accepted"], 1);
    role.until_load(&instance("shop", 2), 3_300).await;
}

#[tokio::test]
async fn bodies_have_bounds() {
    let role = Role::start().await;
    let (status, _) = role.post(vec![b' '; load_receiver::decode::BODY_BYTES_MAX + 1], None).await;
    assert_eq!(status, 413);
    let many =
        format!("{{\"reports\": [{}0]}}", "0,".repeat(load_receiver::decode::BATCH_REPORTS_MAX));
    assert_eq!(role.post(many, None).await.0, 413);
    assert_eq!(role.post("nonsense", None).await.0, 400);
    assert_eq!(role.get("/livez").await.0, 200);
}

#[tokio::test]
async fn many_reports_are_few_writes() {
    let role = Role::start().await;
    let before = role.board.writes.load(Ordering::SeqCst);
    let reports: Vec<_> = (0..2_000).map(|n| json_report(n % 3, f64::from(n) / 10_000.0)).collect();
    let (status, answer) = role.post(json!({"reports": reports}).to_string(), None).await;
    assert_eq!((status, answer["accepted"].as_u64()), (202, Some(2_000)));
    role.until_load(&instance("shop", 1), 1_999).await;
    let writes = role.board.writes.load(Ordering::SeqCst) - before;
    assert!(writes < 200, "{writes} writes");
}

#[tokio::test]
async fn while_the_board_is_away_the_newest_report_is_kept() {
    let role = Role::start().await;
    role.board.away.store(true, Ordering::SeqCst);
    for load in [0.1, 0.2, 0.3] {
        assert_eq!(role.post(json_report(1, load).to_string(), None).await.0, 202);
    }
    role.until("not ready", async || role.get("/readyz").await.0 == 503).await;
    assert_eq!(role.load_of(&instance("shop", 1)).await, None);
    role.board.away.store(false, Ordering::SeqCst);
    role.until_load(&instance("shop", 1), 3_000).await;
    role.until("ready again", async || role.get("/readyz").await.0 == 200).await;
}

#[tokio::test]
async fn the_end_loses_nothing_that_was_taken() {
    let role = Role::start().await;
    assert_eq!(role.post(json_report(2, 0.77).to_string(), None).await.0, 202);
    role.shutdown.start();
    timeout(PATIENCE, role.done).await.expect("it ends").unwrap();
    let view = role.board.inner.service(&service("shop")).await.unwrap();
    assert_eq!(view.loads.len(), 1);
    assert_eq!(view.loads[0].report.source, LoadSource::Pushed);
}
