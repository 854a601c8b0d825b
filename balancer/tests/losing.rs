//! What happens when instances, connections, the board or the balancer itself go away.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use domain::{Epoch, Generation, RouteGen, RouteState, RouteTable};
use scoreboard::Board;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use support::{Backend, Running, Setup, front, id, ok, read_request, read_until, ready, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn no_request_fails_when_an_instance_dies() {
    let running = Running::start().await;
    let (one, two) = (Backend::named("one").await, Backend::named("two").await);
    running.publish(&front("shop"), &[one.address, two.address]).await;
    for _ in 0..20 {
        assert_eq!(running.get("/").await.status(), 200);
    }
    one.kill().await;
    for n in 0..100 {
        let answer = running.get("/").await;
        assert_eq!((answer.status(), answer.body()), (200, "two"), "request {n}");
    }
}

#[tokio::test]
async fn a_request_waits_for_an_only_instance_that_restarts() {
    let running = Arc::new(Running::start().await);
    let gone = Backend::named("gone").await;
    let address = gone.address;
    running.publish(&front("shop"), &[address]).await;
    gone.kill().await;
    let asked = {
        let running = running.clone();
        tokio::spawn(async move { running.get("/").await })
    };
    until("it waits", || async { running.demand("shop").await.unwrap().queued == 1 }).await;
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    read_request(&mut stream).await.unwrap();
    stream.write_all(ok("back").as_bytes()).await.unwrap();
    assert_eq!(asked.await.unwrap().body(), "back");
}

/// Reads a request and closes without a word.
async fn mute() -> Backend {
    Backend::raw(|mut stream, hits| async move {
        if read_request(&mut stream).await.is_some() {
            hits.fetch_add(1, Relaxed);
        }
    })
    .await
}

#[tokio::test]
async fn only_requests_that_can_be_repeated_are() {
    let running = Running::start().await;
    let bad = mute().await;
    running.publish(&front("shop"), &[bad.address]).await;
    let post = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi";
    let answer = running.send(post).await;
    assert_eq!((answer.status(), bad.hits()), (502, 1), "{answer:?}");
    let good = Backend::answering(|request| ok(request.split_once("\r\n\r\n").unwrap().1)).await;
    running.publish(&front("shop"), &[bad.address, good.address]).await;
    let put = post.replace("POST", "PUT");
    for _ in 0..20 {
        let answer = running.send(&put).await;
        assert_eq!((answer.status(), answer.body()), (200, "hi"), "the small body is sent again");
    }
    assert_eq!(good.hits(), 20);
}

#[tokio::test]
async fn connections_closed_while_idle_cost_no_request() {
    let running = Running::with(Setup { workers: 1, ..Setup::default() }).await;
    // Answers one request per connection and closes without having said so.
    let backend = Backend::raw(|mut stream, hits| async move {
        read_request(&mut stream).await.unwrap();
        hits.fetch_add(1, Relaxed);
        stream.write_all(ok("once").as_bytes()).await.unwrap();
    })
    .await;
    running.publish(&front("shop"), &[backend.address]).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    for _ in 0..50 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        if !answer.ends_with("once") {
            read_until(&mut stream, "once").await;
        }
    }
    assert_eq!(backend.hits(), 50);
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_complete() {
    let running = Running::start().await;
    for (head, rest) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart", ""),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n", ""),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n", "nonsense"),
    ] {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let held = gate.clone();
        let backend = Backend::raw(move |mut stream, _| {
            let gate = held.clone();
            async move {
                read_request(&mut stream).await.unwrap();
                stream.write_all(head.as_bytes()).await.unwrap();
                gate.acquire().await.unwrap().forget();
                stream.write_all(rest.as_bytes()).await.unwrap();
            }
        })
        .await;
        running.publish(&front("shop"), &[backend.address]).await;
        // The connection is to be kept: only a broken answer ends it.
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let seen = read_until(&mut stream, "part").await;
        assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
        gate.add_permits(1);
        let mut more = Vec::new();
        let _reset_is_an_end_too = stream.read_to_end(&mut more).await;
        let more = String::from_utf8_lossy(&more);
        assert!(!more.contains("0\r\n") && more.len() < 96, "{more:?}");
        running.publish(&front("shop"), &[]).await;
    }
}

#[tokio::test]
async fn nonsense_from_an_instance_is_a_502() {
    let running = Running::start().await;
    for text in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        "HTTP/1.1 200 O",
    ] {
        let backend = Backend::raw(move |mut stream, _| async move {
            read_request(&mut stream).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
        })
        .await;
        running.publish(&front("shop"), &[backend.address]).await;
        assert_eq!(running.get("/").await.status(), 502, "{text:?}");
    }
}

