//! Decisions by table: small worlds, and what the planner says about them.

use crate::scene::{HOUR, NOW, Scene, event, kind, micros, size, told};
use domain::{
    Budget, LedgerEntry, LedgerKind, Money, MonthlyCap, Needs, NodeState, ServiceGroup, Timestamp,
};
use machine_planner::{Minimum, Month, Policy, Why, admit_cap, admit_minimum, admit_protection};
use std::collections::BTreeMap;
use std::time::Duration;

/// Money that is gone already this month.
fn spend(scene: &mut Scene, units: f64) {
    scene.books.apply(&LedgerEntry {
        at: Timestamp(NOW),
        node: "n-0000000000".parse().unwrap(),
        node_type: "old".parse().unwrap(),
        kind: LedgerKind::External,
        amount: Money(micros(units)),
        from: Timestamp(NOW),
        until: Timestamp(NOW),
        note: String::new(),
    });
}

/// Cap 1000 (reserve 30), 240 h left, spent 700, protected 0.10/h -> 24; five at 0.20/h -> 1.00.
fn vector() -> Scene {
    let (small, mut base) = (kind("small", 0.20, 2), kind("base", 0.10, 2));
    base.max_count = 1;
    let mut scene = Scene::new(&[small.clone(), base.clone()], 1000.0);
    scene.policy.consolidate = false;
    spend(&mut scene, 700.0);
    scene.node(0, &base, 0).may_stop = false;
    for n in 1..=5 {
        scene.node(n, &small, 0);
        scene.placed(n, n, 2000);
    }
    scene.placed(6, 0, 2000);
    scene
}

#[test]
fn the_vector_of_the_cap() {
    let mut scene = vector();
    let five = scene.plan();
    assert_eq!(five.report.spent, Money(micros(700.0)));
    assert_eq!(five.report.obligations, Money(micros(25.0)));
    assert_eq!(five.report.free, Some(Money(micros(245.0))));
    assert_eq!(five.report.burn_per_hour, Money(micros(1.0)));
    assert_eq!(five.report.exhausted_at, None, "245 lasts 240 h at 1.0 an hour");

    scene.wants(7, 2000);
    let six = scene.plan();
    assert_eq!(six.orders.len(), 1);
    assert_eq!(six.orders[0].reserve.amount, Money(micros(0.20)));
    assert_eq!(six.report.free, Some(Money(micros(244.8))));
    assert_eq!(six.report.burn_per_hour, Money(micros(1.2)));
    assert_eq!(six.report.exhausted_at, Some(Timestamp(NOW + 204 * HOUR)));
    let text = event(&six, "runs_out").unwrap();
    assert!(text.ends_with("last until 2026-11-29, 36 h early"), "{text}");

    scene.snapshot.budget.strict_pacing = true;
    let paced = scene.plan();
    assert!(paced.orders.is_empty());
    assert_eq!(told(&paced), ["shop-0000000007 waits: cap"]);
}

#[test]
fn what_is_held_back_says_by_how_much_and_until_when() {
    let small = kind("small", 0.20, 2);
    let mut scene = Scene::new(std::slice::from_ref(&small), 1.0);
    spend(&mut scene, 0.9);
    scene.wants(1, 1000);
    let held = scene.plan();
    assert!(held.orders.is_empty());
    let waiting = &held.waiting[0];
    assert_eq!(waiting.refusal.why, Why::Cap);
    assert_eq!(waiting.refusal.until, Some(Month::of(Timestamp(NOW)).end()));
    let text = event(&held, "held_back").unwrap();
    assert!(
        text.starts_with("blocked by cost cap: needs 0.134021 EUR more until 2026-12-01"),
        "{text}"
    );

    // Exactly that much more, and it goes through; a micro less, and it does not.
    let MonthlyCap::Amount(cap) = scene.snapshot.budget.cap else { unreachable!() };
    scene.snapshot.budget.cap = MonthlyCap::Amount(cap.plus(waiting.refusal.needs));
    assert_eq!(scene.plan().orders.len(), 1);
    scene.snapshot.budget.cap = MonthlyCap::Amount(cap.plus(waiting.refusal.needs).minus(Money(1)));
    assert!(scene.plan().orders.is_empty());

    // Told once: the next plan remembers.
    scene.snapshot.memory = held.memory;
    assert_eq!(event(&scene.plan(), "held_back"), None);
}

