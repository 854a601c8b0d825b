//! The machine-manager's API: what is refused, and how it says so.

use crate::house::{House, PATIENCE, get, joining, put, refused, until};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use machine_manager::FirstNode;
use serde_json::{Value, json};
use wire::join::JoinAnswer;

async fn token(client: &chassis::Client, node_type: &str) -> String {
    let body = json!({"type": node_type});
    let made: Value = client.post("/v1/node-tokens", &body, PATIENCE).await.unwrap();
    made["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_static_node_joins_once_with_its_token_and_is_protected() {
    let mut house = House::new();
    let running = house.ready().await;
    let client = &running.client;
    let mut fixed = crate::house::small();
    fixed["provider"] = json!("static");
    fixed["max_count"] = json!(2);
    put(client, "/v1/node-types/fixed", &fixed).await.unwrap();
    let one = token(client, "fixed").await;
    let joined: JoinAnswer =
        client.post("/v1/nodes/join", &joining(&one, "db-1"), PATIENCE).await.unwrap();
    let node = get(client, "/v1/nodes/db-1").await.unwrap();
    assert_eq!(node["id"], joined.node.as_str());
    assert_eq!((&node["state"], &node["may_stop"]), (&json!("ready"), &json!(false)));

    let again = client.post::<_, Value>("/v1/nodes/join", &joining(&one, "db-2"), PATIENCE).await;
    let (status, detail) = refused(again);
    assert_eq!(status, 401);
    assert!(detail.contains("tally node token"), "{detail}");
    let two = token(client, "fixed").await;
    let same = client.post::<_, Value>("/v1/nodes/join", &joining(&two, "db-1"), PATIENCE).await;
    assert_eq!(refused(same).0, 409, "names are unique");
    let none = client.post::<_, Value>("/v1/node-tokens", &json!({"type": "fixd"}), PATIENCE).await;
    let (status, detail) = refused(none);
    assert_eq!(status, 422);
    assert!(detail.contains("known are: fixed, small"), "{detail}");
    let order = client.post::<_, Value>("/v1/nodes", &json!({"type": "fixed"}), PATIENCE).await;
    assert!(refused(order).1.contains("join by themselves"));
    running.end().await;
}

#[tokio::test]
async fn a_remote_node_may_not_join_with_a_loopback_address() {
    let mut house = House::new();
    let running = house.ready().await;
    let body = Bytes::from(serde_json::to_vec(&joining("any", "far")).unwrap());
    let mut headers = HeaderMap::new();
    headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.7"));
    let answer =
        running.client.call(Method::POST, "/v1/nodes/join", headers, body, PATIENCE).await.unwrap();
    assert_eq!(answer.status, 422);
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(problem["errors"][0]["pointer"], "/address");
    running.end().await;
}

#[tokio::test]
async fn node_types_are_checked_versioned_and_kept_while_in_use() {
    let mut house = House::new();
    let running = house.ready().await;
    let client = &running.client;
    let mut odd = crate::house::small();
    odd["provider"] = json!("clod");
    let (status, detail) = refused(put(client, "/v1/node-types/odd", &odd).await);
    assert_eq!(status, 422);
    assert!(detail.contains("known are: cloud"), "{detail}");
    let mut foreign = crate::house::small();
    foreign["price_per_hour"] = json!("0.20 USD");
    let (status, detail) = refused(put(client, "/v1/node-types/odd", &foreign).await);
    assert_eq!(status, 422);
    assert!(detail.contains("in EUR, not in USD"), "{detail}");
    let (status, _) = refused(put(client, "/v1/node-types/odd", &json!({"cpu": "2"})).await);
    assert_eq!(status, 422);

    let body = Bytes::from(serde_json::to_vec(&crate::house::small()).unwrap());
    let send = async |tag: &'static str, body: Bytes| {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::IF_MATCH, HeaderValue::from_static(tag));
        let path = "/v1/node-types/small";
        client.call(Method::PUT, path, headers, body, PATIENCE).await.unwrap()
    };
    assert_eq!(send("\"7\"", body.clone()).await.status, 412);
    let right = send("\"1\"", body).await;
    assert_eq!(right.status, 200);
    assert_eq!(right.headers[http::header::ETAG], "\"1\"", "the same content is the same version");

    let _made: Value = client.post("/v1/nodes", &json!({"type": "small"}), PATIENCE).await.unwrap();
    let path = "/v1/node-types/small";
    let removed = client.json::<(), Value>(Method::DELETE, path, None, PATIENCE).await;
    assert_eq!(refused(removed).0, 409);
    running.end().await;
}

