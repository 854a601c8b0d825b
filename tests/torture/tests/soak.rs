//! Mixed traffic for long: memory and descriptors stay flat, and nothing is left in hand.

use scoreboard::testing::TestRedis;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use torture::board::MAX_IN_FLIGHT;
use torture::client::Client;
use torture::front::{Front, Setup};
use torture::honest::{Habits, Honest};
use torture::instance::{Instance, Seen, ok, reset};
use torture::manager::Manager;
use torture::strict::{Kind, Message, Reader};

/// Instances at a time.
const INSTANCES: usize = 4;
/// Body of the larger requests and answers.
const PIECE: usize = 64 << 10;
/// Between two rounds of one kind of traffic.
const PAUSE: Duration = Duration::from_millis(20);
/// Memory at the end against memory after the warm-up: room for an allocator's habits, not for a
/// leak of a hundred bytes a request.
const GROWTH_TIMES: u64 = 120;
const GROWTH_KIB: u64 = 8 << 10;
/// Descriptors that may stay: idle connections to instances.
const DESCRIPTORS: usize = 64;

/// How long to warm up and to go on.
fn spans() -> (Duration, Duration) {
    if torture::long() {
        (Duration::from_secs(120), Duration::from_secs(1080))
    } else {
        (Duration::from_secs(12), Duration::from_secs(48))
    }
}

/// An instance that does as the target says.
async fn instance() -> Instance {
    Instance::raw(|reader, seen, _| talk(reader, seen)).await
}

