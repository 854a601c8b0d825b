//! Properties: whatever the world, the plan keeps its promises.

use crate::world::{World, spec};
use crate::{Policy, check, plan};
use domain::Revision;
use proptest::prelude::*;
use std::time::Duration;

#[derive(Debug, Clone)]
enum Turn {
    Demand(f64),
    Queue(u32),
    Idle(bool),
    Seconds(u8),
    Silent(u8),
    Mute(u8),
    Hold(Option<u32>),
    Revision,
    Break,
    StartTime(u8),
    Bounds(u32, u32),
    NewTerm,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        (0.0..12.0).prop_map(Turn::Demand),
        (0u32..40).prop_map(Turn::Queue),
        any::<bool>().prop_map(Turn::Idle),
        (1u8..40).prop_map(Turn::Seconds),
        (0u8..20).prop_map(Turn::Silent),
        (0u8..5).prop_map(Turn::Mute),
        prop::option::of(0u32..12).prop_map(Turn::Hold),
        Just(Turn::Revision),
        Just(Turn::Break),
        (0u8..40).prop_map(Turn::StartTime),
        (0u32..4, 1u32..12).prop_map(|(min, more)| Turn::Bounds(min, min + more)),
        Just(Turn::NewTerm),
    ]
}

fn play(world: &mut World, turn: &Turn) {
    match turn {
        Turn::Demand(demand) => world.demand = *demand,
        Turn::Queue(queued) => world.queued = *queued,
        Turn::Idle(idle) => world.idle = *idle,
        Turn::Seconds(n) => {
            world.run(u32::from(*n));
        }
        Turn::Silent(n) => {
            for node in world.snapshot.nodes.values_mut() {
                node.silent = Duration::from_secs(u64::from(*n));
            }
        }
        Turn::Mute(n) => {
            let ready = world.ready();
            world.pinned = ready.into_iter().take(usize::from(*n)).map(|id| (id, None)).collect();
        }
        Turn::Hold(hold) => world.service().hold = *hold,
        Turn::Revision => {
            let service = world.service();
            let old = (service.revision, service.spec.clone());
            service.fallback = (service.memory.good == Some(old.0)).then_some(old);
            service.revision = Revision(service.revision.0 + 1);
        }
        Turn::Break => {
            let revision = world.service().revision;
            world.broken.insert(revision);
        }
        Turn::StartTime(n) => world.start_time = Duration::from_secs(u64::from(*n)),
        Turn::Bounds(min, max) => {
            world.service().spec.min_instances = *min;
            world.service().spec.max_instances = *max;
        }
        Turn::NewTerm => {
            world.snapshot.epoch = domain::Epoch(world.snapshot.epoch.0 + 1);
            world.snapshot.leader_since = world.snapshot.now;
            let text = world.service().memory.to_text();
            world.service().memory = crate::Memory::from_text(&text).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// `World::step` panics when `check` refuses, so every turn checks the plan too.
    #[test]
    fn check_accepts_and_planning_twice_changes_nothing(turns in prop::collection::vec(turn(), 1..25)) {
        let mut world = World::new(spec("shop", 1, 8));
        for turn in &turns {
            play(&mut world, turn);
            world.step();
            let again = plan(&world.snapshot, &world.policy, &mut world.ids);
            // Grants of what was just wanted are new facts; without them nothing is left to do.
            let mut quiet = world.snapshot.clone();
            quiet.grants.clear();
            let twice = plan(&quiet, &world.policy, &mut world.ids);
            prop_assert!(twice.rows.is_empty(), "{turn:?}: {:?}", twice.rows);
            // An obstacle may come to light; the number stays.
            let moved = twice.decisions.iter().any(|d| d.from != d.to);
            prop_assert!(!moved, "{turn:?}: {:?}", twice.decisions);
            prop_assert!(!twice.services[0].routes_changed);
            let (then, now) = (&quiet.services[0].memory, &twice.services[0].memory);
            prop_assert_eq!((then.wanted, then.goal), (now.wanted, now.goal));
            prop_assert!(check(&world.snapshot, &again, &world.policy).is_ok());
        }
    }

    #[test]
    fn numbers_stay_within_the_bounds(turns in prop::collection::vec(turn(), 1..25)) {
        let mut world = World::new(spec("shop", 1, 8));
        for turn in &turns {
            // Lost ones may return with their node; nobody starts them anew.
            let before = active(&world).len() + lost(&world);
            play(&mut world, turn);
            world.step();
            let spec = &world.snapshot.services[0].spec;
            let (min, max) = (spec.min_instances, spec.max_instances);
            prop_assert!((min..=max).contains(&world.wanted()), "{}", world.why());
            let now = active(&world);
            let most = (max as usize + 1).max(before);
            prop_assert!(now.len() <= most, "{} active: {}", now.len(), world.why());
        }
    }

    #[test]
    fn shuffled_input_gives_the_same_plan(turns in prop::collection::vec(turn(), 1..15), seed: u8) {
        let mut world = World::new(spec("shop", 1, 8));
        for turn in &turns {
            play(&mut world, turn);
        }
        let mut second = world.snapshot.services[0].clone();
        second.name = "blog".parse().unwrap();
        second.instances.clear();
        world.snapshot.services.push(second);
        world.observe();
        let mut shuffled = world.snapshot.clone();
        shuffled.services.reverse();
        for service in &mut shuffled.services {
            let n = service.instances.len().max(1);
            service.instances.rotate_left(usize::from(seed) % n);
        }
        let at = world.ids.0;
        let one = plan(&world.snapshot, &world.policy, &mut crate::world::Ids(at));
        let two = plan(&shuffled, &world.policy, &mut crate::world::Ids(at));
        prop_assert_eq!(one, two);
    }

    #[test]
    fn constant_demand_settles_and_then_stays(demand in 0.0..11.0f64, n in 1u32..12, start in 0u64..20) {
        let mut world = World::with_ready(spec("shop", 1, 20), n);
        world.start_time = Duration::from_secs(start);
        world.demand = demand;
        world.run(1200);
        let settled = world.wanted();
        prop_assert_eq!(world.run(600), vec![settled], "{}", world.why());
    }

    #[test]
    fn the_ready_ones_never_fall_below_the_minimum_by_our_own_doing(turns in prop::collection::vec(turn(), 1..25)) {
        let mut world = World::with_ready(spec("shop", 3, 8), 3);
        for turn in turns.iter().filter(|t| !matches!(t, Turn::Bounds(..) | Turn::Silent(_) | Turn::Break)) {
            play(&mut world, turn);
            world.step();
            prop_assert!(world.ready().len() >= 3, "{turn:?}: {}", world.why());
        }
    }
}

fn active(world: &World) -> Vec<domain::InstanceId> {
    let views = world.snapshot.services[0].instances.iter();
    views.filter(|v| v.row.state.is_coming_or_here()).map(|v| v.row.id.clone()).collect()
}

fn lost(world: &World) -> usize {
    let views = world.snapshot.services[0].instances.iter();
    views.filter(|v| v.row.state == domain::InstanceState::Lost).count()
}

#[test]
fn the_default_policy_keeps_its_own_order() {
    let policy = Policy::default();
    assert!(policy.suspect_after < policy.lost_after);
    assert!(policy.stabilize_min <= policy.stabilize_max);
    assert!(policy.missing_no_down < policy.missing_hold);
    assert!(policy.guard_retry <= policy.guard_retry_max);
}
