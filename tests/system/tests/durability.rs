//! What was acknowledged is kept, and what runs is found again, whatever is killed.

use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use system_tests::load::{Load, get};
use system_tests::platform::{Platform, demo_service};
use system_tests::process::processes_of;
use system_tests::wait::until;
use wire::operator::InstanceView;

/// Times the control plane is killed right after an answer.
const CRASHES: u32 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill_right_after_the_answer() {
    let mut platform = Platform::start(None).await;
    for crash in 1..=CRASHES {
        let mut body = demo_service(0, 2);
        body["run"]["env"] = json!({"CRASH": crash.to_string()});
        let path = format!("/v1/services/kept-{crash}");
        let answer = platform.api().put(&path, &body).await;
        platform.kill();
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        platform.start_again().await;
        for earlier in 1..=crash {
            let found = until("the declaration after the crash", || async {
                let view = platform.service(&format!("kept-{earlier}")).await?;
                Ok::<_, String>(view)
            })
            .await;
            let env = found.manifest["run"]["env"]["CRASH"].clone();
            assert_eq!(env, json!(earlier.to_string()), "{found:?}");
        }
    }
    // The last start was a moment ago: the front door has to hear of the routes first.
    until("an answer of a kept service", || async {
        let reply = get(platform.at.front, "kept-1").await.map_err(|e| e.to_string())?;
        if reply.status == StatusCode::OK { Ok(()) } else { Err(reply.body) }
    })
    .await;
    platform.down().await;
}

fn node_process(platform: &Platform) -> Option<i32> {
    let all = processes_of(platform.folder());
    all.into_iter().find(|(_, line)| line.contains(" node join ")).map(|(pid, _)| pid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_process_comes_back_and_its_instances_answer_all_the_while() {
    let platform = Platform::start(None).await;
    platform.put_service("anchored", &demo_service(2, 3)).await;
    let before = platform.ready("anchored", 2).await;
    let load = Load::start(platform.at.front, "anchored", 60);
    until("traffic", || std::future::ready(if load.sent() > 30 { Ok(()) } else { Err(()) })).await;
    let old = node_process(&platform).expect("the first node's process");
    kill_process(Pid::from_raw(old).unwrap(), Signal::KILL).unwrap();
    until("another process of the node", || {
        let new = node_process(&platform).filter(|pid| *pid != old);
        std::future::ready(new.ok_or_else(|| platform.log()))
    })
    .await;
    platform.settled().await;
    // It obeys again: one more on the same node, the first two untouched.
    let path = "/v1/services/anchored/scale";
    let scale = platform.api().call(http::Method::POST, path, &[], r#"{"instances": 3}"#).await;
    assert!(scale.status.is_success(), "{}", scale.body);
    let after = platform.ready("anchored", 3).await;
    let identity = |i: &InstanceView| (i.id.clone(), i.address.clone(), i.node.clone(), i.restarts);
    let known: Vec<_> = after.iter().map(identity).collect();
    assert!(before.iter().all(|i| known.contains(&identity(i))), "{before:?} {after:?}");
    let (sent, failed, why) = load.stop().await;
    assert_eq!(failed, 0, "of {sent}: {why:?}");
    platform.down().await;
}
