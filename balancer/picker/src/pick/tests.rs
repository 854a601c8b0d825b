//! Tables and properties of the pick.

use super::*;
use crate::view::Reported;
use crate::view::tests::{at_ms, field, plain};
use proptest::prelude::{any, prop, prop_assert, proptest};

const NOW: Mono = Mono(Duration::from_secs(100));

fn by(policy: PolicyName) -> Ask {
    Ask { policy, ..Ask::default() }
}

fn shares(policy: PolicyName, views: &[View], field: &Field, picks: usize) -> Vec<usize> {
    let mut picker = Picker::new(42);
    let mut counts = vec![0; views.len()];
    for _ in 0..picks {
        counts[picker.pick(&by(policy), views, field, NOW).unwrap()] += 1;
    }
    counts
}

fn used_now() -> View {
    View { last_picked: NOW, ..plain() }
}

fn reporting(load: f64) -> View {
    let reported =
        Reported { load, in_flight: None, at: NOW, own_in_flight: 0, others_in_flight: None };
    View { reported: Some(reported), ..used_now() }
}

#[test]
fn equal_instances_share_equally() {
    for count in [2, 3, 8, 20] {
        let views = vec![used_now(); count];
        for policy in PolicyName::ALL {
            let counts = shares(policy, &views, &field(), 1000 * count);
            assert!(counts.iter().all(|n| (850..1150).contains(n)), "{policy:?}: {counts:?}");
        }
    }
}

#[test]
fn pushed_loads_alone_move_the_shares() {
    let views = [reporting(0.2), reporting(0.8), reporting(0.8), reporting(0.2)];
    let scratch = &mut Vec::new();
    let field = Field::default().surveyed(&views[..], NOW, scratch);
    let counts = shares(PolicyName::Feedback, &views, &field, 1000);
    assert_eq!(counts[1] + counts[2], 0, "equal in flight: the less loaded are picked {counts:?}");
    // And with requests in flight the balance is struck where the costs are equal.
    let mut views = views;
    let mut picker = Picker::new(1);
    for _ in 0..100 {
        let index = picker.pick(&by(PolicyName::Feedback), &views[..], &field, NOW).unwrap();
        views[index].in_flight += 1;
    }
    let own: Vec<u32> = views.iter().map(|v| v.in_flight).collect();
    assert!(own[0] > own[1] + 10 && own[3] > own[2] + 10 && own[1] > 5, "{own:?}");
}

#[test]
fn stale_loads_fade() {
    let mut views = [reporting(0.1), reporting(0.9)];
    for view in &mut views {
        if let Some(reported) = &mut view.reported {
            reported.at = at_ms(100_000 - 30_000);
        }
    }
    // Thirty seconds on, one request in flight outweighs what the old reports said.
    views[0].in_flight = 1;
    let field = Field { median_load: 0.1, ..field() };
    let counts = shares(PolicyName::Feedback, &views, &field, 1000);
    assert_eq!(counts[0], 0, "{counts:?}");
}

#[test]
fn an_instance_that_fails_fast_gets_little() {
    let mut views = vec![used_now(); 5];
    for view in &mut views[1..] {
        view.in_flight = 20;
    }
    for _ in 0..4 {
        views[0].outcomes = views[0].outcomes.after(false, NOW);
    }
    for policy in [PolicyName::Feedback, PolicyName::PeakEwma] {
        let mut views = views.clone();
        for view in &mut views[1..] {
            view.latency = view.latency.after(Duration::from_millis(50), true, NOW);
        }
        views[0].latency = views[0].latency.after(Duration::from_millis(1), false, NOW);
        assert_eq!(shares(policy, &views, &field(), 1000)[0], 0, "{policy:?}");
    }
}

#[test]
fn the_lowest_score_is_the_papers_rule() {
    let views = [reporting(0.5), reporting(0.1), reporting(0.1), used_now()];
    let field = Field { median_load: 0.1, ..field() };
    let counts = shares(PolicyName::LowestScore, &views, &field, 3000);
    assert_eq!(counts[0], 0);
    assert!(counts[1..].iter().all(|n| (900..1100).contains(n)), "ties at random {counts:?}");
}

