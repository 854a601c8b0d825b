//! The receiver with a real Redis behind it: who shares the board, and a Redis that hangs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use chassis::{Identity, Listen, Metrics, Readiness, Shutdown, SystemClock};
use load_receiver::{Config, Deps, run};
use scoreboard::testing::{PATIENCE, RealClock, TestRedis, front, instance, routes, service};
use scoreboard::{Board, RedisBoard};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A receiver and another role on one Redis.
struct Pair {
    redis: TestRedis,
    other: RedisBoard,
    peer: chassis::Client,
    shutdown: Shutdown,
    done: tokio::task::JoinHandle<()>,
}

fn report(n: u32, load: f64) -> Value {
    json!({"service": "shop", "instance": instance("shop", n), "load": load})
}

impl Pair {
    async fn start(test: &str) -> Option<Pair> {
        let redis = TestRedis::own(test)?;
        let open = || RedisBoard::connect(redis.url(), Arc::new(RealClock::default())).unwrap();
        let (ours, other) = (Arc::new(open()), open());
        other.publish_front(&front("shop")).await.unwrap();
        other.publish_routes(&service("shop"), &routes("shop", "1.1", 3)).await.unwrap();
        let tcp = Listen::Tcp(([127, 0, 0, 1], 0).into());
        let (listener, socket) = load_receiver::bind(&tcp).await.unwrap();
        let peer = chassis::Client::new(format!("http://{}", listener.local()).parse().unwrap());
        let deps = Deps {
            board: ours,
            clock: Arc::new(SystemClock::new()),
            identity: Arc::new(Identity::generate()),
            listeners: vec![listener],
            sockets: socket.into_iter().collect(),
            agents: Vec::new(),
            metrics: Metrics::new(),
            readiness: Readiness::new(),
        };
        let shutdown = Shutdown::new();
        let done = tokio::spawn(run(Config::default(), deps, shutdown.clone()));
        let pair = Pair { redis, other, peer, shutdown, done };
        let known = async { while pair.post(1, 0.1).await.is_err() {} };
        timeout(PATIENCE, known).await.expect("the receiver knows the service");
        Some(pair)
    }

    async fn post(&self, n: u32, load: f64) -> Result<Value, chassis::PeerError> {
        self.peer.post("/v1/load", &report(n, load), PATIENCE).await
    }

    async fn until_load(&self, n: u32, load: u16) {
        let wait = async {
            loop {
                let view = self.other.service(&service("shop")).await;
                let loads = view.map(|view| view.loads).unwrap_or_default();
                let found = loads.iter().find(|l| l.report.instance == instance("shop", n));
                if found.is_some_and(|l| l.report.load.ten_thousandths() == load) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("the load is on the board");
    }

    async fn end(self) {
        self.shutdown.start();
        timeout(PATIENCE, self.done).await.expect("it ends").unwrap();
    }
}

#[tokio::test]
async fn reports_reach_every_role_that_shares_the_redis_board() {
    let name = "reports_reach_every_role_that_shares_the_redis_board";
    let Some(pair) = Pair::start(name).await else { return };
    let mut changes = pair.other.watch();
    for load in [0.2, 0.3, 0.4] {
        pair.post(1, load).await.unwrap();
        let told = async {
            while changes.next().await.is_some() {
                let view = pair.other.service(&service("shop")).await.unwrap();
                if view.loads.iter().any(|l| (l.report.load.ratio() - load).abs() < 1e-6) {
                    return;
                }
            }
        };
        timeout(PATIENCE, told).await.expect("whoever watches reads the load");
    }
    pair.end().await;
}

#[tokio::test]
async fn a_redis_that_hangs_gets_the_newest_of_each_instance_on_its_return() {
    let name = "a_redis_that_hangs_gets_the_newest_of_each_instance_on_its_return";
    let Some(pair) = Pair::start(name).await else { return };
    pair.until_load(1, 1_000).await;
    pair.redis.signal("STOP");
    // Longer than a call's deadline: writes fail and are tried again, and senders notice nothing.
    let began = tokio::time::Instant::now();
    let mut last = 0;
    while began.elapsed() < 2 * scoreboard::redis::CALL_DEADLINE {
        last += 1;
        for n in [1, 2] {
            let taken = pair.post(n, f64::from(last) / 10_000.0);
            timeout(PATIENCE, taken).await.expect("in time").expect("it is taken");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pair.redis.signal("CONT");
    pair.until_load(1, last).await;
    pair.until_load(2, last).await;
    pair.end().await;
}
