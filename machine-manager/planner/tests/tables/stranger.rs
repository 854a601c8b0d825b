//! The second reader: plans that must never be are refused.

use crate::scene::{HOUR, NOW, Scene, kind};
use domain::{LedgerEntry, LedgerKind, Money, MonthlyCap, NodeState, Timestamp};
use machine_planner::{Grant, Plan, Transition, Violation, check};

fn refusal(scene: &Scene, change: impl FnOnce(&mut Plan)) -> Violation {
    let mut plan = scene.plan();
    change(&mut plan);
    check(&scene.snapshot(), &plan).unwrap_err()
}

fn stop(node: &str) -> Transition {
    Transition {
        node: node.parse().unwrap(),
        to: NodeState::Stopping,
        deadline: None,
        reason: "a fault".into(),
    }
}

#[test]
fn a_faulty_plan_is_refused() {
    let mut small = kind("small", 0.20, 2);
    small.max_count = 2;
    let mut scene = Scene::new(std::slice::from_ref(&small), 300.0);
    scene.node(1, &small, HOUR / 2).may_stop = false;
    scene.placed(1, 1, 1500);
    scene.wants(2, 1500);
    let node = scene.snapshot.nodes[0].node.id.clone();

    let protected = refusal(&scene, |plan| plan.transitions.push(stop(node.as_str())));
    assert!(matches!(protected, Violation::Protected(..)), "{protected}");

    let overfull = refusal(&scene, |plan| {
        let instance = "shop-0000000002".parse().unwrap();
        plan.granted.push(Grant { instance, node: node.clone() });
    });
    assert!(matches!(overfull, Violation::Overfull(..)), "{overfull}");

    let count = refusal(&scene, |plan| {
        let order = plan.orders[0].clone();
        plan.orders.push(order);
    });
    assert!(matches!(count, Violation::TypeMax { count: 3, max: 2, .. }), "{count}");

    let stopped = refusal(&scene, |plan| plan.stops.push("shop-0000000001".parse().unwrap()));
    assert!(matches!(stopped, Violation::Stop(..)), "{stopped}");

    let over = refusal(&scene, |plan| {
        plan.ledger.push(LedgerEntry {
            at: Timestamp(NOW),
            node: "n-0000000777".parse().unwrap(),
            node_type: small.name.clone(),
            kind: LedgerKind::Renew,
            amount: Money(400_000_000),
            from: Timestamp(NOW + 1),
            until: Timestamp(NOW + HOUR),
            note: String::new(),
        });
    });
    assert!(matches!(over, Violation::OverCap { .. }), "{over}");

    let plan = scene.plan();
    scene.snapshot.budget.cap = MonthlyCap::Unset;
    let unset = check(&scene.snapshot(), &plan).unwrap_err();
    assert!(matches!(unset, Violation::NoBudget(..)), "{unset}");
}
