//! Every record comes back from the file as it was written, whatever it holds.
#![expect(clippy::unwrap_used, reason = "a test: what fails shall fail loudly")]

use domain::{
    Budget, Bytes, Capacity, Decision, DrainOrder, Event, EventKind, Generation, Instance,
    InstanceState, LedgerEntry, LedgerKind, MilliCpu, Money, MonthlyCap, Node, NodeState, NodeType,
    Pool, PoolState, PricePerHour, Resources, Revision, Share, Tier, Timestamp,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use registry::contract::{HandClock, TERM, samples};
use registry::{Expect, InstanceCommit, NodeCommit, Registry, Role, SqliteRegistry};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Any text, control characters and quotes included.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,20}", any::<String>(), Just("\u{0}'\"\\\n".to_owned())]
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp)
}

/// Up to the 584 years that 64 bits of nanoseconds hold.
fn span() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn resources() -> impl Strategy<Value = Resources> {
    (any::<u32>(), any::<u64>())
        .prop_map(|(cpu, memory)| Resources { cpu: MilliCpu(cpu), memory: Bytes(memory) })
}

fn capacity() -> impl Strategy<Value = Capacity> {
    (resources(), any::<u64>())
        .prop_map(|(resources, disk)| Capacity { resources, disk: Bytes(disk) })
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(text(), text(), 0..4)
}

fn living() -> impl Strategy<Value = InstanceState> {
    select(InstanceState::ALL.to_vec())
}

fn tier() -> impl Strategy<Value = Tier> {
    select(vec![Tier::Thawed, Tier::Restored, Tier::CreatedAhead, Tier::Started])
}

prop_compose! {
    fn instance()(
        n: u32,
        revision: u64,
        node in option::of(any::<u32>().prop_map(samples::node_id)),
        (resources, restarts) in (resources(), any::<u32>()),
        (state, state_since, deadline) in (living(), time(), option::of(time())),
        address in option::of(any::<std::net::SocketAddr>().prop_map(without_scope)),
        tier in tier(),
        (created_at, ready_at) in (time(), option::of(time())),
        expires_at in option::of(time()),
        replaces in option::of(any::<u32>().prop_map(|n| samples::instance_id("a-b", n))),
        reason in text(),
    ) -> Instance {
        Instance {
            id: samples::instance_id("shop-2", n),
            service: samples::service("shop-2"),
            revision: Revision(revision),
            node, resources, state, state_since, deadline, address, tier, created_at, ready_at,
            expires_at, restarts, replaces, reason,
        }
    }
}

/// A flow label has no text form.
fn without_scope(address: std::net::SocketAddr) -> std::net::SocketAddr {
    std::net::SocketAddr::new(address.ip(), address.port())
}

prop_compose! {
    fn node_type()(
        provider in text(),
        capacity in capacity(),
        (cpu_class, disk_type) in (text(), text()),
        price in any::<i64>().prop_map(PricePerHour),
        (billing_unit, billing_minimum, min_life, stop_lead) in (span(), span(), span(), span()),
        max_count: u32,
        labels in labels(),
        (min, state) in (any::<u32>(),
            select(vec![PoolState::Running, PoolState::Stopped, PoolState::Suspended])),
        (start_command, stop_command, list_command) in
            (vec(text(), 0..4), vec(text(), 0..4), vec(text(), 0..4)),
    ) -> NodeType {
        NodeType {
            name: samples::type_name("Big_1.x"),
            provider, capacity, cpu_class, disk_type, price, billing_unit, billing_minimum,
            min_life, stop_lead, max_count, labels, pool: Pool { min, state }, start_command,
            stop_command, list_command, generation: Generation(0),
        }
    }
}

prop_compose! {
    fn node()(
        of in node_type(),
        (n, name, provider_ref) in (any::<u32>(), text(), option::of(text())),
        (state, state_since) in (select(NodeState::ALL.to_vec()), time()),
        (deadline, address) in (option::of(time()), option::of(any::<std::net::IpAddr>())),
        executor_url in option::of(text()),
        may_stop: bool,
        drain in option::of((text(), time())),
        ordered_at in time(),
        (ready_at, seen_at, stopped_at) in
            (option::of(time()), option::of(time()), option::of(time())),
        secret_hash in option::of(text()),
        reason in text(),
    ) -> Node {
        Node {
            id: samples::node_id(n),
            node_type: of.name,
            provider: of.provider,
            capacity: of.capacity,
            cpu_class: of.cpu_class,
            disk_type: of.disk_type,
            labels: of.labels,
            price: of.price,
            billing_unit: of.billing_unit,
            billing_minimum: of.billing_minimum,
            min_life: of.min_life,
            stop_lead: of.stop_lead,
            drain: drain.map(|(reason, deadline)| DrainOrder { reason, deadline }),
            name, provider_ref, state, state_since, deadline, address, executor_url, may_stop,
            ordered_at, ready_at, seen_at, stopped_at, secret_hash, reason,
        }
    }
}

