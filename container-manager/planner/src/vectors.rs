//! The vectors of the algorithms page (up 70, down 40, target 55), and the rules beside them.

use crate::report::HeldBack;
use crate::world::{World, spec};
use domain::{InstanceState, Revision, Share};
use std::time::Duration;

fn steady(n: u32, load: f64) -> World {
    let mut world = World::with_ready(spec("shop", 1, 400), n);
    world.demand = f64::from(n) * load;
    world
}

#[test]
fn constant_load_gives_the_numbers_of_the_page() {
    // instances, load of each -> the numbers wanted within ten minutes
    let table: [(u32, f64, &[u32]); 4] =
        [(4, 0.90, &[4, 7]), (3, 0.30, &[3, 2]), (2, 0.38, &[2]), (1, 0.72, &[1, 2])];
    for (n, load, expected) in table {
        let mut world = steady(n, load);
        assert_eq!(world.run(600), expected, "n={n} u={load}: {}", world.why());
    }
}

#[test]
fn a_scale_in_walks_to_its_goal_in_steps() {
    let mut world = steady(20, 0.71);
    assert_eq!(world.run(120), [20, 26]);
    world.demand = 10.44;
    assert_eq!(world.run(200), [26]);
    world.demand = 10.39;
    assert_eq!(world.run(600), [26, 24, 22, 20, 19], "{}", world.why());
}

#[test]
fn two_stale_of_ten_count_their_last_load() {
    let mut world = steady(10, 0.40);
    let ids = world.ready();
    for (i, id) in ids.iter().enumerate() {
        world.pinned.insert(id.clone(), Some(if i < 2 { 0.95 } else { 0.20 }));
    }
    world.step();
    for id in &ids[..2] {
        world.pinned.insert(id.clone(), None);
    }
    world.run(59);
    assert_eq!(world.wanted(), 10, "{}", world.why());
    world.run(1);
    let memory = &world.snapshot.services[0].memory;
    assert_eq!(memory.goal, Some(7), "{}", world.why());
    let mean = memory.window.mean(world.snapshot.now, Duration::from_secs(60)).unwrap();
    assert!((34_990..=35_010).contains(&mean.down), "{mean:?}");
}

#[test]
fn four_stale_of_ten_take_nothing_away() {
    let mut world = steady(10, 0.10);
    world.step();
    for id in &world.ready()[..4] {
        world.pinned.insert(id.clone(), None);
    }
    assert_eq!(world.run(110), [10]);
    let held = &world.last.as_ref().unwrap().services[0].report.held_back;
    assert!(held.contains(&HeldBack::Missing { missing: 4, of: 10 }), "{held:?}");
}

#[test]
fn one_crash_looping_of_160_does_not_stop_the_scale_in() {
    let mut world = steady(160, 0.20);
    let bad = world.ready()[0].clone();
    world.step();
    for _ in 0..120 {
        world.snapshot.now = world.snapshot.now.plus(Duration::from_secs(1));
        world.observe();
        for view in &mut world.service().instances {
            if view.row.id == bad
                && let Some(seen) = &mut view.observed
            {
                seen.state = crate::ObservedState::Starting;
            }
        }
        let made = crate::plan(&world.snapshot, &world.policy, &mut world.ids);
        made.apply_to(&mut world.snapshot);
    }
    assert!(world.wanted() < 130, "{}", world.wanted());
}

#[test]
fn a_burst_goes_to_the_need_at_once() {
    let mut declared = spec("shop", 1, 20);
    declared.load.window = Duration::from_secs(30);
    let mut world = World::with_ready(declared, 2);
    world.demand = 0.2;
    world.run(20);
    world.demand = 2.4;
    world.run(2);
    assert_eq!(world.wanted(), 2);
    world.run(1);
    assert_eq!(world.wanted(), 5, "{}", world.why());
    assert_eq!(world.last.as_ref().unwrap().services[0].report.why, "burst");
}

