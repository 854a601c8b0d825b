//! Slow clients: slowhttptest in all its modes, while honest clients feel nothing.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use system_tests::namespace::Namespace;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use torture::client::Client;
use torture::front::{Front, Setup};
use torture::honest::{Felt, Habits, Honest};
use torture::instance::{Instance, next, ok};
use torture::wait::until_within;

/// Slow connections at once.
const CONNECTIONS: u32 = 400;
/// Requests an instance takes at once, as by default.
const PLACES: u32 = 100;
/// How long each mode goes on.
const SECONDS: u32 = 6;
/// The honest clients' p99 under attack against their quiet p99, and a floor below which noise
/// alone decides on a machine of two cores that also plays the attacker.
const P99_TIMES: u32 = 5;
const P99_FLOOR: Duration = Duration::from_millis(250);
/// Body of an answer: several times what the kernel takes at once for a client that does not read.
/// Ten times more, on hundreds of connections whose both ends are on this machine, and the kernel's
/// memory for sockets is used up: then everybody is slow, and the front door has no part in it.
const LARGE: usize = 160 << 10;

/// The four modes, with their arguments.
const MODES: [(&str, &[&str]); 4] = [
    ("slow headers", &["-H", "-i", "1", "-x", "24", "-t", "GET"]),
    ("slow body", &["-B", "-i", "1", "-s", "1048576", "-x", "24", "-t", "POST"]),
    ("ranges", &["-R", "-a", "10", "-b", "3000", "-t", "HEAD"]),
    ("slow read", &["-X", "-w", "10", "-y", "20", "-n", "1", "-z", "32", "-k", "3"]),
];

fn habits() -> Habits {
    let pause = Duration::from_millis(4);
    Habits { connections: 8, pause, renew_every: 50, ..Habits::default() }
}

