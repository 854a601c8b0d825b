//! Whatever runs into a bound of the front door is counted by the bound's name.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use balancer::Limits;
use domain::service::Hold;
use domain::{Bytes, Health, RouteEntry, RouteState};
use scoreboard::Board;
use std::net::SocketAddr;
use std::time::Duration;
use support::{Backend, PATIENCE, Running, Setup, front, ok, read_request, ready, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::quantity::{Q, Span};

/// Connections that send long heads in pieces: at 60 KiB each more than a worker keeps (32 MiB).
const LONG_HEADS: usize = 640;

fn time(millis: u64) -> Q<Span> {
    Q(Span(Duration::from_millis(millis)))
}

async fn times(running: &Running, limit: &str) -> Option<f64> {
    running.metric(&format!("tally_balancer_limited_total{{limit=\"{limit}\"}}")).await
}

async fn once(running: &Running, limit: &str) {
    until(limit, || async { times(running, limit).await >= Some(1.0) }).await;
    assert_eq!(times(running, limit).await, Some(1.0), "{limit}");
}

async fn say(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

#[tokio::test]
async fn each_bound_of_a_request_is_counted_by_its_name() {
    let limits = Limits { body: Q(Bytes(100 << 10)), ..Limits::default() };
    let running = Running::with(Setup { limits, workers: 1, ..Setup::default() }).await;
    let backend = Backend::answering(|_| ok("fine")).await;
    running.publish(&front("shop"), &[backend.address]).await;

    let long = "x".repeat(70 << 10);
    let answer = running.send(&format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {long}\r\n\r\n")).await;
    assert_eq!(answer.status(), 431);
    let answer = running.send(&format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    assert_eq!(answer.status(), 414);
    let answer = running
        .send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\nconnection: close\r\n\r\n")
        .await;
    assert_eq!(answer.status(), 413);
    let body = "x".repeat(80 << 10);
    let answer = running
        .send(&format!(
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ))
        .await;
    assert_eq!(answer.status(), 200);
    for limit in ["head", "target", "body", "buffer"] {
        once(&running, limit).await;
    }
    let value = running.metric("tally_balancer_limits{limit=\"body\"}").await;
    assert_eq!(value, Some(102_400.0));
}

#[tokio::test]
async fn each_deadline_is_counted_by_its_name() {
    let limits = Limits {
        idle: time(300),
        head_time: time(300),
        answer_time: time(300),
        stall_time: time(600),
        ..Limits::default()
    };
    let running = Running::with(Setup { limits, workers: 1, ..Setup::default() }).await;
    let silent = Backend::raw(|mut stream, _| async move {
        while let Some(request) = read_request(&mut stream).await {
            if request.starts_with("GET /half") {
                let half = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
                stream.write_all(half.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    running.publish(&front("shop"), &[silent.address]).await;

    let _head = say(running.address, b"GET / HT").await;
    once(&running, "head_time").await;
    let answer = running.get("/never").await;
    assert_eq!(answer.status(), 504, "{answer:?}");
    once(&running, "answer_time").await;
    let half = running.get("/half").await;
    assert!(half.0.ends_with("half"), "{half:?}");
    once(&running, "stall_time").await;
    let mut idle = say(running.address, b"GET /unknown HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(idle.read(&mut [0; 64]).await.unwrap() > 0);
    until("idle", || async { times(&running, "idle").await >= Some(1.0) }).await;
}

#[tokio::test]
async fn each_bound_of_holding_is_counted_by_its_name() {
    let running = Running::with(Setup { workers: 1, ..Setup::default() }).await;
    for (requests, bytes, limit) in
        [(0, 1 << 20, "hold_requests"), (9, 10, "hold_bytes"), (9, 1 << 20, "hold_deadline")]
    {
        let hold = Hold { requests, bytes: Bytes(bytes), deadline: Duration::from_millis(200) };
        let mut front = front("shop");
        (front.hold, front.health) = (hold, Health::default());
        running.publish(&front, &[]).await;
        let answer = running.get("/").await;
        assert_eq!(answer.status(), 503, "{answer:?}");
        once(&running, limit).await;
    }
}

#[tokio::test]
async fn long_heads_in_pieces_take_no_more_memory_than_they_may() {
    let running = Running::with(Setup { workers: 1, ..Setup::default() }).await;
    let backend = Backend::named("fine").await;
    running.publish(&front("shop"), &[backend.address]).await;
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {}", "x".repeat(60 << 10));
    let mut all = Vec::new();
    for _ in 0..LONG_HEADS {
        all.push(say(running.address, head.as_bytes()).await);
    }
    until("some are refused", || async { times(&running, "head_memory").await >= Some(1.0) }).await;
    // An ordinary head in two pieces still goes through.
    let mut small = say(running.address, b"GET / HTTP/1.1\r\nhost: x\r\nconnec").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    small.write_all(b"tion: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    small.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Whoever leaves gives the room back.
    drop(all);
    let whole = format!("{head}\r\nconnection: close\r\n\r\n");
    until("there is room again", || async { running.send(&whole).await.status() == 200 }).await;
}

/// Clients that read nothing of a large answer: each only waits for itself.
#[tokio::test]
async fn a_request_that_waits_for_its_client_takes_no_place_but_is_waited_for() {
    let running = Running::with(Setup { workers: 1, ..Setup::default() }).await;
    let large = ok(&"x".repeat(16 << 20));
    let backend = Backend::answering(move |request| {
        if request.starts_with("GET /large") { large.clone() } else { ok("small") }
    })
    .await;
    let places =
        |state| vec![RouteEntry { state, max_in_flight: 1, ..ready("shop", 0, backend.address) }];
    running.board.publish_front(&front("shop")).await.unwrap();
    running.publish_routes("shop", places(RouteState::Ready)).await;
    let mut slow = say(running.address, b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    slow.readable().await.unwrap();
    // It has the only place, and gives it up.
    assert_eq!(running.get("/").await.status(), 200);
    until("it is seen as open", || async {
        running.demand("shop").await.is_some_and(|d| d.open_connections == 1)
    })
    .await;
    // Whoever wants to end the instance still sees the request.
    running.publish_routes("shop", places(RouteState::Draining)).await;
    until("it is counted there", || async {
        running.demand("shop").await.is_some_and(|d| d.in_flight.values().sum::<u32>() == 1)
    })
    .await;
    let mut all = Vec::new();
    let reading = async {
        while all.len() < 16 << 20 {
            assert!(slow.read_buf(&mut all).await.unwrap() > 0, "cut at {}", all.len());
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the whole answer");
    until("nothing is left", || async {
        let demand = running.demand("shop").await.unwrap();
        demand.in_flight.is_empty() && demand.open_connections == 0
    })
    .await;
}

/// Connections that send no whole head may be kept by nobody when places are short, in whichever
/// worker they are.
#[tokio::test]
async fn unfinished_heads_give_way_when_places_are_short() {
    const PLACES: usize = 8;
    let limits = Limits { connections: PLACES, ..Limits::default() };
    let running = Running::with(Setup { limits, workers: 2, ..Setup::default() }).await;
    let backend = Backend::named("fine").await;
    running.publish(&front("shop"), &[backend.address]).await;
    let mut unfinished = Vec::new();
    for _ in 0..PLACES {
        unfinished.push(say(running.address, b"GET / HTTP/1.1\r\nhost").await);
    }
    for _ in 0..PLACES {
        assert_eq!(running.get("/").await.status(), 200);
    }
    let evicted = "tally_balancer_connections_ended_total{reason=\"evicted\"}";
    assert!(running.metric(evicted).await >= Some(1.0));
}