#[test]
fn a_step_of_demand_is_ordered_once() {
    for start in [0, 3, 20, 60] {
        let mut world = steady(4, 0.5);
        world.start_time = Duration::from_secs(start);
        world.run(70);
        world.demand = 3.6;
        world.service().memory.window.clear();
        let numbers = world.run(400);
        assert_eq!(numbers, [4, 7], "start {start}");
    }
}

/// The average passes 2.8 on its way from 2.0 to 3.6: six are enough to come back into the band.
#[test]
fn a_step_seen_through_the_average_orders_what_the_band_needs() {
    for start in [0, 3, 20, 60] {
        let mut world = steady(4, 0.5);
        world.start_time = Duration::from_secs(start);
        world.run(70);
        world.demand = 3.6;
        let most = world.run(400).into_iter().max().unwrap();
        assert!((6..=7).contains(&most), "start {start}: {most}");
    }
}

#[test]
fn a_wake_starts_what_the_held_need_and_idleness_ends_it() {
    let mut world = World::new(spec("shop", 0, 8));
    world.idle = true;
    assert_eq!(world.run(5), [0]);
    world.queued = 12;
    let made = world.step();
    assert_eq!((world.wanted(), made.starts.len()), (3, 3));
    assert!(made.starts.iter().all(|ask| ask.wake));
    world.queued = 0;
    world.run(3);
    assert_eq!(world.count(InstanceState::Ready), 3);
    world.run(400);
    assert_eq!(world.wanted(), 0, "{}", world.why());
    assert_eq!(world.snapshot.services[0].instances.len(), 0);
}

#[test]
fn unknown_demand_is_not_idle() {
    let mut world = World::new(spec("shop", 0, 8));
    world.service().wake = Some(1);
    world.step();
    world.service().wake = None;
    world.idle = true;
    world.snapshot.balancers = None;
    world.run(1000);
    assert_eq!(world.wanted(), 1, "{}", world.why());
    world.snapshot.balancers = Some(["b1".parse().unwrap()].into());
    world.run(320);
    assert_eq!(world.wanted(), 0, "{}", world.why());
}

#[test]
fn a_new_leader_takes_nothing_away_for_a_window() {
    let mut world = steady(4, 0.1);
    world.snapshot.leader_since = world.snapshot.now.plus(Duration::from_secs(55));
    assert_eq!(world.run(110), [4]);
    assert!(world.run(60).len() > 1);
}

#[test]
fn the_operators_number_holds_within_the_bounds() {
    let mut world = steady(2, 0.9);
    world.service().spec.max_instances = 6;
    world.service().hold = Some(100);
    assert_eq!(world.run(3), [2, 6]);
    world.demand = 0.01;
    assert_eq!(world.run(300), [6]);
    world.service().hold = None;
    assert_eq!(world.run(600).last(), Some(&1));
}

#[test]
fn a_new_revision_comes_one_by_one_and_never_below_the_floor() {
    let mut world = steady(3, 0.5);
    world.service().revision = Revision(2);
    let mut least = usize::MAX;
    let mut most = 0;
    for _ in 0..120 {
        world.step_by(Duration::from_secs(1));
        least = least.min(world.count(InstanceState::Ready));
        let active = world.count(InstanceState::Ready)
            + world.count(InstanceState::Starting)
            + world.count(InstanceState::Wanted);
        most = most.max(active);
    }
    let revisions: Vec<_> =
        world.snapshot.services[0].instances.iter().map(|v| v.row.revision.0).collect();
    assert_eq!((revisions, least, most), (vec![2, 2, 2], 3, 4), "{}", world.why());
}

#[test]
fn a_failing_revision_stops_and_the_old_one_stays() {
    let mut world = steady(3, 0.5);
    world.service().revision = Revision(2);
    world.broken.insert(Revision(2));
    let mut made = 0;
    for _ in 0..100 {
        let plan = world.step_by(Duration::from_secs(1));
        made += plan.starts.len();
    }
    let old = world.snapshot.services[0]
        .instances
        .iter()
        .filter(|v| v.row.state == InstanceState::Ready && v.row.revision == Revision(1));
    assert_eq!(old.count(), 3, "{}", world.why());
    assert!(made <= 8, "{made} starts of a failing revision");
}

