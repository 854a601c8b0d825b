//! The promises of [`Board`] as one suite, run on every implementation.

use crate::board::{BALANCER_LIVE, Board, HEARTBEAT_TTL, LOAD_TTL};
use crate::testing::{PATIENCE, front, instance, report, routes, service};
use async_trait::async_trait;
use domain::{Ability, BalancerId, Change, Demand, LoadSource, Terms, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::timeout;

/// A board under test whose time can be made to pass.
#[async_trait]
pub trait Subject: Sync {
    /// The board.
    fn board(&self) -> &dyn Board;
    /// Makes everything on the board older by `span`.
    async fn pass(&self, span: Duration);
}

/// Runs every case.
///
/// # Panics
/// When a promise is broken; that is its purpose.
pub async fn run(subject: &dyn Subject) {
    unknown_is_not_empty(subject.board()).await;
    fronts_stand_until_removed(subject).await;
    only_newer_routes_count(subject.board()).await;
    loads_are_read_as_recorded(subject.board()).await;
    services_do_not_touch_each_other(subject.board()).await;
    replays_change_nothing(subject).await;
    loads_expire(subject).await;
    ended_instances_are_forgotten(subject.board()).await;
    services_without_balancer_have_loads_too(subject).await;
    demand_is_fresh_or_absent(subject).await;
    abilities_are_those_of_live_balancers(subject).await;
    terms_stand_as_long_as_they_are_told(subject).await;
    every_write_is_told(subject.board()).await;
    loads_are_told_as_they_stand(subject.board()).await;
    large_batches_are_recorded_whole(subject.board()).await;
}

async fn unknown_is_not_empty(board: &dyn Board) {
    board.ping().await.expect("it lives");
    let view = board.service(&service("nobody")).await.expect("readable");
    assert_eq!((view.front, view.routes, view.loads), (None, None, vec![]));
    board.publish_routes(&service("empty"), &routes("empty", "1.1", 0)).await.expect("written");
    let view = board.service(&service("empty")).await.expect("readable");
    assert_eq!(view.routes, Some(routes("empty", "1.1", 0)), "no instances is not unknown");
    let all = board.view().await.expect("readable").services;
    assert!(!all.contains_key(&service("empty")), "a service without a front is unknown");
}

async fn fronts_stand_until_removed(subject: &dyn Subject) {
    let board = subject.board();
    let mut wanted = front("fronted");
    board.publish_front(&wanted).await.expect("written");
    wanted.source = Some(LoadSource::Header);
    wanted.port = Some(5432);
    wanted.startable = false;
    wanted.health.path = Some("/up".to_owned());
    board.publish_front(&wanted).await.expect("written");
    subject.pass(Duration::from_secs(86_400)).await;
    let view = board.service(&wanted.service).await.expect("readable");
    assert_eq!(view.front.as_ref(), Some(&wanted));
    let all = board.view().await.expect("readable").services;
    assert_eq!(all.get(&wanted.service), Some(&view));
    board.publish_routes(&wanted.service, &routes("fronted", "1.1", 1)).await.expect("written");
    board.record(&[report(&instance("fronted", 0), 1, None)]).await.expect("written");
    board.remove_service(&wanted.service).await.expect("written");
    assert_eq!(board.service(&wanted.service).await.expect("readable"), Default::default());
    assert!(!board.view().await.expect("readable").services.contains_key(&wanted.service));
}

async fn only_newer_routes_count(board: &dyn Board) {
    let name = service("routed");
    // Version, count, version that stands afterwards: by number, not by text; epochs come first.
    let steps = [
        ("1.9", 1, "1.9"),
        ("1.10", 2, "1.10"),
        ("1.10", 3, "1.10"),
        ("1.9", 4, "1.10"),
        ("2.1", 5, "2.1"),
        ("1.99", 6, "2.1"),
        (
            "18446744073709551614.18446744073709551614",
            7,
            "18446744073709551614.18446744073709551614",
        ),
        (
            "18446744073709551614.18446744073709551615",
            8,
            "18446744073709551614.18446744073709551615",
        ),
        (
            "18446744073709551614.18446744073709551614",
            9,
            "18446744073709551614.18446744073709551615",
        ),
    ];
    for (version, count, after) in steps {
        let table = routes("routed", version, count);
        let stands = board.publish_routes(&name, &table).await.expect("written");
        assert_eq!(stands.to_string(), after, "after {version}");
        let got = board.service(&name).await.expect("readable").routes.expect("known");
        assert_eq!(got.generation, stands);
        if version == after && count != 3 {
            assert_eq!(got, table);
        } else {
            assert_ne!(got.entries.len(), usize::try_from(count).expect("small"), "{version}");
        }
    }
    let mut shuffled = routes("shuffled", "1.1", 5);
    shuffled.entries.reverse();
    board.publish_routes(&service("shuffled"), &shuffled).await.expect("written");
    let got = board.service(&service("shuffled")).await.expect("readable").routes;
    assert_eq!(got, Some(routes("shuffled", "1.1", 5)), "sorted by instance");
}

async fn loads_are_read_as_recorded(board: &dyn Board) {
    let mut reports = vec![
        report(&instance("loaded", 2), 40_000, Some(u64::MAX)),
        report(&instance("loaded", 0), 0, None),
        report(&instance("loaded", 1), 4_217, Some(0)),
    ];
    reports[1].in_flight = None;
    reports[1].rps_milli = None;
    reports[1].eps_milli = Some(1);
    reports[2].source = LoadSource::Cgroup;
    assert_eq!(board.record(&reports).await.expect("written"), 3);
    reports.sort_by(|a, b| a.instance.cmp(&b.instance));
    let loads = board.service(&service("loaded")).await.expect("readable").loads;
    assert!(loads.iter().all(|reading| reading.age < PATIENCE));
    assert_eq!(loads.into_iter().map(|l| l.report).collect::<Vec<_>>(), reports);
}

async fn services_do_not_touch_each_other(board: &dyn Board) {
    board.record(&[report(&instance("left", 1), 100, Some(5))]).await.expect("written");
    let before = board.service(&service("left")).await.expect("readable").loads;
    board.record(&[report(&instance("left-right", 1), 200, Some(1))]).await.expect("written");
    let after = board.service(&service("left")).await.expect("readable").loads;
    assert_eq!((after.len(), after[0].at), (1, before[0].at));
    assert_eq!(after[0].report, before[0].report);
}

async fn replays_change_nothing(subject: &dyn Subject) {
    let (board, who) = (subject.board(), instance("replayed", 7));
    let load = async || {
        let loads = board.service(&service("replayed")).await.expect("readable").loads;
        loads.into_iter().next().expect("there")
    };
    // Sequence, whether it is taken.
    let steps = [
        (Some(9), 1),
        (Some(9), 0),
        (Some(8), 0),
        (Some(10), 1),
        (None, 1),
        (Some(10), 0),
        (Some(11), 1),
    ];
    let mut stamps = BTreeSet::new();
    for (load_now, (seq, taken)) in (1u32..).zip(steps) {
        let new = board.record(&[report(&who, load_now, seq)]).await.expect("written");
        assert_eq!(new, taken, "seq {seq:?}");
        let reading = load().await;
        assert_eq!(u32::from(reading.report.load.ten_thousandths()) == load_now, taken == 1);
        assert_eq!(stamps.insert(reading.at), taken == 1, "a new report has a new time");
    }
    let twice = [report(&who, 90, Some(20)), report(&who, 91, Some(20))];
    assert_eq!(board.record(&twice).await.expect("written"), 1, "within one batch, too");
    subject.pass(LOAD_TTL).await;
    assert_eq!(board.record(&[report(&who, 5, Some(1))]).await.expect("written"), 1);
    assert_eq!(load().await.report.seq, Some(1), "a restarted sender counts anew");
}

async fn loads_expire(subject: &dyn Subject) {
    let (board, name) = (subject.board(), service("fading"));
    board.publish_front(&front("fading")).await.expect("written");
    let both = [report(&instance("fading", 1), 10, None), report(&instance("fading", 2), 20, None)];
    board.record(&both).await.expect("written");
    subject.pass(Duration::from_secs(6)).await;
    board.record(&both[1..]).await.expect("written");
    let view = board.service(&name).await.expect("readable");
    assert_eq!(view.loads.len(), 2);
    assert!(view.loads[0].age >= Duration::from_secs(6) && view.loads[1].age < PATIENCE);
    subject.pass(LOAD_TTL - Duration::from_secs(6)).await;
    let left = board.service(&name).await.expect("readable").loads;
    assert_eq!(left.iter().map(|l| &l.report.instance).collect::<Vec<_>>(), [&both[1].instance]);
    assert_eq!(board.view().await.expect("readable").services[&name].loads.len(), 1);
    subject.pass(LOAD_TTL).await;
    assert!(board.service(&name).await.expect("readable").loads.is_empty());
}

async fn ended_instances_are_forgotten(board: &dyn Board) {
    let (stays, ends) = (instance("ending", 1), instance("ending", 2));
    board.record(&[report(&stays, 1, None), report(&ends, 2, None)]).await.expect("written");
    board.forget(&[ends, instance("never-seen", 1)]).await.expect("written");
    board.forget(&[]).await.expect("nothing is done");
    let loads = board.service(&service("ending")).await.expect("readable").loads;
    assert_eq!(loads.into_iter().map(|l| l.report.instance).collect::<Vec<_>>(), [stays]);
}

async fn services_without_balancer_have_loads_too(subject: &dyn Subject) {
    let board = subject.board();
    let mut plain = front("plain");
    plain.load_balanced = false;
    board.publish_front(&plain).await.expect("written");
    let who = instance("plain", 1);
    assert_eq!(board.record(&[report(&who, 100, Some(4))]).await.expect("written"), 1);
    assert_eq!(board.record(&[report(&who, 200, Some(4))]).await.expect("written"), 0);
    let loads = board.service(&plain.service).await.expect("readable").loads;
    assert_eq!(
        loads.into_iter().map(|l| l.report).collect::<Vec<_>>(),
        [report(&who, 100, Some(4))]
    );
    subject.pass(LOAD_TTL).await;
    assert!(board.service(&plain.service).await.expect("readable").loads.is_empty());
    assert_eq!(board.record(&[report(&who, 200, Some(1))]).await.expect("written"), 1);
}

async fn demand_is_fresh_or_absent(subject: &dyn Subject) {
    let (board, name) = (subject.board(), service("wanted"));
    let balancers = ["b-2", "b-1"].map(|b| b.parse().expect("a name"));
    let wanted = Demand {
        set_aside: [instance("wanted", 1)].into(),
        at: Timestamp(5),
        queued: 4,
        oldest_wait: Duration::from_micros(1_500),
        in_flight: [(instance("wanted", 1), 3)].into(),
        rps_milli: 12_345,
        eps_milli: 1,
        p50: Duration::from_micros(2_250),
        p95: Duration::from_millis(40),
        last_request_ago: Some(Duration::ZERO),
        open_connections: 2,
        routes_gen: "3.4".parse().expect("a version"),
    };
    board.publish_front(&front("wanted")).await.expect("written");
    for balancer in &balancers {
        let demand = [(name.clone(), wanted.clone())];
        board.write_demand(balancer, &demand).await.expect("written");
    }
    let all = board.demand().await.expect("readable");
    let who: Vec<_> = all[&name].iter().map(|(b, d, _)| (b.as_str(), d.clone())).collect();
    assert_eq!(who, [("b-1", wanted.clone()), ("b-2", wanted.clone())]);
    subject.pass(Duration::from_secs(2)).await;
    board.write_demand(&balancers[0], &[]).await.expect("a heartbeat alone");
    let all = board.demand().await.expect("readable");
    assert!(all[&name].iter().all(|(_, _, age)| *age >= Duration::from_secs(2)));
    subject.pass(BALANCER_LIVE - Duration::from_secs(2)).await;
    assert!(!board.demand().await.expect("readable").contains_key(&name), "too old");
    let seen = board.view().await.expect("readable").balancers;
    let ages: Vec<_> = seen.iter().filter(|s| balancers.contains(&s.balancer)).collect();
    assert_eq!(ages.len(), 2);
    assert!(ages[0].balancer == balancers[1] && ages[0].age >= BALANCER_LIVE);
    assert!(ages[1].age >= BALANCER_LIVE - Duration::from_secs(2) && ages[1].age < ages[0].age);
    subject.pass(HEARTBEAT_TTL).await;
    let seen = board.view().await.expect("readable").balancers;
    assert!(!seen.iter().any(|s| balancers.contains(&s.balancer)), "a dead balancer leaves");
}

async fn abilities_are_those_of_live_balancers(subject: &dyn Subject) {
    let board = subject.board();
    let [able, lame]: [BalancerId; 2] = ["able", "lame"].map(|name| name.parse().expect("a name"));
    board.write_ability(&able, &Ability::default()).await.expect("written");
    assert!(!board.abilities().await.expect("readable").contains_key(&able), "never heard");
    board.write_demand(&able, &[]).await.expect("written");
    board.write_demand(&lame, &[]).await.expect("written");
    let lacks = Ability { nat_lacks: Some("a kernel".to_owned()), ..Ability::default() };
    board.write_ability(&lame, &Ability::default()).await.expect("written");
    board.write_ability(&lame, &lacks).await.expect("written");
    board.write_ability(&able, &Ability::default()).await.expect("written");
    let said = board.abilities().await.expect("readable");
    assert_eq!((&said[&able], &said[&lame]), (&Ability::default(), &lacks));
    subject.pass(BALANCER_LIVE).await;
    board.write_demand(&lame, &[]).await.expect("written");
    let said = board.abilities().await.expect("readable");
    assert!(!said.contains_key(&able) && said.contains_key(&lame), "the silent one is left out");
    subject.pass(HEARTBEAT_TTL).await;
    assert!(!board.abilities().await.expect("readable").contains_key(&lame));
}

async fn terms_stand_as_long_as_they_are_told(subject: &dyn Subject) {
    let board = subject.board();
    let [first, second] = [1, 2].map(|n| instance("termed", n));
    let none = BTreeMap::new();
    let half = Terms { weight: 50, max_in_flight: Some(7) };
    board.write_terms(&[]).await.expect("written");
    let both = [(first.clone(), Terms::NOTHING_NEW), (second.clone(), Terms::NOTHING_NEW)];
    board.write_terms(&both).await.expect("written");
    board.write_terms(&[(second.clone(), half)]).await.expect("written");
    let both = BTreeMap::from([(first.clone(), Terms::NOTHING_NEW), (second.clone(), half)]);
    assert_eq!(board.terms().await.expect("readable"), both);
    board.write_terms(&[(second.clone(), Terms::AS_CONFIGURED)]).await.expect("written");
    subject.pass(LOAD_TTL / 2).await;
    assert_eq!(board.terms().await.expect("readable").len(), 1, "taken back");
    board.write_terms(&[(second.clone(), half)]).await.expect("written");
    subject.pass(LOAD_TTL / 2).await;
    let second_alone = BTreeMap::from([(second, half)]);
    assert_eq!(board.terms().await.expect("readable"), second_alone, "the other was not renewed");
    subject.pass(LOAD_TTL).await;
    assert_eq!(board.terms().await.expect("readable"), none);
}

async fn every_write_is_told(board: &dyn Board) {
    let mut changes = board.watch();
    // A watcher may be told of everything first, when it has only just connected.
    let mut expect = async |wanted: Change| {
        let told = async {
            loop {
                let change = changes.next().await.expect("the board is open");
                if change == wanted || change == Change::All {
                    return;
                }
            }
        };
        timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("nobody told of {wanted:?}"));
    };
    let name = service("told");
    board.publish_front(&front("told")).await.expect("written");
    expect(Change::Front(name.clone())).await;
    board.publish_routes(&name, &routes("told", "1.1", 2)).await.expect("written");
    expect(Change::Routes(name.clone())).await;
    board.record(&[report(&instance("told", 1), 5, None)]).await.expect("written");
    board.forget(&[instance("told", 1)]).await.expect("written");
    expect(Change::Loads(name.clone())).await;
    let demand = [(name.clone(), Demand::default())];
    board.write_demand(&"b-1".parse().expect("a name"), &demand).await.expect("written");
    expect(Change::Demand(name.clone())).await;
    board.remove_service(&name).await.expect("written");
    expect(Change::Front(name.clone())).await;
    expect(Change::Routes(name)).await;
}

