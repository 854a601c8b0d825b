//! Contract: nodes, node types, money, tokens, named texts.

use super::samples::{budget, line, node, node_id, node_type, type_name};
use super::{BEGINNING, Subject};
use crate::store::{Expect, NodeCommit, NodeToken, RegistryError};
use domain::{DrainOrder, Generation, NodeState, Timestamp};
use std::time::Duration;

/// Nodes are written whole, listed while they live, and found for a week after.
pub async fn nodes_and_their_end(subject: &Subject) {
    let registry = &subject.registry;
    let lease = subject.machine_manager().await;
    let mut second = node(2, NodeState::Draining);
    second.drain = Some(DrainOrder { reason: "cheaper".to_owned(), deadline: BEGINNING });
    let nodes = vec![second.clone(), node(1, NodeState::Ordered)];
    let commit = |nodes| NodeCommit { nodes, ..NodeCommit::default() };
    registry.commit_nodes(&lease, commit(nodes)).await.unwrap();
    let living = registry.nodes().await.unwrap();
    assert_eq!(living, vec![node(1, NodeState::Ordered), second.clone()]);
    second.state = NodeState::Stopped;
    second.stopped_at = Some(BEGINNING);
    registry.commit_nodes(&lease, commit(vec![second.clone()])).await.unwrap();
    assert_eq!(registry.nodes().await.unwrap(), vec![node(1, NodeState::Ordered)]);
    assert_eq!(registry.node(&second.id).await.unwrap(), Some(second.clone()));
    assert_eq!(registry.node(&node_id(9)).await.unwrap(), None);
    subject.clock.advance(Duration::from_secs(8 * 24 * 3600));
    subject.upkeep().await;
    assert_eq!(registry.node(&second.id).await.unwrap(), None);
    assert_eq!(registry.nodes().await.unwrap().len(), 1);
}

/// A type's generation rises with each change, also across its removal.
pub async fn types_count_versions(subject: &Subject) {
    let registry = &subject.registry;
    let put = async |max_count, expect| {
        let mut small = node_type("small");
        small.max_count = max_count;
        registry.put_node_type(small, format!("max {max_count}"), expect).await
    };
    let first = put(8, Expect::Absent).await.unwrap();
    assert_eq!((first.generation, first.node_type.generation), (Generation(1), Generation(1)));
    assert_eq!((first.document.as_str(), first.updated_at), ("max 8", BEGINNING));
    subject.clock.advance(Duration::from_secs(1));
    assert_eq!(put(8, Expect::Any).await.unwrap(), first, "nothing changed");
    assert!(matches!(put(9, Expect::Absent).await, Err(RegistryError::Conflict { .. })));
    let second = put(9, Expect::At(Generation(1))).await.unwrap();
    assert_eq!((second.generation, second.node_type.max_count), (Generation(2), 9));
    registry.put_node_type(node_type("large"), String::new(), Expect::Any).await.unwrap();
    let names: Vec<String> =
        registry.node_types().await.unwrap().into_iter().map(|row| row.name.into()).collect();
    assert_eq!(names, ["large", "small"]);
    let small = type_name("small");
    let refused = registry.delete_node_type(&small, Expect::At(Generation(1))).await;
    assert!(matches!(refused, Err(RegistryError::Conflict { found: Generation(2), .. })));
    registry.delete_node_type(&small, Expect::Any).await.unwrap();
    let unknown = registry.delete_node_type(&small, Expect::Any).await;
    assert!(matches!(unknown, Err(RegistryError::Unknown { .. })));
    assert_eq!(put(9, Expect::Absent).await.unwrap().generation, Generation(3));
}

/// There is no budget at first; each write raises its generation.
pub async fn the_budget_rises(subject: &Subject) {
    let registry = &subject.registry;
    assert_eq!(registry.budget().await.unwrap(), None);
    let refused = registry.put_budget(budget(5), String::new(), Expect::Present).await;
    assert!(matches!(refused, Err(RegistryError::Conflict { found: Generation(0), .. })));
    let row = registry.put_budget(budget(5), "five".to_owned(), Expect::Any).await.unwrap();
    assert_eq!(row.budget.generation, Generation(1));
    let at = Expect::At(Generation(1));
    let row = registry.put_budget(budget(6), "six".to_owned(), at).await.unwrap();
    assert_eq!((row.budget.cap, row.budget.generation), (budget(6).cap, Generation(2)));
    assert_eq!((row.document.as_str(), row.updated_at), ("six", BEGINNING));
    assert!(registry.put_budget(budget(7), String::new(), at).await.is_err());
    assert_eq!(registry.budget().await.unwrap(), Some(row));
}

