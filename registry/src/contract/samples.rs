//! Records for tests, right in themselves and told apart by a number.

use super::BEGINNING;
use crate::store::{Expect, ServicePut};
use domain::{
    Budget, Bytes, Capacity, Decision, Event, EventKind, Instance, InstanceId, InstanceState,
    LedgerEntry, LedgerKind, MilliCpu, Money, Node, NodeId, NodeState, NodeType, NodeTypeName,
    Pool, PricePerHour, Resources, Revision, ServiceName, Tier, Timestamp,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// The ten characters of the `n`-th id.
fn part(n: u32) -> String {
    format!("{n:010x}")
}

/// A service's name.
#[must_use]
pub fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

/// A type's name.
#[must_use]
pub fn type_name(name: &str) -> NodeTypeName {
    name.parse().unwrap()
}

/// The `n`-th instance id of a service.
#[must_use]
pub fn instance_id(name: &str, n: u32) -> InstanceId {
    format!("{name}-{}", part(n)).parse().unwrap()
}

/// The `n`-th node id.
#[must_use]
pub fn node_id(n: u32) -> NodeId {
    format!("n-{}", part(n)).parse().unwrap()
}

/// A declaration to put.
#[must_use]
pub fn put(name: &str, document: &str, new_revision: bool, expect: Expect) -> ServicePut {
    ServicePut { name: service(name), document: document.to_owned(), new_revision, expect }
}

/// The `n`-th instance of a service, of its first revision.
#[must_use]
pub fn instance(name: &str, n: u32, state: InstanceState) -> Instance {
    Instance {
        id: instance_id(name, n),
        service: service(name),
        revision: Revision(1),
        node: Some(node_id(n)),
        resources: Resources { cpu: MilliCpu(250), memory: Bytes(64 << 20) },
        state,
        state_since: BEGINNING,
        deadline: Some(BEGINNING.plus(Duration::from_secs(30))),
        address: Some("10.0.0.7:8080".parse().unwrap()),
        tier: Tier::Started,
        created_at: BEGINNING,
        ready_at: None,
        expires_at: None,
        restarts: 0,
        replaces: None,
        reason: "a sample".to_owned(),
    }
}

/// A decision about a service.
#[must_use]
pub fn decision(name: &str, at: Timestamp, to: u32) -> Decision {
    Decision {
        at,
        service: service(name),
        from: 1,
        to,
        reason: "load".to_owned(),
        inputs: "load=0.91 up=0.80".to_owned(),
        clamps: vec!["max_instances=4".to_owned()],
        waiting_for: None,
        cost_delta_per_hour: Money(6000),
        actor: "planner".to_owned(),
    }
}

/// An event told apart by `what`.
#[must_use]
pub fn event(what: &str) -> Event {
    Event {
        at: BEGINNING,
        kind: EventKind::Node,
        subject: "n-1".to_owned(),
        what: what.to_owned(),
        detail: "A node was ordered.".to_owned(),
        values: "eta=30".to_owned(),
    }
}

/// The `n`-th node.
#[must_use]
pub fn node(n: u32, state: NodeState) -> Node {
    let of = node_type("small");
    Node {
        id: node_id(n),
        name: format!("node-{n}"),
        node_type: of.name,
        provider: of.provider,
        provider_ref: Some(format!("vm-{n}")),
        state,
        state_since: BEGINNING,
        deadline: None,
        address: Some("10.0.0.7".parse().unwrap()),
        executor_url: Some("http://10.0.0.7:7070".to_owned()),
        capacity: of.capacity,
        cpu_class: of.cpu_class,
        disk_type: of.disk_type,
        labels: of.labels,
        price: of.price,
        billing_unit: of.billing_unit,
        billing_minimum: of.billing_minimum,
        min_life: of.min_life,
        stop_lead: of.stop_lead,
        may_stop: true,
        drain: None,
        ordered_at: BEGINNING,
        ready_at: None,
        seen_at: None,
        stopped_at: None,
        secret_hash: None,
        reason: "a sample".to_owned(),
    }
}

/// A node type.
#[must_use]
pub fn node_type(name: &str) -> NodeType {
    NodeType {
        name: type_name(name),
        provider: "command".to_owned(),
        capacity: Capacity {
            resources: Resources { cpu: MilliCpu(2000), memory: Bytes(4 << 30) },
            disk: Bytes(40 << 30),
        },
        cpu_class: "standard".to_owned(),
        disk_type: "ssd".to_owned(),
        price: PricePerHour(6000),
        billing_unit: Duration::from_secs(3600),
        billing_minimum: Duration::from_secs(60),
        min_life: Duration::from_secs(600),
        stop_lead: Duration::from_secs(30),
        max_count: 8,
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        pool: Pool::default(),
        start_command: vec!["start".to_owned(), "{node}".to_owned()],
        stop_command: vec!["stop".to_owned(), "{node}".to_owned()],
        list_command: vec!["list".to_owned()],
        generation: domain::Generation(0),
    }
}

/// A budget with a cap.
#[must_use]
pub fn budget(micros: i64) -> Budget {
    Budget { cap: domain::MonthlyCap::Amount(Money(micros)), ..Budget::default() }
}

/// A ledger line that pays for one hour from `from`.
#[must_use]
pub fn line(n: u32, from: Timestamp, note: &str) -> LedgerEntry {
    LedgerEntry {
        at: BEGINNING,
        node: node_id(n),
        node_type: type_name("small"),
        kind: LedgerKind::Start,
        amount: Money(6000),
        from,
        until: from.plus(Duration::from_secs(3600)),
        note: note.to_owned(),
    }
}
