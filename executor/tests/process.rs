//! Plain processes under a real executor: starts, stops, failures, limits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod support;

use std::path::Path;
use std::time::Duration;
use support::{HELPER, Node, eventually, get, pid, runs, server, service};
use wire::assignment::{AssignedMount, InstanceSeen, IsolationKind, RunState, Want};
use wire::node_file::NodeFile;
use wire::operation::{Logs, Verb};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn an_instance_starts_gets_ready_and_leaves_nothing_behind() {
    let node = Node::started().await;
    let mut instance = server("shop");
    instance.run.env.insert("COLOUR".to_owned(), "green".to_owned());
    instance.run.workdir = Some("/usr".to_owned());
    node.assign(std::slice::from_ref(&instance)).await;
    let seen = node.until(&instance.id, RunState::Ready).await;
    let port = seen.port.unwrap();
    assert!((node.ports.0..=node.ports.1).contains(&port));
    assert!(seen.ready_ms.is_some() && seen.spawn_ms.is_some());
    let env = get(&seen, "/env");
    for line in [
        format!("PORT={port}\n"),
        format!("TALLY_INSTANCE={}\n", instance.id),
        format!("TALLY_NODE={}\n", node.id),
        "TALLY_SERVICE=shop\n".to_owned(),
        "TALLY_LOAD_URL=http://127.0.0.1:7402/v1/load\n".to_owned(),
        "TALLY_LOAD_ADDR=127.0.0.1:7402\n".to_owned(),
        "TALLY_LOAD_TOKEN=token-of-it\n".to_owned(),
        "COLOUR=green\n".to_owned(),
    ] {
        assert!(env.contains(&line), "{line} is not in {env}");
    }
    let main = pid(&seen);
    let cwd = std::fs::read_link(format!("/proc/{main}/cwd")).unwrap();
    assert_eq!(cwd.to_str(), Some("/usr"));
    // Its own background process hides its environment and group; it goes all the same.
    let background: i32 = get(&seen, "/background").parse().unwrap();
    assert!(runs(background));
    node.assign(&[]).await;
    node.until_gone(&instance.id).await;
    assert!(!runs(main) && !runs(background));
    assert!(support::is_free(port));
    let left = std::fs::read_dir(node.dir.path().join("node/instances")).unwrap().count();
    assert_eq!(left, 0);
    node.down().await;
}

#[tokio::test]
async fn the_stop_command_comes_before_any_signal() {
    let node = Node::started().await;
    let mut instance = server("shop");
    instance.run.command.push("--ignore-term".to_owned());
    instance.run.stop_command =
        [HELPER, "ask", "{port}", "end"].iter().map(|w| (*w).to_owned()).collect();
    node.assign(std::slice::from_ref(&instance)).await;
    node.until(&instance.id, RunState::Ready).await;
    node.assign(&[]).await;
    node.until_gone(&instance.id).await;
    let done = node.done().await;
    let stop = done.iter().find(|o| o.verb == Verb::StopCommand).unwrap();
    assert_eq!((stop.ok, stop.exit_status), (true, Some(0)));
    let end = done.iter().find(|o| o.verb == Verb::Stop).unwrap();
    assert_eq!(end.output, "ended by its stop command");
    assert!(stop.id < end.id);
    node.down().await;
}

#[tokio::test]
async fn a_failing_stop_command_is_followed_by_sigterm_and_that_by_sigkill() {
    let node = Node::started().await;
    let mut polite = server("polite");
    polite.run.stop_command = vec!["/bin/false".to_owned()];
    let mut stubborn = server("stubborn");
    stubborn.run.command.push("--ignore-term".to_owned());
    stubborn.drain_deadline_ms = 300;
    node.assign(&[polite.clone(), stubborn.clone()]).await;
    node.until(&polite.id, RunState::Ready).await;
    let stubborn_pid = pid(&node.until(&stubborn.id, RunState::Ready).await);
    node.assign(&[]).await;
    node.until_gone(&polite.id).await;
    node.until_gone(&stubborn.id).await;
    let done = node.done().await;
    let of = |id, verb| done.iter().find(|o| o.instance == id && o.verb == verb);
    let command = of(polite.id.clone(), Verb::StopCommand).unwrap();
    assert_eq!((command.ok, command.exit_status), (false, Some(1)));
    assert_eq!(of(polite.id, Verb::Stop).unwrap().output, "ended after SIGTERM");
    let killed = of(stubborn.id, Verb::Stop).unwrap();
    assert!(killed.output.contains("SIGKILL"), "{}", killed.output);
    assert!(!runs(stubborn_pid));
    node.down().await;
}

