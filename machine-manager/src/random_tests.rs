//! Random input to this role's API through its router: refused by a problem document, and then
//! nothing is stored and nothing has grown; never a panic, never a failure of ours.

use crate::random_bodies::bodies;
use crate::world::World;
use crate::{Config, Manager, api, reconcile, status};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use chassis::{Halt, Identity, Metrics, Nudge, PeerAddr, RandomIds, Readiness, Shutdown};
use domain::{Clock, Mono, Node, Timestamp};
use http_body_util::BodyExt;
use machine_planner::Policy;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use registry::{BudgetRow, MemoryRegistry, Registry, TypeRow};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tower::ServiceExt;
use wire::join::JoinAnswer;

const CASES: u32 = 100_000;

/// A clock that stands: what is kept for some time is kept for ever.
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp(1_795_219_200_000)
    }
    fn monotonic(&self) -> Mono {
        Mono(Duration::from_secs(60))
    }
}

struct House {
    registry: Arc<MemoryRegistry>,
    manager: Arc<Manager>,
    router: Router,
    joined: JoinAnswer,
}

/// All that may not change by what is refused.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    types: Vec<TypeRow>,
    budget: Option<BudgetRow>,
    nodes: Vec<Node>,
    events: u64,
    sizes: [usize; 8],
}

fn sizes(world: &World) -> [usize; 8] {
    [
        world.nodes.len(),
        world.admitted.len(),
        world.reserved.len(),
        world.wanted.len(),
        world.heard.len(),
        world.waiting.len(),
        world.answered.len(),
        world.node_stats.len() + world.instance_stats.len(),
    ]
}

fn small() -> Value {
    json!({
        "kind": "node-type", "name": "small", "provider": "static", "cpu": "2", "memory": "2GiB",
        "price_per_hour": "0.20 EUR", "billing_unit": "1h", "max_count": 3,
        "labels": {"zone": "a"},
    })
}

fn joining() -> Value {
    json!({
        "wire": wire::WIRE_VERSION, "name": "db-1", "address": "127.0.0.1",
        "executor_url": "http://127.0.0.1:7403", "cpu_millis": 2000, "memory_bytes": 2u64 << 30,
        "disk_bytes": 0, "labels": {"rack": "1"},
    })
}

fn manager(registry: &Arc<MemoryRegistry>) -> Manager {
    Manager {
        config: Config {
            holder: "a".to_owned(),
            policy: Policy::demo(),
            beat: Duration::from_secs(1),
            load_url: "http://127.0.0.1:7402".to_owned(),
            stats_url: "http://127.0.0.1:7400".to_owned(),
            first_node: None,
            halt: Halt::default(),
        },
        first_type: None,
        registry: registry.clone(),
        clock: Arc::new(Still),
        identity: Identity::generate(),
        container_manager: None,
        providers: BTreeMap::new(),
        nudge: Nudge::new(),
        shutdown: Shutdown::new(),
        meters: Metrics::new().register(status::Meters::register),
        readiness: Readiness::new(),
        guarded: false,
        ids: Mutex::new(Box::new(RandomIds)),
        world: Mutex::default(),
        writer: tokio::sync::Mutex::new(None),
    }
}

