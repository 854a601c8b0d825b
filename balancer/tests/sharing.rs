//! Shares follow what instances say and how they do.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use domain::{Load, LoadReport, LoadSource, PolicyName};
use scoreboard::Board;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use support::{Backend, Running, front, id, ok, read_request, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn report(n: usize, load: f64) -> LoadReport {
    LoadReport {
        instance: id("shop", n),
        load: Load::from_reported(load).unwrap(),
        in_flight: None,
        rps_milli: None,
        eps_milli: None,
        seq: None,
        source: LoadSource::Pushed,
    }
}

#[tokio::test]
async fn pushed_loads_move_the_shares() {
    let running = Running::start().await;
    let (one, two) = (Backend::named("one").await, Backend::named("two").await);
    running.publish(&front("shop"), &[one.address, two.address]).await;
    running.board.record(&[report(0, 0.9), report(1, 0.2)]).await.unwrap();
    until("the less loaded gets the requests", || async {
        let before = (one.hits(), two.hits());
        for _ in 0..10 {
            running.get("/").await;
        }
        (one.hits() - before.0, two.hits() - before.1) == (0, 10)
    })
    .await;
    running.board.record(&[report(0, 0.2), report(1, 0.9)]).await.unwrap();
    until("and the other one when that turns", || async {
        let before = (one.hits(), two.hits());
        for _ in 0..10 {
            running.get("/").await;
        }
        (one.hits() - before.0, two.hits() - before.1) == (10, 0)
    })
    .await;
}

/// Asks over and over on `clients` kept connections, `each` times.
async fn flood(running: &Running, clients: usize, each: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let address = running.address;
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            for _ in 0..each {
                stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
                let mut bytes = Vec::new();
                while !bytes.ends_with(b"ok") {
                    assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// Answers one request at a time, each after so long.
async fn serial(millis: u64) -> Backend {
    let turn = Arc::new(tokio::sync::Mutex::new(()));
    Backend::raw(move |mut stream, hits| {
        let turn = turn.clone();
        async move {
            while read_request(&mut stream).await.is_some() {
                hits.fetch_add(1, Relaxed);
                let turn = turn.lock().await;
                tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
                drop(turn);
                if stream.write_all(ok("ok").as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_slow_instance_gets_less_under_feedback_but_not_in_turn() {
    let running = Running::start().await;
    let mut front = front("shop");
    for (policy, least, most) in [(PolicyName::Feedback, 0, 25), (PolicyName::RoundRobin, 40, 60)] {
        let (fast, slow) = (serial(2).await, serial(20).await);
        front.policy = policy;
        running.publish(&front, &[fast.address, slow.address]).await;
        flood(&running, 10, 20).await;
        let percent = slow.hits() * 100 / (slow.hits() + fast.hits());
        assert!((least..=most).contains(&percent), "{policy:?}: {percent} % to the slow one");
    }
}

#[tokio::test]
async fn an_instance_that_fails_fast_is_set_aside() {
    let running = Running::start().await;
    let good = Backend::named("good").await;
    let bad = Backend::answering(|_| {
        "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n".to_owned()
    })
    .await;
    running.publish(&front("shop"), &[bad.address, good.address]).await;
    let mut failed = 0;
    for _ in 0..200 {
        failed += u32::from(running.get("/").await.status() == 500);
    }
    assert!((1..=10).contains(&failed), "{failed} of 200 went to the failing instance");
}

#[tokio::test]
async fn two_balancers_know_of_each_other() {
    let running = Running::start().await;
    let other = "b2".parse().unwrap();
    running.board.write_demand(&other, &[]).await.unwrap();
    let view = running.board.view().await.unwrap();
    assert!(view.balancers.iter().any(|b| b.balancer == other));
    until("this one beats", || async {
        let view = running.board.inner.view().await.unwrap();
        view.balancers.iter().any(|b| b.balancer.as_str() == "b1")
    })
    .await;
}

#[tokio::test]
async fn another_balancer_is_seen_while_loads_stream() {
    let running = Running::start().await;
    let backend = Backend::named("here").await;
    running.publish(&front("shop"), &[backend.address]).await;
    let other = "b2".parse().unwrap();
    until("it is counted", || async {
        running.board.record(&[report(0, 0.5)]).await.unwrap();
        running.board.write_demand(&other, &[]).await.unwrap();
        running.metric("tally_balancer_balancers").await >= Some(2.0)
    })
    .await;
}