#[test]
fn a_revision_that_fails_is_rolled_back_to_one_that_was_well() {
    let mut world = steady(3, 0.5);
    world.run(15);
    let old = world.service().spec.clone();
    world.service().fallback = Some((Revision(1), old));
    world.service().revision = Revision(2);
    world.broken.insert(Revision(2));
    world.run(60);
    let lost = world.ready()[0].clone();
    for view in &mut world.service().instances {
        if view.row.id == lost {
            view.row.state = InstanceState::Failed;
        }
    }
    world.run(5);
    assert_eq!(world.count(InstanceState::Ready), 3, "{}", world.why());
    assert!(world.why().contains("given up"), "{}", world.why());
}

#[test]
fn an_expired_instance_is_replaced_first_even_at_the_maximum() {
    let mut declared = spec("shop", 1, 1);
    declared.lifecycle.lifespan = Some(Duration::from_secs(100));
    let mut world = World::with_ready(declared, 1);
    world.demand = 0.5;
    let first = world.ready()[0].clone();
    for _ in 0..120 {
        world.step_by(Duration::from_secs(1));
        assert!(world.count(InstanceState::Ready) >= 1);
    }
    assert_ne!(world.ready()[0], first);
    assert_eq!(world.snapshot.services[0].instances.len(), 1);
}

#[test]
fn stop_first_never_runs_two() {
    let mut declared = spec("db", 1, 1);
    declared.lifecycle.replace = domain::Replace::StopFirst;
    let mut world = World::with_ready(declared, 1);
    world.service().revision = Revision(2);
    for _ in 0..60 {
        world.step_by(Duration::from_secs(1));
        assert!(world.snapshot.services[0].instances.len() <= 1);
    }
    assert_eq!(world.snapshot.services[0].instances[0].row.revision, Revision(2));
    assert_eq!(world.count(InstanceState::Ready), 1, "{}", world.why());
}

#[test]
fn a_silent_nodes_instances_are_replaced_and_the_newer_copy_stays() {
    let mut world = steady(2, 0.5);
    let old = world.ready();
    let node = world.snapshot.nodes.keys().next().unwrap().clone();
    let other: domain::NodeId = "n-abcdefghjk".parse().unwrap();
    let spare = world.snapshot.nodes[&node].clone();
    world.snapshot.nodes.insert(other.clone(), spare);
    for second in 0..20 {
        world.snapshot.now = world.snapshot.now.plus(Duration::from_secs(1));
        world.snapshot.nodes.get_mut(&node).unwrap().silent = Duration::from_secs(second);
        world.observe();
        for grant in world.snapshot.grants.values_mut() {
            *grant = crate::Grant::On(other.clone());
        }
        let made = crate::plan(&world.snapshot, &world.policy, &mut world.ids);
        crate::check(&world.snapshot, &made, &world.policy).unwrap();
        made.apply_to(&mut world.snapshot);
    }
    assert_eq!(world.count(InstanceState::Lost), 2);
    assert_eq!(world.count(InstanceState::Ready), 2);
    world.snapshot.nodes.get_mut(&node).unwrap().silent = Duration::ZERO;
    world.step();
    assert!(world.ready().iter().all(|id| !old.contains(id)), "{}", world.why());
    assert_eq!(world.count(InstanceState::Draining), 2);
}

#[test]
fn most_nodes_silent_moves_nothing() {
    let mut world = steady(2, 0.5);
    let view = world.snapshot.nodes.values().next().unwrap().clone();
    for n in 0..3 {
        let id: domain::NodeId = format!("n-000000000{n}").parse().unwrap();
        world.snapshot.nodes.insert(id, view.clone());
    }
    for node in world.snapshot.nodes.values_mut() {
        node.silent = Duration::from_secs(100);
    }
    world.run(30);
    assert_eq!(world.count(InstanceState::Lost), 0);
    assert!(world.why().contains("most nodes are silent"), "{}", world.why());
}