/// Whoever watches needs no reading: what is told is what stands there.
async fn loads_are_told_as_they_stand(board: &dyn Board) {
    let (name, mut changes) = (service("herald"), board.watch());
    let both = [instance("herald", 1), instance("herald", 2)];
    let mut seq = 0;
    let told = async {
        loop {
            seq += 1;
            let reports = [report(&both[0], seq, Some(seq.into())), report(&both[1], 7, None)];
            board.record(&reports).await.expect("written");
            loop {
                match changes.next().await.expect("the board is open") {
                    Change::Told(of, readings) if of == name => return readings,
                    // A watcher that has only just connected is told of everything first.
                    Change::All => break,
                    Change::Told(..)
                    | Change::Front(_)
                    | Change::Routes(_)
                    | Change::Loads(_)
                    | Change::Demand(_) => {}
                }
            }
        }
    };
    let readings = timeout(PATIENCE, told).await.expect("loads are told");
    let stand = board.service(&name).await.expect("readable").loads;
    let told: Vec<_> = readings.iter().map(|r| (&r.report, r.at)).collect();
    assert_eq!(told, stand.iter().map(|r| (&r.report, r.at)).collect::<Vec<_>>());
    assert!(readings.iter().all(|r| r.age.is_zero()), "told as they come");

    let replay = [report(&both[0], 1, Some(1)), report(&both[1], 8, None)];
    assert_eq!(board.record(&replay).await.expect("written"), 1);
    let next = async {
        loop {
            if let Some(Change::Told(of, readings)) = changes.next().await
                && of == name
            {
                return readings;
            }
        }
    };
    let readings = timeout(PATIENCE, next).await.expect("loads are told");
    let who: Vec<_> = readings.iter().map(|r| &r.report.instance).collect();
    assert_eq!(who, [&both[1]], "what changed nothing is not told");
}

async fn large_batches_are_recorded_whole(board: &dyn Board) {
    const EACH: u32 = 2_500;
    let of =
        |service: &'static str| (0..EACH).map(move |n| report(&instance(service, n), n, Some(1)));
    let reports: Vec<_> = of("many-a").chain(of("many-b")).collect();
    assert_eq!(board.record(&reports).await.expect("written"), reports.len());
    for name in ["many-a", "many-b"] {
        let loads = board.service(&service(name)).await.expect("readable").loads;
        assert_eq!(
            loads.into_iter().map(|l| l.report).collect::<Vec<_>>(),
            of(name).collect::<Vec<_>>()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryBoard;
    use crate::testing::HandClock;
    use std::sync::Arc;

    struct InMemory(Arc<HandClock>, MemoryBoard);

    #[async_trait]
    impl Subject for InMemory {
        fn board(&self) -> &dyn Board {
            &self.1
        }
        async fn pass(&self, span: Duration) {
            self.0.pass(span);
        }
    }

    #[tokio::test]
    async fn memory_keeps_the_promises() {
        let clock = Arc::new(HandClock::default());
        run(&InMemory(Arc::clone(&clock), MemoryBoard::new(clock))).await;
    }
}
