//! What operators read and write.

use super::Book;
use super::parts::{AT, instance, node, service};
use crate::manifest::{BudgetManifest, Format, Manifest, ServiceManifest, parse_text};
use crate::operator::{
    BudgetView, DecisionView, EventView, HeldBackView, InstanceView, LedgerView, List, NodeOrder,
    NodePatch, NodeStatsView, NodeTokenAnswer, NodeTokenRequest, NodeView, PlanAnswer,
    PlannedChange, PlannedField, RoomView, ScaleRequest, ServiceStatView, ServiceState,
    ServiceView, WakeRequest,
};
use domain::{Generation, Revision};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub fn write(book: &mut Book) {
    manifests(book);
    services(book);
    instances(book);
    history(book);
    nodes(book);
    money(book);
    plans(book);
}

/// As `manifests.yaml` says them, without what only repeats a default.
fn manifests(book: &mut Book) {
    let text = include_str!("../../goldens/manifests.yaml");
    for manifest in parse_text(text, Format::Yaml).unwrap() {
        match manifest {
            Manifest::Service(m) => book.page("manifest-service", m.as_ref()),
            Manifest::NodeType(m) => book.page("manifest-node-type", m.as_ref()),
            Manifest::Budget(m) => book.page("manifest-budget", &m),
        }
    }
    let least = json!({ "kind": "service", "name": "shop", "run": { "command": ["./shop"] } });
    let least: ServiceManifest = serde_json::from_value(least).unwrap();
    book.page("manifest-service-least", &least);
    let none =
        BudgetManifest { kind: None, monthly_cap: "none".into(), reserve: None, pacing: None };
    book.page("manifest-budget-none", &none);
}

fn services(book: &mut Book) {
    let state = ServiceState {
        desired: 3,
        ready: 1,
        starting: 2,
        draining: 0,
        paused: 0,
        load: Some(0.81),
        held_requests: 4,
        waiting_for: Some("a node that is coming in 40 s".into()),
        deleting: false,
        held_at: Some(3),
        report: Some("3 wanted: load 0.81 above 0.70 for 60 s".into()),
    };
    let manifest = json!({ "name": "shop", "max_instances": 8, "run": { "command": ["./shop"] } });
    let Value::Object(manifest) = manifest else { panic!() };
    let view = ServiceView { manifest, revision: Revision(2), generation: Generation(5), state };
    book.page("service-view", &view);
    book.page("scale-request", &ScaleRequest { instances: Some(3) });
    book.page("scale-release", &ScaleRequest { instances: None });
    book.page("wake-request", &WakeRequest { balancer: Some("b-1".into()), queued: 4 });
}

fn instances(book: &mut Book) {
    let full = InstanceView {
        id: instance(),
        service: service(),
        revision: Revision(2),
        node: Some(node()),
        address: Some("10.0.0.7:20001".into()),
        state: "ready".into(),
        load: Some(0.42),
        load_age_seconds: Some(0.4),
        in_flight: Some(3),
        cpu_millis: Some(120),
        memory_bytes: Some(30 << 20),
        cpu_limit_millis: 250,
        tier: "started".into(),
        created_at: AT,
        ready_at: Some(AT),
        expires_at: Some(AT),
        restarts: 1,
        reason: "well".into(),
    };
    let coming = InstanceView {
        node: None,
        address: None,
        state: "wanted".into(),
        load: None,
        load_age_seconds: None,
        in_flight: None,
        cpu_millis: None,
        memory_bytes: None,
        ready_at: None,
        expires_at: None,
        restarts: 0,
        reason: "waits for a node".into(),
        ..full.clone()
    };
    let list = List { items: vec![full, coming], next: Some("cursor".into()) };
    book.page("instance-list", &list);
}

