//! Contract: steps of the container-manager, instances and decisions.

use super::samples::{decision, event, instance, instance_id, put, service};
use super::{BEGINNING, Subject};
use crate::store::{Expect, InstanceCommit};
use domain::{Instance, InstanceState};
use std::time::Duration;

fn ids(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|one| one.id.as_str()).collect()
}

fn of(instances: Vec<Instance>) -> InstanceCommit {
    InstanceCommit { instances, ..InstanceCommit::default() }
}

fn stopped(n: u32, after: u64) -> Instance {
    let mut one = instance("shop", n, InstanceState::Stopped);
    one.state_since = BEGINNING.plus(Duration::from_secs(after));
    one
}

/// Instances, decisions, memories and events of one step are all there afterwards.
pub async fn a_step_is_written_whole(subject: &Subject) {
    let registry = &subject.registry;
    let lease = subject.container_manager().await;
    registry.put_service(put("shop", "one", false, Expect::Any)).await.unwrap();
    let mut first = instance("shop", 1, InstanceState::Wanted);
    (first.node, first.address, first.deadline) = (None, None, None);
    let commit = InstanceCommit {
        instances: vec![instance("shop", 2, InstanceState::Starting), first.clone()],
        decisions: vec![decision("shop", BEGINNING, 2)],
        memories: vec![
            (service("shop"), "calm since 5".to_owned()),
            (service("gone"), "nobody's".to_owned()),
        ],
        purged: vec![],
        events: vec![event("ordered")],
    };
    registry.commit_instances(&lease, commit).await.unwrap();
    let living = registry.instances().await.unwrap();
    assert_eq!(living, vec![first.clone(), instance("shop", 2, InstanceState::Starting)]);
    assert_eq!(registry.instance(&first.id).await.unwrap(), Some(first.clone()));
    assert_eq!(registry.instance(&instance_id("shop", 9)).await.unwrap(), None);
    let decisions = registry.decisions(None, 10).await.unwrap();
    assert_eq!(decisions, vec![decision("shop", BEGINNING, 2)]);
    let rows = registry.services().await.unwrap();
    assert_eq!((rows.len(), rows[0].memory.as_str()), (1, "calm since 5"));
    assert_eq!(rows[0].generation.0, 1);
    assert_eq!(registry.last_event().await.unwrap(), 1);
    first.state = InstanceState::Ready;
    first.restarts = 2;
    registry.commit_instances(&lease, of(vec![first.clone()])).await.unwrap();
    assert_eq!(registry.instance(&first.id).await.unwrap(), Some(first));
    assert_eq!(registry.instances().await.unwrap().len(), 2);
}

/// Stopped instances leave the list and are found by service, newest first.
pub async fn the_ended_are_apart(subject: &Subject) {
    let registry = &subject.registry;
    let lease = subject.container_manager().await;
    let alive = instance("shop", 1, InstanceState::Ready);
    let other = instance("blog", 4, InstanceState::Stopped);
    let commit = of(vec![alive.clone(), stopped(2, 10), stopped(3, 20), other]);
    registry.commit_instances(&lease, commit).await.unwrap();
    assert_eq!(registry.instances().await.unwrap(), vec![alive]);
    let shop = service("shop");
    let ended = registry.ended_instances(&shop, 10).await.unwrap();
    assert_eq!(ended, vec![stopped(3, 20), stopped(2, 10)]);
    assert_eq!(registry.ended_instances(&shop, 1).await.unwrap(), vec![stopped(3, 20)]);
    assert_eq!(registry.ended_instances(&shop, 0).await.unwrap(), vec![]);
    let id = instance_id("shop", 2);
    assert_eq!(registry.instance(&id).await.unwrap(), Some(stopped(2, 10)));
}

/// What a superseded manager sent leaves no trace, in any table.
pub async fn a_refused_step_leaves_nothing(subject: &Subject) {
    let registry = &subject.registry;
    registry.put_service(put("shop", "one", false, Expect::Any)).await.unwrap();
    let before = registry.delete_service(&service("shop"), Expect::Any).await.unwrap();
    let old = subject.container_manager().await;
    subject.container_manager().await;
    let commit = InstanceCommit {
        instances: vec![instance("blog", 1, InstanceState::Ready)],
        decisions: vec![decision("shop", BEGINNING, 2)],
        memories: vec![(service("shop"), "x".to_owned())],
        purged: vec![service("shop")],
        events: vec![event("x")],
    };
    assert!(registry.commit_instances(&old, commit).await.is_err());
    assert_eq!(registry.instances().await.unwrap(), vec![]);
    assert_eq!(registry.decisions(None, 9).await.unwrap(), vec![]);
    assert_eq!(registry.services().await.unwrap(), vec![before]);
    assert_eq!(registry.last_event().await.unwrap(), 0);
}

