//! The executor's interface: whom it obeys, what it refuses, what it tells.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use chassis::{Client, PeerError};
use futures_util::StreamExt;
use http::Method;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use support::{Node, server};
use wire::assignment::{Accepted, Assignment, Newer, RunState};

const LIMIT: Duration = Duration::from_secs(20);

async fn post(client: &Client, assignment: &Assignment) -> Result<Accepted, PeerError> {
    client.post("/v1/assignment", assignment, LIMIT).await
}

fn refusal(result: Result<Accepted, PeerError>) -> (u16, serde_json::Value) {
    match result {
        Err(PeerError::Refused { status, body, .. }) => {
            (status.as_u16(), serde_json::from_slice(&body).unwrap())
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn only_the_managers_signature_is_obeyed() {
    let node = Node::started().await;
    let assignment = node.assignment(&[server("shop")]);
    let paths = ["/v1/inventory", "/v1/events", "/v1/operations", "/v1/logs", "/v1/nonsense"];
    for path in paths {
        let answer = Node::call(&node.stranger(), Method::GET, path).await.unwrap();
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
    let (status, problem) = refusal(post(&node.stranger(), &assignment).await);
    assert_eq!((status, problem["type"].as_str()), (401, Some("/problems/unauthorized")));
    // Another cluster's manager, with a key of its own.
    let other = Node::new();
    let signer = other.identity.signer(
        node.id.clone(),
        std::sync::Arc::new(1.into()),
        std::sync::Arc::new(chassis::SystemClock::new()),
    );
    let stranger = node.stranger().with_signer(signer);
    assert_eq!(refusal(post(&stranger, &assignment).await).0, 401);
    assert_eq!(node.inventory().await.instances, []);
    for path in ["/livez", "/readyz"] {
        let answer = Node::call(&node.stranger(), Method::GET, path).await.unwrap();
        assert_eq!(answer.status, 200, "{path}");
    }
    let metrics = Node::call(&node.stranger(), Method::GET, "/metrics").await.unwrap();
    let text = std::str::from_utf8(&metrics.body).unwrap();
    assert!(text.contains("tally_executor_refused_calls_total{reason=\"Signature\"} 7"), "{text}");
    node.down().await;
}

#[tokio::test]
async fn an_older_assignment_is_refused_also_after_a_restart() {
    let mut node = Node::started().await;
    let older = node.assignment(&[server("shop")]);
    let newer = node.assignment(&[]);
    let client = node.client();
    assert!(post(&client, &newer).await.unwrap().accepted);
    assert!(post(&client, &newer).await.unwrap().accepted, "the same is accepted again");
    let newest = Newer { epoch: newer.epoch, generation: newer.generation };
    for restarted in [false, true] {
        if restarted {
            node.end().await;
            node.start().await;
        }
        let (status, body) = refusal(post(&node.client(), &older).await);
        assert_eq!(status, 409);
        assert_eq!(serde_json::from_value::<Newer>(body).unwrap(), newest);
    }
    // A new term outranks any number of the old one.
    let mut next_term = older.clone();
    next_term.epoch.0 += 1;
    next_term.generation.0 = 1;
    next_term.instances.clear();
    assert!(post(&node.client(), &next_term).await.unwrap().accepted);
    assert_eq!(refusal(post(&node.client(), &newer).await).0, 409);
    let inventory = node.inventory().await;
    assert_eq!((inventory.epoch, inventory.generation), (next_term.epoch, next_term.generation));
    assert_eq!(inventory.instances, []);
    node.end().await;
}

#[tokio::test]
async fn what_is_not_meant_for_this_node_changes_nothing() {
    let node = Node::started().await;
    let instance = server("shop");
    node.assign(std::slice::from_ref(&instance)).await;
    let before = node.inventory().await;
    let mut foreign = node.assignment(&[]);
    foreign.node = "n-abcdefghjk".parse().unwrap();
    let (status, problem) = refusal(post(&node.client(), &foreign).await);
    assert_eq!((status, problem["errors"][0]["pointer"].as_str()), (422, Some("/node")));
    let mut foreign = node.assignment(&[]);
    foreign.cluster = "other".to_owned();
    let (status, problem) = refusal(post(&node.client(), &foreign).await);
    assert_eq!((status, problem["errors"][0]["pointer"].as_str()), (422, Some("/cluster")));
    let after = node.inventory().await;
    assert_eq!((after.epoch, after.generation), (before.epoch, before.generation));
    assert_eq!(after.instances.len(), 1);
    let client = node.client();
    let status = |method, path| {
        let client = client.clone();
        async move { Node::call(&client, method, path).await.unwrap().status.as_u16() }
    };
    assert_eq!(status(Method::GET, "/v1/nonsense").await, 404);
    assert_eq!(status(Method::GET, "/v1/assignment").await, 405);
    assert_eq!(status(Method::GET, "/v1/logs").await, 400);
    assert_eq!(status(Method::GET, "/v1/logs?instance=shop-0123456789").await, 404);
    assert_eq!(status(Method::GET, "/v1/events?after=x").await, 400);
    node.down().await;
}

/// Reads a stream of events until `enough` says so.
async fn listen(node: &Node, path: &str, enough: impl Fn(&str) -> bool) -> String {
    let response = node.client().stream(path, LIMIT).await.unwrap();
    let mut chunks = response.bytes_stream();
    let mut text = String::new();
    while !enough(&text) {
        let chunk = tokio::time::timeout(LIMIT, chunks.next()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    text
}

#[tokio::test]
async fn changes_are_pushed_in_order_with_beats_and_gaps() {
    let node = Node::started().await;
    let seq = node.inventory().await.seq;
    let instance = server("shop");
    let path = format!("/v1/events?after={seq}");
    let listening = listen(&node, &path, |text| text.contains("\"ready\""));
    let assigning = node.assign(std::slice::from_ref(&instance));
    let (text, ()) = tokio::join!(listening, assigning);
    let starting = text.find("\"starting\"").unwrap();
    assert!(starting < text.find("\"ready\"").unwrap());
    assert!(text.contains(&format!("id: {}\n", seq + 1)), "{text}");
    let ready = node.until(&instance.id, RunState::Ready).await;
    // Who connects later gets what it missed, the same words.
    let again = listen(&node, &path, |text| text.contains("\"ready\"")).await;
    let line = again.lines().find(|l| l.contains("\"ready\"")).unwrap();
    let json = line.strip_prefix("data: ").unwrap();
    let event: wire::assignment::ExecutorEvent = serde_json::from_str(json).unwrap();
    assert_eq!(event.seen, Some(ready));
    // From another life of the executor: told to read the inventory, then beats.
    let stale = listen(&node, "/v1/events?after=5", |text| text.contains("beat")).await;
    let now = node.inventory().await.seq;
    assert!(stale.starts_with("event: gap\n"), "{stale}");
    assert!(stale.contains(&format!("{{\"seq\":{now}}}")), "{stale}");
    node.down().await;
}

#[tokio::test]
async fn the_node_file_is_private_and_complete() {
    let node = Node::started().await;
    let instance = server("shop");
    node.assign(std::slice::from_ref(&instance)).await;
    node.until(&instance.id, RunState::Ready).await;
    let path = node.dir.path().join("node/instances.json");
    let listed = || async {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.contains(instance.id.as_str()) && text.contains("\"load_token\":\"token-of-it\"")
    };
    support::eventually("it is listed", listed).await;
    for file in ["instances.json", "assignment.json"] {
        let path = node.dir.path().join("node").join(file);
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    node.assign(&[]).await;
    let empty = || async { std::fs::read_to_string(&path).unwrap().contains("[]") };
    support::eventually("it is empty again", empty).await;
    node.down().await;
}

#[tokio::test]
async fn what_cannot_be_put_on_disk_is_not_accepted_and_does_not_run() {
    let node = Node::started().await;
    // A directory where the file is written first: nothing can be written, whoever we are.
    assert_eq!(node.inventory().await.instances, []);
    let obstacle = node.dir.path().join("node/assignment.new");
    std::fs::create_dir(&obstacle).unwrap();
    let assignment = node.assignment(&[server("shop")]);
    let (status, problem) = refusal(post(&node.client(), &assignment).await);
    assert_eq!((status, problem["type"].as_str()), (500, Some("/problems/internal")));
    let empty = || async { node.inventory().await.instances.is_empty() };
    support::eventually("nothing runs", empty).await;
    assert_eq!(node.inventory().await.generation.0, 0);
    std::fs::remove_dir(&obstacle).unwrap();
    assert!(post(&node.client(), &assignment).await.unwrap().accepted);
    node.until(&assignment.instances[0].id, RunState::Ready).await;
    node.down().await;
}
