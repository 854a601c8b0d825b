//! The loop on one host: wake, answer, scale, idle, restart, with `tally up` and real processes.

use http::{Method, StatusCode};
use serde_json::json;
use system_tests::load::{Load, get};
use system_tests::platform::{Platform, demo_service};
use system_tests::wait::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_wakes_a_service_and_silence_ends_it() {
    let platform = Platform::start(None).await;
    let view = platform.put_service("sleepy", &demo_service(0, 3)).await;
    assert_eq!(view.state.ready, 0);
    assert!(platform.instances("sleepy").await.unwrap().is_empty());
    let reply = get(platform.at.front, "sleepy").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    let ready = platform.ready("sleepy", 1).await;
    assert_eq!(reply.instance.as_deref(), Some(ready[0].id.as_str()));
    // A draining one may still take what is on its way: only when it has gone is the next another.
    until("the end of the idle instance", || async {
        let all = platform.instances("sleepy").await?;
        if all.is_empty() { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    let again = get(platform.at.front, "sleepy").await.unwrap();
    assert_eq!(again.status, StatusCode::OK);
    assert_ne!(again.instance, reply.instance, "an ended instance never comes back");
    platform.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_above_the_band_starts_more_and_no_request_fails() {
    let platform = Platform::start(None).await;
    platform.put_service("busy", &demo_service(1, 4)).await;
    platform.ready("busy", 1).await;
    // One instance serves 200 a second at load 1.0: this is 2.2 times that.
    let load = Load::start(platform.at.front, "busy", 440);
    until("a third instance under load", || async {
        let ready = platform.service("busy").await?.state.ready;
        if ready >= 3 { Ok(()) } else { Err(format!("{ready} ready; {}", platform.log())) }
    })
    .await;
    let (sent, failed, why) = load.stop().await;
    assert!(sent > 0);
    assert_eq!(failed, 0, "of {sent}: {why:?}");
    let decisions: serde_json::Value = platform
        .client()
        .get("/v1/services/busy/decisions", std::time::Duration::from_secs(5))
        .await
        .unwrap();
    let first = &decisions["items"][0];
    assert!(first["reason"].is_string() && first["inputs"].is_string(), "{decisions}");
    platform.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_control_plane_finds_its_instances_again() {
    let mut platform = Platform::start(None).await;
    platform.put_service("steady", &demo_service(2, 2)).await;
    let before = platform.ready("steady", 2).await;
    let load = Load::start(platform.at.front, "steady", 100);
    until("traffic", || std::future::ready(if load.sent() > 100 { Ok(()) } else { Err(()) })).await;
    platform.kill();
    // Acknowledged before the crash: it must be there after it.
    platform.start_again().await;
    until("an answer after the restart", || async {
        let reply = get(platform.at.front, "steady").await.map_err(|e| e.to_string())?;
        if reply.status.is_success() { Ok(()) } else { Err(reply.body) }
    })
    .await;
    let after = platform.ready("steady", 2).await;
    let ids = |all: &[wire::operator::InstanceView]| {
        all.iter().map(|i| (i.id.clone(), i.address.clone())).collect::<Vec<_>>()
    };
    assert_eq!(ids(&before), ids(&after), "instances are adopted, not restarted");
    let restarts =
        |all: &[wire::operator::InstanceView]| all.iter().map(|i| i.restarts).collect::<Vec<_>>();
    assert_eq!(restarts(&before), restarts(&after), "{after:?}");
    let _failed_while_down = load.stop().await;
    platform.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_dies_is_there_again() {
    let platform = Platform::start(None).await;
    platform.put_service("mortal", &demo_service(1, 1)).await;
    let reply = get(platform.at.front, "mortal").await.unwrap();
    assert!(reply.status.is_success());
    let id = platform.ready("mortal", 1).await[0].id.to_string();
    let found = system_tests::process::processes_of(std::path::Path::new(&id));
    let (pid, _) = found.iter().find(|(_, line)| line.contains("demo-service")).expect("its pid");
    let pid = rustix::process::Pid::from_raw(*pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("a restart or a successor", || async {
        let all = platform.instances("mortal").await?;
        let back =
            all.iter().any(|i| i.state == "ready" && (i.restarts > 0 || i.id.as_str() != id));
        if back { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    let reply = get(platform.at.front, "mortal").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    platform.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_revision_replaces_the_old_one_without_a_failed_request() {
    let platform = Platform::start(None).await;
    let mut body = demo_service(2, 3);
    platform.put_service("rolling", &body).await;
    let old = platform.ready("rolling", 2).await;
    let load = Load::start(platform.at.front, "rolling", 100);
    body["run"]["env"] = json!({"COLOUR": "blue"});
    platform.put_service("rolling", &body).await;
    until("only new instances", || async {
        let all = platform.instances("rolling").await?;
        let gone = all.iter().all(|i| old.iter().all(|o| o.id != i.id));
        let ready = all.iter().filter(|i| i.state == "ready").count();
        if gone && ready == 2 { Ok(()) } else { Err(format!("{all:?} {}", platform.log())) }
    })
    .await;
    let (sent, failed, why) = load.stop().await;
    assert_eq!(failed, 0, "of {sent}: {why:?}");
    platform.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_removed_and_declared_again_is_reached() {
    let platform = Platform::start(None).await;
    platform.put_service("again", &demo_service(1, 1)).await;
    platform.ready("again", 1).await;
    assert!(get(platform.at.front, "again").await.unwrap().status.is_success());
    let gone = platform.api().call(Method::DELETE, "/v1/services/again", &[], "").await;
    assert!(gone.status.is_success(), "{gone:?}");
    until("the end of the service", || async {
        match platform.service("again").await {
            Ok(view) => Err(format!("{view:?}")),
            Err(_gone) => Ok(()),
        }
    })
    .await;
    platform.put_service("again", &demo_service(1, 1)).await;
    platform.ready("again", 1).await;
    let reply = get(platform.at.front, "again").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    platform.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_host_and_a_full_service_say_so() {
    let platform = Platform::start(None).await;
    let unknown = get(platform.at.front, "nobody").await.unwrap();
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(unknown.body.contains("/problems/not-found"), "{}", unknown.body);
    let mut body = demo_service(0, 1);
    body["run"]["command"] = json!(["/does/not/exist", "{port}"]);
    body["route"] = json!({"hold": {"deadline": "2s"}});
    platform.put_service("broken", &body).await;
    let broken = get(platform.at.front, "broken").await.unwrap();
    assert_eq!(broken.status, StatusCode::SERVICE_UNAVAILABLE, "{}", broken.body);
    platform.down().await;
}
