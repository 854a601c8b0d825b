//! What becomes of readings.

use super::*;
use crate::testing::{front, shared};
use domain::{
    Demand, Epoch, Generation, Load, LoadReport, LoadSource, Revision, RouteEntry, RouteGen,
    Timestamp,
};
use picker::Candidates;

pub(super) fn at(seconds: u64) -> Mono {
    Mono(Duration::from_secs(seconds))
}

pub(super) fn route(n: usize) -> RouteEntry {
    RouteEntry {
        instance: format!("shop-{n:010}").parse().unwrap(),
        address: format!("127.0.0.1:{}", 1000 + n).parse().unwrap(),
        state: RouteState::Ready,
        weight: 100,
        max_in_flight: 10,
        revision: Revision(1),
    }
}

pub(super) fn table(generation: u64, entries: Vec<RouteEntry>) -> RouteTable {
    let generation = RouteGen { epoch: Epoch(1), generation: Generation(generation) };
    RouteTable { generation, entries }
}

fn reading(n: usize, load: f64, at_ms: i64, age: Duration) -> LoadReading {
    let report = LoadReport {
        instance: route(n).instance,
        load: Load::from_reported(load).unwrap(),
        in_flight: Some(3),
        rps_milli: None,
        eps_milli: None,
        seq: None,
        source: LoadSource::Pushed,
    };
    LoadReading { report, at: Timestamp(at_ms), age }
}

pub(super) fn view(routes: Option<RouteTable>, loads: Vec<LoadReading>) -> ServiceView {
    ServiceView { front: Some(front("shop")), routes, loads }
}

pub(super) fn name() -> ServiceName {
    "shop".parse().unwrap()
}

pub(super) fn snapshot(shared: &Shared) -> Arc<Snapshot> {
    shared.table.load().services()[0].snapshot.load_full()
}

#[test]
fn only_a_newer_table_replaces_one() {
    let (shared, mut world) = (shared(), World::new(1));
    let take = |world: &mut World, table| {
        world.take_service(&shared, &name(), &view(table, vec![]), at(1));
        snapshot(&shared).entries.len()
    };
    assert_eq!(take(&mut world, Some(table(5, vec![route(1), route(2)]))), 2);
    assert_eq!(take(&mut world, Some(table(5, vec![]))), 2, "the same number changes nothing");
    assert_eq!(take(&mut world, Some(table(4, vec![]))), 2, "an older one neither");
    assert_eq!(take(&mut world, None), 2, "missing is unknown");
    assert_eq!(take(&mut world, Some(table(6, vec![route(2)]))), 1);
}

#[test]
fn counters_outlive_a_table_and_departed_instances_stay_in_sight() {
    let (shared, mut world) = (shared(), World::new(1));
    world.take_service(&shared, &name(), &view(Some(table(1, vec![route(1)])), vec![]), at(1));
    let instance = Arc::clone(&snapshot(&shared).entries[0].instance);
    assert!(instance.enter(10, at(1)));
    let entries = vec![route(1), route(2)];
    world.take_service(&shared, &name(), &view(Some(table(2, entries)), vec![]), at(2));
    assert!(Arc::ptr_eq(&instance, &snapshot(&shared).entries[0].instance));
    world.take_service(&shared, &name(), &view(Some(table(3, vec![])), vec![]), at(3));
    let service = Arc::clone(&shared.table.load().services()[0]);
    let departed = service.departed.lock().unwrap();
    assert!(departed.iter().any(|i| i.id == instance.id && i.in_flight() == 1));
}

#[test]
fn terms_change_what_was_configured_while_they_stand() {
    let (shared, mut world) = (shared(), World::new(1));
    let routes = Some(table(1, vec![route(1), route(2)]));
    world.take_service(&shared, &name(), &view(routes, vec![]), at(1));
    let mut told = BTreeMap::from([(route(1).instance, Terms::NOTHING_NEW)]);
    told.insert(route(2).instance, Terms { weight: 50, max_in_flight: Some(4) });
    world.take_terms(&told, at(2));
    let seen = |n: usize| {
        let entry = &snapshot(&shared).entries[n];
        (entry.weight, entry.max_in_flight)
    };
    assert_eq!((seen(0), seen(1)), ((0.0, 10), (0.5, 4)));
    assert!(snapshot(&shared).any_standing());
    told.insert(route(2).instance, Terms { weight: 100, max_in_flight: Some(99) });
    world.take_terms(&told, at(3));
    assert_eq!(seen(1), (1.0, 10), "never more than configured");
    told.insert(route(2).instance, Terms::NOTHING_NEW);
    world.take_terms(&told, at(4));
    assert!(!snapshot(&shared).any_standing());
    world.take_terms(&BTreeMap::new(), at(5));
    assert_eq!((seen(0), seen(1)), ((1.0, 10), (1.0, 10)));
}

