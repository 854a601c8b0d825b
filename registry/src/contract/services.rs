//! Contract: declarations, their versions and revisions.

use super::samples::{instance, put, service};
use super::{BEGINNING, Subject};
use crate::store::{Expect, InstanceCommit, RegistryError, ServiceRow};
use domain::{Generation, InstanceState, Revision};
use std::time::Duration;

fn numbers(row: &ServiceRow) -> (u64, u64) {
    (row.generation.0, row.revision.0)
}

async fn purge(subject: &Subject, name: &str) {
    let lease = subject.container_manager().await;
    let commit = InstanceCommit { purged: vec![service(name)], ..InstanceCommit::default() };
    subject.registry.commit_instances(&lease, commit).await.unwrap();
}

/// Each write raises the generation; a write that changes nothing leaves all as it is; the
/// revision rises when instances must be replaced.
pub async fn declarations_count_versions(subject: &Subject) {
    let registry = &subject.registry;
    let first = registry.put_service(put("shop", "one", false, Expect::Any)).await.unwrap();
    assert_eq!(numbers(&first), (1, 1));
    assert_eq!((first.created_at, first.updated_at), (BEGINNING, BEGINNING));
    assert_eq!((first.deleting, first.scale_hold, first.memory.as_str()), (false, None, ""));
    subject.clock.advance(Duration::from_secs(1));
    let same = registry.put_service(put("shop", "one", false, Expect::Any)).await.unwrap();
    assert_eq!(same, first);
    let second = registry.put_service(put("shop", "two", false, Expect::Any)).await.unwrap();
    assert_eq!(numbers(&second), (2, 1));
    assert_eq!(second.created_at, BEGINNING);
    assert_eq!(second.updated_at, BEGINNING.plus(Duration::from_secs(1)));
    let third = registry.put_service(put("shop", "three", true, Expect::Any)).await.unwrap();
    assert_eq!(numbers(&third), (3, 2));
    let shop = service("shop");
    let document = registry.revision_document(&shop, Revision(1)).await.unwrap();
    assert_eq!(document.as_deref(), Some("two"));
    let document = registry.revision_document(&shop, Revision(2)).await.unwrap();
    assert_eq!(document.as_deref(), Some("three"));
    assert_eq!(registry.revision_document(&shop, Revision(3)).await.unwrap(), None);
    assert_eq!(registry.services().await.unwrap(), vec![third]);
}

/// A writer that expected something else is refused and changes nothing.
pub async fn expectations_are_kept(subject: &Subject) {
    let registry = &subject.registry;
    let present = put("shop", "one", false, Expect::Present);
    let refused = registry.put_service(present.clone()).await;
    assert!(matches!(refused, Err(RegistryError::Conflict { found: Generation(0), .. })));
    let absent = put("shop", "one", false, Expect::Absent);
    registry.put_service(absent.clone()).await.unwrap();
    let refused = registry.put_service(absent).await;
    assert!(matches!(refused, Err(RegistryError::Conflict { found: Generation(1), .. })));
    registry.put_service(present).await.unwrap();
    let at = |n| put("shop", "two", true, Expect::At(Generation(n)));
    let row = registry.put_service(at(1)).await.unwrap();
    assert_eq!(numbers(&row), (2, 2));
    assert!(registry.put_service(at(1)).await.is_err());
    let shop = service("shop");
    assert!(registry.delete_service(&shop, Expect::At(Generation(1))).await.is_err());
    assert!(registry.delete_service(&shop, Expect::Absent).await.is_err());
    assert_eq!(registry.services().await.unwrap(), vec![row]);
    let missing = service("missing");
    let unknown = registry.delete_service(&missing, Expect::Any).await;
    assert!(matches!(unknown, Err(RegistryError::Unknown { .. })));
    let unknown = registry.hold_scale(&missing, Some(1)).await;
    assert!(matches!(unknown, Err(RegistryError::Unknown { .. })));
    let unknown = registry.bump_revision(&missing).await;
    assert!(matches!(unknown, Err(RegistryError::Unknown { .. })));
}

/// No version and no revision of a name is ever used twice, not even after its end.
pub async fn a_removed_service_comes_back_with_new_numbers(subject: &Subject) {
    let registry = &subject.registry;
    let shop = service("shop");
    registry.put_service(put("shop", "one", false, Expect::Any)).await.unwrap();
    registry.put_service(put("shop", "two", true, Expect::Any)).await.unwrap();
    purge(subject, "shop").await;
    assert_eq!(registry.services().await.unwrap().len(), 1, "only deleting ones are purged");
    let gone = registry.delete_service(&shop, Expect::Present).await.unwrap();
    assert!(gone.deleting);
    assert_eq!(numbers(&gone), (3, 2));
    let again = registry.delete_service(&shop, Expect::Any).await.unwrap();
    assert_eq!(again, gone, "removing twice changes nothing");
    purge(subject, "shop").await;
    assert_eq!(registry.services().await.unwrap(), vec![]);
    assert_eq!(registry.revision_document(&shop, Revision(2)).await.unwrap(), None);
    let row = registry.put_service(put("shop", "one", false, Expect::Absent)).await.unwrap();
    assert_eq!(numbers(&row), (4, 3));
}

