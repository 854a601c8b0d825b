//! Failures of the disk, made by settings that only the writing connection itself can make.

use super::*;
use crate::contract::{HandClock, TERM, samples};
use domain::InstanceState;
use rusqlite::types::Value;
use std::collections::BTreeSet;
use std::future::Future;
use std::task::Poll;
use tempfile::TempDir;

struct Place {
    registry: SqliteRegistry,
    lease: Lease,
    directory: TempDir,
}

fn open(directory: &TempDir) -> SqliteRegistry {
    let path = directory.path().join("registry.sqlite");
    SqliteRegistry::open(&path, Arc::new(HandClock::default())).unwrap()
}

async fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let registry = open(&directory);
    let lease = registry.take_lease(Role::ContainerManager, "cm", TERM).await.unwrap().unwrap();
    Place { registry, lease, directory }
}

impl Place {
    /// Reads a setting of the writing connection.
    async fn get(&self, name: &'static str) -> i64 {
        let get = self.registry.write("read a setting", move |conn, _now| {
            Ok(conn.pragma_query_value(None, name, |row| row.get(0))?)
        });
        get.await.unwrap()
    }

    /// Changes one, whether it answers its new value or nothing.
    async fn set(&self, name: &'static str, value: i64) {
        let set = self.registry.write("change a setting", move |conn, _now| {
            let mut statement = conn.prepare(&format!("PRAGMA {name} = {value}"))?;
            let answers: Result<Vec<Value>, _> =
                statement.query_map([], |row| row.get(0))?.collect();
            answers?;
            Ok(())
        });
        set.await.unwrap();
    }

    /// Commits `rows` instances numbered from `first`.
    async fn commit(&self, first: u32, rows: u32) -> Result<(), RegistryError> {
        let instances = (first..first + rows)
            .map(|n| samples::instance("shop", n, InstanceState::Ready))
            .collect();
        let commit = InstanceCommit { instances, ..InstanceCommit::default() };
        self.registry.commit_instances(&self.lease, commit).await
    }

    async fn numbers(&self) -> BTreeSet<String> {
        let living = self.registry.instances().await.unwrap();
        living.into_iter().map(|one| one.id.into()).collect()
    }
}

/// Which of the numbered instances there should be.
fn expected(firsts: impl IntoIterator<Item = (u32, u32)>) -> BTreeSet<String> {
    let numbers = firsts.into_iter().flat_map(|(first, rows)| first..first + rows);
    numbers.map(|n| samples::instance_id("shop", n).into()).collect()
}

#[tokio::test]
async fn every_commit_is_synced_and_the_log_is_on() {
    let place = place().await;
    assert_eq!(place.get("synchronous").await, 2, "FULL: the log is synced at each commit");
    let mode = place.registry.write("read the mode", |conn, _now| {
        Ok(conn.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0))?)
    });
    assert_eq!(mode.await.unwrap(), "wal");
}

#[tokio::test]
async fn a_full_disk_refuses_whole_commits_and_nothing_else() {
    let place = place().await;
    place.commit(0, 10).await.unwrap();
    let pages = place.get("page_count").await;
    place.set("max_page_count", pages + 20).await;
    let error = place.commit(1000, 5000).await.unwrap_err();
    assert!(matches!(error, RegistryError::Store { .. }), "{error:?}");
    assert_eq!(place.numbers().await, expected([(0, 10)]));
    place.commit(2000, 10).await.unwrap();
    assert_eq!(place.numbers().await, expected([(0, 10), (2000, 10)]), "small ones still fit");
    place.set("max_page_count", 1 << 30).await;
    place.commit(1000, 500).await.unwrap();
    assert_eq!(place.numbers().await, expected([(0, 10), (2000, 10), (1000, 500)]));
}

#[tokio::test]
async fn calls_that_share_a_full_disk_are_answered_truly() {
    let place = place().await;
    let pages = place.get("page_count").await;
    place.set("max_page_count", pages + 60).await;
    let sizes = [1, 3, 900, 2, 1, 2500, 1, 40, 1200, 1];
    let commits = sizes.into_iter().zip(0..).map(|(rows, n)| (n * 10_000, rows));
    let commits: Vec<(u32, u32)> = commits.collect();
    // Each is queued by its first poll, before any answer is awaited: the writer finds them together.
    let mut calls: Vec<_> =
        commits.iter().map(|&(first, rows)| Box::pin(place.commit(first, rows))).collect();
    let mut answers: Vec<Option<Result<(), RegistryError>>> = calls.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (call, answer) in calls.iter_mut().zip(&mut answers) {
            if answer.is_none()
                && let Poll::Ready(told) = call.as_mut().poll(cx)
            {
                *answer = Some(told);
            }
        }
        if answers.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let answers: Vec<_> = commits.iter().zip(answers.into_iter().flatten()).collect();
    assert_eq!(answers.len(), commits.len());
    assert!(answers.iter().any(|(_, answer)| answer.is_err()), "the disk was not full");
    let done = answers.iter().filter(|(_, answer)| answer.is_ok()).map(|(commit, _)| **commit);
    assert_eq!(place.numbers().await, expected(done));
}

#[tokio::test]
async fn a_file_that_may_not_be_written_answers_and_stays_as_it_is() {
    let place = place().await;
    place.commit(0, 3).await.unwrap();
    place.set("query_only", 1).await;
    for _again in 0..2 {
        let error = place.commit(10, 3).await.unwrap_err();
        assert!(matches!(error, RegistryError::Store { .. }), "{error:?}");
        assert!(place.registry.put_setting("a", "b").await.is_err());
    }
    assert_eq!(place.numbers().await, expected([(0, 3)]), "reading goes on");
    let Place { registry, lease, directory } = place;
    drop(registry);
    let again = Place { registry: open(&directory), lease, directory };
    assert_eq!(again.numbers().await, expected([(0, 3)]));
    again.commit(10, 3).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_writer_working() {
    let place = place().await;
    for n in 0..20 {
        // Dropped after its first poll: the call is queued, its answer is not awaited.
        let mut call = Box::pin(place.commit(n * 10, 1));
        let polled = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx)));
        drop(polled.await);
    }
    place.commit(1000, 1).await.unwrap();
    let all = expected((0..20).map(|n| (n * 10, 1)).chain([(1000, 1)]));
    assert_eq!(place.numbers().await, all, "accepted calls are done all the same");
}

#[tokio::test]
async fn a_transaction_that_is_lost_is_lost_for_all_in_it() {
    let place = place().await;
    let lost = place.registry.write("break", |conn, _now| {
        conn.execute_batch("ROLLBACK")?;
        Err::<(), _>(rusqlite::Error::InvalidQuery.into())
    });
    let (before, lost, after) = tokio::join!(place.commit(0, 1), lost, place.commit(10, 1));
    assert!(lost.is_err());
    let told = [((0, 1), before), ((10, 1), after)];
    let done = told.iter().filter(|(_, answer)| answer.is_ok()).map(|(commit, _)| *commit);
    assert_eq!(place.numbers().await, expected(done));
    place.commit(20, 1).await.unwrap();
}
