//! Service ports of mode `tcp`: bytes both ways, ends and breaks, waiting, other instances, bounds.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use domain::{RouteMode, RouteState, ServiceFront};
use scoreboard::Board;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use support::{Backend, PATIENCE, Running, Setup, front, ready, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A port nobody has at this moment, below those that systems give away by themselves, and given to
/// no other test of this process.
async fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let n = (std::process::id() * 64 + NEXT.fetch_add(1, Relaxed)) % 20_000;
        let port = u16::try_from(10_000 + n).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return port;
        }
    }
}

async fn ported(name: &str) -> (ServiceFront, SocketAddr) {
    let mut front = front(name);
    front.mode = RouteMode::Tcp;
    let port = free_port().await;
    front.port = Some(port);
    (front, ([127, 0, 0, 1], port).into())
}

/// Connects as soon as the port is open.
async fn connect(address: SocketAddr) -> TcpStream {
    let opening = async {
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => return stream,
                Err(_closed) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, opening).await.expect("the port opens")
}

/// Says its name, then everything it hears, then ends.
async fn echo(name: &'static str) -> Backend {
    Backend::raw(move |mut stream, hits| async move {
        hits.fetch_add(1, Relaxed);
        if stream.write_all(name.as_bytes()).await.is_ok() {
            let (mut read, mut write) = stream.split();
            let _ends_with_the_client = tokio::io::copy(&mut read, &mut write).await;
        }
    })
    .await
}