/// A service put again while it is being drained lives on; so does one that has an instance.
pub async fn a_purge_spares_what_was_revived(subject: &Subject) {
    let registry = &subject.registry;
    let shop = service("shop");
    registry.put_service(put("shop", "one", false, Expect::Any)).await.unwrap();
    registry.delete_service(&shop, Expect::Any).await.unwrap();
    let revived = registry.put_service(put("shop", "one", false, Expect::Any)).await.unwrap();
    assert!(!revived.deleting);
    assert_eq!(numbers(&revived), (3, 1));
    purge(subject, "shop").await;
    assert_eq!(registry.services().await.unwrap(), vec![revived]);
    registry.delete_service(&shop, Expect::Any).await.unwrap();
    let lease = subject.container_manager().await;
    let mut last = instance("shop", 1, InstanceState::Draining);
    let commit = |last| InstanceCommit {
        instances: vec![last],
        purged: vec![service("shop")],
        ..InstanceCommit::default()
    };
    registry.commit_instances(&lease, commit(last.clone())).await.unwrap();
    assert_eq!(registry.services().await.unwrap().len(), 1);
    last.state = InstanceState::Stopped;
    registry.commit_instances(&lease, commit(last)).await.unwrap();
    assert_eq!(registry.services().await.unwrap(), vec![]);
}

/// A hold keeps the declaration's version; a restart raises both numbers; removal ends the hold.
pub async fn holds_and_restarts(subject: &Subject) {
    let registry = &subject.registry;
    let shop = service("shop");
    registry.put_service(put("shop", "one", false, Expect::Any)).await.unwrap();
    let held = registry.hold_scale(&shop, Some(3)).await.unwrap();
    assert_eq!((numbers(&held), held.scale_hold), ((1, 1), Some(3)));
    let bumped = registry.bump_revision(&shop).await.unwrap();
    assert_eq!((numbers(&bumped), bumped.scale_hold), ((2, 2), Some(3)));
    let document = registry.revision_document(&shop, Revision(2)).await.unwrap();
    assert_eq!(document.as_deref(), Some("one"));
    let lifted = registry.hold_scale(&shop, None).await.unwrap();
    assert_eq!(lifted.scale_hold, None);
    registry.hold_scale(&shop, Some(0)).await.unwrap();
    let gone = registry.delete_service(&shop, Expect::Any).await.unwrap();
    assert_eq!(gone.scale_hold, None);
}

/// Lists are sorted by name, byte by byte.
pub async fn lists_are_sorted(subject: &Subject) {
    for name in ["b", "a-z", "a", "a0", "c"] {
        subject.registry.put_service(put(name, "{}", false, Expect::Any)).await.unwrap();
    }
    let rows = subject.registry.services().await.unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["a", "a-z", "a0", "b", "c"]);
}

/// A revision's declaration stays while an instance of it lives; so do the newest few.
/// (Bound: 2.)
pub async fn revisions_are_kept_while_lived(subject: &Subject) {
    let registry = &subject.registry;
    let shop = service("shop");
    let lease = subject.container_manager().await;
    for n in 1..=5 {
        let document = format!("number {n}");
        registry.put_service(put("shop", &document, true, Expect::Any)).await.unwrap();
    }
    let mut old = instance("shop", 1, InstanceState::Ready);
    old.revision = Revision(2);
    let commit = |old| InstanceCommit { instances: vec![old], ..InstanceCommit::default() };
    registry.commit_instances(&lease, commit(old.clone())).await.unwrap();
    let kept = async || {
        let mut kept = Vec::new();
        for n in 1..=5 {
            if registry.revision_document(&shop, Revision(n)).await.unwrap().is_some() {
                kept.push(n);
            }
        }
        kept
    };
    subject.upkeep().await;
    assert_eq!(kept().await, [2, 4, 5]);
    old.state = InstanceState::Stopped;
    registry.commit_instances(&lease, commit(old)).await.unwrap();
    subject.upkeep().await;
    assert_eq!(kept().await, [4, 5]);
}

/// Of long forgotten names only the highest number is known: none of theirs is used again.
/// (Bound: 2.)
pub async fn forgotten_names_share_the_highest_number(subject: &Subject) {
    let registry = &subject.registry;
    for name in ["a", "b", "c", "d"] {
        registry.put_service(put(name, "one", false, Expect::Any)).await.unwrap();
        if name == "a" {
            registry.put_service(put(name, "two", true, Expect::Any)).await.unwrap();
        }
        registry.delete_service(&service(name), Expect::Any).await.unwrap();
        purge(subject, name).await;
        subject.clock.advance(Duration::from_millis(1));
    }
    let put_again = async |name| {
        numbers(&registry.put_service(put(name, "one", false, Expect::Absent)).await.unwrap())
    };
    // At their ends: a (3, 2), b and c (2, 1); a was forgotten before d came, which therefore began
    // above it and ended as (5, 3); then b was forgotten.
    assert_eq!(put_again("a").await, (4, 3));
    assert_eq!(put_again("b").await, (4, 3));
    assert_eq!(put_again("c").await, (3, 2));
    assert_eq!(put_again("d").await, (6, 4));
}