async fn asked(router: &Router, method: &str, path: &str, body: &Value) -> Value {
    let request = Request::builder().method(method).uri(path).body(Body::from(body.to_string()));
    let answer = router.clone().oneshot(request.unwrap()).await.unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

impl House {
    /// A leading manager with a type, a budget and a node, and no loop that would change anything.
    async fn new() -> House {
        let registry = Arc::new(MemoryRegistry::new(Arc::new(Still)));
        let manager = Arc::new(manager(&registry));
        reconcile::step(&manager, Vec::new()).await.unwrap();
        let router = api::router(manager.clone());
        asked(&router, "PUT", "/v1/node-types/small", &small()).await;
        asked(&router, "PUT", "/v1/budget", &json!({"monthly_cap": "500 EUR"})).await;
        let token = asked(&router, "POST", "/v1/node-tokens", &json!({"type": "small"})).await;
        let mut join = joining();
        join["token"] = token["token"].clone();
        let joined = asked(&router, "POST", "/v1/nodes/join", &join).await;
        let joined = serde_json::from_value(joined).unwrap();
        House { registry, manager, router, joined }
    }

    async fn kept(&self) -> Kept {
        Kept {
            types: self.registry.node_types().await.unwrap(),
            budget: self.registry.budget().await.unwrap(),
            nodes: self.registry.nodes().await.unwrap(),
            events: self.registry.last_event().await.unwrap(),
            sizes: sizes(&self.manager.world()),
        }
    }
}

/// Paths that take a body, with a good one.
fn writes(joined: &JoinAnswer) -> Vec<(&'static str, String, Value)> {
    let mut by_secret = joining();
    by_secret["node"] = json!(joined.node);
    by_secret["node_secret"] = json!(joined.node_secret);
    let mut by_token = joining();
    by_token["token"] = json!("0123456789abcdef");
    let stats = json!({
        "wire": wire::WIRE_VERSION, "node": joined.node, "seq": 7,
        "measure": {"cpu_millis": 500, "memory_bytes": 1, "disk_bytes": 2,
            "rx_bytes_per_second": 3, "tx_bytes_per_second": 4},
        "instances": [{"instance": "shop-0123456789", "cpu_millis": 5, "memory_bytes": 6}],
    });
    let start = json!({
        "instance": "shop-0123456789", "service": "shop", "revision": 1, "cpu_millis": 200,
        "memory_bytes": 1 << 20, "group": "self-contained", "wake": true, "deadline_ms": 30000,
        "needs": {"labels": {"zone": "a"}}, "not_on": ["n-0123456789"],
    });
    let stops = json!({"service": "shop", "count": 1, "candidates": ["shop-0123456789"]});
    let placement =
        json!({"wire": wire::WIRE_VERSION, "epoch": 1, "wanted": [start], "stops": [stops]});
    let minimum = json!({"service": "shop", "min_instances": 2, "cpu_millis": 200,
        "memory_bytes": 1 << 20, "needs": {"labels": {"zone": "a"}}});
    let path = str::to_owned;
    vec![
        ("PUT", path("/v1/node-types/small"), small()),
        ("PUT", path("/v1/node-types/small?dry_run=true"), small()),
        ("PUT", path("/v1/budget"), json!({"monthly_cap": "400 EUR", "reserve": "5%"})),
        ("PUT", path("/v1/budget?dry_run=true"), json!({"monthly_cap": "400 EUR"})),
        ("POST", path("/v1/nodes"), json!({"type": "small"})),
        ("PATCH", format!("/v1/nodes/{}", joined.node), json!({"may_stop": true})),
        ("PATCH", path("/v1/nodes/none"), json!({"may_stop": true})),
        ("POST", path("/v1/node-tokens"), json!({"type": "small", "name": "x", "ttl": "1h"})),
        ("POST", path("/v1/nodes/join"), by_token),
        ("POST", path("/v1/nodes/join"), by_secret),
        ("POST", path("/v1/stats"), stats),
        ("POST", path("/v1/placements"), placement),
        ("POST", path("/v1/admission"), minimum),
    ]
}

/// Sends one request; the status, or what is wrong with the answer.
async fn sent(house: &House, request: Request<Body>) -> Result<u16, TestCaseError> {
    let answer = house.router.clone().oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    prop_assert!(status < 500, "{}", status);
    if status >= 400 {
        let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
        prop_assert!(kind.is_some_and(|kind| kind == "application/problem+json"), "{}", status);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let problem: Value = serde_json::from_slice(&body).unwrap();
        prop_assert_eq!(&problem["status"], &json!(status));
    }
    Ok(status)
}

/// Runs `CASES` requests; how many were taken and how many refused.
fn all<T: std::fmt::Debug>(
    house: &House,
    runtime: &tokio::runtime::Runtime,
    strategy: &impl Strategy<Value = T>,
    request: impl Fn(T) -> Option<Request<Body>>,
) -> (u32, u32) {
    let before = std::cell::RefCell::new(runtime.block_on(house.kept()));
    let (taken, refused) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() };
    let outcome = TestRunner::new(config).run(strategy, |case| {
        let Some(mut request) = request(case) else { return Ok(()) };
        request.extensions_mut().insert(PeerAddr::Unix);
        let order = request.uri().path() == "/v1/nodes";
        let status = runtime.block_on(sent(house, request))?;
        let after = runtime.block_on(house.kept());
        let before = before.replace(after.clone());
        if status >= 400 {
            refused.set(refused.get() + 1);
            prop_assert_eq!(&before.nodes, &after.nodes, "{}", status);
            prop_assert_eq!(&before.types, &after.types, "{}", status);
            prop_assert_eq!(&before.budget, &after.budget, "{}", status);
            // An order makes a step, which ends things, and tells why it was held back.
            let told = after.events - before.events;
            prop_assert!(told <= u64::from(order), "{} events by {}", told, status);
            let grown = before.sizes.iter().zip(after.sizes).any(|(was, is)| is > *was);
            prop_assert!(!grown, "{:?} to {:?} by {}", before.sizes, after.sizes, status);
        } else {
            taken.set(taken.get() + 1);
        }
        prop_assert!(after.types.len() <= 1 && after.nodes.len() <= 1);
        let labels = after.nodes.iter().map(|node| node.labels.len()).sum::<usize>();
        prop_assert!(labels <= crate::join::LABELS_MAX, "{} labels", labels);
        Ok(())
    });
    outcome.unwrap();
    (taken.get(), refused.get())
}