/// Sends, ends its side, and reads to the end.
async fn ask(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = connect(address).await;
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

async fn metric(running: &Running, line: &str) -> Option<u64> {
    let mut stream = TcpStream::connect(running.admin).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let found = text.lines().find_map(|l| l.strip_prefix(line));
    found.map(|rest| rest.trim().parse().unwrap())
}

/// Waits until a metric has a value: counters follow what the client sees.
async fn shows(running: &Running, line: &str, value: u64) {
    until(line, || async { metric(running, line).await == Some(value) }).await;
}

#[tokio::test]
async fn bytes_pass_both_ways_and_a_half_closed_side_still_hears() {
    let running = Running::start().await;
    let (front, address) = ported("db").await;
    let backend = echo("hello ").await;
    running.publish(&front, &[backend.address]).await;
    assert_eq!(ask(address, b"world").await.unwrap(), b"hello world");
    let line = "tally_balancer_port_received_bytes_total{service=\"db\"}";
    shows(&running, line, 5).await;
    let line = "tally_balancer_port_sent_bytes_total{service=\"db\"}";
    shows(&running, line, 11).await;
    let line = "tally_balancer_port_connections_total{service=\"db\"}";
    shows(&running, line, 1).await;
    until("nothing is open", || async {
        running.demand("db").await.is_some_and(|d| d.open_connections == 0)
    })
    .await;
}

#[tokio::test]
async fn bulk_arrives_whole_at_whatever_pace_it_is_read() {
    const BYTES: usize = 48 << 20;
    let running = Running::start().await;
    let (front, address) = ported("bulk").await;
    let backend = echo("").await;
    running.publish(&front, &[backend.address]).await;
    let (mut read, mut write) = connect(address).await.into_split();
    // Every byte depends on its place: nothing lost, doubled or swapped goes unseen.
    let at = |place: usize| u8::try_from((place ^ (place >> 8) ^ (place >> 16)) & 255).unwrap();
    let writing = tokio::spawn(async move {
        let bytes: Vec<u8> = (0..BYTES).map(at).collect();
        for (turn, chunk) in bytes.chunks(700_001).enumerate() {
            write.write_all(chunk).await.unwrap();
            if turn % 16 == 0 {
                // Quiet in between: from pipe to copy and back.
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        write.shutdown().await.unwrap();
    });
    let mut place = 0;
    let mut buffer = vec![0; 900_000];
    loop {
        let room = if place % 3 == 0 { 1000 } else { buffer.len() };
        let n = read.read(&mut buffer[..room]).await.unwrap();
        if n == 0 {
            break;
        }
        for byte in &buffer[..n] {
            assert_eq!(*byte, at(place), "byte {place}");
            place += 1;
        }
        if place % 7 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(place, BYTES);
    writing.await.unwrap();
}

#[tokio::test]
async fn a_part_never_passes_for_the_whole() {
    let running = Running::start().await;
    let (front, address) = ported("breaks").await;
    let backend = Backend::raw(|mut stream, _| async move {
        stream.write_all(b"half of an ans").await.unwrap();
        let mut byte = [0];
        let _asked = stream.read(&mut byte).await;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    })
    .await;
    running.publish(&front, &[backend.address]).await;
    let mut stream = connect(address).await;
    let mut bytes = [0; 14];
    stream.read_exact(&mut bytes).await.unwrap();
    stream.write_all(b"?").await.unwrap();
    let error = stream.read(&mut bytes).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn who_comes_before_an_instance_waits_and_is_served() {
    let running = Running::start().await;
    let (front, address) = ported("asleep").await;
    running.publish(&front, &[]).await;
    let asking = tokio::spawn(ask(address, b"early"));
    until("it waits", || async { running.demand("asleep").await.is_some_and(|d| d.queued == 1) })
        .await;
    let backend = echo("late ").await;
    running.publish_routes("asleep", vec![ready("asleep", 0, backend.address)]).await;
    assert_eq!(asking.await.unwrap().unwrap(), b"late early");
}

#[tokio::test]
async fn waiting_ends_at_its_bounds_and_the_client_is_told() {
    let running = Running::start().await;
    let (mut front, address) = ported("full").await;
    front.hold.requests = 1;
    front.hold.deadline = Duration::from_secs(2);
    running.publish(&front, &[]).await;
    let mut first = connect(address).await;
    until("it waits", || async { running.demand("full").await.is_some_and(|d| d.queued == 1) })
        .await;
    let mut byte = [0];
    // The second one finds no place, the first one's time ends: both are broken off.
    // It may hear of it before it knows that it was connected at all.
    if let Ok(mut second) = TcpStream::connect(address).await {
        assert!(second.read(&mut byte).await.is_err());
    }
    assert!(first.read(&mut byte).await.is_err());
    for reason in ["queue", "deadline"] {
        let line = format!(
            "tally_balancer_port_refused_connections_total{{service=\"full\",reason=\"{reason}\"}}"
        );
        shows(&running, &line, 1).await;
    }
}

#[tokio::test]
async fn who_breaks_off_while_waiting_leaves_the_queue() {
    let running = Running::start().await;
    let (front, address) = ported("left").await;
    running.publish(&front, &[]).await;
    let stream = connect(address).await;
    until("it waits", || async { running.demand("left").await.is_some_and(|d| d.queued == 1) })
        .await;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    until("nobody waits", || async { running.demand("left").await.is_some_and(|d| d.queued == 0) })
        .await;
}

#[tokio::test]
async fn an_instance_that_does_not_accept_costs_nobody_a_connection() {
    let running = Running::start().await;
    let (front, address) = ported("half").await;
    let (alive, dead) = (echo("alive").await, echo("dead").await);
    let gone = dead.address;
    dead.kill().await;
    running.publish(&front, &[alive.address, gone]).await;
    for _ in 0..40 {
        assert_eq!(ask(address, b"").await.unwrap(), b"alive");
    }
    assert!(
        metric(&running, "tally_balancer_port_connect_failures_total{service=\"half\"}").await
            > Some(0)
    );
}

#[tokio::test]
async fn no_instance_gets_more_than_it_takes_and_the_next_goes_when_one_ends() {
    let running = Running::start().await;
    let (front, address) = ported("small").await;
    let backend = echo("in").await;
    let mut route = ready("small", 0, backend.address);
    route.max_in_flight = 2;
    running.board.publish_front(&front).await.unwrap();
    running.publish_routes("small", vec![route]).await;
    let (mut a, mut b) = (connect(address).await, connect(address).await);
    let mut text = [0; 2];
    a.read_exact(&mut text).await.unwrap();
    b.read_exact(&mut text).await.unwrap();
    let mut c = connect(address).await;
    until("the third waits", || async {
        running.demand("small").await.is_some_and(|d| d.queued == 1)
    })
    .await;
    assert_eq!(backend.hits(), 2);
    drop(a);
    c.read_exact(&mut text).await.unwrap();
    assert_eq!(backend.hits(), 3);
}

#[tokio::test]
async fn a_draining_instance_keeps_its_connections_and_gets_no_new_ones() {
    let running = Running::start().await;
    let (front, address) = ported("drain").await;
    let (old, new) = (echo("old").await, echo("new").await);
    running.publish(&front, &[old.address]).await;
    let mut kept = connect(address).await;
    let mut text = [0; 3];
    kept.read_exact(&mut text).await.unwrap();
    let mut draining = ready("drain", 0, old.address);
    draining.state = RouteState::Draining;
    running.publish_routes("drain", vec![draining, ready("drain", 1, new.address)]).await;
    for _ in 0..20 {
        assert_eq!(ask(address, b"").await.unwrap(), b"new");
    }
    let demand = running.demand("drain").await.unwrap();
    assert_eq!(demand.in_flight.values().sum::<u32>(), 1, "safe stop sees the kept one");
    running.publish_routes("drain", vec![ready("drain", 1, new.address)]).await;
    kept.write_all(b"yes").await.unwrap();
    kept.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"yes");
}

#[tokio::test]
async fn ports_open_and_close_with_fronts_and_a_taken_one_is_told() {
    let running = Running::start().await;
    let (mut front, address) = ported("moves").await;
    let backend = echo("here").await;
    running.publish(&front, &[backend.address]).await;
    assert_eq!(ask(address, b"").await.unwrap(), b"here");
    let (_, elsewhere) = ported("moves").await;
    front.port = Some(elsewhere.port());
    running.board.publish_front(&front).await.unwrap();
    assert_eq!(ask(elsewhere, b"").await.unwrap(), b"here");
    until("the old port is closed", || async { TcpStream::connect(address).await.is_err() }).await;

    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut other, _) = ported("other").await;
    other.port = Some(taken.local_addr().unwrap().port());
    let said = "tally_balancer_service_troubles";
    running.publish(&other, &[backend.address]).await;
    shows(&running, said, 1).await;
    until("the board says so", || async {
        let said = running.board.inner.abilities().await.unwrap();
        said.values()
            .any(|a| a.troubles.get(&other.service).is_some_and(|why| why.contains("route.port")))
    })
    .await;
    drop(taken);
    shows(&running, said, 0).await;
    // The balancer's own address is no service's.
    other.port = Some(running.address.port());
    running.board.publish_front(&other).await.unwrap();
    shows(&running, said, 1).await;
}

#[tokio::test]
async fn open_connections_end_before_the_balancer_does() {
    let running = Running::with(Setup { workers: 1, ..Setup::default() }).await;
    let (front, address) = ported("last").await;
    let backend = echo("in").await;
    running.publish(&front, &[backend.address]).await;
    let mut stream = connect(address).await;
    let mut text = [0; 2];
    stream.read_exact(&mut text).await.unwrap();
    running.shutdown.start();
    until("the port is closed", || async { TcpStream::connect(address).await.is_err() }).await;
    stream.write_all(b"ok").await.unwrap();
    stream.read_exact(&mut text).await.unwrap();
    assert!(!running.ended.is_finished());
    drop(stream);
    running.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_idles_on_one_service_harms_no_other() {
    let running = Running::start().await;
    let (mut busy, busy_address) = ported("busy").await;
    busy.hold.requests = 60;
    let (quiet, quiet_address) = ported("quiet").await;
    let (idled, served) = (echo("").await, echo("here").await);
    let mut route = ready("busy", 0, idled.address);
    route.max_in_flight = 40;
    running.board.publish_front(&busy).await.unwrap();
    running.publish_routes("busy", vec![route]).await;
    running.publish(&quiet, &[served.address]).await;
    // Forty take all places and say nothing, sixty wait, the rest is turned away.
    let mut idlers = Vec::new();
    for _ in 0..300 {
        idlers.extend(TcpStream::connect(busy_address).await);
    }
    let line = "tally_balancer_port_refused_connections_total{service=\"busy\",reason=\"queue\"}";
    shows(&running, line, 200).await;
    assert_eq!(idled.hits(), 40);
    for _ in 0..50 {
        assert_eq!(ask(quiet_address, b"").await.unwrap(), b"here");
    }
    drop(idlers);
    until("there is room again", || async {
        ask(busy_address, b"hello").await.is_ok_and(|answer| answer == b"hello")
    })
    .await;
}