#[test]
fn a_draining_instance_stops_only_when_every_balancer_let_go() {
    let mut world = steady(2, 0.5);
    world.service().hold = Some(1);
    world.step();
    assert_eq!(world.count(InstanceState::Draining), 1);
    world.snapshot.balancers = Some(["b1".parse().unwrap(), "b2".parse().unwrap()].into());
    world.run(20);
    assert_eq!(world.count(InstanceState::Draining), 1, "b2 was never heard");
    world.snapshot.balancers = Some(["b1".parse().unwrap()].into());
    world.run(2);
    assert_eq!(world.count(InstanceState::Draining), 0);
}

#[test]
fn a_smaller_band_is_obeyed() {
    let mut declared = spec("shop", 1, 20);
    declared.load.up = Share::percent(50);
    declared.load.target = Share::percent(30);
    declared.load.down = Share::percent(20);
    let mut world = World::with_ready(declared, 2);
    world.demand = 1.2;
    assert_eq!(world.run(200), [2, 4]);
}

#[test]
fn a_node_that_is_emptied_is_left_only_when_its_instances_have_successors() {
    let mut world = steady(3, 0.5);
    let node = world.snapshot.nodes.keys().next().unwrap().clone();
    let other: domain::NodeId = "n-abcdefghjk".parse().unwrap();
    let spare = world.snapshot.nodes[&node].clone();
    world.snapshot.nodes.insert(other.clone(), spare);
    let deadline = world.snapshot.now.plus(Duration::from_secs(600));
    let order = domain::DrainOrder { reason: "cheaper elsewhere".into(), deadline };
    world.snapshot.nodes.get_mut(&node).unwrap().drain = Some(order);
    for _ in 0..60 {
        world.snapshot.now = world.snapshot.now.plus(Duration::from_secs(1));
        world.observe();
        for grant in world.snapshot.grants.values_mut() {
            *grant = crate::Grant::On(other.clone());
        }
        let made = crate::plan(&world.snapshot, &world.policy, &mut world.ids);
        crate::check(&world.snapshot, &made, &world.policy).unwrap();
        assert!(made.starts.iter().all(|ask| ask.not_on == [node.clone()]));
        made.apply_to(&mut world.snapshot);
        assert!(world.count(InstanceState::Ready) >= 3, "{}", made.services[0].report);
        world.see_routes(&made);
    }
    let views = &world.snapshot.services[0].instances;
    assert!(views.iter().all(|v| v.row.node.as_ref() == Some(&other)), "{}", world.why());
    assert_eq!(views.len(), 3);
}

#[test]
fn at_a_nodes_drain_deadline_its_instances_go_whatever_the_floor() {
    let mut world = steady(2, 0.5);
    let now = world.snapshot.now;
    let order = domain::DrainOrder { reason: "by an operator".into(), deadline: now };
    for node in world.snapshot.nodes.values_mut() {
        node.drain = Some(order.clone());
    }
    world.step();
    assert_eq!(world.count(InstanceState::Draining), 2, "{}", world.why());
}

#[test]
fn stops_are_left_open_for_the_machine_manager_and_its_choice_is_taken() {
    let mut world = steady(4, 0.5);
    world.service().hold = Some(2);
    world.snapshot.awaiting_stops = true;
    let made = world.step();
    assert_eq!((made.stops[0].count, made.stops[0].candidates.len()), (2, 4));
    assert_eq!(world.count(InstanceState::Ready), 4);
    let chosen = world.ready()[1..3].to_vec();
    let name = world.service().name.clone();
    world.snapshot.stop_answers.insert(name, chosen.clone());
    world.snapshot.awaiting_stops = false;
    world.step();
    assert!(world.ready().iter().all(|id| !chosen.contains(id)));
    assert_eq!(world.count(InstanceState::Draining), 2);
}