#[tokio::test]
async fn a_crash_is_restarted_on_the_same_port_and_three_are_a_failure() {
    let node = Node::started().await;
    let mut instance = server("shop");
    instance.health.interval_ms = 100;
    let other = service("broken", &[HELPER, "crash"]);
    node.assign(&[instance.clone(), other.clone()]).await;
    let first = node.until(&instance.id, RunState::Ready).await;
    let before = pid(&first);
    get(&first, "/exit");
    let again = node
        .until_seen(&instance.id, "restarted", |s| s.restarts == 1 && s.state == RunState::Ready)
        .await;
    assert_eq!(again.port, first.port);
    assert_ne!(pid(&again), before);
    assert_eq!(again.exit.as_deref(), Some("ended by itself with exit code 7"));
    let failed = node.until(&other.id, RunState::Failed).await;
    assert_eq!(failed.restarts, 2);
    assert_eq!(failed.exit.as_deref(), Some("ended by itself with exit code 3"));
    node.down().await;
}

#[tokio::test]
async fn what_cannot_be_started_fails_at_once_with_a_reason() {
    let node = Node::started().await;
    let missing = service("missing", &["/no/such/program"]);
    let mut stranger = server("stranger");
    stranger.run.user = Some("nobody-of-this-name".to_owned());
    let mut fragile = service("fragile", &[HELPER, "crash"]);
    fragile.restart = false;
    node.assign(&[missing.clone(), stranger.clone(), fragile.clone()]).await;
    let seen = node.until(&missing.id, RunState::Failed).await;
    assert_eq!(seen.restarts, 0);
    assert!(seen.exit.unwrap().contains("/no/such/program"));
    let seen = node.until(&stranger.id, RunState::Failed).await;
    assert!(seen.exit.unwrap().contains("no user \"nobody-of-this-name\""));
    assert_eq!(node.until(&fragile.id, RunState::Failed).await.restarts, 0);
    node.down().await;
}

#[tokio::test]
async fn what_never_listens_is_stopped_at_its_start_deadline() {
    let node = Node::started().await;
    let mut instance = service("deaf", &[HELPER, "deaf"]);
    instance.start_deadline_ms = 300;
    instance.restart = false;
    node.assign(std::slice::from_ref(&instance)).await;
    let seen = node.until(&instance.id, RunState::Failed).await;
    let why = seen.exit.unwrap();
    assert!(why.contains("not well within 300 ms") && why.contains("accept"), "{why}");
    assert_eq!(node.verbs().await, [Verb::Start, Verb::Stop]);
    node.down().await;
}

#[tokio::test]
async fn what_is_unwell_is_told_and_restarted() {
    let node = Node::started().await;
    let mut instance = server("shop");
    instance.health.path = Some("/up".to_owned());
    node.assign(std::slice::from_ref(&instance)).await;
    let first = node.until(&instance.id, RunState::Ready).await;
    let before = pid(&first);
    let since = node.inventory().await.seq;
    get(&first, "/sick");
    let again = node
        .until_seen(&instance.id, "restarted", |s| s.restarts == 1 && s.state == RunState::Ready)
        .await;
    assert_ne!(pid(&again), before);
    assert!(!runs(before));
    let states = support_events(&node, since, 4).await;
    let expected = [RunState::Unwell, RunState::Restarting, RunState::Starting, RunState::Ready];
    assert_eq!(states, expected);
    node.down().await;
}