#[test]
fn without_a_budget_priced_orders_are_refused_with_the_command() {
    let mut scene = Scene::new(&[kind("small", 0.20, 2)], 1.0);
    scene.snapshot.budget.cap = MonthlyCap::Unset;
    scene.wants(1, 1000);
    let held = scene.plan();
    assert!(held.orders.is_empty());
    assert!(event(&held, "held_back").unwrap().contains("tally budget set --monthly-cap"));
    scene.snapshot.types = vec![kind("free", 0.0, 2)];
    assert_eq!(scene.plan().orders.len(), 1, "what is free needs no budget");
    scene.snapshot.types = vec![kind("small", 0.20, 2)];
    scene.snapshot.budget.cap = MonthlyCap::Unlimited;
    assert_eq!(scene.plan().orders.len(), 1, "`none` is explicit");
}

#[test]
fn greater_priority_gets_the_money() {
    let mut scene = Scene::new(&[kind("small", 0.20, 2)], 0.25);
    scene.wants(1, 2000).priority = 1;
    scene.wants(2, 2000).priority = 5;
    let made = scene.plan();
    assert_eq!(
        told(&made),
        ["order small", "shop-0000000001 waits: cap", "shop-0000000002 waits: node n-0000000001"]
    );
}

#[test]
fn per_type_maximum_counts_orders_too() {
    let mut small = kind("small", 0.20, 2);
    small.max_count = 2;
    let mut scene = Scene::new(std::slice::from_ref(&small), 100.0);
    scene.node(1, &small, 0).state = NodeState::Booting;
    scene.placed(9, 1, 2000);
    for n in 1..=3 {
        scene.wants(n, 2000);
    }
    let made = scene.plan();
    assert_eq!(made.orders.len(), 1);
    let full = made.waiting.iter().filter(|w| w.refusal.why == Why::TypeMax).count();
    assert_eq!(full, 2);
    assert_eq!(event(&made, "held_back").unwrap(), "all nodes allowed are there: small (2)");
}

#[test]
fn the_cheapest_complete_set_wins() {
    let types = [kind("small", 0.10, 2), kind("large", 0.18, 4), kind("huge", 0.50, 16)];
    for (sizes, expected) in [
        (vec![1000], vec!["small"]),
        (vec![2000, 2000], vec!["large"]),
        (vec![2000, 2000, 2000], vec!["large", "small"]),
        (vec![3000], vec!["large"]),
        (vec![2000, 2000, 2000, 2000, 2000, 2000], vec!["huge"]),
        (vec![5000], vec!["huge"]),
    ] {
        let mut scene = Scene::new(&types, 10_000.0);
        for (n, cpu) in (1..).zip(&sizes) {
            scene.wants(n, *cpu);
        }
        let made = scene.plan();
        let mut got: Vec<_> = made.orders.iter().map(|o| o.node_type.as_str()).collect();
        got.sort_unstable();
        assert_eq!(got, expected, "{sizes:?}");
        assert!(made.waiting.iter().all(|w| w.node.is_some()));
    }
}

#[test]
fn filters_are_obeyed_and_the_impossible_is_said() {
    let mut fast = kind("fast", 0.30, 2);
    fast.cpu_class = "fast".into();
    let slow = kind("slow", 0.10, 2);
    let mut scene = Scene::new(&[fast.clone(), slow.clone()], 100.0);
    scene.node(1, &slow, 0);
    scene.wants(1, 500).needs.cpu_class = Some("fast".into());
    scene.wants(2, 500).needs.node = Some("node-1".into());
    scene.wants(3, 500).needs.node = Some("node-7".into());
    scene.wants(4, 500).needs.disk_type = Some("tape".into());
    scene.wants(5, 900_000);
    scene.wants(6, 500).needs.labels = BTreeMap::from([("zone".into(), "a".into())]);
    let made = scene.plan();
    assert_eq!(
        told(&made),
        [
            "shop-0000000002 -> n-0000009001",
            "order fast",
            "shop-0000000001 waits: node n-0000000001",
            "shop-0000000003 waits: impossible",
            "shop-0000000004 waits: no_type",
            "shop-0000000005 waits: no_type",
            "shop-0000000006 waits: no_type",
        ]
    );
}

#[test]
fn demand_is_collected_before_a_node_is_ordered_but_a_wake_is_not() {
    let mut scene = Scene::new(&[kind("small", 0.20, 2)], 100.0);
    scene.wants(1, 500).wake = false;
    let first = scene.plan();
    assert!(first.orders.is_empty());
    assert_eq!(first.plan_again_at, Some(Timestamp(NOW + 200)));
    scene.snapshot.memory = first.memory;
    scene.snapshot.now = Timestamp(NOW + 200);
    assert_eq!(scene.plan().orders.len(), 1);
}