#[test]
fn a_reports_age_counts_from_its_first_sight() {
    let (shared, mut world) = (shared(), World::new(1));
    let routes = Some(table(1, vec![route(1)]));
    let first = vec![reading(1, 0.5, 77, Duration::from_millis(200))];
    world.take_service(&shared, &name(), &view(routes, first), at(10));
    let reported = || snapshot(&shared).entries[0].reported.unwrap();
    assert_eq!(reported().at, Mono(Duration::from_millis(9800)));
    let again = vec![reading(1, 0.5, 77, Duration::from_secs(3))];
    world.take_service(&shared, &name(), &view(None, again), at(13));
    assert_eq!(reported().at, Mono(Duration::from_millis(9800)), "read again, not new");
    world.take_service(&shared, &name(), &view(None, vec![]), at(60));
    assert_eq!(reported().at, Mono(Duration::from_millis(9800)), "lost, and fading by age alone");
    let next = vec![reading(1, 0.9, 78, Duration::ZERO)];
    world.take_service(&shared, &name(), &view(None, next), at(61));
    assert_eq!(reported().at, at(61));
    assert!((reported().load - 0.9).abs() < 1e-9);
}

#[test]
fn failing_instances_are_set_aside_and_come_back_ramped() {
    let (shared, mut world) = (shared(), World::new(1));
    let routes = Some(table(1, vec![route(1), route(2)]));
    world.take_service(&shared, &name(), &view(routes, vec![]), at(1));
    let entry = |n: usize| snapshot(&shared).entries[n].clone();
    for _ in 0..5 {
        entry(0).instance.record(false, Duration::from_millis(1), at(2));
        entry(1).instance.record(false, Duration::from_millis(1), at(2));
    }
    world.judge(at(2));
    let out = [entry(0).ejected, entry(1).ejected];
    assert!(out[0] != out[1], "never the last: {out:?}");
    let n = usize::from(out[1]);
    world.judge(at(40));
    assert!(!entry(n).ejected);
    assert_eq!(entry(n).ready_since, at(40));
    assert_eq!(entry(n).instance.window().0, 0, "its failures are served");
}

#[test]
fn a_service_is_forgotten_only_when_it_is_empty_and_long_gone() {
    let (shared, mut world) = (shared(), World::new(1));
    world.take_service(&shared, &name(), &view(Some(table(1, vec![route(1)])), vec![]), at(1));
    let nothing = BoardView::default();
    world.take_view(&shared, &nothing, at(1000));
    assert_eq!(shared.table.load().services().len(), 1, "it has instances: unknown, not gone");
    world.take_service(&shared, &name(), &view(Some(table(2, vec![])), vec![]), at(1000));
    world.take_view(&shared, &nothing, at(1001));
    world.take_view(&shared, &nothing, at(1060));
    assert_eq!(shared.table.load().services().len(), 1);
    world.take_view(&shared, &nothing, at(1061));
    assert_eq!(shared.table.load().services().len(), 0);
}

#[test]
fn places_of_forgotten_services_are_used_again() {
    let (shared, mut world) = (shared(), World::new(1));
    for name in ["a", "b", "c"] {
        world.take_front(&shared, &front(name), at(1));
    }
    let slots = || {
        let table = shared.table.load();
        table.services().iter().map(|s| (s.name.to_string(), s.slot)).collect::<Vec<_>>()
    };
    assert_eq!(slots(), [("a".into(), 0), ("b".into(), 1), ("c".into(), 2)]);
    let gone: ServiceName = "b".parse().unwrap();
    world.take_routes(&gone, &table(1, vec![]), at(1));
    let mut all = BoardView::default();
    for name in ["a", "c"] {
        all.services.insert(name.parse().unwrap(), ServiceView::default());
    }
    world.take_view(&shared, &all, at(1));
    world.take_view(&shared, &all, at(100));
    world.take_front(&shared, &front("d"), at(100));
    assert_eq!(slots(), [("a".into(), 0), ("c".into(), 2), ("d".into(), 1)]);
}