async fn talk(mut reader: Reader<tokio::net::TcpStream>, _seen: Arc<Seen>) {
    while let Ok(Some(request)) = reader.message(Kind::Request).await {
        if !request.complete {
            return;
        }
        let sent = match request.target().split('-').next().unwrap_or("") {
            "/down" => reader.io.write_all(&chunked(&request)).await,
            "/slow" => {
                sleep(Duration::from_millis(30)).await;
                reader.io.write_all(&ok(&request)).await
            }
            "/die" => {
                let half = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf";
                let _gone = reader.io.write_all(half).await;
                reset(&reader.io);
                return;
            }
            "/switch" => {
                let head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                             upgrade: echo\r\n\r\n";
                let _gone = reader.io.write_all(head).await;
                loop {
                    let ahead = std::mem::take(&mut reader.ahead);
                    if reader.io.write_all(&ahead).await.is_err() || !reader.fill().await {
                        return;
                    }
                }
            }
            _ => reader.io.write_all(&ok(&request)).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

fn chunked(request: &Message) -> Vec<u8> {
    let target = request.target();
    let mut out =
        format!("HTTP/1.1 200 OK\r\nx-for: {target}\r\ntransfer-encoding: chunked\r\n\r\n")
            .into_bytes();
    for _ in 0..8 {
        out.extend_from_slice(format!("{:x}\r\n", PIECE / 8).as_bytes());
        out.resize(out.len() + PIECE / 8, b'x');
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// One round of a kind of traffic; false when what must go well did not.
async fn round(kind: usize, n: u64, front: SocketAddr) -> Result<(), String> {
    let mut client = Client::connect(front).await;
    let status = |answer: &Option<Message>| answer.as_ref().map_or(0, Message::status);
    let mut ask = async |text: String| -> Result<Option<Message>, String> {
        client.send(text).await;
        client.answer(false).await.map_err(|why| why.0)
    };
    match kind {
        0 => {
            let close = "Host: x\r\nConnection: close\r\n\r\n";
            let answer = ask(format!("GET /close-{n} HTTP/1.1\r\n{close}")).await?;
            if status(&answer) == 200 { Ok(()) } else { Err(format!("close: {answer:?}")) }
        }
        1 => {
            let body = format!("{PIECE:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(PIECE));
            let head = "Host: x\r\nTransfer-Encoding: chunked\r\n\r\n";
            let answer = ask(format!("PUT /up-{n} HTTP/1.1\r\n{head}{body}")).await?;
            let whole = answer.as_ref().is_some_and(|a| a.text() == format!("/up-{n} {PIECE}"));
            if whole { Ok(()) } else { Err(format!("up: {answer:?}")) }
        }
        2 => {
            let answer = ask(format!("GET /down-{n} HTTP/1.1\r\nHost: x\r\n\r\n")).await?;
            let whole = answer.as_ref().is_some_and(|a| a.complete && a.body.len() == PIECE);
            if whole { Ok(()) } else { Err(format!("down: {:?}", status(&answer))) }
        }
        3 => switched(client, n).await,
        4 => {
            // Goes away at one moment or another; nobody is told.
            let parts = ["GET /a", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"];
            client.send(parts[usize::from(n.is_multiple_of(2))]).await;
            if n.is_multiple_of(3) {
                reset(&client.reader.io);
            }
            Ok(())
        }
        5 => {
            client.send(format!("GET /down-{n} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            client.reader.fill().await;
            Ok(())
        }
        6 => {
            // Whatever comes, it must not look whole with a status of success.
            let answer = ask(format!("GET /die-{n} HTTP/1.1\r\nHost: x\r\n\r\n")).await?;
            let fooled = answer.as_ref().is_some_and(|a| a.complete && a.status() == 200);
            if fooled { Err(format!("die: {answer:?}")) } else { Ok(()) }
        }
        _ => {
            // One at a time is served; the others are held.
            let answer = ask(format!("GET /slow-{n} HTTP/1.1\r\nHost: held\r\n\r\n")).await?;
            if status(&answer) == 200 { Ok(()) } else { Err(format!("held: {answer:?}")) }
        }
    }
}

async fn switched(mut client: Client, n: u64) -> Result<(), String> {
    let asks = "Host: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    client.send(format!("GET /switch-{n} HTTP/1.1\r\n{asks}")).await;
    let answer = client.any_answer(false).await.map_err(|why| why.0)?;
    if answer.as_ref().map_or(0, Message::status) != 101 {
        return Err(format!("switch: {answer:?}"));
    }
    let word = format!("word {n}");
    client.send(&word).await;
    while client.reader.ahead.len() < word.len() {
        if !client.reader.fill().await {
            return Err("switch: the tunnel ended".to_owned());
        }
    }
    if client.reader.ahead == word.as_bytes() { Ok(()) } else { Err("switch: garbled".to_owned()) }
}

/// Instances replaced one after another, as in a rollout that never ends.
async fn churn(
    mut manager: Manager,
    mut running: VecDeque<Instance>,
    stop: Arc<AtomicBool>,
) -> (u64, VecDeque<Instance>) {
    let addresses =
        |all: &VecDeque<Instance>| all.iter().map(|i| i.address).collect::<Vec<SocketAddr>>();
    let mut replaced = 0;
    while !stop.load(Relaxed) {
        sleep(Duration::from_millis(500)).await;
        running.push_back(instance().await);
        let Some(old) = running.pop_front() else { break };
        manager.publish(&addresses(&running), &[old.address]).await;
        manager.drained(Some(old.address)).await;
        manager.publish(&addresses(&running), &[]).await;
        manager.drained(None).await;
        old.kill().await;
        replaced += 1;
    }
    // They go on until nothing is in hand.
    (replaced, running)
}

/// The service that everything but held requests is for.
async fn shop(redis: &TestRedis) -> (Manager, VecDeque<Instance>) {
    let (mut manager, mut running) = (Manager::new(redis.url(), "torture"), VecDeque::new());
    for _ in 0..INSTANCES {
        running.push_back(instance().await);
    }
    let addresses: Vec<SocketAddr> = running.iter().map(|i| i.address).collect();
    manager.publish_front(MAX_IN_FLIGHT).await;
    manager.publish(&addresses, &[]).await;
    (manager, running)
}

/// Starts every kind of traffic; each tells what went wrong at its end.
fn start(at: SocketAddr, stop: &Arc<AtomicBool>, rounds: &Arc<AtomicU64>) -> JoinSet<Vec<String>> {
    let mut traffic = JoinSet::new();
    for kind in [0, 1, 2, 3, 4, 5, 6, 7, 7, 7] {
        let (stop, rounds) = (Arc::clone(stop), Arc::clone(rounds));
        traffic.spawn(async move {
            let mut wrong = Vec::new();
            for n in 1.. {
                if stop.load(Relaxed) {
                    break;
                }
                if let Err(why) = round(kind, n, at).await {
                    wrong.push(why);
                }
                rounds.fetch_add(1, Relaxed);
                // A failing instance is a rare thing.
                sleep(if kind == 6 { PAUSE * 50 } else { PAUSE }).await;
            }
            wrong
        });
    }
    traffic
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_traffic_leaves_nothing_behind() {
    let Some(redis) = TestRedis::own("soak") else { return };
    let (manager, running) = shop(&redis).await;
    let held = instance().await;
    let mut held_manager = Manager::new(redis.url(), "held");
    held_manager.publish_front_for(1, &["held"]).await;
    held_manager.publish_with(&[held.address], &[], 1).await;
    let setup = Setup { redis: Some(redis.url().to_owned()), ..Setup::default() };
    let front = Front::start(env!("CARGO_BIN_EXE_front"), &setup).await;
    front.serves().await;
    held_manager.drained(None).await;
    let idle_descriptors = front.descriptors();

    let (warm, rest) = spans();
    let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let churning = tokio::spawn(churn(manager, running, Arc::clone(&stop)));
    let load = Honest::start(front.address, Habits { pause: PAUSE / 4, ..Habits::default() });
    let traffic = start(front.address, &stop, &rounds);
    sleep(warm).await;
    let (began, mut after_warm_up) = (Instant::now(), front.resident_kib());
    let mut most = 0;
    while began.elapsed() < rest {
        sleep(Duration::from_secs(2)).await;
        let resident = front.resident_kib();
        if began.elapsed() < warm {
            after_warm_up = after_warm_up.max(resident);
        }
        most = most.max(resident);
    }
    stop.store(true, Relaxed);
    let wrong: Vec<String> = traffic.join_all().await.into_iter().flatten().collect();
    let felt = load.stop().await;
    let (replaced, _running) = churning.await.expect("churn goes on to its end");
    front.is_quiet().await;
    let end = front.resident_kib();
    torture::note(&format!(
        "{:?}: {} honest requests, {} other rounds, {replaced} replacements; memory {after_warm_up} \
         KiB after warm-up, {most} at most, {end} at the end; descriptors {idle_descriptors} before",
        warm + rest,
        felt.sent,
        rounds.load(Relaxed)
    ));
    felt.must_be_whole("soak");
    assert!(wrong.is_empty(), "{} wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    let bound = after_warm_up * GROWTH_TIMES / 100 + GROWTH_KIB;
    assert!(end <= bound && most <= bound + GROWTH_KIB, "{end} KiB, {most} at most; bound {bound}");
    torture::wait::until("the descriptors' return", || {
        let now = front.descriptors();
        let gone = now <= idle_descriptors + DESCRIPTORS;
        std::future::ready(if gone { Ok(()) } else { Err((idle_descriptors, now)) })
    })
    .await;
    let metrics = front.metrics().await;
    let open = metrics.0.get("tally_balancer_connections").copied().unwrap_or(0.0);
    assert!(open < 0.5, "{open} client connections are still counted");
}