#[test]
fn the_longest_unused_is_refreshed_but_rarely() {
    let mut views = vec![reporting(0.0); 3];
    views[2] = View { last_picked: at_ms(10_000), in_flight: 90, ..plain() };
    let mut picker = Picker::new(3);
    let mut refreshed = 0;
    for i in 0..1000u64 {
        let now = NOW.plus(Duration::from_millis(i * 10));
        let index = picker.pick(&by(PolicyName::Feedback), &views[..], &field(), now).unwrap();
        refreshed += u32::from(index == 2);
        views[index].last_picked = now;
    }
    assert!((5..=10).contains(&refreshed), "1 % of a thousand picks in ten seconds: {refreshed}");
    for _ in 0..3 {
        views[2].outcomes = views[2].outcomes.after(false, NOW);
    }
    views[2].last_picked = at_ms(10_000);
    let mut picker = Picker::new(3);
    let again = (0..1000u64)
        .map(|i| NOW.plus(Duration::from_millis(i)))
        .filter(|now| picker.pick(&by(PolicyName::Feedback), &views[..], &field(), *now) == Ok(2));
    assert_eq!(again.count(), 0, "nobody's request goes to a failing instance to see");
}

#[test]
fn a_failed_instance_is_avoided_unless_it_is_the_only_one() {
    for policy in PolicyName::ALL {
        let mut picker = Picker::new(9);
        let two = [used_now(), used_now()];
        for _ in 0..50 {
            assert_eq!(
                picker.pick(&Ask { avoid: Some(0), ..by(policy) }, &two[..], &field(), NOW),
                Ok(1),
                "{policy:?}"
            );
        }
        let one = [used_now()];
        assert_eq!(
            picker.pick(&Ask { avoid: Some(0), ..by(policy) }, &one[..], &field(), NOW),
            Ok(0),
            "{policy:?}"
        );
    }
}

#[test]
fn full_and_nothing_are_told_apart() {
    let full = View { in_flight: 100, ..used_now() };
    let draining = View { ready: false, ..used_now() };
    for policy in PolicyName::ALL {
        let mut picker = Picker::new(9);
        let mut pick = |views: &[View]| picker.pick(&by(policy), views, &field(), NOW);
        assert_eq!(pick(&[]), Err(NoPick::Nothing));
        assert_eq!(pick(&[draining; 30]), Err(NoPick::Nothing));
        assert_eq!(pick(&[full; 30]), Err(NoPick::Full));
        assert_eq!(pick(&[full, draining]), Err(NoPick::Full));
    }
}

proptest! {
    #[test]
    fn only_instances_that_stand_and_have_room_are_picked(
        kinds in prop::collection::vec((any::<bool>(), any::<bool>(), 0u32..3, 0u8..3), 0..60),
        seed: u64, policy in 0usize..9, avoid in prop::option::of(0usize..60),
        key in prop::option::of(any::<u64>()), stay in prop::option::of(0usize..60),
    ) {
        let views: Vec<View> = kinds.iter().map(|(ready, ejected, in_flight, weight)| View {
            ready: *ready, ejected: *ejected, in_flight: *in_flight, max_in_flight: 2,
            weight: f64::from(*weight), ..plain()
        }).collect();
        let mut picker = Picker::new(seed);
        let ask = Ask { policy: PolicyName::ALL[policy], key, stay, avoid };
        let field = field().surveyed(&views[..], NOW, &mut Vec::new());
        let good = |v: &View| v.ready && !v.ejected && v.in_flight < 2 && v.weight > 0.0;
        for _ in 0..20 {
            match picker.pick(&ask, &views[..], &field, NOW) {
                Ok(index) => {
                    prop_assert!(good(&views[index]));
                    let others = views.iter().enumerate().any(|(i, v)| Some(i) != avoid && good(v));
                    prop_assert!(Some(index) != avoid || !others);
                    let may_stay = stay.filter(|i| Some(*i) != avoid && *i < views.len());
                    let stays = may_stay.filter(|i| good(&views[*i]));
                    prop_assert!(stays.is_none_or(|stay| stay == index));
                    let seen = picker.seen();
                    prop_assert!(Some(index) == avoid || seen.iter().any(|(i, _)| *i == index)
                        || seen.len() == SEEN_MAX || ask.policy == PolicyName::Hash);
                }
                Err(_) => prop_assert!(!views.iter().any(good)),
            }
        }
    }
}