#[test]
fn a_start_that_has_a_coming_node_orders_no_second_one() {
    let small = kind("small", 0.20, 2);
    let mut scene = Scene::new(std::slice::from_ref(&small), 100.0);
    scene.node(1, &small, 0).state = NodeState::Ordered;
    scene.wants(1, 2000);
    assert_eq!(told(&scene.plan()), ["shop-0000000001 waits: node n-0000009001"]);
}

#[test]
fn an_empty_node_leaves_at_its_edge_and_a_protected_one_never() {
    let small = kind("small", 0.20, 2);
    let mut scene = Scene::new(std::slice::from_ref(&small), 100.0);
    scene.node(1, &small, HOUR / 2);
    scene.node(2, &small, HOUR - 5_000);
    scene.node(3, &small, HOUR - 5_000).may_stop = false;
    let made = scene.plan();
    assert_eq!(told(&made), ["n-0000009002 stopping: empty"]);
    assert_eq!(made.ledger.len(), 1, "the protected one is renewed");
    assert_eq!(made.ledger[0].kind, LedgerKind::Renew);
}

#[test]
fn short_units_leave_after_the_grace_whatever_the_edge() {
    let mut second = kind("second", 0.20, 2);
    second.billing_unit = Duration::from_secs(1);
    let mut scene = Scene::new(std::slice::from_ref(&second), 100.0);
    scene.policy = Policy::demo();
    scene.node(1, &second, 0);
    let first = scene.plan();
    assert!(first.transitions.is_empty());
    assert_eq!(first.plan_again_at, Some(Timestamp(NOW + 3000)));
    first.ledger.iter().for_each(|l| scene.books.apply(l));
    scene.snapshot.memory = first.memory;
    scene.snapshot.now = Timestamp(NOW + 3000);
    assert_eq!(told(&scene.plan()), ["n-0000009001 stopping: empty"]);
}

#[test]
fn a_renewal_is_an_admission_and_a_node_without_one_is_drained_first() {
    let small = kind("small", 0.20, 2);
    let mut scene = Scene::new(std::slice::from_ref(&small), 100.0);
    spend(&mut scene, 99.0);
    scene.node(1, &small, HOUR - 60_000);
    scene.placed(1, 1, 1000);
    assert_eq!(told(&scene.plan()), ["n-0000009001 draining: cap: the next unit would exceed it"]);
    scene.snapshot.now = Timestamp(NOW + 52_000);
    let edge = scene.plan();
    assert_eq!(told(&edge), ["n-0000009001 stopping: cap: no further unit is affordable"]);
    assert!(edge.ledger.is_empty());
}

#[test]
fn admissions_count_to_the_months_end_and_for_the_longest_month() {
    let small = kind("small", 0.20, 2);
    let mut scene = Scene::new(std::slice::from_ref(&small), 200.0);
    let minimum = |count| Minimum {
        service: "shop".parse().unwrap(),
        count,
        resources: size(2000),
        needs: Needs::default(),
        group: ServiceGroup::SelfContained,
    };
    // 744 h x 0.20 = 148.80 a node: one fits into 194, two do not.
    assert_eq!(admit_minimum(&scene.snapshot(), &scene.policy, &minimum(1)), Ok(()));
    let refused = admit_minimum(&scene.snapshot(), &scene.policy, &minimum(2)).unwrap_err();
    assert_eq!(refused.why, Why::Cap);
    assert_eq!(refused.until, None, "no month would bear it");
    scene.node(1, &small, 0);
    let id = scene.snapshot.nodes[0].node.id.clone();
    assert_eq!(admit_protection(&scene.snapshot(), &scene.policy, &id), Ok(()));
    scene.snapshot.nodes[0].node.may_stop = false;
    assert_eq!(admit_minimum(&scene.snapshot(), &scene.policy, &minimum(1)), Ok(()), "it carries");
    let lower = Budget { cap: MonthlyCap::Amount(Money(micros(100.0))), ..Budget::default() };
    assert!(admit_cap(&scene.snapshot(), &scene.policy, &lower).is_err());
}

#[test]
fn over_the_cap_nothing_is_ordered_and_it_is_said_once() {
    let small = kind("small", 0.20, 2);
    let mut scene = Scene::new(std::slice::from_ref(&small), 1.0);
    spend(&mut scene, 1.5);
    scene.wants(1, 500);
    let made = scene.plan();
    assert!(made.report.over_cap && made.orders.is_empty());
    assert!(event(&made, "over_cap").unwrap().contains("0.50 over the cap of 1.00"));
    assert!(event(&made, "threshold").unwrap().starts_with("100% of the cap"));
    scene.snapshot.memory = made.memory;
    let again = scene.plan();
    assert_eq!((event(&again, "over_cap"), event(&again, "threshold")), (None, None));
}
