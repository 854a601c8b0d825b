//! The loop as a whole, in one process with doubles: what happens, not how.

use crate::cell::{Cell, Manager, Says, until};
use domain::{InstanceId, RouteState, ServiceName};
use http::Method;
use registry::Registry;
use scoreboard::Board;
use serde_json::{Value, json};
use std::time::Duration;
use wire::assignment::RunState;

const LIMIT: Duration = Duration::from_secs(5);

fn manifest(min: u32, max: u32) -> Value {
    json!({
        "min_instances": min, "max_instances": max,
        "run": {"command": ["./shop", "--port", "{port}"]},
        "load": {"window": "1s", "source": "balancer", "concurrency": 10},
        "lifecycle": {"idle_timeout": "500ms", "drain_deadline": "5s"},
        "rollout": {"bake": "0s"}
    })
}

async fn put(manager: &Manager, name: &str, body: &Value) -> Value {
    let path = format!("/v1/services/{name}");
    until("the API answers", || async {
        manager.client.json::<Value, Value>(Method::PUT, &path, Some(body), LIMIT).await.ok()
    })
    .await
}

async fn state(manager: &Manager, name: &str) -> Value {
    let path = format!("/v1/services/{name}");
    manager.client.get::<Value>(&path, LIMIT).await.map_or(Value::Null, |v| v["state"].clone())
}

async fn until_ready(manager: &Manager, name: &str, n: u64) {
    until(&format!("{n} ready"), || async {
        let state = state(manager, name).await;
        (state["ready"] == n && state["starting"] == 0 && state["draining"] == 0).then_some(())
    })
    .await;
}

async fn routed(cell: &Cell, name: &str) -> Vec<(InstanceId, RouteState)> {
    let name: ServiceName = name.parse().unwrap();
    let routes = cell.board.service(&name).await.unwrap().routes.unwrap_or_default();
    routes.entries.into_iter().map(|e| (e.instance, e.state)).collect()
}

async fn until_routed(cell: &Cell, name: &str, n: usize) -> Vec<InstanceId> {
    until(&format!("{n} routed"), || async {
        let routes = routed(cell, name).await;
        let ready = routes.iter().all(|(_, state)| *state == RouteState::Ready);
        (ready && routes.len() == n).then(|| routes.into_iter().map(|(id, _)| id).collect())
    })
    .await
}

