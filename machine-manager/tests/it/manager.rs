//! The machine-manager as its neighbours see it: placements, orders, joining, silence, money.

use crate::house::{
    House, Mood, PATIENCE, get, joining, measured, place, put, refused, start, state, until,
};
use domain::{NodeId, Timestamp};
use registry::Registry;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wire::join::JoinAnswer;

const SECOND: Duration = Duration::from_secs(1);

async fn kinds(house: &House) -> Vec<&'static str> {
    let lines = house.registry.ledger(Timestamp(0), Timestamp(i64::MAX)).await.unwrap();
    lines.iter().map(|l| l.kind.as_str()).collect()
}

async fn granted(client: &chassis::Client, wanted: &[Value]) -> Vec<String> {
    let answer = place(client, wanted).await;
    let all = answer["granted"].as_array().unwrap();
    all.iter().map(|g| g["node"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demand_orders_a_node_and_is_placed_on_it_once_it_joined() {
    let mut house = House::new();
    let running = house.ready().await;
    let client = &running.client;
    let wanted = [start("shop-0000000001", 1500)];
    let first = place(client, &wanted).await;
    assert_eq!(first["waiting"][0]["why"], "node", "{first}");

    let node = house.ordered(1).await;
    assert_eq!(house.cloud.unwritten.load(Ordering::SeqCst), 0, "the ledger comes first");
    until("the start is told which node is coming", async || {
        place(client, &wanted).await["waiting"][0]["node"] == node.as_str()
    })
    .await;
    until("billing began in the ledger", async || kinds(&house).await.contains(&"start")).await;

    let joined = house.join(client, &node).await;
    assert_eq!(joined.node, node);
    assert_eq!(granted(client, &wanted).await, [node.to_string()]);
    assert_eq!(granted(client, &wanted).await, [node.to_string()], "the same answer");

    // Its room is held: a second start does not fit beside it, and the first keeps its place.
    let both = [start("shop-0000000001", 1500), start("shop-0000000002", 1500)];
    let answer = place(client, &both).await;
    assert_eq!(answer["granted"].as_array().unwrap().len(), 1);
    assert_eq!(answer["waiting"][0]["instance"], "shop-0000000002");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_budget_the_command_is_told_and_the_cap_frees_what_it_held() {
    let mut house = House::new();
    let running = house.manager("one", None).await;
    let client = &running.client;
    until("it leads", async || get(client, "/v1/nodes").await.is_ok()).await;
    put(client, "/v1/node-types/small", &crate::house::small()).await.unwrap();
    let wanted = [start("shop-0000000001", 500)];
    until("the cap holds it back", async || {
        place(client, &wanted).await["waiting"][0]["why"] == "cap"
    })
    .await;
    let detail = place(client, &wanted).await["waiting"][0]["detail"].to_string();
    assert!(detail.contains("tally budget set --monthly-cap"), "{detail}");
    assert_eq!(house.cloud.calls.load(Ordering::SeqCst), 0);

    // Far too little, then enough.
    put(client, "/v1/budget", &json!({"monthly_cap": "0.0001 EUR"})).await.unwrap();
    until("the amount is told", async || {
        place(client, &wanted).await["waiting"][0]["needs_micros"].as_i64().unwrap_or(0) > 0
    })
    .await;
    let budget = get(client, "/v1/budget").await.unwrap();
    assert_eq!(budget["held_back"][0]["service"], "shop");
    assert_eq!(budget["held_back"][0]["node_type"], "small");
    let text = budget["held_back"][0]["detail"].as_str().unwrap();
    assert!(text.starts_with("blocked by cost cap: needs ") && text.ends_with("until 2026-12-01"));
    put(client, "/v1/budget", &json!({"monthly_cap": "10 EUR"})).await.unwrap();
    let _node = house.ordered(1).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusing_provider_costs_nothing_and_the_next_best_type_is_ordered_at_once() {
    let mut house = House::new();
    let running = house.ready().await;
    let client = &running.client;
    *house.cloud.mood.lock().unwrap() = Mood::Unwilling;
    let mut dear = crate::house::small();
    dear["price_per_hour"] = json!("0.10 EUR");
    put(client, "/v1/node-types/dear", &dear).await.unwrap();
    let wanted = [start("shop-0000000001", 500)];
    place(client, &wanted).await;
    until("the other type runs", async || {
        place(client, &wanted).await;
        !house.cloud.running.lock().unwrap().is_empty()
    })
    .await;
    assert!(kinds(&house).await.contains(&"release"), "{:?}", kinds(&house).await);
    let id = house.cloud.running.lock().unwrap().keys().next().unwrap().clone();
    assert_eq!(house.cloud.orders.lock().unwrap()[&id].node_type.name.as_str(), "small");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deaf_provider_is_asked_again_and_runs_one_machine() {
    let mut house = House::new();
    let running = house.ready().await;
    let client = &running.client;
    *house.cloud.mood.lock().unwrap() = Mood::Deaf;
    place(client, &[start("shop-0000000001", 500)]).await;
    let node = house.ordered(1).await;
    let began = domain::Clock::now(&*house.clock);
    until("the order is asked again", async || {
        house.clock.advance(SECOND);
        house.cloud.calls.load(Ordering::SeqCst) >= 2
    })
    .await;
    *house.cloud.mood.lock().unwrap() = Mood::Willing;
    until("billing began", async || {
        house.clock.advance(SECOND);
        kinds(&house).await.contains(&"start")
    })
    .await;
    let lines = house.registry.ledger(Timestamp(0), Timestamp(i64::MAX)).await.unwrap();
    let start = lines.iter().find(|l| l.kind.as_str() == "start").unwrap();
    assert_eq!(start.node, node);
    assert!(start.from <= began, "billed from the true start");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_provider_keeps_nobody_waiting() {
    let mut house = House::new();
    let running = house.ready().await;
    let client = &running.client;
    *house.cloud.mood.lock().unwrap() = Mood::Slow;
    place(client, &[start("shop-0000000001", 500)]).await;
    let node = house.ordered(1).await;
    // Steps and answers go on while the call hangs.
    let again = place(client, &[start("shop-0000000001", 500)]).await;
    assert_eq!(again["waiting"][0]["node"], node.as_str());
    assert_eq!(state(client, &node).await, "ordered");
    assert_eq!(house.cloud.calls.load(Ordering::SeqCst), 1, "one call at a time for one node");
    running.end().await;
}

/// A node that runs, has joined and sends its measurements.
async fn node(house: &House, client: &chassis::Client) -> JoinAnswer {
    let before = house.cloud.orders.lock().unwrap().len();
    let made: Value = client.post("/v1/nodes", &json!({"type": "small"}), PATIENCE).await.unwrap();
    let id: NodeId = made["id"].as_str().unwrap().parse().unwrap();
    house.ordered(before + 1).await;
    let joined = house.join(client, &id).await;
    assert_eq!(state(client, &id).await, "ready");
    joined
}

async fn speak(client: &chassis::Client, joined: &JoinAnswer, seq: u64) {
    let client = client.clone().with_token(&joined.node_secret);
    let body = measured(&joined.node, seq);
    client.post::<_, Value>("/v1/stats", &body, PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_node_leaves_and_a_protected_one_stays() {
    let mut house = House::new();
    let running = house.ready().await;
    let client = &running.client;
    put(client, "/v1/budget", &json!({"monthly_cap": "500 EUR"})).await.unwrap();
    let (leaves, stays) = (node(&house, client).await, node(&house, client).await);
    let path = format!("/v1/nodes/{}", stays.node);
    let patched: Value = client
        .json(http::Method::PATCH, &path, Some(&json!({"may_stop": false})), PATIENCE)
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(patched["may_stop"], false);
    let seq = AtomicU64::new(0);
    until("the empty one is gone", async || {
        house.clock.advance(SECOND);
        speak(client, &stays, seq.fetch_add(1, Ordering::SeqCst) + 1).await;
        state(client, &leaves.node).await == "gone"
    })
    .await;
    assert_eq!(state(client, &stays.node).await, "ready");
    assert_eq!(house.cloud.running.lock().unwrap().len(), 1);
    let (status, detail) =
        refused(client.json::<(), Value>(http::Method::DELETE, &path, None, PATIENCE).await);
    assert_eq!(status, 409);
    assert!(detail.contains("unprotect"), "{detail}");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_noticed_and_so_is_the_return() {
    let mut house = House::new();
    let running = house.ready().await;
    let client = &running.client;
    let joined = node(&house, client).await;
    let wanted = [start("shop-0000000001", 500)];
    assert_eq!(granted(client, &wanted).await.len(), 1);
    house.clock.advance(4 * SECOND);
    until("suspect", async || state(client, &joined.node).await == "suspect").await;
    assert_eq!(granted(client, &wanted).await.len(), 0, "nothing is placed on a suspect");
    house.clock.advance(7 * SECOND);
    until("lost", async || state(client, &joined.node).await == "lost").await;
    speak(client, &joined, 1).await;
    until("back", async || state(client, &joined.node).await == "ready").await;
    let stats = get(client, &format!("/v1/nodes/{}/stats", joined.node)).await.unwrap();
    assert_eq!(stats["items"][0]["cpu_millis"], 500);
    assert_eq!(stats["items"][0]["cpu"], 0.25);

    let wrong = client.clone().with_token("not-the-secret");
    let answer = wrong.post::<_, Value>("/v1/stats", &measured(&joined.node, 9), PATIENCE).await;
    assert_eq!(refused(answer).0, 401);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_stops_when_it_is_empty() {
    let mut house = House::new();
    let running = house.ready().await;
    let client = &running.client;
    let joined = node(&house, client).await;
    let wanted = [start("shop-0000000001", 500)];
    assert_eq!(granted(client, &wanted).await.len(), 1);
    let path = format!("/v1/nodes/{}/drain", joined.node);
    let drained: Value = client.post(&path, &json!({}), PATIENCE).await.unwrap();
    assert_eq!(drained["state"], "draining");
    let kept = house.registry.node(&joined.node).await.unwrap().unwrap();
    assert_eq!(kept.drain.unwrap().reason, "operator: drain");
    assert_eq!(granted(client, &wanted).await.len(), 0);
    // The grant still holds its room; it lapses, and then the node is empty.
    until("it is gone", async || {
        house.clock.advance(SECOND);
        state(client, &joined.node).await == "gone"
    })
    .await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_manager_knows_what_the_old_one_knew() {
    let mut house = House::new();
    let running = house.ready().await;
    let joined = node(&house, &running.client).await;
    until("billing began", async || kinds(&house).await.contains(&"start")).await;
    let standby = house.manager("two", None).await;
    let answer = get(&standby.client, "/v1/nodes").await;
    assert_eq!(refused(answer).0, 503, "another leads");
    running.end().await;
    until("the other leads", async || get(&standby.client, "/v1/nodes").await.is_ok()).await;
    assert_eq!(state(&standby.client, &joined.node).await, "ready");
    let calls = house.cloud.calls.load(Ordering::SeqCst);
    speak(&standby.client, &joined, 1).await;
    let again = joining("", "back");
    let again = wire::join::JoinRequest {
        token: None,
        node: Some(joined.node.clone()),
        node_secret: Some(joined.node_secret.clone()),
        ..again
    };
    let back: JoinAnswer = standby.client.post("/v1/nodes/join", &again, PATIENCE).await.unwrap();
    assert_eq!(back.node, joined.node);
    let grant = granted(&standby.client, &[start("shop-0000000001", 500)]).await;
    assert_eq!(grant, [joined.node.to_string()]);
    assert_eq!(house.cloud.calls.load(Ordering::SeqCst), calls, "nothing is ordered twice");
    standby.end().await;
}
