//! Random input to the operators' API through its router: refused by a problem document, and then
//! nothing is stored and nothing has grown; never a panic, never a failure of ours.

use crate::api::{Api, FOLLOWERS_MAX, router};
use crate::doubles::{TestExecutors, TestPlacements};
use crate::random_bodies::bodies;
use crate::status::Status;
use crate::world::{Shared, Wake};
use crate::{Policy, world};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use chassis::{Identity, Metrics, PeerAddr, Shutdown, SystemClock};
use domain::{ServiceName, ServiceSpec};
use http_body_util::BodyExt;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use registry::{Expect, MemoryRegistry, Registry, Role, ServicePut, ServiceRow};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tower::ServiceExt;
use wire::manifest::ServiceManifest;

const CASES: u32 = 100_000;

struct House {
    registry: Arc<MemoryRegistry>,
    shared: Shared,
    router: Router,
}

/// All that may not change by what is refused.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    services: Vec<ServiceRow>,
    events: u64,
    wakes: BTreeMap<ServiceName, u32>,
    expire: usize,
    known: usize,
}

fn shop() -> Value {
    json!({
        "kind": "service", "name": "shop", "min_instances": 0, "max_instances": 3,
        "run": {"command": ["./shop", "{port}"], "env": {"A": "b"}},
        "resources": {"cpu": "250m", "memory": "64MiB"},
        "needs": {"labels": {"zone": "a"}},
        "load": {"up": "70%", "target": "60%"},
    })
}

impl House {
    /// A leading manager's API with one service, and no loop that would change anything.
    async fn new() -> House {
        let clock = Arc::new(SystemClock::new());
        let registry = Arc::new(MemoryRegistry::new(clock.clone()));
        let shared = Shared::default();
        let manifest: ServiceManifest = serde_json::from_value(shop()).unwrap();
        let spec = ServiceSpec::try_from(&manifest).unwrap();
        let document = serde_json::to_string(&manifest).unwrap();
        let name = spec.name.clone();
        let put =
            ServicePut { name: name.clone(), document, new_revision: true, expect: Expect::Any };
        let row = registry.put_service(put).await.unwrap();
        let role = Role::ContainerManager;
        let lease = registry.take_lease(role, "a", Duration::from_secs(3600)).await.unwrap();
        {
            let mut world = shared.world();
            world.lease = lease;
            world.services.insert(name, world::Service { row, spec: Arc::new(spec) });
        }
        let api = Api {
            shared: shared.clone(),
            registry: registry.clone(),
            board: Arc::new(scoreboard::MemoryBoard::new(clock.clone())),
            placements: Arc::new(TestPlacements::default()),
            executors: Arc::new(TestExecutors::default()),
            clock,
            identity: Identity::generate(),
            policy: Policy::default(),
            status: Status::new(&Metrics::new()),
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            shutdown: Shutdown::new(),
        };
        House { registry, shared, router: router(api, true) }
    }

    async fn kept(&self) -> Kept {
        let services = self.registry.services().await.unwrap();
        let events = self.registry.last_event().await.unwrap();
        let world = self.shared.world();
        let queued = |(name, wake): (&ServiceName, &Wake)| (name.clone(), wake.queued);
        Kept {
            services,
            events,
            wakes: world.wakes.iter().map(queued).collect(),
            expire: world.expire.len(),
            known: world.services.len(),
        }
    }
}

/// Paths that take a body, with a good one.
fn writes() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let json = "application/json";
    vec![
        ("PUT", "/v1/services/shop", json, shop()),
        ("PUT", "/v1/services/shop?dry_run=true", json, shop()),
        ("PATCH", "/v1/services/shop", json, json!({"max_instances": 4, "needs": null})),
        ("POST", "/v1/services/shop/scale", json, json!({"instances": 2})),
        ("POST", "/v1/services/shop/wake", json, json!({"balancer": "b1", "queued": 2})),
        ("POST", "/v1/plan", json, shop()),
        ("POST", "/v1/plan", "application/yaml", shop()),
        ("POST", "/v1/plan", "application/toml", shop()),
        ("POST", "/v1/services/other/wake", json, json!({"queued": 2})),
        ("POST", "/v1/services/other/scale", json, json!({"instances": 2})),
        ("PATCH", "/v1/services/other", json, json!({"max_instances": 4})),
        ("POST", "/v1/instances/shop-0123456789/stop", json, json!({})),
    ]
}