fn started() -> (tokio::runtime::Runtime, House) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let house = runtime.block_on(House::new());
    (runtime, house)
}

#[test]
fn random_bodies_are_taken_or_refused_and_change_nothing_else() {
    let (runtime, house) = started();
    let table = writes(&house.joined);
    let good = table.iter().map(|(_, _, good)| good.clone()).collect();
    let token = format!("Bearer {}", house.joined.node_secret);
    let (taken, refused) = all(&house, &runtime, &bodies(good), |(n, body)| {
        let (method, path, _) = &table[n];
        let request = Request::builder().method(*method).uri(path);
        request.header("authorization", &token).body(Body::from(body)).ok()
    });
    assert!(taken > 1000 && refused > 1000, "near to real ones: {taken} taken, {refused} refused");
}

#[test]
fn random_paths_queries_and_headers_are_taken_or_refused() {
    let (runtime, house) = started();
    let part = prop_oneof![
        prop::sample::select(vec![
            "nodes",
            "db-1",
            "node-types",
            "small",
            "budget",
            "ledger",
            "stats",
            "drain",
            "nudge",
            "status",
            "join",
            "placements",
            "..",
            "%ff",
            "%00",
            "%2f",
            "n-0123456789",
            "",
            "nodes/db-1",
            "nodes/db-1/stats",
            "node-types/small",
        ])
        .prop_map(str::to_owned),
        "[!-~]{0,5}".prop_map(|text| text.replace(['?', '#'], "")),
    ];
    let query = (
        prop::sample::select(vec!["dry_run", "force", "limit", "since", "until", "x"]),
        prop_oneof![
            prop::sample::select(vec!["true", "1", "-1", "2026-11-22T00:00:00Z", "%ff"])
                .prop_map(str::to_owned),
            any::<u64>().prop_map(|n| n.to_string()),
            "[!-~]{0,6}".prop_map(|text| text.replace('#', "")),
        ],
    );
    let tag =
        prop::sample::select(vec!["", "*", "\"1\"", "\"x\"", "1", "\"99999999999999999999\""]);
    let method = prop::sample::select(vec!["GET", "PUT", "PATCH", "POST", "DELETE", "BREW"]);
    let case = (method, prop::collection::vec(part, 0..4), prop::collection::vec(query, 0..3), tag);
    let (taken, refused) = all(&house, &runtime, &case, |(method, parts, query, tag)| {
        let mut query: Vec<String> =
            query.iter().map(|(key, value)| format!("{key}={value}")).collect();
        if method == "DELETE" {
            // What is removed would leave the other cases nothing to find.
            query = vec!["dry_run=true".to_owned()];
        }
        let path = format!("/v1/{}?{}", parts.join("/"), query.join("&"));
        let request = Request::builder().method(method).uri(path);
        let request = if tag.is_empty() { request } else { request.header("if-match", tag) };
        request.body(Body::empty()).ok()
    });
    assert!(taken > 300 && refused > 1000, "near to real ones: {taken} taken, {refused} refused");
}
