//! The board on a unix socket, behind Sentinels and as a Cluster: the same promises, and what
//! happens when a server is lost under traffic.

use super::*;
use crate::testing::kinds::{Kind, as_cluster, behind_sentinels, on_a_socket};
use crate::testing::skipped;

fn open(kind: &Kind) -> RedisBoard {
    RedisBoard::connect(&kind.url, Arc::new(RealClock::default())).unwrap()
}

fn or_skip(test: &str, kind: std::io::Result<Kind>) -> Option<Kind> {
    kind.inspect_err(|why| skipped(test, &format!("redis-server cannot be started: {why}"))).ok()
}

async fn keeps_the_promises(kind: &Kind, holding: usize) {
    let mut raws = Vec::new();
    for server in &kind.servers[..holding] {
        let client = ::redis::Client::open(format!("redis://127.0.0.1:{}/", server.port)).unwrap();
        raws.push(client.get_multiplexed_async_connection().await.unwrap());
    }
    contract::run(&OnRedis(open(kind), raws)).await;
}

#[tokio::test]
async fn a_socket_keeps_the_promises() {
    let Some(kind) = or_skip("a_socket_keeps_the_promises", on_a_socket()) else { return };
    keeps_the_promises(&kind, 1).await;
}

#[tokio::test]
async fn sentinels_master_keeps_the_promises() {
    let test = "sentinels_master_keeps_the_promises";
    let Some(kind) = or_skip(test, behind_sentinels()) else { return };
    keeps_the_promises(&kind, 1).await;
}

#[tokio::test]
async fn a_cluster_keeps_the_promises() {
    let Some(kind) = or_skip("a_cluster_keeps_the_promises", as_cluster(false)) else { return };
    keeps_the_promises(&kind, 3).await;
}

/// Names of services until each server of a Cluster of three holds one.
fn spread() -> Vec<ServiceName> {
    (0..9).map(|n| service(&format!("spread-{n}"))).collect()
}

/// Records for every service until all of it is taken and told.
async fn until_written(board: &RedisBoard, services: &[ServiceName], load: u32) {
    let reports: Vec<_> =
        services.iter().map(|s| report(&instance(s.as_str(), 1), load, None)).collect();
    let mut changes = board.watch();
    let mut heard = BTreeSet::new();
    until("every load is taken and told", async || {
        let all = board.record(&reports).await.is_ok_and(|new| new == reports.len());
        while let Some(change) = changes.at_hand() {
            if let Change::Told(service, readings) = change
                && readings.iter().all(|r| u32::from(r.report.load.ten_thousandths()) == load)
            {
                heard.insert(service);
            }
        }
        (all && heard.len() == services.len()).then_some(())
    })
    .await;
}

async fn survives(kind: &mut Kind, mut lose: impl FnMut(&mut Kind)) {
    let (board, other, services) = (open(kind), open(kind), spread());
    for name in &services {
        board.publish_front(&front(name.as_str())).await.unwrap();
        board.publish_routes(name, &routes(name.as_str(), "1.1", 2)).await.unwrap();
    }
    until_written(&board, &services, 100).await;
    let before = board.view().await.unwrap();
    assert_eq!(before.services.len(), services.len());
    lose(kind);
    // Reports go on as the receiver writes them: again and again, the newest alone.
    until_written(&board, &services, 200).await;
    let view = until("another reader sees all of it", async || {
        let view = other.view().await.ok()?;
        let whole = view.services.values().all(|s| s.routes.is_some() && s.loads.len() == 1);
        (view.services.len() == services.len() && whole).then_some(view)
    })
    .await;
    assert!(view.services.values().all(|s| s.front.is_some()));
    for name in &services {
        let table = routes(name.as_str(), "1.2", 1);
        let published = async || board.publish_routes(name, &table).await.ok();
        assert_eq!(until("routes are taken", published).await, table.generation);
    }
    until("it takes writes", async || other.ping().await.ok()).await;
}

#[tokio::test]
async fn a_dead_master_is_followed_by_the_next() {
    let test = "a_dead_master_is_followed_by_the_next";
    let Some(mut kind) = or_skip(test, behind_sentinels()) else { return };
    survives(&mut kind, |kind| kind.servers[0].kill()).await;
}

#[tokio::test]
async fn a_master_that_became_a_replica_is_left() {
    let test = "a_master_that_became_a_replica_is_left";
    let Some(mut kind) = or_skip(test, behind_sentinels()) else { return };
    survives(&mut kind, |kind| drop(kind.sentinels[0].ask(&["SENTINEL", "FAILOVER", "main"])))
        .await;
}

#[tokio::test]
async fn a_dead_server_of_a_cluster_is_followed_by_its_replica() {
    let test = "a_dead_server_of_a_cluster_is_followed_by_its_replica";
    let Some(mut kind) = or_skip(test, as_cluster(true)) else { return };
    survives(&mut kind, |kind| kind.servers[0].kill()).await;
}

#[tokio::test]
async fn keys_that_move_within_a_cluster_are_found() {
    let test = "keys_that_move_within_a_cluster_are_found";
    let Some(mut kind) = or_skip(test, as_cluster(true)) else { return };
    // A replica takes its master's place while both live.
    survives(&mut kind, |kind| drop(kind.servers[4].ask(&["CLUSTER", "FAILOVER"]))).await;
}

#[tokio::test]
async fn what_a_clusters_lost_part_holds_is_unknown_and_the_rest_goes_on() {
    let test = "what_a_clusters_lost_part_holds_is_unknown_and_the_rest_goes_on";
    let Some(kind) = or_skip(test, as_cluster(false)) else { return };
    for server in &kind.servers {
        server.ask(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let (board, services) = (open(&kind), spread());
    for name in &services {
        board.publish_front(&front(name.as_str())).await.unwrap();
        board.publish_routes(name, &routes(name.as_str(), "1.1", 1)).await.unwrap();
    }
    let holder = |key: &str| match slots::of_key(key) {
        0..=5460 => 0,
        5461..=10922 => 1,
        _ => 2,
    };
    // Some server holds neither the list of services nor the heartbeats.
    let lost = (0..3).find(|n| *n != holder(keys::SERVICES) && *n != holder(keys::BALANCERS));
    let lost = lost.unwrap();
    let there = |name: &ServiceName| holder(name.as_str()) != lost;
    kind.servers[lost].signal("STOP");
    let view = until("the rest is seen", async || board.view().await.ok()).await;
    for (name, seen) in &view.services {
        assert_eq!((seen.front.is_some(), seen.routes.is_some()), (true, there(name)), "{name}");
    }
    let reports: Vec<_> =
        services.iter().map(|s| report(&instance(s.as_str(), 1), 5, Some(1))).collect();
    let missing = match board.record(&reports).await {
        Err(BoardError::Partly { services, .. }) => services,
        other => panic!("{other:?}"),
    };
    let wanted: BTreeSet<_> = services.iter().filter(|name| !there(name)).cloned().collect();
    assert_eq!(missing, wanted, "whose loads were not written is told");
    kind.servers[lost].signal("CONT");
    let rest: Vec<_> =
        reports.into_iter().filter(|r| missing.contains(&r.instance.service())).collect();
    until("the rest is written", async || {
        board.record(&rest).await.ok().filter(|new| *new == rest.len())
    })
    .await;
}