fn history(book: &mut Book) {
    let decision = DecisionView {
        at: AT,
        service: service(),
        from: 1,
        to: 3,
        reason: "load".into(),
        inputs: "load=0.81 target=0.55 ready=1".into(),
        clamps: vec!["max_instances 8".into()],
        waiting_for: Some("node".into()),
        cost_delta_per_hour: "0.012 EUR".into(),
        actor: "planner".into(),
    };
    book.page("decision-list", &List::whole(vec![decision]));
    let stat = ServiceStatView {
        at: AT,
        load: Some(0.81),
        desired: 3,
        ready: 1,
        starting: 2,
        draining: 0,
        queued: 4,
        rps: 120.5,
    };
    book.page("service-stat-list", &List::whole(vec![stat]));
    let event = EventView {
        seq: 17,
        at: AT,
        kind: "scale".into(),
        subject: "shop".into(),
        what: "up".into(),
        detail: "shop goes from 1 to 3".into(),
        values: "from=1 to=3".into(),
    };
    book.page("event", &event);
}

fn nodes(book: &mut Book) {
    let stats = NodeStatsView {
        cpu_millis: 900,
        cpu: 0.45,
        memory: 1 << 30,
        disk: 2 << 30,
        bandwidth: 3000,
        at: AT,
    };
    let room = |n: u32| RoomView {
        cpu_millis: 1000 * n,
        memory_bytes: u64::from(n) << 30,
        disk_bytes: u64::from(n) << 30,
    };
    let view = NodeView {
        id: node(),
        name: "db-1".into(),
        node_type: "small".into(),
        provider: "local".into(),
        state: "ready".into(),
        address: Some("10.0.0.7".into()),
        may_stop: false,
        price_per_hour: "0.006 EUR".into(),
        capacity: room(2),
        allocated: room(1),
        instances: 4,
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        ordered_at: AT,
        ready_at: Some(AT),
        stats: Some(stats.clone()),
        reason: "joined".into(),
    };
    book.page("node-list", &List::whole(vec![view]));
    book.page("node-stats-list", &List::whole(vec![stats]));
    book.page("node-order", &NodeOrder { node_type: "small".into() });
    book.page("node-patch", &NodePatch { may_stop: false });
    let request: NodeTokenRequest =
        serde_json::from_value(json!({ "type": "small", "name": "db-1", "ttl": "1h" })).unwrap();
    book.page("node-token-request", &request);
    book.page("node-token-answer", &NodeTokenAnswer { token: "one-time".into(), expires_at: AT });
}

fn money(book: &mut Book) {
    let held = HeldBackView {
        node_type: "small".into(),
        service: Some("shop".into()),
        needs: "0.04 EUR".into(),
        until: AT,
        detail: "one more small node for shop needs 0.04 EUR".into(),
    };
    let budget = BudgetView {
        currency: "EUR".into(),
        monthly_cap: "120.00 EUR".into(),
        reserve: "3%".into(),
        spent: "12.50 EUR".into(),
        obligations: "100.00 EUR".into(),
        free: "3.90 EUR".into(),
        forecast: "118.00 EUR".into(),
        exhausted_at: Some(AT),
        over_cap: false,
        pacing: "off".into(),
        held_back: vec![held],
        generation: Generation(4),
    };
    book.page("budget-view", &budget);
    let line = LedgerView {
        at: AT,
        node: node(),
        node_type: "small".into(),
        kind: "reserve".into(),
        amount: "0.006 EUR".into(),
        from: AT,
        until: AT,
        note: "first unit".into(),
    };
    book.page("ledger-list", &List::whole(vec![line]));
}

fn plans(book: &mut Book) {
    let change = PlannedChange {
        kind: "service".into(),
        name: "shop".into(),
        action: "change".into(),
        fields: vec![PlannedField {
            pointer: "/max_instances".into(),
            from: json!(2),
            to: json!(8),
        }],
        effects: vec!["6 more instances may run".into()],
        generation: Generation(5),
    };
    let none = PlannedChange {
        kind: "budget".into(),
        name: String::new(),
        action: "none".into(),
        fields: Vec::new(),
        effects: Vec::new(),
        generation: Generation(4),
    };
    book.page("plan-answer", &PlanAnswer { changes: vec![change, none] });
}