/// Decisions are listed newest first, of one service or of all.
pub async fn decisions_are_newest_first(subject: &Subject) {
    let registry = &subject.registry;
    let lease = subject.container_manager().await;
    let at = |s| BEGINNING.plus(Duration::from_secs(s));
    let (early, late, other) =
        (decision("shop", at(1), 2), decision("shop", at(3), 3), decision("blog", at(2), 1));
    let tie = decision("shop", at(3), 4);
    let decisions = vec![late.clone(), early.clone(), other.clone(), tie.clone()];
    let commit = InstanceCommit { decisions, ..InstanceCommit::default() };
    registry.commit_instances(&lease, commit).await.unwrap();
    let all = registry.decisions(None, 9).await.unwrap();
    assert_eq!(all, vec![tie.clone(), late.clone(), other, early.clone()]);
    let shop = service("shop");
    let of_one = registry.decisions(Some(&shop), 9).await.unwrap();
    assert_eq!(of_one, vec![tie.clone(), late, early]);
    assert_eq!(registry.decisions(Some(&shop), 1).await.unwrap(), vec![tie]);
}

/// A stopped instance is kept for a week; a living one for good.
pub async fn the_ended_are_dropped_after_a_week(subject: &Subject) {
    let registry = &subject.registry;
    let lease = subject.container_manager().await;
    let alive = instance("shop", 1, InstanceState::Ready);
    let commit = of(vec![alive.clone(), stopped(2, 0), stopped(3, 3600)]);
    registry.commit_instances(&lease, commit).await.unwrap();
    subject.clock.advance(Duration::from_secs(7 * 24 * 3600));
    subject.upkeep().await;
    let ended = registry.ended_instances(&service("shop"), 9).await.unwrap();
    assert_eq!(ended, vec![stopped(3, 3600)]);
    assert_eq!(registry.instances().await.unwrap(), vec![alive]);
}

/// Only the newest stopped instances are kept. (Bound: 3.)
pub async fn the_ended_are_bounded(subject: &Subject) {
    let lease = subject.container_manager().await;
    let commit = of((0..6).map(|n| stopped(n, u64::from(n))).collect());
    subject.registry.commit_instances(&lease, commit).await.unwrap();
    subject.upkeep().await;
    let ended = subject.registry.ended_instances(&service("shop"), 9).await.unwrap();
    assert_eq!(
        ids(&ended),
        ids(&[stopped(5, 0), stopped(4, 0), stopped(3, 0)]),
        "the newest three"
    );
}

/// Decisions are bounded for each service and in all. (Bounds: 4 and 6.)
pub async fn decisions_are_bounded(subject: &Subject) {
    let registry = &subject.registry;
    let lease = subject.container_manager().await;
    let at = |s| BEGINNING.plus(Duration::from_secs(s));
    let mut decisions = vec![decision("blog", at(0), 1), decision("blog", at(1), 2)];
    decisions.extend((2..9).map(|s| decision("shop", at(s), 1)));
    let commit = InstanceCommit { decisions, ..InstanceCommit::default() };
    registry.commit_instances(&lease, commit).await.unwrap();
    subject.upkeep().await;
    let shop = registry.decisions(Some(&service("shop")), 99).await.unwrap();
    let times: Vec<_> = shop.iter().map(|one| one.at).collect();
    assert_eq!(times, [at(8), at(7), at(6), at(5)]);
    let blog = registry.decisions(Some(&service("blog")), 99).await.unwrap();
    assert_eq!(blog.len(), 2, "the flapping service pushes out only its own");
    let decisions = vec![decision("news", at(10), 1)];
    let commit = InstanceCommit { decisions, ..InstanceCommit::default() };
    registry.commit_instances(&lease, commit).await.unwrap();
    subject.upkeep().await;
    let all = registry.decisions(None, 99).await.unwrap();
    assert_eq!(all.len(), 6);
    assert_eq!(all.last().map(|one| one.at), Some(at(1)), "the oldest of all went");
}