#[tokio::test]
async fn a_draining_instance_finishes_and_gets_nothing_new() {
    let running = Arc::new(Running::start().await);
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let held = gate.clone();
    let old = Backend::raw(move |mut stream, hits| {
        let gate = held.clone();
        async move {
            while read_request(&mut stream).await.is_some() {
                hits.fetch_add(1, Relaxed);
                gate.acquire().await.unwrap().forget();
                stream.write_all(ok("old").as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let new = Backend::named("new").await;
    running.publish(&front("shop"), &[old.address]).await;
    let asked = {
        let running = running.clone();
        tokio::spawn(async move { running.get("/").await })
    };
    until("it is there", || async { old.hits() == 1 }).await;
    let mut draining = ready("shop", 0, old.address);
    draining.state = RouteState::Draining;
    let table = vec![draining, ready("shop", 1, new.address)];
    let generation = running.publish_routes("shop", table).await;
    for _ in 0..30 {
        assert_eq!(running.get("/").await.body(), "new");
    }
    let demand = running.demand("shop").await.unwrap();
    assert_eq!(demand.routes_gen, generation);
    assert_eq!(demand.in_flight.get(&id("shop", 0)), Some(&1), "still seen: {demand:?}");
    // Even when it is taken off the table its request is told.
    running.publish_routes("shop", vec![ready("shop", 1, new.address)]).await;
    let demand = running.demand("shop").await.unwrap();
    assert_eq!(demand.in_flight.get(&id("shop", 0)), Some(&1), "{demand:?}");
    gate.add_permits(1);
    assert_eq!(asked.await.unwrap().body(), "old");
    until("it is over", || async { running.demand("shop").await.unwrap().in_flight.is_empty() })
        .await;
}

#[tokio::test]
async fn losing_the_board_and_finding_it_empty_fails_no_request() {
    let running = Running::start().await;
    let backend = Backend::named("here").await;
    let generation = running.publish(&front("shop"), &[backend.address]).await;
    running.board.lost.store(true, Relaxed);
    let reads = running.board.reads.load(Relaxed);
    until("the loss is noticed", || async { running.board.reads.load(Relaxed) > reads + 1 }).await;
    for _ in 0..20 {
        assert_eq!(running.get("/").await.status(), 200);
    }
    running.board.inner.wipe();
    running.board.lost.store(false, Relaxed);
    let reads = running.board.reads.load(Relaxed);
    until("the empty board is read", || async { running.board.reads.load(Relaxed) > reads + 1 })
        .await;
    for _ in 0..20 {
        assert_eq!(running.get("/").await.status(), 200);
    }
    // An older table than the one in use removes nothing.
    let older = RouteGen { epoch: Epoch(0), generation: Generation(99) };
    let table = RouteTable { generation: older, entries: Vec::new() };
    running.board.publish_front(&front("shop")).await.unwrap();
    running.board.publish_routes(&"shop".parse().unwrap(), &table).await.unwrap();
    let reads = running.board.reads.load(Relaxed);
    until("it is read", || async { running.board.reads.load(Relaxed) > reads + 1 }).await;
    assert_eq!(running.get("/").await.status(), 200);
    assert_eq!(running.demand("shop").await.unwrap().routes_gen, generation);
}

#[tokio::test]
async fn a_balancer_starts_from_its_saved_view() {
    let folder = tempfile::tempdir().unwrap();
    let save = folder.path().join("view.json");
    let backend = Backend::named("known").await;
    let before = Running::with(Setup { save: Some(save.clone()), ..Setup::default() }).await;
    let generation = before.publish(&front("shop"), &[backend.address]).await;
    before.shutdown.start();
    before.ended.await.unwrap().unwrap();
    let setup = Setup { save: Some(save.clone()), board_lost: true, ..Setup::default() };
    let after = Running::with(setup).await;
    let answer = after.get("/").await;
    assert_eq!((answer.status(), answer.body()), (200, "known"));
    after.board.lost.store(false, Relaxed);
    after.board.publish_front(&front("shop")).await.unwrap();
    until("it still acts on the same routes", || async {
        after.demand("shop").await.is_some_and(|d| d.routes_gen == generation)
    })
    .await;
    std::fs::write(&save, b"{broken").unwrap();
    let setup = Setup { save: Some(save), board_lost: true, ..Setup::default() };
    assert_eq!(Running::with(setup).await.get("/").await.status(), 404);
}

#[tokio::test]
async fn requests_in_hand_are_finished_before_the_end() {
    let running = Arc::new(Running::start().await);
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let held = gate.clone();
    let backend = Backend::raw(move |mut stream, hits| {
        let gate = held.clone();
        async move {
            read_request(&mut stream).await.unwrap();
            hits.fetch_add(1, Relaxed);
            gate.acquire().await.unwrap().forget();
            stream.write_all(ok("finished").as_bytes()).await.unwrap();
        }
    })
    .await;
    running.publish(&front("shop"), &[backend.address]).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    let asked = {
        let running = running.clone();
        tokio::spawn(async move { running.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await })
    };
    until("it is there", || async { backend.hits() == 1 }).await;
    running.shutdown.start();
    let mut nothing = Vec::new();
    assert_eq!(idle.read_to_end(&mut nothing).await.unwrap(), 0, "idle connections are closed");
    until("nobody listens", || async { TcpStream::connect(running.address).await.is_err() }).await;
    gate.add_permits(1);
    let answer = asked.await.unwrap();
    assert_eq!((answer.status(), answer.body()), (200, "finished"));
    assert!(answer.has("connection: close"), "{answer:?}");
    until("it ended", || async { running.ended.is_finished() }).await;
}
