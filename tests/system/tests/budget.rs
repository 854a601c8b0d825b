//! Money as an operator meets it: nothing is bought without a budget, nothing above the cap, and
//! what is held back says by how much.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use system_tests::load::get;
use system_tests::platform::{Platform, demo_service};
use system_tests::process::run;
use system_tests::wait::until;

/// A local node at 0.36 EUR an hour, billed by the hour.
fn paid() -> Value {
    json!({
        "provider": "local", "cpu": "1", "memory": "256MiB", "max_count": 2,
        "price_per_hour": "0.36 EUR", "billing_unit": "1h",
    })
}

/// A service that runs on such nodes alone.
fn on_paid_nodes(min: u32) -> Value {
    let mut body = demo_service(min, 2);
    body["needs"] = json!({"node_type": "paid"});
    body
}

async fn with_type() -> Platform {
    let platform = Platform::start(None).await;
    let declared = platform.api().put("/v1/node-types/paid", &paid()).await;
    assert_eq!(declared.status, StatusCode::CREATED, "{}", declared.body);
    platform
}

async fn cap(platform: &Platform, amount: &str) {
    let set = platform.api().put("/v1/budget", &json!({"monthly_cap": amount})).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.body);
    assert_eq!(set.body["monthly_cap"], json!(amount), "{}", set.body);
}

/// `0.36 EUR` in millionths.
fn micros(amount: &Value) -> i64 {
    let text = amount.as_str().expect("an amount").trim_end_matches(" EUR");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let part = format!("{part:0<6}");
    whole.parse::<i64>().expect("euros") * 1_000_000 + part.parse::<i64>().expect("a fraction")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_budget_nothing_is_bought_and_the_refusal_names_the_command() {
    let platform = with_type().await;
    let order = platform.api().call(Method::POST, "/v1/nodes", &[], r#"{"type": "paid"}"#).await;
    assert_eq!(order.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", order.body);
    assert_eq!(order.body["type"], "/problems/cap", "{}", order.body);
    let detail = order.body["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("tally budget set --monthly-cap"), "{detail}");
    let minimum = platform.api().put("/v1/services/dear", &on_paid_nodes(1)).await;
    assert_eq!(minimum.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", minimum.body);
    assert_eq!(minimum.body["type"], "/problems/cap", "{}", minimum.body);
    let budget = platform.api().get("/v1/budget").await.body;
    assert_eq!(budget["monthly_cap"], "unset", "{budget}");
    assert_eq!(platform.nodes().await.unwrap().len(), 1, "nothing was ordered");
    platform.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cap_holds_an_order_back_by_an_amount_until_it_is_raised() {
    let platform = with_type().await;
    cap(&platform, "0.10 EUR").await;

    let minimum = platform.api().put("/v1/services/dear", &on_paid_nodes(1)).await;
    assert_eq!(minimum.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", minimum.body);
    assert_eq!(minimum.body["type"], "/problems/cap", "{}", minimum.body);
    assert_eq!(minimum.body["errors"][0]["pointer"], "/min_instances", "{}", minimum.body);
    let gone = platform.api().get("/v1/services/dear").await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND, "a refused declaration changes nothing");

    let declared = platform.api().put("/v1/services/dear", &on_paid_nodes(0)).await;
    assert_eq!(declared.status, StatusCode::CREATED, "{}", declared.body);
    let front = platform.at.front;
    let asking = tokio::spawn(async move { get(front, "dear").await });
    let held = until("what the cap holds back", || async {
        let budget = platform.api().get("/v1/budget").await.body;
        let held = budget["held_back"][0].clone();
        if held.is_null() { Err(budget) } else { Ok(held) }
    })
    .await;
    assert_eq!(held["node_type"], "paid", "{held}");
    // An hour costs 0.36 EUR and 0.10 EUR is the cap, of which a share stays free.
    let needs = micros(&held["needs"]);
    assert!((260_000..=360_000).contains(&needs), "{held}");
    let waiting = until("why the service waits", || async {
        platform.service("dear").await?.state.waiting_for.ok_or_else(|| platform.log())
    })
    .await;
    assert!(waiting.contains("cap"), "{waiting}");
    let events = run(&["events", "--json", "--api", &platform.at.api]);
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    assert!(events.contains("held_back") && events.contains("needs_micros="), "{events}");
    assert_eq!(platform.nodes().await.unwrap().len(), 1, "nothing was ordered");

    cap(&platform, "5.00 EUR").await;
    let reply = asking.await.unwrap().unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}\n{}", reply.body, platform.log());
    let budget = platform.api().get("/v1/budget").await.body;
    let promised = micros(&budget["spent"]) + micros(&budget["obligations"]);
    assert!(promised > 0 && promised <= micros(&budget["monthly_cap"]), "{budget}");
    assert_eq!(budget["held_back"], json!([]), "{budget}");
    let ledger = platform.api().get("/v1/ledger").await.body;
    assert_eq!(ledger["items"][0]["kind"], "reserve", "written before the order: {ledger}");
    platform.down().await;
}