/// The states told after `after`, as many as `count`.
async fn support_events(node: &Node, after: u64, count: usize) -> Vec<RunState> {
    use futures_util::StreamExt;
    let path = format!("/v1/events?after={after}");
    let response = node.client().stream(&path, LIMIT).await.unwrap();
    let mut chunks = response.bytes_stream();
    let mut text = String::new();
    let mut states = Vec::new();
    while states.len() < count {
        let chunk = tokio::time::timeout(LIMIT, chunks.next()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
        states = text
            .lines()
            .filter_map(|l| l.strip_prefix("data:"))
            .filter_map(|l| serde_json::from_str::<wire::assignment::ExecutorEvent>(l).ok())
            .filter_map(|e| Some(e.seen?.state))
            .collect();
    }
    states
}

#[tokio::test]
async fn limits_change_while_it_runs() {
    let node = Node::started().await;
    let mut instance = server("shop");
    instance.run.isolation = IsolationKind::Cgroup;
    node.assign(std::slice::from_ref(&instance)).await;
    let seen = node.until(&instance.id, RunState::Ready).await;
    let main = pid(&seen);
    let file = node.dir.path().join("node/instances.json");
    let read = || -> NodeFile { serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap() };
    let listed = || async { read().instances.len() == 1 };
    eventually("the transmitter is told", listed).await;
    let groups = read().instances[0].cgroups.clone();
    let Some((quota, memory)) = limit_files(&groups) else {
        println!("SKIPPED: limits_change_while_it_runs: no control group may be made here");
        return node.down().await;
    };
    let text = |path: &str| std::fs::read_to_string(path).unwrap().trim().to_owned();
    assert!(["50000", "50000 100000"].contains(&text(&quota).as_str()), "{}", text(&quota));
    assert_eq!(text(&memory), (256 << 20).to_string());
    let members = std::fs::read_to_string(format!("/proc/{main}/cgroup")).unwrap();
    assert!(members.contains(instance.id.as_str()), "{members}");
    instance.limits.cpu_millis = 1500;
    instance.limits.memory_bytes = 512 << 20;
    node.assign(std::slice::from_ref(&instance)).await;
    let wanted = (512_u64 << 20).to_string();
    eventually("the memory limit follows", || async { text(&memory) == wanted }).await;
    assert!(text(&quota).starts_with("150000"));
    assert_eq!(pid(&seen), main);
    node.assign(&[]).await;
    node.until_gone(&instance.id).await;
    assert!(!Path::new(&quota).exists());
    node.down().await;
}

fn limit_files(groups: &wire::node_file::CgroupPaths) -> Option<(String, String)> {
    if let Some(dir) = &groups.unified {
        return Some((format!("{dir}/cpu.max"), format!("{dir}/memory.max")));
    }
    let cpu = groups.cpu.as_ref()?;
    let memory = groups.memory.as_ref()?;
    Some((format!("{cpu}/cpu.cfs_quota_us"), format!("{memory}/memory.limit_in_bytes")))
}

#[tokio::test]
async fn a_paused_instance_is_frozen_and_thawed() {
    let node = Node::started().await;
    let mut instance = server("shop");
    instance.run.isolation = IsolationKind::Cgroup;
    node.assign(std::slice::from_ref(&instance)).await;
    let main = pid(&node.until(&instance.id, RunState::Ready).await);
    instance.want = Want::Paused;
    node.assign(std::slice::from_ref(&instance)).await;
    eventually("it is told", || async { node.verbs().await.contains(&Verb::Pause) }).await;
    let paused = node.done().await.into_iter().find(|o| o.verb == Verb::Pause).unwrap();
    if !paused.ok {
        println!("SKIPPED: a_paused_instance_is_frozen_and_thawed: {}", paused.output);
        return node.down().await;
    }
    node.until(&instance.id, RunState::Paused).await;
    instance.want = Want::Running;
    node.assign(std::slice::from_ref(&instance)).await;
    assert_eq!(pid(&node.until(&instance.id, RunState::Ready).await), main);
    // One that is frozen can be stopped as well.
    instance.want = Want::Paused;
    node.assign(std::slice::from_ref(&instance)).await;
    node.until(&instance.id, RunState::Paused).await;
    node.down().await;
    assert!(!runs(main));
}

#[tokio::test]
async fn namespaces_bind_directories_that_the_host_does_not_see() {
    let node = Node::started().await;
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    std::fs::create_dir_all(&source).unwrap();
    std::fs::create_dir_all(&target).unwrap();
    std::fs::write(source.join("here"), "").unwrap();
    let mut instance = server("shop");
    instance.run.mounts = vec![AssignedMount {
        source: source.to_str().unwrap().to_owned(),
        target: target.to_str().unwrap().to_owned(),
        read_only: true,
    }];
    let mut refused = instance.clone();
    refused.id = "shop-0123456789".parse().unwrap();
    instance.run.isolation = IsolationKind::Namespaces;
    node.assign(&[instance.clone(), refused.clone()]).await;
    let why = node.until(&refused.id, RunState::Failed).await.exit.unwrap();
    assert!(why.contains("isolation: namespaces"), "{why}");
    let settled = |s: &InstanceSeen| matches!(s.state, RunState::Ready | RunState::Failed);
    let seen = node.until_seen(&instance.id, "settled", settled).await;
    if seen.state == RunState::Failed {
        let why = seen.exit.unwrap();
        assert!(why.contains("needs root"), "{why}");
        println!("SKIPPED: namespaces_bind_directories_that_the_host_does_not_see: {why}");
        return node.down().await;
    }
    let main = pid(&seen);
    let inside = format!("/proc/{main}/root{}", target.display());
    assert!(Path::new(&inside).join("here").exists());
    assert!(std::fs::write(Path::new(&inside).join("new"), "").is_err(), "it is read-only");
    assert!(!target.join("here").exists());
    node.down().await;
}

#[tokio::test]
async fn a_process_runs_as_the_user_it_names() {
    let node = Node::started().await;
    let mut instance = service("shop", &["/bin/sleep", "600"]);
    instance.run.user = Some("65534:65534".to_owned());
    node.assign(std::slice::from_ref(&instance)).await;
    let file = node.dir.path().join("node/instances.json");
    let failed =
        || async { node.seen(&instance.id).await.is_some_and(|s| s.state == RunState::Failed) };
    let settled =
        || async { std::fs::read_to_string(&file).unwrap().contains("\"pid\"") || failed().await };
    eventually("it runs or is refused", settled).await;
    if failed().await {
        println!("SKIPPED: a_process_runs_as_the_user_it_names: only root may become another user");
        return node.down().await;
    }
    let list: NodeFile = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let shim = list.instances[0].pid.unwrap();
    let children = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", children.trim())).unwrap();
    assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
    assert!(status.contains("Groups:\t \n") || status.contains("Groups:\t65534"), "{status}");
    node.down().await;
}

#[tokio::test]
async fn a_changed_command_needs_a_new_start() {
    let node = Node::started().await;
    let mut instance = server("shop");
    node.assign(std::slice::from_ref(&instance)).await;
    let first = pid(&node.until(&instance.id, RunState::Ready).await);
    instance.run.env.insert("VERSION".to_owned(), "2".to_owned());
    node.assign(std::slice::from_ref(&instance)).await;
    eventually("the old one ends", || async { !runs(first) }).await;
    let seen = node.until(&instance.id, RunState::Ready).await;
    assert!(get(&seen, "/env").contains("VERSION=2\n"));
    assert_eq!(seen.restarts, 0);
    node.down().await;
}

#[tokio::test]
async fn output_can_be_read_while_it_runs() {
    let node = Node::started().await;
    let instance = server("shop");
    node.assign(std::slice::from_ref(&instance)).await;
    let seen = node.until(&instance.id, RunState::Ready).await;
    get(&seen, "/say");
    let path = format!("/v1/logs?instance={}&lines=3", instance.id);
    let client = node.client();
    let lines = || async { client.get::<Logs>(&path, LIMIT).await.unwrap().lines };
    eventually("it is written", || async { lines().await.len() == 3 }).await;
    assert_eq!(lines().await, ["said 3", "said 4", "to stderr"]);
    node.down().await;
}

#[tokio::test]
async fn a_killed_shim_takes_its_process_along_and_both_come_back() {
    let node = Node::started().await;
    let instance = server("shop");
    node.assign(std::slice::from_ref(&instance)).await;
    let seen = node.until(&instance.id, RunState::Ready).await;
    let main = pid(&seen);
    let stat = std::fs::read_to_string(format!("/proc/{main}/stat")).unwrap();
    let shim: i32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
    let shim = rustix::process::Pid::from_raw(shim).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    let again = node
        .until_seen(&instance.id, "restarted", |s| s.restarts == 1 && s.state == RunState::Ready)
        .await;
    assert!(!runs(main));
    assert_ne!(pid(&again), main);
    node.down().await;
}