#[tokio::test]
async fn a_wake_starts_routes_and_idleness_stops() {
    let cell = Cell::new().await;
    let manager = cell.manager("a").await;
    put(&manager, "shop", &manifest(0, 4)).await;
    assert_eq!(state(&manager, "shop").await["desired"], 0);
    cell.say(Says { active: true, ..Says::default() });
    let wake = json!({"balancer": "b1", "queued": 3});
    let _: Value = manager.client.post("/v1/services/shop/wake", &wake, LIMIT).await.unwrap();
    let ids = until_routed(&cell, "shop", 1).await;
    assert_eq!(cell.executors.running(), ids);
    until_ready(&manager, "shop", 1).await;
    cell.say(Says::default());
    until_routed(&cell, "shop", 0).await;
    until("it stopped", || async { cell.executors.running().is_empty().then_some(()) }).await;
    until_ready(&manager, "shop", 0).await;
    let decisions: Value = manager.client.get("/v1/services/shop/decisions", LIMIT).await.unwrap();
    let reasons: Vec<&str> = decisions["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["idle", "wake"]);
    until("history", || async {
        let load: Value = manager.client.get("/v1/services/shop/load", LIMIT).await.unwrap();
        load["items"].as_array().unwrap().iter().any(|p| p["ready"] == 1).then_some(())
    })
    .await;
    manager.stop().await;
}

#[tokio::test]
async fn demand_on_the_board_wakes_without_a_call() {
    let cell = Cell::new().await;
    let manager = cell.manager("a").await;
    put(&manager, "shop", &manifest(0, 4)).await;
    cell.say(Says { queued: 12, active: true, ..Says::default() });
    until_routed(&cell, "shop", 3).await;
    manager.stop().await;
}

#[tokio::test]
async fn a_failed_start_is_replaced_under_a_new_id() {
    let cell = Cell::new().await;
    cell.executors.fail_next(1);
    let manager = cell.manager("a").await;
    put(&manager, "shop", &manifest(1, 4)).await;
    let ids = until_routed(&cell, "shop", 1).await;
    let started = cell.executors.started();
    assert_eq!(started.len(), 2, "{started:?}");
    assert_eq!(started[1], ids[0]);
    let failed: Value =
        manager.client.get(&format!("/v1/instances/{}", started[0]), LIMIT).await.unwrap();
    assert!(["failed", "stopped"].contains(&failed["state"].as_str().unwrap()));
    manager.stop().await;
}

#[tokio::test]
async fn an_instance_that_fails_later_is_replaced() {
    let cell = Cell::new().await;
    let manager = cell.manager("a").await;
    put(&manager, "shop", &manifest(2, 4)).await;
    let ids = until_routed(&cell, "shop", 2).await;
    cell.executors.tell(&cell.node, &ids[0], RunState::Failed);
    let now = until("another two", || async {
        let now = until_routed(&cell, "shop", 2).await;
        (now != ids).then_some(now)
    })
    .await;
    assert!(now.contains(&ids[1]) && !now.contains(&ids[0]));
    manager.stop().await;
}

#[tokio::test]
async fn a_new_manager_adopts_what_runs() {
    let cell = Cell::new().await;
    let first = cell.manager("a").await;
    put(&first, "shop", &manifest(2, 4)).await;
    let ids = until_routed(&cell, "shop", 2).await;
    until_ready(&first, "shop", 2).await;
    first.stop().await;
    assert_eq!(cell.executors.running(), ids, "a manager that ends stops nothing");
    let before = cell.executors.epoch(&cell.node);
    let second = cell.manager("b").await;
    until("the new term", || async { (cell.executors.epoch(&cell.node) > before).then_some(()) })
        .await;
    until_ready(&second, "shop", 2).await;
    assert_eq!(until_routed(&cell, "shop", 2).await, ids);
    assert_eq!(cell.executors.started().len(), 2, "nothing was started again");
    second.stop().await;
}

#[tokio::test]
async fn a_second_manager_waits_for_the_lease() {
    let cell = Cell::new().await;
    let first = cell.manager("a").await;
    put(&first, "shop", &manifest(1, 4)).await;
    until_routed(&cell, "shop", 1).await;
    let second = cell.manager("b").await;
    until("the second answers", || async {
        second.client.get::<Value>("/v1/services/shop", LIMIT).await.ok()
    })
    .await;
    let wake: Result<Value, _> =
        second.client.post("/v1/services/shop/wake", &json!({"queued": 1}), LIMIT).await;
    assert!(wake.unwrap_err().to_string().contains("503"));
    // A write through the standby is seen by the leader.
    put(&second, "shop", &manifest(3, 4)).await;
    until_routed(&cell, "shop", 3).await;
    first.stop().await;
    put(&second, "shop", &manifest(4, 4)).await;
    until_routed(&cell, "shop", 4).await;
    second.stop().await;
}

#[tokio::test]
async fn a_lost_board_is_shown_everything_again() {
    let cell = Cell::new().await;
    let manager = cell.manager("a").await;
    put(&manager, "shop", &manifest(2, 4)).await;
    let ids = until_routed(&cell, "shop", 2).await;
    cell.board.wipe();
    assert_eq!(until_routed(&cell, "shop", 2).await, ids);
    let name: ServiceName = "shop".parse().unwrap();
    until("the front", || async { cell.board.service(&name).await.unwrap().front }).await;
    manager.stop().await;
}

#[tokio::test]
async fn a_draining_instance_stops_only_when_the_balancer_let_go() {
    let cell = Cell::new().await;
    let manager = cell.manager("a").await;
    put(&manager, "shop", &manifest(1, 4)).await;
    let scale = json!({"instances": 2});
    let _: Value = manager.client.post("/v1/services/shop/scale", &scale, LIMIT).await.unwrap();
    until_routed(&cell, "shop", 2).await;
    cell.say(Says { in_flight: 1, active: true, ..Says::default() });
    until("the balancer is heard", || async {
        let demand = cell.board.demand().await.unwrap();
        let heard = demand.values().flatten().any(|(_, d, _)| d.in_flight.values().any(|n| *n > 0));
        heard.then_some(())
    })
    .await;
    let scale = json!({"instances": 1});
    let _: Value = manager.client.post("/v1/services/shop/scale", &scale, LIMIT).await.unwrap();
    until("one drains", || async {
        let routes = routed(&cell, "shop").await;
        routes.iter().any(|(_, state)| *state == RouteState::Draining).then_some(())
    })
    .await;
    assert_eq!(cell.executors.running().len(), 2);
    cell.say(Says { active: true, ..Says::default() });
    until_routed(&cell, "shop", 1).await;
    until("one runs", || async { (cell.executors.running().len() == 1).then_some(()) }).await;
    manager.stop().await;
}

#[tokio::test]
async fn a_new_revision_replaces_every_instance_and_keeps_the_number() {
    let cell = Cell::new().await;
    let manager = cell.manager("a").await;
    put(&manager, "shop", &manifest(2, 4)).await;
    let old = until_routed(&cell, "shop", 2).await;
    let mut changed = manifest(2, 4);
    changed["run"]["env"] = json!({"COLOUR": "blue"});
    let view = put(&manager, "shop", &changed).await;
    assert_eq!(view["revision"], 2);
    until("two new ones", || async {
        let now = routed(&cell, "shop").await;
        let new = now.len() == 2 && now.iter().all(|(id, _)| !old.contains(id));
        new.then_some(())
    })
    .await;
    until_ready(&manager, "shop", 2).await;
    manager.stop().await;
}

#[tokio::test]
async fn a_silent_nodes_instances_are_replaced_elsewhere() {
    let cell = Cell::new().await;
    let manager = cell.manager("a").await;
    put(&manager, "shop", &manifest(2, 4)).await;
    let old = until_routed(&cell, "shop", 2).await;
    let other: domain::NodeId = "n-abcdefghjk".parse().unwrap();
    cell.put_node(&other).await;
    *cell.placements.nodes.lock().unwrap() = vec![other.clone()];
    cell.executors.deafen(&cell.node, true);
    let new = until("two elsewhere", || async {
        let now = until_routed(&cell, "shop", 2).await;
        now.iter().all(|id| !old.contains(id)).then_some(now)
    })
    .await;
    cell.executors.deafen(&cell.node, false);
    until("the older copies end", || async { (cell.executors.running() == new).then_some(()) })
        .await;
    manager.stop().await;
}

#[tokio::test]
async fn what_the_cap_holds_back_is_told() {
    let cell = Cell::new().await;
    cell.placements.nodes.lock().unwrap().clear();
    let manager = cell.manager("a").await;
    put(&manager, "shop", &manifest(1, 4)).await;
    let told = until("it waits", || async {
        state(&manager, "shop").await["waiting_for"].as_str().map(str::to_owned)
    })
    .await;
    assert!(told.contains("cap") && told.contains("0.04 EUR"), "{told}");
    cell.placements.nodes.lock().unwrap().push(cell.node.clone());
    until_routed(&cell, "shop", 1).await;
    manager.stop().await;
}

#[tokio::test]
async fn a_removed_service_drains_and_leaves_board_and_registry() {
    let cell = Cell::new().await;
    let manager = cell.manager("a").await;
    put(&manager, "shop", &manifest(2, 4)).await;
    until_routed(&cell, "shop", 2).await;
    let _: Value = manager
        .client
        .json::<Value, Value>(Method::DELETE, "/v1/services/shop", None, LIMIT)
        .await
        .unwrap();
    until("nothing runs", || async { cell.executors.running().is_empty().then_some(()) }).await;
    until("no row", || async { cell.registry.services().await.unwrap().is_empty().then_some(()) })
        .await;
    let name: ServiceName = "shop".parse().unwrap();
    until("no front", || async {
        cell.board.service(&name).await.unwrap().front.is_none().then_some(())
    })
    .await;
    manager.stop().await;
}

#[tokio::test]
async fn an_operators_end_of_an_instance_is_replaced_first() {
    let cell = Cell::new().await;
    let manager = cell.manager("a").await;
    put(&manager, "shop", &manifest(1, 4)).await;
    let old = until_routed(&cell, "shop", 1).await;
    let path = format!("/v1/instances/{}/stop", old[0]);
    let _: Value = manager.client.post(&path, &json!(null), LIMIT).await.unwrap();
    until("another one", || async {
        let now = until_routed(&cell, "shop", 1).await;
        (now != old).then_some(())
    })
    .await;
    until("the old one ends", || async {
        (!cell.executors.running().contains(&old[0])).then_some(())
    })
    .await;
    manager.stop().await;
}

#[tokio::test]
async fn a_start_that_is_never_ready_fails_at_its_deadline_and_is_tried_less_and_less() {
    let cell = Cell::new().await;
    cell.executors.stall_starts();
    let manager = cell.manager("a").await;
    let mut body = manifest(1, 4);
    body["lifecycle"]["start_deadline"] = json!("200ms");
    put(&manager, "shop", &body).await;
    let told = until("the guard", || async {
        state(&manager, "shop").await["waiting_for"].as_str().map(str::to_owned)
    })
    .await;
    assert!(told.contains("starts of revision 1 fail"), "{told}");
    assert_eq!(cell.executors.started().len(), 3);
    manager.stop().await;
}

/// With a beat of a minute every step below is an event's doing.
#[tokio::test]
async fn a_wake_a_failure_and_a_drain_need_no_beat() {
    let cell = Cell::new().await;
    let manager = cell.manager_with("a", |config| config.beat = Duration::from_secs(60)).await;
    put(&manager, "shop", &manifest(0, 4)).await;
    cell.say(Says { active: true, ..Says::default() });
    let _: Value = manager.client.post("/v1/services/shop/wake", &json!({}), LIMIT).await.unwrap();
    let ids = until_routed(&cell, "shop", 1).await;
    cell.executors.tell(&cell.node, &ids[0], RunState::Failed);
    let now = until("another one", || async {
        let now = until_routed(&cell, "shop", 1).await;
        (now != ids).then_some(now)
    })
    .await;
    let mut gone = manifest(0, 4);
    gone["run"]["env"] = json!({"COLOUR": "blue"});
    put(&manager, "shop", &gone).await;
    until("the old revision ends", || async {
        let running = cell.executors.running();
        (running.len() == 1 && running != now).then_some(())
    })
    .await;
    manager.stop().await;
}

#[tokio::test]
async fn without_the_machine_manager_starts_wait_and_what_runs_stays() {
    let cell = Cell::new().await;
    let manager = cell.manager("a").await;
    put(&manager, "shop", &manifest(1, 4)).await;
    let ids = until_routed(&cell, "shop", 1).await;
    *cell.placements.away.lock().unwrap() = true;
    let scale = json!({"instances": 2});
    let _: Value = manager.client.post("/v1/services/shop/scale", &scale, LIMIT).await.unwrap();
    let told = until("it waits", || async {
        state(&manager, "shop").await["waiting_for"].as_str().map(str::to_owned)
    })
    .await;
    assert!(told.contains("does not answer"), "{told}");
    assert_eq!(until_routed(&cell, "shop", 1).await, ids);
    *cell.placements.away.lock().unwrap() = false;
    until_routed(&cell, "shop", 2).await;
    manager.stop().await;
}

#[tokio::test]
async fn a_node_that_is_emptied_keeps_serving_until_its_successors_are_ready() {
    let cell = Cell::new().await;
    let manager = cell.manager("a").await;
    put(&manager, "shop", &manifest(2, 4)).await;
    let old = until_routed(&cell, "shop", 2).await;
    let other: domain::NodeId = "n-abcdefghjk".parse().unwrap();
    cell.put_node(&other).await;
    cell.placements.nodes.lock().unwrap().push(other);
    cell.drain_node(&cell.node).await;
    until("two elsewhere", || async {
        let routes = routed(&cell, "shop").await;
        let ready = routes.iter().filter(|(_, state)| *state == RouteState::Ready).count();
        assert!(ready >= 2, "{routes:?}");
        routes.iter().all(|(id, _)| !old.contains(id)).then_some(())
    })
    .await;
    until("the node is empty", || async {
        cell.executors.running().iter().all(|id| !old.contains(id)).then_some(())
    })
    .await;
    manager.stop().await;
}