fn told(in_flight: u32, set_aside: bool) -> Demand {
    Demand {
        in_flight: [(route(1).instance, in_flight)].into(),
        set_aside: set_aside.then(|| route(1).instance).into_iter().collect(),
        ..Demand::default()
    }
}

#[test]
fn what_other_balancers_have_in_flight_takes_room_and_is_estimated() {
    let (shared, mut world) = (shared(), World::new(1));
    let routes = Some(table(1, vec![route(1), route(2)]));
    world.take_service(&shared, &name(), &view(routes, vec![]), at(1));
    world.take_balancers(Some(3), at(1));
    let id = |text: &str| text.parse::<domain::BalancerId>().unwrap();
    let demands = vec![
        (shared.id.clone(), told(1000, true), Duration::ZERO),
        (id("b2"), told(4, false), Duration::from_millis(100)),
        (id("b3"), told(3, false), Duration::from_millis(300)),
    ];
    world.take_demand(&shared, &[(name(), demands)].into(), at(20));
    let snapshot = snapshot(&shared);
    let field = &snapshot.field;
    assert_eq!((field.balancers, field.published, field.others_in_flight), (3, 2, 7));
    assert_eq!(field.published_at, Mono(Duration::from_millis(19_800)));
    let room: Vec<u32> = snapshot.entries.iter().map(|e| e.max_in_flight).collect();
    assert_eq!(room, [3, 10], "ten there at once, of all balancers");
    let estimate = |n| picker::score::Parts::of(&snapshot.view(n), field, at(20)).estimate;
    assert!(estimate(0) > 6.0 && estimate(1) < 0.1);
}

#[test]
fn an_instance_that_another_balancer_set_aside_has_less_patience_to_expect() {
    for (hint, out) in [(false, false), (true, true)] {
        let (shared, mut world) = (shared(), World::new(1));
        let routes = Some(table(1, vec![route(1), route(2)]));
        world.take_service(&shared, &name(), &view(routes, vec![]), at(1));
        let other = ("b2".parse().unwrap(), told(0, hint), Duration::ZERO);
        world.take_demand(&shared, &[(name(), vec![other])].into(), at(1));
        for _ in 0..3 {
            let instance = &snapshot(&shared).entries[0].instance;
            instance.record(false, Duration::from_millis(1), at(2));
        }
        world.judge(at(2));
        assert_eq!(snapshot(&shared).entries[0].ejected, out);
    }
}

#[test]
fn a_load_in_an_answer_counts_at_once_unless_a_better_source_speaks() {
    let (shared, mut world) = (shared(), World::new(1));
    let routes = Some(table(1, vec![route(1)]));
    world.take_service(&shared, &name(), &view(routes, vec![]), at(1));
    let instance = Arc::clone(&snapshot(&shared).entries[0].instance);
    instance.record(true, Duration::from_millis(1), at(5));
    let say = b"TEXT application_utilization=0.7,named_metrics.in_flight=4";
    crate::orca::note(&instance, b"endpoint-load-metrics", say);
    let reported = || snapshot(&shared).view(0).reported;
    let now = reported().unwrap();
    assert_eq!((now.in_flight, now.at), (Some(4), at(5)));
    assert!((now.load - 0.7).abs() < 1e-9);
    // Its copy comes back by the board, as if it were younger.
    let mut copy = reading(1, 0.7, 5100, Duration::ZERO);
    copy.report.source = LoadSource::Header;
    world.take_service(
        &shared,
        &name(),
        &view(None, vec![copy]),
        Mono(Duration::from_millis(5300)),
    );
    assert_eq!(reported().unwrap().at, at(5));
    let pushed = reading(1, 0.2, 5200, Duration::from_secs(1));
    world.take_service(&shared, &name(), &view(None, vec![pushed]), at(6));
    assert!((reported().unwrap().load - 0.2).abs() < 1e-9, "a pushed one outranks it");
    crate::orca::note(&instance, b"endpoint-load-metrics", say);
    assert!((reported().unwrap().load - 0.2).abs() < 1e-9);
}