/// Lines are found by the beginning of what they pay for, oldest first, and kept for 13 months.
pub async fn the_ledger_reads_by_period(subject: &Subject) {
    let registry = &subject.registry;
    let lease = subject.machine_manager().await;
    let at = |s| BEGINNING.plus(Duration::from_secs(s));
    let ledger = vec![
        line(1, at(20), "c"),
        line(1, at(10), "a"),
        line(2, at(10), "b"),
        line(2, at(30), "d"),
    ];
    let commit = NodeCommit { ledger, ..NodeCommit::default() };
    registry.commit_nodes(&lease, commit).await.unwrap();
    let notes = async |from, until| -> String {
        let lines = registry.ledger(from, until).await.unwrap();
        lines.into_iter().map(|line| line.note).collect()
    };
    assert_eq!(notes(Timestamp(i64::MIN), Timestamp(i64::MAX)).await, "abcd");
    assert_eq!(notes(at(10), at(30)).await, "abc");
    assert_eq!(notes(at(11), at(31)).await, "cd");
    assert_eq!(notes(at(30), at(30)).await, "");
    assert_eq!(notes(at(31), at(10)).await, "");
    let whole = registry.ledger(at(30), at(31)).await.unwrap();
    assert_eq!(whole, vec![line(2, at(30), "d")]);
    subject.clock.advance(Duration::from_secs(399 * 24 * 3600));
    subject.upkeep().await;
    assert_eq!(notes(at(0), at(31)).await, "abcd", "the same month a year ago is there");
    subject.clock.advance(Duration::from_secs(24 * 3600 + 3600 - 61));
    subject.upkeep().await;
    subject.clock.advance(Duration::from_secs(15));
    subject.upkeep().await;
    assert_eq!(notes(at(0), at(31)).await, "", "13 months are over");
}

/// A token is taken once, by whoever comes first, before it expires.
pub async fn a_token_is_taken_once(subject: &Subject) {
    let registry = &subject.registry;
    let expires_at = BEGINNING.plus(Duration::from_secs(60));
    let token = |hash: &str, name: Option<&str>| NodeToken {
        hash: hash.to_owned(),
        node_type: type_name("small"),
        node: name.is_none().then(|| node_id(1)),
        name: name.map(str::to_owned),
        expires_at,
    };
    registry.put_node_token(token("aa", None)).await.unwrap();
    registry.put_node_token(token("bb", Some("db"))).await.unwrap();
    registry.put_node_token(token("cc", None)).await.unwrap();
    assert_eq!(registry.take_node_token("dd", BEGINNING).await.unwrap(), None);
    let taken = registry.take_node_token("aa", BEGINNING).await.unwrap();
    assert_eq!(taken, Some(token("aa", None)));
    assert_eq!(registry.take_node_token("aa", BEGINNING).await.unwrap(), None, "used");
    let (one, other) = tokio::join!(
        registry.take_node_token("bb", BEGINNING),
        registry.take_node_token("bb", BEGINNING)
    );
    let taken: Vec<_> = [one.unwrap(), other.unwrap()].into_iter().flatten().collect();
    assert_eq!(taken, vec![token("bb", Some("db"))], "one of two got it");
    assert_eq!(registry.take_node_token("cc", expires_at).await.unwrap(), None, "expired");
}

/// Texts kept by name, and what the planner remembers.
pub async fn memories_and_settings(subject: &Subject) {
    let registry = &subject.registry;
    let lease = subject.machine_manager().await;
    assert_eq!(registry.machine_memory().await.unwrap(), "");
    let memory = |text: Option<&str>| NodeCommit {
        memory: text.map(str::to_owned),
        ..NodeCommit::default()
    };
    registry.commit_nodes(&lease, memory(Some("calm"))).await.unwrap();
    registry.commit_nodes(&lease, memory(None)).await.unwrap();
    assert_eq!(registry.machine_memory().await.unwrap(), "calm");
    registry.commit_nodes(&lease, memory(Some(""))).await.unwrap();
    assert_eq!(registry.machine_memory().await.unwrap(), "");
    assert_eq!(registry.setting("cluster").await.unwrap(), None);
    registry.put_setting("cluster", "c-1").await.unwrap();
    registry.put_setting("cluster", "c-2 \u{1F980} \"'").await.unwrap();
    registry.put_setting("other", "").await.unwrap();
    let found = registry.setting("cluster").await.unwrap();
    assert_eq!(found.as_deref(), Some("c-2 \u{1F980} \"'"));
    assert_eq!(registry.setting("other").await.unwrap().as_deref(), Some(""));
}