#[tokio::test]
async fn the_maximum_and_the_cap_hold_for_operators_too() {
    let mut house = House::new();
    let running = house.ready().await;
    let client = &running.client;
    let mut one = crate::house::small();
    one["max_count"] = json!(1);
    put(client, "/v1/node-types/small", &one).await.unwrap();
    let order =
        async || client.post::<_, Value>("/v1/nodes", &json!({"type": "small"}), PATIENCE).await;
    let first = order().await.unwrap();
    assert_eq!(first["state"], "ordered");
    let (status, detail) = refused(order().await);
    assert_eq!(status, 409);
    assert_eq!(detail, "all nodes allowed are there: small (1)");

    let mut gold = crate::house::small();
    gold["price_per_hour"] = json!("90000 EUR");
    put(client, "/v1/node-types/gold", &gold).await.unwrap();
    let answer = client.post::<_, Value>("/v1/nodes", &json!({"type": "gold"}), PATIENCE).await;
    let (status, detail) = refused(answer);
    assert_eq!(status, 422);
    assert!(detail.starts_with("blocked by cost cap: needs "), "{detail}");
    running.end().await;
}

#[tokio::test]
async fn a_minimum_is_admitted_to_the_months_end_or_refused_with_the_amount() {
    let mut house = House::new();
    let running = house.ready().await;
    let client = &running.client;
    let ask = async |min: u32| -> Value {
        let body = json!({
            "service": "shop", "min_instances": min, "cpu_millis": 2000, "memory_bytes": 1 << 20,
        });
        client.post("/v1/admission", &body, PATIENCE).await.unwrap()
    };
    // 31 days x 0.20 an hour are 148.80: ten do not carry it.
    let refused = ask(1).await;
    assert_eq!(refused["admitted"], false);
    assert!(refused["needs_micros"].as_i64().unwrap() > 130_000_000, "{refused}");
    assert_eq!(ask(0).await["admitted"], true);
    put(client, "/v1/budget", &json!({"monthly_cap": "160 EUR"})).await.unwrap();
    assert_eq!(ask(1).await["admitted"], true);
    assert_eq!(ask(2).await["admitted"], false);
    running.end().await;
}

#[tokio::test]
async fn the_first_node_is_there_from_the_start_and_adopted_afterwards() {
    let mut house = House::new();
    let mut manifest = crate::house::small();
    manifest["name"] = json!("this-host");
    manifest["price_per_hour"] = json!("0 EUR");
    let first =
        FirstNode { node_type: serde_json::from_value(manifest).unwrap(), name: "home".to_owned() };
    let running = house.manager("one", Some(first.clone())).await;
    let node = house.ordered(1).await;
    house.join(&running.client, &node).await;
    let view = get(&running.client, "/v1/nodes/home").await.unwrap();
    assert_eq!((&view["may_stop"], &view["state"]), (&json!(false), &json!("ready")));
    running.end().await;

    let again = house.manager("one", Some(first)).await;
    until("it leads again", async || get(&again.client, "/v1/nodes").await.is_ok()).await;
    let list = get(&again.client, "/v1/nodes").await.unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(house.cloud.orders.lock().unwrap().len(), 1);
    again.end().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_a_problem_document() {
    let mut house = House::new();
    let running = house.ready().await;
    let client = &running.client;
    assert_eq!(refused(get(client, "/v1/nodes/nobody").await).0, 404);
    assert_eq!(refused(get(client, "/v1/nothing").await).0, 404);
    let wrong = json!({"wire": 99, "epoch": 1, "wanted": []});
    assert_eq!(refused(client.post::<_, Value>("/v1/placements", &wrong, PATIENCE).await).0, 422);
    let extra = json!({"monthly_cap": "10 EUR", "montly": 1});
    let (status, detail) = refused(put(client, "/v1/budget", &extra).await);
    assert_eq!(status, 422);
    assert!(detail.contains("montly"), "{detail}");
    let (status, _) = refused(put(client, "/v1/budget", &json!({"monthly_cap": "ten"})).await);
    assert_eq!(status, 422);
    let metrics = client
        .call(Method::GET, "/metrics", HeaderMap::new(), Bytes::new(), PATIENCE)
        .await
        .unwrap();
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    for name in
        ["tally_nodes", "tally_budget_spent", "tally_budget_cap 10.0", "tally_step_duration"]
    {
        assert!(text.contains(name), "{name}");
    }
    running.end().await;
}