/// Sends one request; the status, or what is wrong with the answer.
async fn sent(house: &House, request: Request<Body>) -> Result<u16, TestCaseError> {
    let answer = house.router.clone().oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    prop_assert!(status < 500, "{status}");
    if status >= 400 {
        let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
        prop_assert!(kind.is_some_and(|kind| kind == "application/problem+json"), "{status}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let problem: Value = serde_json::from_slice(&body).unwrap();
        prop_assert_eq!(&problem["status"], &json!(status));
    }
    Ok(status)
}

/// Runs `CASES` requests; how many were taken and how many refused.
fn all<T: std::fmt::Debug>(
    strategy: &impl Strategy<Value = T>,
    request: impl Fn(T) -> Option<Request<Body>>,
) -> (u32, u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let house = runtime.block_on(House::new());
    let before = std::cell::RefCell::new(runtime.block_on(house.kept()));
    let (taken, refused) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(strategy, |case| {
        let Some(mut request) = request(case) else { return Ok(()) };
        request.extensions_mut().insert(PeerAddr::Unix);
        let status = runtime.block_on(sent(&house, request))?;
        let after = runtime.block_on(house.kept());
        let before = before.replace(after.clone());
        if status >= 400 {
            refused.set(refused.get() + 1);
            prop_assert_eq!(&before, &after, "{}", status);
        } else {
            taken.set(taken.get() + 1);
        }
        prop_assert!(after.services.len() <= 1 && after.wakes.len() <= 1 && after.known == 1);
        Ok(())
    });
    outcome.unwrap();
    (taken.get(), refused.get())
}

#[test]
fn random_bodies_are_taken_or_refused_and_change_nothing_else() {
    let table = writes();
    let good = table.iter().map(|(_, _, _, good)| good.clone()).collect();
    let (taken, refused) = all(&bodies(good), |(n, body)| {
        let (method, path, kind, _) = &table[n];
        let request = Request::builder().method(*method).uri(*path);
        request.header("content-type", *kind).body(Body::from(body)).ok()
    });
    assert!(taken > 1000 && refused > 1000, "near to real ones: {taken} taken, {refused} refused");
}

#[test]
fn random_paths_queries_and_headers_are_taken_or_refused() {
    let part = prop_oneof![
        prop::sample::select(vec![
            "shop",
            "v1",
            "services",
            "instances",
            "events",
            "decisions",
            "load",
            "plan",
            "wake",
            "..",
            "%ff",
            "%00",
            "%2f",
            "shop-0123456789",
            "logs",
            "",
            "scale",
            "stop",
            "nodes",
        ])
        .prop_map(str::to_owned),
        "[!-~]{0,5}".prop_map(|text| text.replace(['?', '#'], "")),
    ];
    let query = (
        prop::sample::select(vec![
            "dry_run", "limit", "cursor", "since", "until", "after", "lines", "x",
        ]),
        prop_oneof![
            prop::sample::select(vec!["true", "1", "-1", "2026-11-22T00:00:00Z", "shop", "%ff"])
                .prop_map(str::to_owned),
            any::<u64>().prop_map(|n| n.to_string()),
            "[!-~]{0,6}".prop_map(|text| text.replace('#', "")),
        ],
    );
    let tag =
        prop::sample::select(vec!["", "*", "\"1\"", "\"x\"", "1", "\"99999999999999999999\""]);
    let method = prop::sample::select(vec!["GET", "PUT", "PATCH", "POST", "DELETE", "BREW"]);
    let case = (method, prop::collection::vec(part, 0..4), prop::collection::vec(query, 0..3), tag);
    let (taken, refused) = all(&case, |(method, parts, query, tag)| {
        // A declaration that is removed ends the test's only service.
        let tag = if method == "DELETE" { "\"77\"" } else { tag };
        let query: Vec<String> =
            query.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let path = format!("/v1/{}?{}", parts.join("/"), query.join("&"));
        let request = Request::builder().method(method).uri(path);
        let name = if method == "GET" { "last-event-id" } else { "if-match" };
        let request = if tag.is_empty() { request } else { request.header(name, tag) };
        request.body(Body::empty()).ok()
    });
    assert!(taken > 1000 && refused > 1000, "near to real ones: {taken} taken, {refused} refused");
}
