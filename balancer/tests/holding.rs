//! Requests that wait: for a first instance, for a free one, and how long and how many may.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use axum::extract::{Path, State};
use axum::{Json, Router, routing::post};
use chassis::{Client, Listen, Listener, ServerLimits, Shutdown};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Backend, Running, Setup, front, ok, read_request, ready, until};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

type Wakes = Arc<Mutex<Vec<(String, serde_json::Value)>>>;

/// A container-manager that writes down who is woken.
async fn manager() -> (Client, Wakes) {
    let wakes = Wakes::default();
    async fn wake(
        State(wakes): State<Wakes>,
        Path(name): Path<String>,
        Json(body): Json<serde_json::Value>,
    ) -> Json<serde_json::Value> {
        wakes.lock().unwrap().push((name, body));
        Json(serde_json::json!({}))
    }
    let router =
        Router::new().route("/v1/services/{name}/wake", post(wake)).with_state(wakes.clone());
    let listener = Listener::bind(&Listen::Tcp(([127, 0, 0, 1], 0).into())).await.unwrap();
    let peer = format!("http://{}", listener.local()).parse().unwrap();
    tokio::spawn(async move {
        chassis::serve(listener, router, ServerLimits::default(), &Shutdown::new()).await;
    });
    (Client::new(peer), wakes)
}

#[tokio::test]
async fn requests_wait_for_the_first_instance_which_is_woken_once() {
    let (client, wakes) = manager().await;
    let running =
        Arc::new(Running::with(Setup { manager: Some(client), ..Setup::default() }).await);
    running.publish(&front("shop"), &[]).await;
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let running = running.clone();
            tokio::spawn(async move { running.get("/").await })
        })
        .collect();
    until("all are held", || async { running.demand("shop").await.unwrap().queued == 50 }).await;
    until("the service is woken", || async { !wakes.lock().unwrap().is_empty() }).await;
    let told = wakes.lock().unwrap().clone();
    assert!(told.len() < 10, "not once per request: {told:?}");
    assert!(told.iter().all(|(name, body)| name == "shop" && body["balancer"] == "b1"), "{told:?}");
    until("it is woken again while they wait", || async {
        wakes.lock().unwrap().len() > told.len()
    })
    .await;
    assert_eq!(wakes.lock().unwrap().last().unwrap().1["queued"], 50);
    let backend = Backend::named("awake").await;
    running.publish(&front("shop"), &[backend.address]).await;
    for answer in waiting {
        let answer = answer.await.unwrap();
        assert_eq!((answer.status(), answer.body()), (200, "awake"));
    }
    assert_eq!(backend.hits(), 50);
    until("nobody waits", || async { running.demand("shop").await.unwrap().queued == 0 }).await;
}

#[tokio::test]
async fn what_waits_is_bounded_in_number_and_time() {
    let running = Arc::new(Running::start().await);
    let mut front = front("shop");
    front.hold.requests = 1;
    front.hold.deadline = Duration::from_millis(300);
    running.publish(&front, &[]).await;
    let first = {
        let running = running.clone();
        tokio::spawn(async move { running.get("/").await })
    };
    until("one is held", || async { running.demand("shop").await.unwrap().queued == 1 }).await;
    let second = running.get("/").await;
    let first = first.await.unwrap();
    for (answer, why) in [(second, "as many requests wait"), (first, "waited as long")] {
        assert_eq!(answer.status(), 503, "{answer:?}");
        assert!(answer.has("retry-after: 2") && answer.body().contains(why), "{answer:?}");
    }
}

#[tokio::test]
async fn nothing_waits_for_a_service_that_may_not_start() {
    let running = Running::start().await;
    let mut front = front("shop");
    front.startable = false;
    running.publish(&front, &[]).await;
    let answer = running.get("/").await;
    assert_eq!(answer.status(), 503);
    assert!(answer.body().contains("none may be started"), "{answer:?}");
}

/// Answers when permitted.
async fn gated() -> (Backend, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let backend = Backend::raw(move |mut stream, hits| {
        let gate = held.clone();
        async move {
            while read_request(&mut stream).await.is_some() {
                hits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                gate.acquire().await.unwrap().forget();
                if stream.write_all(ok("done").as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (backend, gate)
}

#[tokio::test]
async fn a_busy_instance_is_waited_for_and_then_429() {
    let running = Arc::new(Running::start().await);
    let (backend, gate) = gated().await;
    let mut front = front("shop");
    front.hold.requests = 2;
    running.publish(&front, &[]).await;
    let mut entry = ready("shop", 0, backend.address);
    entry.max_in_flight = 1;
    running.publish_routes("shop", vec![entry]).await;
    let ask = || {
        let running = running.clone();
        tokio::spawn(async move { running.get("/").await })
    };
    let mut asked = vec![ask()];
    until("one is there", || async { backend.hits() == 1 }).await;
    asked.extend([ask(), ask()]);
    until("two wait", || async { running.demand("shop").await.unwrap().queued == 2 }).await;
    let refused = running.get("/").await;
    assert_eq!(refused.status(), 429, "{refused:?}");
    assert!(refused.has("retry-after: 2"));
    assert_eq!(backend.hits(), 1, "never more than it takes at once");
    for n in 2..=3 {
        gate.add_permits(1);
        until("the next one follows", || async { backend.hits() == n }).await;
    }
    gate.add_permits(1);
    for answer in asked {
        assert_eq!(answer.await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_leaves_nothing_behind() {
    let running = Running::start().await;
    running.publish(&front("shop"), &[]).await;
    let mut stream = tokio::net::TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    until("it is held", || async { running.demand("shop").await.unwrap().queued == 1 }).await;
    drop(stream);
    until("it is gone", || async { running.demand("shop").await.unwrap().queued == 0 }).await;
}
