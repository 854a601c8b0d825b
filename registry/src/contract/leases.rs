//! Contract: terms of leadership and the fence.

use super::{BEGINNING, Subject, TERM, samples};
use crate::store::{InstanceCommit, Lease, NodeCommit, RegistryError, Role};
use domain::{Epoch, Timestamp};
use std::time::Duration;

async fn take(subject: &Subject, holder: &str) -> Option<Lease> {
    subject.registry.take_lease(Role::ContainerManager, holder, TERM).await.unwrap()
}

/// Nobody takes a lease from its holder before its end.
pub async fn one_holder_at_a_time(subject: &Subject) {
    let first = take(subject, "a").await.unwrap();
    assert_eq!(first.holder, "a");
    assert_eq!(first.until, BEGINNING.plus(TERM));
    assert_eq!(take(subject, "b").await, None);
    subject.clock.advance(TERM - Duration::from_millis(1));
    assert_eq!(take(subject, "b").await, None);
    assert!(subject.registry.renew_lease(&first, TERM).await.unwrap());
    subject.clock.advance(TERM - Duration::from_millis(1));
    assert_eq!(take(subject, "b").await, None, "renewed");
    subject.clock.advance(Duration::from_millis(1));
    assert_eq!(take(subject, "b").await.unwrap().holder, "b");
}

/// The epoch is `max(stored + 1, unix seconds)`, whatever the clock does.
pub async fn epochs_only_rise(subject: &Subject) {
    let seconds = u64::try_from(BEGINNING.0 / 1000).unwrap();
    assert_eq!(take(subject, "a").await.unwrap().epoch, Epoch(seconds));
    assert_eq!(take(subject, "a").await.unwrap().epoch, Epoch(seconds + 1), "a fresh process");
    subject.clock.set(Timestamp(-5000));
    assert_eq!(take(subject, "a").await.unwrap().epoch, Epoch(seconds + 2), "a clock set back");
    subject.clock.set(BEGINNING.plus(TERM));
    assert_eq!(take(subject, "a").await.unwrap().epoch, Epoch(seconds + 3600));
}

/// Whoever lost the lease learns it.
pub async fn a_lost_term_is_not_renewed(subject: &Subject) {
    let first = take(subject, "a").await.unwrap();
    subject.clock.advance(TERM * 2);
    assert!(subject.registry.renew_lease(&first, TERM).await.unwrap(), "nobody took it");
    subject.clock.advance(TERM * 2);
    let second = take(subject, "b").await.unwrap();
    assert!(!subject.registry.renew_lease(&first, TERM).await.unwrap());
    subject.registry.give_back_lease(&first).await.unwrap();
    assert!(subject.registry.renew_lease(&second, TERM).await.unwrap(), "not the first's to give");
    let third = take(subject, "b").await.unwrap();
    assert!(!subject.registry.renew_lease(&second, TERM).await.unwrap(), "an earlier process");
    assert!(subject.registry.renew_lease(&third, TERM).await.unwrap());
}

/// A lease given back is taken at once, with a higher epoch.
pub async fn a_lease_given_back_is_free(subject: &Subject) {
    let first = take(subject, "a").await.unwrap();
    subject.registry.give_back_lease(&first).await.unwrap();
    assert!(!subject.registry.renew_lease(&first, TERM).await.unwrap());
    let second = take(subject, "b").await.unwrap();
    assert!(second.epoch > first.epoch);
}

/// A commit under an old epoch is refused and leaves nothing.
pub async fn the_fence_holds(subject: &Subject) {
    let never = Lease {
        role: Role::ContainerManager,
        epoch: Epoch(7),
        holder: "a".to_owned(),
        until: BEGINNING,
    };
    let commit =
        || InstanceCommit { events: vec![samples::event("x")], ..InstanceCommit::default() };
    let refused = subject.registry.commit_instances(&never, commit()).await;
    assert!(matches!(refused, Err(RegistryError::Superseded { ours: Epoch(7), .. })));
    let first = take(subject, "a").await.unwrap();
    subject.registry.commit_instances(&first, commit()).await.unwrap();
    subject.clock.advance(TERM);
    subject.registry.commit_instances(&first, commit()).await.unwrap();
    let second = take(subject, "b").await.unwrap();
    let refused = subject.registry.commit_instances(&first, commit()).await;
    let Err(RegistryError::Superseded { ours, newer }) = refused else {
        panic!("not refused: {refused:?}")
    };
    assert_eq!((ours, newer), (first.epoch, second.epoch));
    assert_eq!(subject.registry.events_after(0, 10).await.unwrap().len(), 2);
    subject.registry.commit_instances(&second, commit()).await.unwrap();
}

/// One manager's term says nothing about the other's, even if the numbers are equal.
pub async fn the_two_roles_are_apart(subject: &Subject) {
    let (ours, theirs) = (subject.container_manager().await, subject.machine_manager().await);
    assert_eq!(ours.epoch, theirs.epoch);
    let refused = subject.registry.commit_instances(&theirs, InstanceCommit::default()).await;
    assert!(matches!(refused, Err(RegistryError::Conflict { .. })));
    let refused = subject.registry.commit_nodes(&ours, NodeCommit::default()).await;
    assert!(matches!(refused, Err(RegistryError::Conflict { .. })));
    subject.registry.commit_nodes(&theirs, NodeCommit::default()).await.unwrap();
}