async fn instance() -> Instance {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
    let large: Arc<[u8]> = [head.into_bytes(), vec![b'x'; LARGE]].concat().into();
    Instance::raw(move |mut reader, seen, _| {
        let large = Arc::clone(&large);
        async move {
            while let Some(request) = next(&mut reader, &seen).await {
                let is_large = request.target().starts_with("/large") && request.word(0) == "GET";
                let sent = if is_large {
                    reader.io.write_all(&large).await
                } else {
                    reader.io.write_all(&ok(&request)).await
                };
                if sent.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

async fn quiet_felt(front: &Front) -> Felt {
    let load = Honest::start(front.address, habits());
    load.more(2000).await;
    load.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_harm_nobody_else() {
    if !has_slowhttptest("slow_clients").await {
        return;
    }
    let instance = instance().await;
    // A quarter of the attackers: they must not keep the places of those who are served.
    let setup = Setup { to: vec![instance.address], max_in_flight: PLACES, ..Setup::default() };
    let front = Front::start(env!("CARGO_BIN_EXE_front"), &setup).await;
    attacked(front, "http").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_harm_nobody_else_in_mode_tcp() {
    if !has_slowhttptest("slow_clients_in_mode_tcp").await {
        return;
    }
    below_http("tcp").await;
}

/// The kernel's rules are those of the network namespace: this story has one of its own.
#[test]
fn slow_clients_harm_nobody_else_in_mode_nat() {
    const TEST: &str = "slow_clients_in_mode_nat";
    let Some(namespace) = Namespace::new(TEST) else { return };
    namespace.play(true, || async {
        if has_slowhttptest(TEST).await {
            below_http("nat").await;
        }
    });
}

async fn has_slowhttptest(test: &str) -> bool {
    let has = Command::new("slowhttptest").arg("-h").stdout(Stdio::null()).status().await.is_ok();
    if !has {
        torture::skipped(test, "slowhttptest is not installed");
    }
    has
}

/// Where connections are passed on whole, slow ones are the instance's to bear, and honest ones must
/// come to it as quickly as before.
async fn below_http(mode: &'static str) {
    let instance = instance().await;
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = free.local_addr().expect("its address").port();
    drop(free);
    let to = vec![instance.address];
    let setup = Setup { to, mode: Some((mode, port)), ..Setup::default() };
    let front = Front::start(env!("CARGO_BIN_EXE_front"), &setup).await;
    if mode == "nat" {
        until_within(Duration::from_secs(20), "the kernel's rules", || async {
            let writes = front.metrics().await.sum("tally_balancer_nat_writes_total");
            if writes > 0.0 { Ok(()) } else { Err(writes) }
        })
        .await;
    }
    attacked(front, mode).await;
}

async fn attacked(mut front: Front, place: &str) {
    let quiet = quiet_felt(&front).await;
    quiet.must_be_whole("quiet");
    let limit = (quiet.quantile(0.99) * P99_TIMES).max(P99_FLOOR);
    for (mode, arguments) in MODES {
        let url = format!("http://{}/large", front.address);
        let mut attack = Command::new("slowhttptest")
            .args(arguments)
            .args(["-c", &CONNECTIONS.to_string(), "-r", "250", "-p", "3"])
            .args(["-l", &SECONDS.to_string(), "-u", &url])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("slowhttptest starts");
        let load = Honest::start(front.address, habits());
        let ended = tokio::time::timeout(Duration::from_secs(60), attack.wait()).await;
        let felt = load.stop().await;
        assert!(ended.is_ok(), "{place}, {mode}: slowhttptest hangs");
        let (p99, before) = (felt.quantile(0.99), quiet.quantile(0.99));
        torture::note(&format!(
            "{place}, {mode}: honest p99 {p99:?} (quiet {before:?}), {} requests, {} failed",
            felt.sent, felt.failed
        ));
        felt.must_be_whole(mode);
        assert!(p99 <= limit, "{place}, {mode}: p99 {p99:?}, quiet {before:?}");
        assert!(front.runs(), "{place}, {mode}: the front is gone");
        front.is_quiet().await;
    }
}

/// Heads that never end are cut after their time, however steadily they trickle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_trickles_is_cut() {
    let instance = instance().await;
    let front = Front::of(env!("CARGO_BIN_EXE_front"), &[instance.address]).await;
    let mut client = Client::connect(front.address).await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n").await;
    // A client may take long to be refused, but not for ever.
    let client = tokio::sync::Mutex::new(client);
    until_within(Duration::from_secs(60), "the end of the connection", || async {
        let mut client = client.lock().await;
        let sent = client.send("a: b\r\n").await;
        tokio::time::sleep(Duration::from_millis(250)).await;
        let reading = tokio::time::timeout(Duration::from_millis(10), client.reader.fill());
        let ended = !sent || matches!(reading.await, Ok(false));
        if ended { Ok(()) } else { Err("it is still open") }
    })
    .await;
    assert_eq!(instance.seen.requests().len(), 0);
}

/// Idle connections by the thousand cost little, and leave when their clients do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_connections_are_let_go() {
    let instance = instance().await;
    let front = Front::of(env!("CARGO_BIN_EXE_front"), &[instance.address]).await;
    quiet_felt(&front).await.must_be_whole("before");
    let before = front.descriptors();
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(Client::connect(front.address).await);
    }
    quiet_felt(&front).await.must_be_whole("among idle connections");
    drop(idle);
    until_within(Duration::from_secs(30), "the descriptors' return", || {
        let now = front.descriptors();
        std::future::ready(if now <= before + 20 { Ok(()) } else { Err((before, now)) })
    })
    .await;
}

/// When connections are used up, idle ones give way, and what happened is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_connections_holds_and_is_counted() {
    const LIMIT: usize = 100;
    let instance = instance().await;
    let setup = Setup { to: vec![instance.address], connections: LIMIT, ..Setup::default() };
    let front = Front::start(env!("CARGO_BIN_EXE_front"), &setup).await;
    let mut idle = Vec::new();
    for _ in 0..3 * LIMIT {
        let mut client = Client::connect(front.address).await;
        client.send("GET /idle HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let answer = client.answer(false).await.expect("readable").expect("an answer");
        assert_eq!(answer.status(), 200);
        idle.push(client);
    }
    let metrics = front.metrics().await;
    let open = metrics.sum("tally_balancer_connections");
    let evicted = "tally_balancer_connections_ended_total{reason=\"evicted\"}";
    let evicted = metrics.0.get(evicted).copied().unwrap_or(0.0);
    torture::note(&format!("{} of {LIMIT} connections open, {evicted} evicted", open));
    assert!(open <= 100.0, "{open} connections");
    assert!(evicted >= 190.0, "{evicted} evicted");
    assert!((metrics.sum("tally_balancer_connections_limit") - 100.0).abs() < 0.5);
    quiet_felt(&front).await.must_be_whole("at the limit");
}
