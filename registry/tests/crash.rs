//! What the registry acknowledged survives `kill -9`, and no commit is ever half there.
#![expect(clippy::unwrap_used, reason = "a test: what fails shall fail loudly")]

use domain::{InstanceState, Timestamp};
use proptest::prelude::*;
use registry::contract::{BEGINNING, HandClock, TERM, samples};
use registry::{InstanceCommit, NodeCommit, Registry, Role, SqliteRegistry};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Names the file to the child.
const FILE: &str = "TALLY_TEST_CRASH_FILE";
/// Tasks that write at once, so that commits share transactions.
const TASKS: u32 = 6;
/// A child that is never killed ends by itself.
const COMMITS: u32 = 20_000;

fn open(path: &Path) -> SqliteRegistry {
    SqliteRegistry::open(path, Arc::new(HandClock::default())).unwrap()
}

/// One commit: two instances, a decision and two events that belong together.
fn step(n: u32) -> InstanceCommit {
    InstanceCommit {
        instances: vec![
            samples::instance("left", n, InstanceState::Ready),
            samples::instance("right", n, InstanceState::Ready),
        ],
        decisions: vec![samples::decision("left", Timestamp(i64::from(n)), n)],
        events: vec![samples::event(&format!("a{n}")), samples::event(&format!("b{n}"))],
        ..InstanceCommit::default()
    }
}

fn acknowledge(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ack {what}").unwrap();
    out.flush().unwrap();
}

/// The child: writes until it is killed, telling each acknowledged commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below, in a process of its own"]
async fn writes_until_killed() {
    #[expect(clippy::disallowed_methods, reason = "the parent's word to this very process")]
    let Ok(path) = std::env::var(FILE) else { return };
    let registry = Arc::new(open(Path::new(&path)));
    let steps = registry.take_lease(Role::ContainerManager, "child", TERM).await.unwrap().unwrap();
    let money = registry.take_lease(Role::MachineManager, "child", TERM).await.unwrap().unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (registry, steps, money) = (registry.clone(), steps.clone(), money.clone());
            tokio::spawn(async move {
                for n in (0..COMMITS).filter(|n| n % TASKS == task) {
                    registry.commit_instances(&steps, step(n)).await.unwrap();
                    acknowledge(&format!("step {n}"));
                    let ledger = vec![samples::line(n, BEGINNING, "paid")];
                    let commit = NodeCommit { ledger, ..NodeCommit::default() };
                    registry.commit_nodes(&money, commit).await.unwrap();
                    acknowledge(&format!("line {n}"));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Starts the child, kills it after `acks` answers, and returns every answer it gave.
fn run_and_kill(path: &Path, acks: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writes_until_killed", "--ignored", "--nocapture"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut answers = Vec::new();
    while answers.len() < acks {
        answers.extend(answer(&mut out).expect("the child writes on"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it still said between the last answer read and its end.
    while let Some(said) = answer(&mut out) {
        answers.extend(said);
    }
    answers
}

/// The next whole line, if it is an answer. `None` at the end: a line without its end was cut by
/// the kill and says nothing.
fn answer(out: &mut impl BufRead) -> Option<Option<String>> {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let whole = line.strip_suffix('\n')?;
    Some(whole.split_once("ack ").map(|(_, what)| what.to_owned()))
}

async fn check(registry: &SqliteRegistry, answers: &[String]) {
    let living = registry.instances().await.unwrap();
    let ids: BTreeSet<String> = living.into_iter().map(|one| one.id.into()).collect();
    let decisions = registry.decisions(None, usize::MAX).await.unwrap();
    let decided: BTreeSet<u32> = decisions.into_iter().map(|one| one.to).collect();
    let events = registry.events_after(0, usize::MAX).await.unwrap();
    let said: BTreeSet<String> = events.into_iter().map(|one| one.event.what).collect();
    let lines = registry.ledger(BEGINNING, Timestamp(i64::MAX)).await.unwrap();
    let paid: BTreeSet<String> = lines.into_iter().map(|line| line.node.into()).collect();
    for n in 0..COMMITS {
        let parts = [
            ids.contains(samples::instance_id("left", n).as_str()),
            ids.contains(samples::instance_id("right", n).as_str()),
            decided.contains(&n),
            said.contains(&format!("a{n}")),
            said.contains(&format!("b{n}")),
        ];
        assert!(parts.iter().all(|part| *part == parts[0]), "step {n} is half there: {parts:?}");
    }
    for answer in answers {
        let (kind, n) = answer.split_once(' ').unwrap();
        let n: u32 = n.parse().unwrap();
        match kind {
            "step" => assert!(decided.contains(&n), "acknowledged step {n} is lost"),
            "line" => {
                assert!(paid.contains(samples::node_id(n).as_str()), "paid line {n} is lost");
            }
            other => panic!("the child said {other:?}"),
        }
    }
}

proptest! {
    // Each case is a process that lives some tens of milliseconds.
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_survives_a_kill(first in 1usize..150, second in 1usize..150) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.sqlite");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut answers = run_and_kill(&path, first);
        runtime.block_on(async { check(&open(&path), &answers).await });
        // Killed again, on a file that was recovered once.
        answers.extend(run_and_kill(&path, second));
        runtime.block_on(async { check(&open(&path), &answers).await });
        prop_assert!(answers.len() >= first + second);
    }
}
