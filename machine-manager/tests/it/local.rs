//! Provider `local` with real processes: started once, found again, stopped for good.

use chassis::SystemClock;
use domain::{Generation, NodeId, NodeType, Pool, PricePerHour};
use machine_manager::provider::{NodeProvider, ProviderError, StartOrder};
use machine_manager::providers::{LocalConfig, LocalProvider};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A process that lives until SIGTERM and keeps its arguments.
const POLITE: &str = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
/// One that SIGTERM does not end.
const STUBBORN: &str = "trap '' TERM; while :; do sleep 0.05; done";

fn provider(folder: &Path, script: &str) -> LocalProvider {
    let config = LocalConfig {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into(), "tally".into()],
        api: "unix:/nowhere.sock".into(),
        data: folder.to_owned(),
        run: folder.join("run"),
        extra: vec![],
        term_limit: Duration::from_millis(300),
    };
    LocalProvider::new(config, Arc::new(SystemClock::new()))
}

fn order(id: &str) -> StartOrder {
    let node: NodeId = id.parse().unwrap();
    StartOrder {
        name: id.to_owned(),
        node,
        token: "once".into(),
        node_type: NodeType {
            name: "home".parse().unwrap(),
            provider: "local".into(),
            capacity: domain::Capacity::default(),
            cpu_class: String::new(),
            disk_type: String::new(),
            price: PricePerHour(0),
            billing_unit: Duration::from_secs(1),
            billing_minimum: Duration::ZERO,
            min_life: Duration::ZERO,
            stop_lead: Duration::ZERO,
            max_count: 9,
            labels: BTreeMap::new(),
            pool: Pool::default(),
            start_command: vec![],
            stop_command: vec![],
            list_command: vec![],
            generation: Generation(1),
        },
    }
}

fn arguments(pid: &str) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let parts = bytes.split(|b| *b == 0).filter(|part| !part.is_empty());
    parts.map(|part| String::from_utf8(part.to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn a_node_is_started_once_found_again_and_stopped_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (order("n-0000000001"), order("n-0000000002"));
    let first = provider(folder.path(), POLITE);
    let started = first.start(&one).await.unwrap();
    assert_eq!(first.start(&one).await.unwrap(), started, "safe to repeat");
    let other = first.start(&two).await.unwrap();
    assert_ne!(started.provider_ref, other.provider_ref);

    let (pid, _) = started.provider_ref.split_once(':').unwrap();
    let said = arguments(pid);
    let after = |flag: &str| said.iter().position(|a| a == flag).map(|i| said[i + 1].clone());
    assert_eq!(after("--name").as_deref(), Some("n-0000000001"));
    assert_eq!(after("--ports").as_deref(), Some("20000-20499"));
    let (pid, _) = other.provider_ref.split_once(':').unwrap();
    assert!(arguments(pid).contains(&"20500-20999".to_owned()), "each has its own ports");
    assert!(!said.contains(&"once".to_owned()), "the token is no argument");
    let token = std::fs::read_to_string(after("--token-file").unwrap()).unwrap();
    assert_eq!(token, "once");

    // A new manager on the same folder finds both.
    drop(first);
    let next = provider(folder.path(), POLITE);
    assert_eq!(next.start(&one).await.unwrap(), started);
    let listed = next.list().await.unwrap();
    assert_eq!(listed.iter().filter(|m| m.running).count(), 2);

    for node in [&one.node, &two.node] {
        let stopped = next.stop(node).await.unwrap();
        assert!(stopped.ran.is_some_and(|(from, until)| from <= until));
        assert_eq!(next.stop(node).await.unwrap().ran, None, "safe to repeat");
    }
    assert!(next.list().await.unwrap().is_empty());
    assert!(!folder.path().join("nodes/n-0000000001").exists());
}

#[tokio::test]
async fn a_process_whose_pid_was_never_written_down_is_found_by_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let one = order("n-0000000003");
    let first = provider(folder.path(), POLITE);
    let started = first.start(&one).await.unwrap();
    // As after a crash between the start and the second writing.
    let file = folder.path().join("nodes/n-0000000003/local-node.json");
    let mut record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    record["pid"] = serde_json::Value::Null;
    record["start_ticks"] = serde_json::Value::Null;
    std::fs::write(&file, record.to_string()).unwrap();
    let next = provider(folder.path(), POLITE);
    assert_eq!(next.start(&one).await.unwrap(), started, "no second process");
    next.stop(&one.node).await.unwrap();
}

#[tokio::test]
async fn a_stubborn_process_is_killed_and_a_dead_one_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let one = order("n-0000000004");
    let stubborn = provider(folder.path(), STUBBORN);
    let first = stubborn.start(&one).await.unwrap();
    stubborn.stop(&one.node).await.unwrap();
    assert!(stubborn.list().await.unwrap().is_empty());
    let second = stubborn.start(&one).await.unwrap();
    assert_ne!(first.provider_ref, second.provider_ref);
    let pid: i32 = second.provider_ref.split_once(':').unwrap().0.parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let gone = async {
        while stubborn.list().await.unwrap()[0].running {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    let third = stubborn.start(&one).await.unwrap();
    assert_ne!(second.provider_ref, third.provider_ref);
    assert_eq!(second.started_at, third.started_at, "billed as one machine");
    stubborn.stop(&one.node).await.unwrap();
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_a_definite_no() {
    let folder = tempfile::tempdir().unwrap();
    let config = LocalConfig {
        program: folder.path().join("no-such-program"),
        arguments: vec![],
        api: String::new(),
        data: folder.path().to_owned(),
        run: folder.path().join("run"),
        extra: vec![],
        term_limit: Duration::from_millis(300),
    };
    let provider = LocalProvider::new(config, Arc::new(SystemClock::new()));
    let answer = provider.start(&order("n-0000000005")).await;
    assert!(matches!(answer, Err(ProviderError::Refused { .. })), "{answer:?}");
}
