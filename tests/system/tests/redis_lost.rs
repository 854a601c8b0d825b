//! The scoreboard on a real Redis: shared, lost for half a minute, given back empty.

use std::time::Duration;
use system_tests::load::{Load, get};
use system_tests::platform::{Platform, demo_service};
use system_tests::redis::RedisServer;
use system_tests::wait::until;

/// How long Redis is away (the bar).
const AWAY: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_redis_and_getting_it_back_empty_fails_no_request() {
    let Some(mut redis) = RedisServer::start() else {
        system_tests::skipped("redis_lost", "redis-server is not installed");
        return;
    };
    let platform = Platform::start(Some(&redis.url())).await;
    platform.put_service("shared", &demo_service(2, 2)).await;
    platform.ready("shared", 2).await;
    until("the first answer", || async {
        let reply = get(platform.at.front, "shared").await.map_err(|e| e.to_string())?;
        if reply.status.is_success() { Ok(()) } else { Err(reply.body) }
    })
    .await;
    let load = Load::start(platform.at.front, "shared", 100);
    redis.kill();
    // The one place where time itself is the subject: Redis is away for exactly this long.
    tokio::time::sleep(AWAY).await;
    redis.start_again();
    until("the board filled again", || async {
        let all = platform.instances("shared").await?;
        let loads = all.iter().filter(|i| i.load.is_some()).count();
        if loads == 2 { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    let (sent, failed, why) = load.stop().await;
    assert!(sent > 1000);
    assert_eq!(failed, 0, "of {sent}: {why:?}");
    platform.down().await;
}
