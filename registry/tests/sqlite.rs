//! What only a file can do: be shared, damaged, newer than the program, or hold every value.
#![expect(clippy::unwrap_used, reason = "a test: what fails shall fail loudly")]

use domain::{InstanceState, NodeState};
use registry::contract::{BEGINNING, HandClock, TERM, samples};
use registry::{Expect, InstanceCommit, NodeCommit, Registry, RegistryError, Role, SqliteRegistry};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("registry.sqlite")
    }

    fn try_open(&self) -> Result<SqliteRegistry, RegistryError> {
        SqliteRegistry::open(&self.path(), Arc::new(HandClock::default()))
    }

    fn open(&self) -> SqliteRegistry {
        self.try_open().unwrap()
    }

    /// Runs SQL on the file behind the registry's back.
    fn alter(&self, sql: &str) {
        rusqlite::Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }
}

fn story(error: &RegistryError) -> String {
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}

#[tokio::test]
async fn a_file_is_read_again_after_closing() {
    let place = Place::new();
    let registry = place.open();
    let row = registry.put_service(samples::put("shop", "one", false, Expect::Any)).await.unwrap();
    let lease = registry.take_lease(Role::MachineManager, "mm", TERM).await.unwrap().unwrap();
    let nodes = vec![samples::node(1, NodeState::Ready)];
    let commit = NodeCommit { nodes: nodes.clone(), ..NodeCommit::default() };
    registry.commit_nodes(&lease, commit).await.unwrap();
    drop(registry);
    let registry = place.open();
    assert_eq!(registry.services().await.unwrap(), vec![row]);
    assert_eq!(registry.nodes().await.unwrap(), nodes);
    assert!(registry.renew_lease(&lease, TERM).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_write_one_file() {
    const EACH: u32 = 40;
    let place = Place::new();
    let handles = [Arc::new(place.open()), Arc::new(place.open())];
    let roles = [Role::ContainerManager, Role::MachineManager];
    let mut tasks = Vec::new();
    for (handle, role) in handles.iter().cloned().zip(roles) {
        tasks.push(tokio::spawn(async move {
            let lease = handle.take_lease(role, "me", TERM).await.unwrap().unwrap();
            for n in 0..EACH {
                let events = vec![samples::event(&format!("{role:?} {n}"))];
                if role == Role::ContainerManager {
                    let instances = vec![samples::instance("shop", n, InstanceState::Ready)];
                    let commit = InstanceCommit { instances, events, ..InstanceCommit::default() };
                    handle.commit_instances(&lease, commit).await.unwrap();
                } else {
                    let nodes = vec![samples::node(n, NodeState::Ready)];
                    let commit = NodeCommit { nodes, events, ..NodeCommit::default() };
                    handle.commit_nodes(&lease, commit).await.unwrap();
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for handle in &handles {
        assert_eq!(handle.instances().await.unwrap().len(), EACH as usize);
        assert_eq!(handle.nodes().await.unwrap().len(), EACH as usize);
        assert_eq!(handle.last_event().await.unwrap(), u64::from(2 * EACH));
    }
    let [one, other] = handles;
    let first = one.take_lease(Role::ContainerManager, "me", TERM).await.unwrap().unwrap();
    assert_eq!(other.take_lease(Role::ContainerManager, "you", TERM).await.unwrap(), None);
    one.give_back_lease(&first).await.unwrap();
    let second = other.take_lease(Role::ContainerManager, "you", TERM).await.unwrap().unwrap();
    let refused = one.commit_instances(&first, InstanceCommit::default()).await;
    assert!(
        matches!(refused, Err(RegistryError::Superseded { newer, .. }) if newer == second.epoch)
    );
}

#[test]
fn many_open_a_new_file_at_once() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for _handle in 0..8 {
            scope.spawn(|| place.open());
        }
    });
    place.open();
}

#[tokio::test]
async fn readers_do_not_wait_for_a_writer() {
    let place = Place::new();
    let registry = place.open();
    registry.put_setting("a", "before").await.unwrap();
    let other = rusqlite::Connection::open(place.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; UPDATE settings SET content = 'after'").unwrap();
    assert_eq!(registry.setting("a").await.unwrap().as_deref(), Some("before"));
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(registry.setting("a").await.unwrap().as_deref(), Some("after"));
}

#[tokio::test]
async fn a_damaged_row_is_told_apart_from_a_failed_store() {
    let place = Place::new();
    let registry = place.open();
    let lease = registry.take_lease(Role::ContainerManager, "cm", TERM).await.unwrap().unwrap();
    let instances = vec![samples::instance("shop", 1, InstanceState::Ready)];
    let decisions = vec![samples::decision("shop", BEGINNING, 1)];
    let commit = InstanceCommit { instances, decisions, ..InstanceCommit::default() };
    registry.commit_instances(&lease, commit).await.unwrap();
    for (column, value) in [
        ("state", "'flying'"),
        ("address", "'nowhere'"),
        ("cpu_millis", "-1"),
        ("service", "'UPPER CASE'"),
        ("service", "CAST(x'ff' AS TEXT)"),
        ("tier", "''"),
    ] {
        place.alter(&format!(
            "CREATE TABLE saved AS SELECT * FROM instances; \
                              UPDATE instances SET {column} = {value}"
        ));
        let error = registry.instances().await.unwrap_err();
        let RegistryError::Damaged { table, detail } = &error else { panic!("{error:?}") };
        assert_eq!(*table, "instances");
        assert!(detail.contains(column), "{detail}");
        place.alter(
            "DELETE FROM instances; INSERT INTO instances SELECT * FROM saved; \
                     DROP TABLE saved",
        );
        assert_eq!(registry.instances().await.unwrap().len(), 1);
    }
    place.alter("UPDATE decisions SET clamps = '[1]'");
    let error = registry.decisions(None, 9).await.unwrap_err();
    assert!(matches!(error, RegistryError::Damaged { table: "decisions", .. }), "{error:?}");
    place.alter("DROP TABLE events");
    let error = registry.last_event().await.unwrap_err();
    assert!(matches!(error, RegistryError::Store { .. }), "{error:?}");
}

/// The failure comes after rows of the same step were written; other steps wait beside it.
#[tokio::test]
async fn a_step_that_fails_half_way_leaves_nothing() {
    let place = Place::new();
    let registry = place.open();
    let lease = registry.take_lease(Role::ContainerManager, "cm", TERM).await.unwrap().unwrap();
    registry.put_service(samples::put("shop", "one", false, Expect::Any)).await.unwrap();
    place.alter("UPDATE services SET deleting = 7");
    let step = |n, purged| {
        let commit = InstanceCommit {
            instances: vec![samples::instance("blog", n, InstanceState::Ready)],
            decisions: vec![samples::decision("blog", BEGINNING, n)],
            purged,
            events: vec![samples::event("x")],
            ..InstanceCommit::default()
        };
        registry.commit_instances(&lease, commit)
    };
    let (before, broken, after) =
        tokio::join!(step(1, vec![]), step(2, vec![samples::service("shop")]), step(3, vec![]));
    before.unwrap();
    after.unwrap();
    assert!(matches!(broken, Err(RegistryError::Damaged { table: "services", .. })));
    let living = registry.instances().await.unwrap();
    let numbers = [1, 3].map(|n| samples::instance("blog", n, InstanceState::Ready));
    assert_eq!(living, numbers);
    assert_eq!(registry.decisions(None, 9).await.unwrap().len(), 2);
    assert_eq!(registry.events_after(0, 9).await.unwrap().len(), 2);
}

#[test]
fn a_file_that_is_no_registry_is_refused() {
    let place = Place::new();
    std::fs::write(place.path(), "not a database, ".repeat(1000)).unwrap();
    let error = place.try_open().err().unwrap();
    assert!(story(&error).contains("not a database"), "{}", story(&error));
    let missing = Path::new("/nonexistent/registry.sqlite");
    let error = SqliteRegistry::open(missing, Arc::new(HandClock::default())).err().unwrap();
    assert!(matches!(error, RegistryError::Store { .. }), "{error:?}");
}

#[test]
fn a_newer_file_is_refused_and_left_alone() {
    let place = Place::new();
    drop(place.open());
    place.alter("UPDATE schema_version SET version = 99");
    for _again in 0..2 {
        let error = place.try_open().err().unwrap();
        let story = story(&error);
        assert!(story.contains("version 99") && story.contains("newer program"), "{story}");
    }
    place.alter("UPDATE schema_version SET version = 1");
    place.open();
}
