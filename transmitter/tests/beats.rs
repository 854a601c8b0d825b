//! The role as its peers see it: a busy process on one side, manager and receiver on the other.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use chassis::{Listen, Listener, Metrics, PeerUrl, Readiness, ServerLimits, Shutdown, SystemClock};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;
use transmitter::{Config, Deps, run};

/// Longest wait for a state: met at once if right, and a loaded machine is slow.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
struct Peer {
    got: Arc<Mutex<Vec<(String, Value)>>>,
    deaf: Arc<AtomicBool>,
}

impl Peer {
    async fn start(&self, shutdown: &Shutdown) -> PeerUrl {
        let take = async |State(peer): State<Peer>, headers: HeaderMap, body: String| {
            if peer.deaf.load(Ordering::SeqCst) {
                return (StatusCode::SERVICE_UNAVAILABLE, String::new());
            }
            let token = headers.get("authorization").map(|v| v.to_str().unwrap().to_owned());
            let body = serde_json::from_str(&body).unwrap();
            peer.got.lock().unwrap().push((token.unwrap_or_default(), body));
            (StatusCode::ACCEPTED, json!({"accepted": 1, "rejected": []}).to_string())
        };
        let router = Router::new()
            .route("/v1/stats", post(take))
            .route("/v1/load", post(take))
            .with_state(self.clone());
        let listener = Listener::bind(&Listen::Tcp(([127, 0, 0, 1], 0).into())).await.unwrap();
        let url = format!("http://{}", listener.local()).parse().unwrap();
        let ending = shutdown.clone();
        tokio::spawn(async move {
            chassis::serve(listener, router, ServerLimits::default(), &ending).await;
        });
        url
    }

    async fn until(&self, what: &str, mut check: impl FnMut(&[(String, Value)]) -> bool) {
        let wait = async {
            while !check(&self.got.lock().unwrap().clone()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}

struct Busy(Child);

impl Drop for Busy {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn write(data: &Path, instances: &Value) {
    std::fs::create_dir_all(data.join("node")).unwrap();
    std::fs::write(data.join("draft"), json!({"instances": instances}).to_string()).unwrap();
    std::fs::rename(data.join("draft"), data.join("node/instances.json")).unwrap();
}

fn entry(n: u32, pid: u32, source: &str) -> Value {
    json!({"id": format!("shop-{n:010}"), "service": "shop", "pid": pid, "load_source": source,
        "load_token": format!("token-{n}"), "limits": {"cpu_millis": 500, "memory_bytes": 1 << 26}})
}

struct Role {
    shutdown: Shutdown,
    manager: Peer,
    receiver: Peer,
    data: tempfile::TempDir,
    metrics: Metrics,
    done: tokio::task::JoinHandle<()>,
}

impl Role {
    async fn start() -> Role {
        let shutdown = Shutdown::new();
        let (manager, receiver) = (Peer::default(), Peer::default());
        let (data, metrics) = (tempfile::tempdir().unwrap(), Metrics::new());
        let deps = Deps {
            clock: Arc::new(SystemClock::new()),
            node: "n-0123456789".parse().unwrap(),
            node_secret: "secret".to_owned(),
            data: data.path().to_owned(),
            stats: manager.start(&shutdown).await,
            load: receiver.start(&shutdown).await,
            metrics: metrics.clone(),
            readiness: Readiness::new(),
        };
        let done = tokio::spawn(run(Config::default(), deps, shutdown.clone()));
        Role { shutdown, manager, receiver, data, metrics, done }
    }
}

#[tokio::test]
async fn a_busy_instance_is_told_to_both_peers() {
    let Role { shutdown, manager, receiver, data, metrics, done } = Role::start().await;
    manager
        .until("the node is measured", |got| {
            got.iter().any(|(token, body)| {
                let measure = &body["measure"];
                let sane = measure["memory_bytes"].as_u64() > Some(0);
                token == "Bearer secret" && body["node"] == "n-0123456789" && sane
            })
        })
        .await;

    let busy = Busy(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap());
    let list = json!([entry(1, busy.0.id(), "auto"), entry(2, busy.0.id(), "pushed")]);
    write(data.path(), &list);
    receiver
        .until("its load is told", |got| {
            let reports = got.iter().flat_map(|(_, body)| body["reports"].as_array().unwrap());
            let mut reports = reports.filter(|r| r["instance"] == "shop-0000000001");
            reports.any(|r| {
                let right = r["source"] == "cgroup" && r["token"] == "token-1";
                right && r["load"].as_f64() > Some(0.2)
            })
        })
        .await;
    manager
        .until("it is measured", |got| {
            got.iter().any(|(_, body)| {
                let instances = body["instances"].as_array().unwrap();
                instances.len() == 2
                    && instances[0]["cpu_millis"].as_u64() > Some(100)
                    && instances[0]["memory_bytes"].as_u64() > Some(0)
            })
        })
        .await;

    // A peer that is away for a while hears of the present, not of the past.
    manager.deaf.store(true, Ordering::SeqCst);
    let lost = async || {
        let line = "tally_transmitter_dropped_messages_total{what=\"stats\"} ";
        let text = metrics.render();
        text.lines().find_map(|l| l.strip_prefix(line)?.parse::<u64>().ok()).unwrap_or(0)
    };
    let waiting = async {
        while lost().await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("what cannot be sent is dropped and counted");
    write(data.path(), &json!([]));
    receiver.got.lock().unwrap().clear();
    manager.deaf.store(false, Ordering::SeqCst);
    manager
        .until("it hears that nothing runs", |got| {
            got.last().is_some_and(|(_, body)| body["instances"] == json!([]))
        })
        .await;
    let seqs: Vec<u64> = {
        let got = manager.got.lock().unwrap();
        got.iter().map(|(_, body)| body["seq"].as_u64().unwrap()).collect()
    };
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
    let others = receiver.got.lock().unwrap().clone();
    assert!(!others.iter().any(|(_, b)| b.to_string().contains("shop-0000000002")), "not asked");
    shutdown.start();
    timeout(PATIENCE, done).await.expect("it ends").unwrap();
}
