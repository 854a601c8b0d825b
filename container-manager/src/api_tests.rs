//! The API as its clients see it: versions, refusals with pointers, credentials, streams.

use crate::cell::{Cell, Manager, until};
use bytes::Bytes;
use chassis::peer::Answer;
use chassis::{Client, Listen};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

pub async fn call(
    client: &Client,
    method: &str,
    path: &str,
    tag: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    for (name, value) in tag {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let body = Bytes::copy_from_slice(body.as_bytes());
    client.call(method, path, headers, body, LIMIT).await.unwrap()
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

pub async fn started(cell: &Cell) -> Manager {
    let manager = cell.manager("a").await;
    until("the first step", || async {
        let answer = call(&manager.client, "GET", "/readyz", &[], "").await;
        (answer.status == 200).then_some(())
    })
    .await;
    manager
}

const SHOP: &str = r#"{"max_instances": 3, "run": {"command": ["./shop"]}}"#;
const MORE: &str = r#"{"max_instances": 4, "run": {"command": ["./shop"]}}"#;

#[tokio::test]
async fn versions_guard_writes() {
    let cell = Cell::new().await;
    let manager = started(&cell).await;
    let client = &manager.client;
    let path = "/v1/services/shop";
    let made = call(client, "PUT", path, &[("if-none-match", "*")], SHOP).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.headers["etag"], "\"1\"");
    assert_eq!(json_of(&made)["name"], "shop");
    let table: [(&str, &str, u16); 5] = [
        ("if-none-match", "*", 412),
        ("if-match", "\"7\"", 412),
        ("if-match", "7", 412),
        ("if-match", "\"1\"", 200),
        ("if-match", "\"1\"", 412),
    ];
    for (name, value, status) in table {
        let answer = call(client, "PUT", path, &[(name, value)], MORE).await;
        assert_eq!(answer.status, status, "{name}: {value}");
    }
    let gone = call(client, "PUT", "/v1/services/other", &[("if-match", "*")], SHOP).await;
    assert_eq!(gone.status, 412);
    let stale = call(client, "DELETE", path, &[("if-match", "\"1\"")], "").await;
    assert_eq!(stale.status, 412);
    let read = call(client, "GET", path, &[], "").await;
    assert_eq!(read.headers["etag"], "\"2\"");
    assert_eq!(json_of(&read)["revision"], 1, "another maximum is no new revision");
    manager.stop().await;
}

#[tokio::test]
async fn a_patch_changes_what_it_names() {
    let cell = Cell::new().await;
    let manager = started(&cell).await;
    let (client, path) = (&manager.client, "/v1/services/shop");
    assert_eq!(call(client, "PATCH", path, &[], "{}").await.status, 404);
    call(client, "PUT", path, &[], SHOP).await;
    let patched = call(client, "PATCH", path, &[], r#"{"max_instances": 7}"#).await;
    let view = json_of(&patched);
    assert_eq!((&view["max_instances"], &view["generation"]), (&json!(7), &json!(2)), "{view}");
    assert_eq!(view["run"]["command"], json!(["./shop"]));
    let wrong = call(client, "PATCH", path, &[], r#"{"min_instances": 8}"#).await;
    assert_eq!(json_of(&wrong)["errors"][0]["pointer"], "/min_instances");
    let stale = call(client, "PATCH", path, &[("if-match", "\"1\"")], "{}").await;
    assert_eq!(stale.status, 412);
    manager.stop().await;
}

#[tokio::test]
async fn refusals_say_where_and_why() {
    let cell = Cell::new().await;
    let manager = started(&cell).await;
    let table = [
        ("PUT", "/v1/services/shop", "{", 400, ""),
        ("PUT", "/v1/services/shop", "[]", 422, ""),
        ("PUT", "/v1/services/shop", r#"{"run": {"command": ["a"]}, "mx_instances": 3}"#, 422, ""),
        ("PUT", "/v1/services/Shop", SHOP, 422, "/name"),
        (
            "PUT",
            "/v1/services/shop",
            r#"{"name": "other", "run": {"command": ["a"]}}"#,
            422,
            "/name",
        ),
        (
            "PUT",
            "/v1/services/shop",
            r#"{"min_instances": 2, "run": {"command": ["a"]}}"#,
            422,
            "/min_instances",
        ),
        (
            "PUT",
            "/v1/services/shop",
            r#"{"run": {"command": ["a"]}, "load": {"up": "50%", "target": "48%"}}"#,
            422,
            "/load/target",
        ),
        ("GET", "/v1/services/none", "", 404, ""),
        ("POST", "/v1/services/none/wake", "{}", 404, ""),
        ("POST", "/v1/services/none/scale", r#"{"instances": 1}"#, 404, ""),
        ("GET", "/v1/instances/none", "", 404, ""),
        ("GET", "/v1/nothing", "", 404, ""),
        ("PATCH", "/v1/services", "{}", 405, ""),
    ];
    for (method, path, body, status, pointer) in table {
        let answer = call(&manager.client, method, path, &[], body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}");
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{path}");
        let problem = json_of(&answer);
        assert_eq!(problem["status"], status);
        if !pointer.is_empty() {
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        }
    }
    manager.stop().await;
}

#[tokio::test]
async fn a_minimum_over_the_cap_is_refused() {
    let cell = Cell::new().await;
    let manager = started(&cell).await;
    *cell.placements.refuse.lock().unwrap() = true;
    let body = r#"{"min_instances": 1, "max_instances": 3, "run": {"command": ["./shop"]}}"#;
    let answer = call(&manager.client, "PUT", "/v1/services/shop", &[], body).await;
    assert_eq!((answer.status.as_u16(), &json_of(&answer)["type"]), (422, &json!("/problems/cap")));
    let fine = call(&manager.client, "PUT", "/v1/services/shop", &[], SHOP).await;
    assert_eq!(fine.status, 201);
    manager.stop().await;
}

#[tokio::test]
async fn a_dry_run_and_a_plan_change_nothing() {
    let cell = Cell::new().await;
    let manager = started(&cell).await;
    let dry = call(&manager.client, "PUT", "/v1/services/shop?dry_run=true", &[], SHOP).await;
    assert_eq!((dry.status.as_u16(), &json_of(&dry)["generation"]), (200, &json!(1)));
    let text =
        "kind: service\nname: shop\nmin_instances: 2\nmax_instances: 3\nrun: {command: [./shop]}\n";
    let planned =
        call(&manager.client, "POST", "/v1/plan", &[("content-type", "application/yaml")], text)
            .await;
    let planned = json_of(&planned);
    assert_eq!(planned["changes"][0]["action"], "create");
    assert!(planned["changes"][0]["effects"].to_string().contains("wants 2"), "{planned}");
    let list = json_of(&call(&manager.client, "GET", "/v1/services", &[], "").await);
    assert_eq!(list["items"], json!([]));
    call(&manager.client, "PUT", "/v1/services/shop", &[], SHOP).await;
    let text = "kind: service\nname: shop\nmax_instances: 5\nrun: {command: [./shop]}\n";
    let planned = json_of(
        &call(&manager.client, "POST", "/v1/plan", &[("content-type", "application/yaml")], text)
            .await,
    );
    let field = &planned["changes"][0]["fields"][0];
    assert_eq!(
        (&field["pointer"], &field["to"]),
        (&json!("/max_instances"), &json!(5)),
        "{planned}"
    );
    manager.stop().await;
}

#[tokio::test]
async fn the_scale_stays_within_the_bounds() {
    let cell = Cell::new().await;
    let manager = started(&cell).await;
    call(&manager.client, "PUT", "/v1/services/shop", &[], SHOP).await;
    let path = "/v1/services/shop/scale";
    let over = call(&manager.client, "POST", path, &[], r#"{"instances": 4}"#).await;
    assert_eq!(over.status, 422);
    let held = call(&manager.client, "POST", path, &[], r#"{"instances": 2}"#).await;
    assert_eq!(json_of(&held)["state"]["held_at"], 2);
    until("two", || async {
        let view = json_of(&call(&manager.client, "GET", "/v1/services/shop", &[], "").await);
        (view["state"]["ready"] == 2).then_some(())
    })
    .await;
    let free = call(&manager.client, "POST", path, &[], r#"{"instances": null}"#).await;
    assert_eq!(json_of(&free)["state"]["held_at"], Value::Null);
    manager.stop().await;
}

#[tokio::test]
async fn instances_and_their_logs_are_shown() {
    let cell = Cell::new().await;
    let manager = started(&cell).await;
    let body = r#"{"min_instances": 1, "max_instances": 3, "run": {"command": ["./shop"]}}"#;
    call(&manager.client, "PUT", "/v1/services/shop", &[], body).await;
    let id = until("one is ready", || async {
        let list =
            json_of(&call(&manager.client, "GET", "/v1/services/shop/instances", &[], "").await);
        let first = list["items"][0].clone();
        (first["state"] == "ready").then(|| first["id"].as_str().unwrap().to_owned())
    })
    .await;
    let logs =
        call(&manager.client, "GET", &format!("/v1/instances/{id}/logs?lines=2"), &[], "").await;
    assert_eq!(json_of(&logs)["lines"], json!(["line 0", "line 1"]));
    let metrics = call(&manager.client, "GET", "/metrics", &[], "").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains("tally_service_instances{service=\"shop\",state=\"ready\"} 1"), "{text}");
    manager.stop().await;
}

#[tokio::test]
async fn a_page_of_another_site_may_do_nothing() {
    let cell = Cell::new().await;
    let manager = started(&cell).await;
    let own = manager.client.peer().to_string();
    let port = own.rsplit_once(':').unwrap().1.to_owned();
    let rebound = format!("evil.example:{port}");
    let local = format!("localhost:{port}");
    let table: [(&[(&str, &str)], u16); 5] = [
        (&[("origin", &own)], 200),
        (&[("host", &local)], 200),
        (&[("origin", "https://evil.example")], 403),
        (&[("origin", "null")], 403),
        (&[("host", &rebound)], 403),
    ];
    for (headers, status) in table {
        let answer = call(&manager.client, "GET", "/v1/services", headers, "").await;
        assert_eq!(answer.status, status, "{headers:?}");
    }
    manager.stop().await;
}

#[tokio::test]
async fn money_and_nodes_are_passed_on() {
    let cell = Cell::new().await;
    let manager = started(&cell).await;
    let table = [
        ("GET", "/v1/budget", "", "GET /v1/budget "),
        ("POST", "/v1/nodes", r#"{"type":"small"}"#, r#"POST /v1/nodes {"type":"small"}"#),
        (
            "GET",
            "/v1/nodes/n-0123456789/stats?since=5",
            "",
            "GET /v1/nodes/n-0123456789/stats?since=5 ",
        ),
        ("DELETE", "/v1/node-types/small", "", "DELETE /v1/node-types/small "),
    ];
    for (method, path, body, expected) in table {
        let answer = call(&manager.client, method, path, &[], body).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, expected.as_bytes()));
    }
    manager.stop().await;
}

#[tokio::test]
async fn events_are_followed_and_resumed() {
    let cell = Cell::new().await;
    let manager = started(&cell).await;
    call(&manager.client, "PUT", "/v1/services/shop", &[], SHOP).await;
    let stream = manager.client.stream("/v1/events?after=0", LIMIT).await.unwrap();
    let mut bytes = stream.bytes_stream();
    let mut text = String::new();
    let read = async {
        while !text.contains("\"what\":\"declared\"") {
            let chunk = bytes.next().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    tokio::time::timeout(crate::cell::PATIENCE, read).await.unwrap();
    assert!(text.contains("event: service"), "{text}");
    assert!(text.starts_with("id: 1\n"), "{text}");
    drop(bytes);
    manager.stop().await;
}

#[tokio::test]
async fn beyond_loopback_a_token_is_asked_for() {
    let cell = Cell::new().await;
    let shared = crate::world::Shared::default();
    let api = crate::api::Api {
        shared,
        registry: cell.registry.clone(),
        board: cell.board.clone(),
        placements: cell.placements.clone(),
        executors: cell.executors.clone(),
        clock: cell.clock.clone(),
        identity: cell.identity.clone(),
        policy: crate::Policy::default(),
        status: crate::status::Status::new(&chassis::Metrics::new()),
        followers: std::sync::Arc::new(tokio::sync::Semaphore::new(1)),
        shutdown: cell.end.clone(),
    };
    let listen = Listen::Tcp(([127, 0, 0, 1], 0).into());
    let listener = chassis::Listener::bind(&listen).await.unwrap();
    let client = Client::new(format!("http://{}", listener.local()).parse().unwrap());
    let end = cell.end.clone();
    let router = crate::api::router(api, false);
    tokio::spawn(async move {
        chassis::serve(listener, router, chassis::ServerLimits::default(), &end).await;
    });
    let admin = client.clone().with_token(cell.identity.admin_token());
    let balancer = client.clone().with_token(&cell.identity.balancer_token());
    let stranger = client.clone().with_token("no");
    let table: [(&Client, &str, &str, u16); 8] = [
        (&client, "GET", "/v1/services", 401),
        (&stranger, "GET", "/v1/services", 401),
        (&admin, "GET", "/v1/services", 200),
        (&balancer, "GET", "/v1/services", 403),
        (&balancer, "PUT", "/v1/services/wake", 403),
        (&balancer, "POST", "/v1/services/shop/wake", 503),
        (&client, "POST", "/v1/services/shop/wake", 401),
        (&client, "POST", "/v1/nodes/join", 200),
    ];
    for (client, method, path, status) in table {
        let answer = call(client, method, path, &[], "{}").await;
        assert_eq!(answer.status, status, "{method} {path}");
    }
}
