//! Ten thousand changes under load, rolling replacement, and every part lost in turn: no request
//! fails.

use scoreboard::testing::TestRedis;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use torture::board::MAX_IN_FLIGHT;
use torture::front::{Front, Setup};
use torture::honest::{Habits, Honest};
use torture::instance::Instance;
use torture::manager::Manager;
use torture::wait::until;

/// The bars.
const CHANGES: u64 = 10_000;
const REQUESTS: u64 = 100_000;
/// Instances at a time.
const INSTANCES: usize = 8;
/// How often all of them are replaced, each by a new one.
const ROUNDS: usize = 4;

async fn instances() -> VecDeque<Instance> {
    let mut all = VecDeque::new();
    for _ in 0..INSTANCES {
        all.push_back(Instance::echoing_without_memory().await);
    }
    all
}

fn addresses(instances: &VecDeque<Instance>) -> Vec<SocketAddr> {
    instances.iter().map(|i| i.address).collect()
}

async fn front(redis: &TestRedis, save: Option<String>, listen: Option<SocketAddr>) -> Front {
    let redis = Some(redis.url().to_owned());
    let setup = Setup { redis, save, listen, ..Setup::default() };
    let front = Front::start(env!("CARGO_BIN_EXE_front"), &setup).await;
    front.serves().await;
    front
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_changes_fail_no_request() {
    let Some(redis) = TestRedis::own("ten_thousand_changes") else { return };
    let mut manager = Manager::new(redis.url(), "torture");
    let mut running = instances().await;
    manager.publish_front(MAX_IN_FLIGHT).await;
    manager.publish(&addresses(&running), &[]).await;
    let front = front(&redis, None, None).await;
    let load = Honest::start(front.address, Habits::default());

    // Instances come, drain and go from the table, and the service's own terms change.
    let all = addresses(&running);
    for change in 0..CHANGES {
        let n = usize::try_from(change).expect("small") % INSTANCES;
        match change % 5 {
            0 => manager.publish_front(MAX_IN_FLIGHT - u32::try_from(n).expect("small")).await,
            1 => manager.publish(&[&all[..n], &all[n + 1..]].concat(), &[]).await,
            2 => manager.publish(&[&all[..n], &all[n + 1..]].concat(), &[all[n]]).await,
            3 => manager.publish(&all[n..=n], &[]).await,
            _ => manager.publish(&all, &[]).await,
        }
    }
    let after_changes = load.sent();

    // All are replaced, again and again, as a rollout does: the new one first, then the old one
    // drains, and ends when nothing is there.
    for _ in 0..ROUNDS * INSTANCES {
        running.push_back(Instance::echoing_without_memory().await);
        let old = running.pop_front().expect("some run");
        manager.publish(&addresses(&running), &[old.address]).await;
        manager.drained(Some(old.address)).await;
        manager.publish(&addresses(&running), &[]).await;
        manager.drained(None).await;
        old.kill().await;
    }
    while load.sent() < REQUESTS && load.failed() == 0 {
        load.more(1000).await;
    }
    let felt = load.stop().await;
    torture::note(&format!(
        "{CHANGES} changes during {after_changes} requests, {} replacements; {} requests, {} failed",
        ROUNDS * INSTANCES,
        felt.sent,
        felt.failed
    ));
    felt.must_be_whole("changes");
    front.is_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_redis_in_every_way_fails_no_request() {
    let Some(mut redis) = TestRedis::own("losing_redis") else { return };
    let mut manager = Manager::new(redis.url(), "torture");
    let running = instances().await;
    manager.publish_front(MAX_IN_FLIGHT).await;
    manager.publish(&addresses(&running), &[]).await;
    let front = front(&redis, None, None).await;
    let habits = Habits { pause: Duration::from_millis(5), ..Habits::default() };
    let load = Honest::start(front.address, habits);
    let (short, long) = if torture::long() { (30, 70) } else { (4, 10) };

    // Time itself is the subject here: Redis is away for so long.
    redis.kill();
    tokio::time::sleep(Duration::from_secs(short)).await;
    redis.start().expect("it starts again");
    // Empty: nobody may take that for a service without instances.
    tokio::time::sleep(Duration::from_secs(short)).await;
    manager.publish_front(MAX_IN_FLIGHT).await;
    manager.publish(&addresses(&running), &[]).await;
    manager.drained(None).await;
    // Paused: connections stand, and nothing answers.
    redis.signal("STOP");
    tokio::time::sleep(Duration::from_secs(long)).await;
    redis.signal("CONT");
    manager.publish_front(MAX_IN_FLIGHT).await;
    manager.publish(&addresses(&running), &[]).await;
    manager.drained(None).await;
    let felt = load.stop().await;
    torture::note(&format!(
        "Redis away {short} s, empty {short} s, paused {long} s: {} requests, {} failed",
        felt.sent, felt.failed
    ));
    felt.must_be_whole("Redis lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_without_board_and_managers_serves_from_the_last_view() {
    let Some(mut redis) = TestRedis::own("last_view") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let save = Some(folder.path().join("view.json").display().to_string());
    let mut manager = Manager::new(redis.url(), "torture");
    let running = instances().await;
    manager.publish_front(MAX_IN_FLIGHT).await;
    manager.publish(&addresses(&running), &[]).await;
    let alone = Duration::from_secs(if torture::long() { 300 } else { 5 });
    let before = front(&redis, save.clone(), None).await;
    until("the view is saved", || async {
        let text = std::fs::read_to_string(folder.path().join("view.json")).unwrap_or_default();
        let known = addresses(&running).iter().all(|a| text.contains(&a.to_string()));
        if known { Ok(()) } else { Err(text) }
    })
    .await;
    drop(manager);
    let habits = Habits { pause: Duration::from_millis(5), ..Habits::default() };
    let load = Honest::start(before.address, habits);
    load.more(200).await;
    redis.kill();
    tokio::time::sleep(alone).await;
    let felt = load.stop().await;
    felt.must_be_whole("alone before the restart");
    let listen = before.address;
    before.kill();
    let after = front(&redis, save, Some(listen)).await;
    let load = Honest::start(after.address, habits);
    load.more(200).await;
    tokio::time::sleep(alone).await;
    let again = load.stop().await;
    torture::note(&format!(
        "alone for {alone:?} before and after a restart: {} and {} requests, {} failed",
        felt.sent,
        again.sent,
        felt.failed + again.failed
    ));
    again.must_be_whole("alone after the restart");
}
