//! Executors come and go; instances stay, are found again, or are stopped when nobody wants them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::{Child, Command, Stdio};
use support::{HELPER, Node, eventually, get, pid, runs, server, service};
use wire::assignment::RunState;
use wire::operation::Verb;

/// An executor in a process of its own, which can be killed.
fn executor_process(node: &Node) -> Child {
    Command::new(HELPER)
        .arg("executor")
        .arg(node.dir.path())
        .arg(node.id.as_str())
        .arg(node.identity.public_key())
        .arg(format!("{}-{}", node.ports.0, node.ports.1))
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

async fn answers(node: &Node) {
    let ready = || async {
        let answer = Node::call(&node.stranger(), http::Method::GET, "/readyz").await;
        answer.is_some_and(|a| a.status == 200)
    };
    eventually("the executor answers", ready).await;
}

#[tokio::test]
async fn a_restarted_executor_takes_its_instances_over() {
    let mut node = Node::started().await;
    let instance = server("shop");
    node.assign(std::slice::from_ref(&instance)).await;
    let before = node.until(&instance.id, RunState::Ready).await;
    let main = pid(&before);
    node.end().await;
    assert!(runs(main) && pid(&before) == main);
    node.start().await;
    // At once, and never anything else: a manager that asks early sees it ready.
    let seen = node.until_seen(&instance.id, "known", |_| true).await;
    assert_eq!((seen.state, seen.port, seen.restarts), (RunState::Ready, before.port, 0));
    assert_eq!(pid(&seen), main);
    assert_eq!(node.verbs().await, [Verb::Adopt]);
    node.down().await;
    assert!(!runs(main));
}

#[tokio::test]
async fn kill_minus_nine_of_the_executor_costs_no_instance() {
    let mut node = Node::new();
    let mut first = executor_process(&node);
    answers(&node).await;
    let (kept, lost) = (server("kept"), server("lost"));
    node.assign(&[kept.clone(), lost.clone()]).await;
    let main = pid(&node.until(&kept.id, RunState::Ready).await);
    let seen = node.until(&lost.id, RunState::Ready).await;
    let lost_pid = pid(&seen);
    first.kill().unwrap();
    first.wait().unwrap();
    // One of them crashes while nobody looks.
    get(&seen, "/exit");
    eventually("it has crashed", || async { !runs(lost_pid) }).await;
    node.start().await;
    answers(&node).await;
    assert_eq!(pid(&node.until(&kept.id, RunState::Ready).await), main);
    let again = node.until(&lost.id, RunState::Ready).await;
    assert_eq!((again.restarts, again.port), (1, seen.port));
    // Its shim may have been busy ending when it was found, or be gone already.
    let exit = again.exit.unwrap();
    assert!(exit.contains("while the executor was away") || exit.contains("exit code 7"), "{exit}");
    assert_ne!(pid(&node.until(&lost.id, RunState::Ready).await), lost_pid);
    node.down().await;
}

/// Makes the kept assignment an empty one, as if it had changed while the executor was away.
fn assign_nothing_behind_its_back(node: &Node) {
    let assignment = node.assignment(&[]);
    let path = node.dir.path().join("node/assignment.json");
    std::fs::write(path, serde_json::to_vec(&assignment).unwrap()).unwrap();
}

#[tokio::test]
async fn what_is_no_longer_assigned_is_stopped_properly() {
    let mut node = Node::started().await;
    let mut instance = server("shop");
    instance.run.command.push("--ignore-term".to_owned());
    instance.run.stop_command =
        [HELPER, "ask", "{port}", "end"].iter().map(|w| (*w).to_owned()).collect();
    node.assign(std::slice::from_ref(&instance)).await;
    let main = pid(&node.until(&instance.id, RunState::Ready).await);
    node.end().await;
    assign_nothing_behind_its_back(&node);
    node.start().await;
    eventually("it is stopped", || async { !runs(main) }).await;
    eventually("it is noted", || async { node.verbs().await.contains(&Verb::Stop) }).await;
    assert!(node.verbs().await.contains(&Verb::StopCommand));
    node.down().await;
}

#[tokio::test]
async fn a_stray_nobody_remembers_is_found_by_its_environment_and_stopped() {
    let mut node = Node::started().await;
    let instance = server("shop");
    node.assign(std::slice::from_ref(&instance)).await;
    let main = pid(&node.until(&instance.id, RunState::Ready).await);
    node.end().await;
    assign_nothing_behind_its_back(&node);
    std::fs::remove_dir_all(node.dir.path().join("node/instances")).unwrap();
    // Another node on the same host leaves it alone.
    let other = Node::started().await;
    assert_eq!(other.inventory().await.instances, []);
    assert!(runs(main));
    other.down().await;
    node.start().await;
    eventually("it is stopped", || async { !runs(main) }).await;
    eventually("it is noted", || async { node.verbs().await == [Verb::StopStray] }).await;
    node.down().await;
}

#[tokio::test]
async fn a_process_without_its_shim_is_ended_before_it_is_started_again() {
    let mut node = Node::started().await;
    let instance = server("shop");
    node.assign(std::slice::from_ref(&instance)).await;
    let main = pid(&node.until(&instance.id, RunState::Ready).await);
    node.end().await;
    let stat = std::fs::read_to_string(format!("/proc/{main}/stat")).unwrap();
    let shim: i32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
    let pid_of = |raw| rustix::process::Pid::from_raw(raw).unwrap();
    rustix::process::kill_process(pid_of(shim), rustix::process::Signal::KILL).unwrap();
    eventually("the shim is gone", || async { !runs(shim) }).await;
    assert!(runs(main));
    node.start().await;
    let seen = node.until(&instance.id, RunState::Ready).await;
    assert!(!runs(main));
    assert_ne!(pid(&seen), main);
    assert_eq!(seen.restarts, 1);
    node.down().await;
}

#[tokio::test]
async fn what_failed_for_good_is_not_tried_again_after_a_restart() {
    let mut node = Node::started().await;
    let instance = service("missing", &["/no/such/program"]);
    node.assign(std::slice::from_ref(&instance)).await;
    node.until(&instance.id, RunState::Failed).await;
    node.end().await;
    node.start().await;
    let seen = node.until(&instance.id, RunState::Failed).await;
    assert!(seen.exit.unwrap().contains("/no/such/program"));
    assert_eq!(node.verbs().await, []);
    node.down().await;
}

#[tokio::test]
async fn a_directory_of_another_node_is_refused() {
    let mut node = Node::started().await;
    node.assign(&[]).await;
    node.end().await;
    let own = std::mem::replace(&mut node.id, "n-abcdefghjk".parse().unwrap());
    node.start().await;
    let error = node.failure().await;
    assert!(matches!(error, executor::Error::Foreign { .. }), "{error}");
    assert!(error.to_string().contains(own.as_str()));
}