prop_compose! {
    fn budget()(
        currency in "[A-Z]{3}",
        cap in prop_oneof![
            Just(MonthlyCap::Unset),
            Just(MonthlyCap::Unlimited),
            any::<i64>().prop_map(|micros| MonthlyCap::Amount(Money(micros))),
        ],
        reserve: u32,
        strict_pacing: bool,
    ) -> Budget {
        let currency = currency.parse().unwrap();
        Budget { currency, cap, reserve: Share(reserve), strict_pacing, generation: Generation(0) }
    }
}

prop_compose! {
    fn line()(
        (at, until) in (time(), time()),
        // Only what begins before the end of time lies in any span.
        from in (i64::MIN..i64::MAX).prop_map(Timestamp),
        n: u32,
        kind in select(LedgerKind::ALL.to_vec()),
        amount: i64,
        note in text(),
    ) -> LedgerEntry {
        let (node, node_type) = (samples::node_id(n), samples::type_name("T"));
        LedgerEntry { at, node, node_type, kind, amount: Money(amount), from, until, note }
    }
}

prop_compose! {
    fn decision()(
        at in time(),
        (from, to) in any::<(u32, u32)>(),
        (reason, inputs) in (text(), text()),
        clamps in vec(text(), 0..4),
        waiting_for in option::of(text()),
        delta: i64,
        actor in text(),
    ) -> Decision {
        Decision {
            at, service: samples::service("a"), from, to, reason, inputs, clamps, waiting_for,
            cost_delta_per_hour: Money(delta), actor,
        }
    }
}

prop_compose! {
    fn event()(
        at in time(),
        kind in select(EventKind::ALL.to_vec()),
        (subject, what, detail, values) in (text(), text(), text(), text()),
    ) -> Event {
        Event { at, kind, subject, what, detail, values }
    }
}

/// Runs one case on a file of its own, so that nothing but its records is there. The first write
/// brings upkeep with it; a second makes sure that it is over.
fn with_registry<F: Future<Output = ()>>(case: impl FnOnce(SqliteRegistry) -> F) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.sqlite");
    let registry = SqliteRegistry::open(&path, Arc::new(HandClock::default())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for _twice in 0..2 {
            registry.put_setting("a", "b").await.unwrap();
        }
        case(registry).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn steps_of_the_container_manager(
        instance in instance(),
        decision in decision(),
        events in vec(event(), 0..3),
    ) {
        with_registry(async |registry: SqliteRegistry| {
            let role = Role::ContainerManager;
            let lease = registry.take_lease(role, "cm", TERM).await.unwrap().unwrap();
            let commit = InstanceCommit {
                instances: vec![instance.clone()],
                decisions: vec![decision.clone()],
                events: events.clone(),
                ..InstanceCommit::default()
            };
            registry.commit_instances(&lease, commit).await.unwrap();
            let found = registry.instance(&instance.id).await.unwrap();
            assert_eq!(found, Some(instance.clone()));
            let listed = registry.instances().await.unwrap();
            let lives = instance.state != InstanceState::Stopped;
            assert_eq!(listed, if lives { vec![instance] } else { vec![] });
            assert_eq!(registry.decisions(None, 9).await.unwrap(), vec![decision]);
            let found = registry.events_after(0, 9).await.unwrap();
            let found: Vec<Event> = found.into_iter().map(|stored| stored.event).collect();
            assert_eq!(found, events);
        });
    }

    #[test]
    fn steps_of_the_machine_manager(node in node(), line in line(), memory in text()) {
        with_registry(async |registry: SqliteRegistry| {
            let role = Role::MachineManager;
            let lease = registry.take_lease(role, "mm", TERM).await.unwrap().unwrap();
            let commit = NodeCommit {
                nodes: vec![node.clone()],
                ledger: vec![line.clone()],
                memory: Some(memory.clone()),
                ..NodeCommit::default()
            };
            registry.commit_nodes(&lease, commit).await.unwrap();
            assert_eq!(registry.node(&node.id).await.unwrap(), Some(node));
            let all = (Timestamp(i64::MIN), Timestamp(i64::MAX));
            assert_eq!(registry.ledger(all.0, all.1).await.unwrap(), vec![line]);
            assert_eq!(registry.machine_memory().await.unwrap(), memory);
        });
    }

    #[test]
    fn declarations(mut node_type in node_type(), mut budget in budget(), document in text()) {
        with_registry(async |registry: SqliteRegistry| {
            let put = registry.put_node_type(node_type.clone(), document.clone(), Expect::Any);
            let row = put.await.unwrap();
            node_type.generation = Generation(1);
            assert_eq!((&row.node_type, &row.document), (&node_type, &document));
            assert_eq!(registry.node_types().await.unwrap(), vec![row]);
            let row = registry.put_budget(budget.clone(), document.clone(), Expect::Any).await;
            let row = row.unwrap();
            budget.generation = Generation(1);
            assert_eq!((&row.budget, &row.document), (&budget, &document));
            assert_eq!(registry.budget().await.unwrap(), Some(row));
        });
    }
}
