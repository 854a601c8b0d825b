//! Decisions about nodes by table: silence, heat, stops, consolidation, operators' orders.

use crate::scene::{HOUR, NOW, Scene, event, kind, told};
use domain::{NodeState, Share, Timestamp};
use machine_planner::{Placed, Requested, StopWanted, Why};
use std::time::Duration;

#[test]
fn silence_makes_suspect_then_lost_but_not_when_all_are_silent() {
    let small = kind("small", 0.0, 2);
    let mut scene = Scene::new(std::slice::from_ref(&small), 1.0);
    scene.policy.consolidate = false;
    for n in 1..=8 {
        scene.node(n, &small, HOUR);
        scene.placed(n, n, 1000);
    }
    let silent = |scene: &mut Scene, n: usize, seconds: u64| {
        scene.snapshot.nodes[n].silent_for = Some(Duration::from_secs(seconds));
    };
    silent(&mut scene, 0, 4);
    silent(&mut scene, 1, 11);
    scene.wants(20, 1500);
    let made = scene.plan();
    assert_eq!(
        made.transitions.iter().map(|t| (t.to, t.node.to_string())).collect::<Vec<_>>(),
        [
            (NodeState::Suspect, "n-0000009001".to_owned()),
            (NodeState::Lost, "n-0000009002".to_owned())
        ]
    );
    for n in 0..4 {
        silent(&mut scene, n, 60);
    }
    let deaf = scene.plan();
    assert!(deaf.report.deaf && deaf.transitions.is_empty() && deaf.orders.is_empty());
    scene.snapshot.nodes[5].node.state = NodeState::Suspect;
    let back = scene.plan();
    assert_eq!(told(&back)[1], "n-0000009006 ready: heard again");
}

#[test]
fn stops_empty_a_node_soonest() {
    let small = kind("small", 0.20, 4);
    let mut scene = Scene::new(std::slice::from_ref(&small), 100.0);
    scene.policy.consolidate = false;
    scene.node(1, &small, 0).may_stop = false;
    scene.node(2, &small, 0);
    scene.node(3, &small, 0);
    for (n, on) in [(1, 1), (2, 2), (3, 2), (4, 3)] {
        scene.placed(n, on, 500);
    }
    let candidates = scene.snapshot.placed.iter().map(|p| p.instance.clone()).collect();
    let service = "shop".parse().unwrap();
    scene.snapshot.stops = vec![StopWanted { service, count: 3, candidates }];
    let stops: Vec<_> = scene.plan().stops.iter().map(ToString::to_string).collect();
    assert_eq!(stops, ["shop-0000000004", "shop-0000000002", "shop-0000000003"]);
}

#[test]
fn an_under_used_node_is_emptied_onto_others_when_all_is_quiet() {
    let small = kind("small", 0.20, 4);
    let mut scene = Scene::new(std::slice::from_ref(&small), 100.0);
    scene.node(1, &small, HOUR / 2);
    scene.node(2, &small, HOUR / 2);
    scene.placed(1, 1, 2500);
    scene.placed(2, 2, 1000);
    assert_eq!(
        told(&scene.plan()),
        ["n-0000009002 draining: consolidate: its 1 instances fit elsewhere"]
    );
    scene.placed(3, 1, 1000);
    assert!(scene.plan().transitions.is_empty(), "no room elsewhere");
}

#[test]
fn a_hot_node_takes_nothing_and_its_culprit_is_named() {
    let small = kind("small", 0.0, 4);
    let mut scene = Scene::new(std::slice::from_ref(&small), 1.0);
    scene.node(1, &small, HOUR);
    scene.placed(1, 1, 1000);
    scene.placed(2, 1, 1000);
    let view = &mut scene.snapshot.nodes[0];
    view.cpu = Some(Share::percent(95));
    view.instances_cpu = vec![
        ("shop-0000000001".parse().unwrap(), Share::percent(70), Share::percent(70)),
        ("shop-0000000002".parse().unwrap(), Share::percent(20), Share::percent(20)),
    ];
    let first = scene.plan();
    assert!(first.report.hot.is_empty(), "not yet a whole window");
    scene.snapshot.memory = first.memory;
    scene.snapshot.now = Timestamp(NOW + 60_000);
    scene.wants(3, 500);
    let hot = scene.plan();
    assert!(event(&hot, "hot").unwrap().contains("culprit shop-0000000001 with 70%"));
    assert_eq!(told(&hot)[0], "order small");
}

#[test]
fn operators_orders_pass_the_same_gate() {
    let mut small = kind("small", 0.20, 2);
    small.max_count = 1;
    let mut scene = Scene::new(std::slice::from_ref(&small), 100.0);
    let asked = |node_type: &str| Requested {
        node_type: node_type.parse().unwrap(),
        name: Some("mine".into()),
        may_stop: true,
    };
    scene.snapshot.requested = vec![asked("small"), asked("small"), asked("smal")];
    let made = scene.plan();
    assert_eq!(made.orders.len(), 1);
    assert_eq!(made.orders[0].name, "mine");
    assert_eq!(made.refused[0].1.why, Why::TypeMax);
    assert!(made.refused[1].1.detail.contains("known are: small"), "{}", made.refused[1].1.detail);
}

#[test]
fn the_same_question_gets_the_same_answer() {
    let small = kind("small", 0.0, 4);
    let mut scene = Scene::new(std::slice::from_ref(&small), 1.0);
    scene.node(1, &small, 0);
    scene.node(2, &small, 0);
    scene.wants(1, 1000);
    let first = scene.plan().granted;
    let grant = &first[0];
    let w = scene.snapshot.wanted[0].clone();
    scene.snapshot.reservations = vec![Placed {
        instance: w.instance,
        service: w.service,
        node: grant.node.clone(),
        resources: w.resources,
        priority: 0,
        group: w.group,
        needs: w.needs,
    }];
    assert_eq!(scene.plan().granted, first);
}
