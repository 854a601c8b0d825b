//! Six roles as six processes over one Redis: registered, balanced, reported, scaled, and each of
//! the two that keep instances killed and started again under traffic.

use http::StatusCode;
use std::process::Command;
use system_tests::cell::Cell;
use system_tests::load::{Load, get};
use system_tests::platform::demo_service;
use system_tests::process::run;
use system_tests::redis::RedisServer;
use system_tests::wait::until;
use wire::operator::InstanceView;

/// What must be the same after an adoption.
fn identity(all: &[InstanceView]) -> Vec<(String, Option<String>, u32)> {
    all.iter().map(|i| (i.id.to_string(), i.address.clone(), i.restarts)).collect()
}

fn scale(cell: &Cell, to: &str) {
    let output = run(&["service", "scale", "six", to, "--api", &cell.api.url]);
    assert!(output.status.success(), "{output:?}");
}

async fn more_traffic(load: &Load) {
    let from = load.sent();
    let more = || std::future::ready(if load.sent() > from + 60 { Ok(()) } else { Err(()) });
    until("more traffic", more).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_roles_are_six_processes_and_two_of_them_may_crash() {
    let Some(redis) = RedisServer::start() else {
        system_tests::skipped("six_processes", "redis-server is not installed");
        return;
    };
    let mut cell = Cell::start(&redis.url()).await;
    cell.join().await;

    let declared = cell.api.put("/v1/services/six", &demo_service(1, 3)).await;
    assert_eq!(declared.status, StatusCode::CREATED, "{}", declared.body);
    let reply = get(cell.front, "six").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    let first = cell.api.ready("six", 1).await;
    assert_eq!(reply.instance.as_deref(), Some(first[0].id.as_str()));

    // What operators are promised to see with nothing but redis-cli.
    let load = Load::start(cell.front, "six", 60);
    until("its load on the board", || async {
        let board = redis_cli(&redis, &["zrange", "tally:{six}:board", "0", "-1", "withscores"]);
        let mut words = board.split_whitespace();
        let (id, score) = (words.next(), words.next().and_then(|w| w.parse::<f64>().ok()));
        let shown = id == Some(first[0].id.as_str()) && score.is_some_and(|s| s > 0.0);
        if shown { Ok(()) } else { Err(board) }
    })
    .await;

    scale(&cell, "2");
    let two = cell.api.ready("six", 2).await;
    cell.kill("container-manager");
    more_traffic(&load).await;
    cell.start_role("container-manager");
    cell.managers_answer().await;
    // It leads again when what it is told happens; what ran before runs on.
    scale(&cell, "3");
    let three = cell.api.ready("six", 3).await;
    let kept: Vec<_> = three.iter().filter(|i| two.iter().any(|t| t.id == i.id)).cloned().collect();
    assert_eq!(identity(&two), identity(&kept), "adopted, not restarted");

    cell.kill("executor");
    more_traffic(&load).await;
    cell.start_role("executor");
    cell.node_is("ready").await;
    // It has them in hand again when it carries out what it is told.
    scale(&cell, "2");
    let left = until("the end of the third", || async {
        let all = cell.api.instances("six").await?;
        if all.len() == 2 { Ok(all) } else { Err(format!("{all:?} {}", cell.api.log())) }
    })
    .await;
    let known = identity(&three);
    assert!(identity(&left).iter().all(|i| known.contains(i)), "{left:?} of {three:?}");

    let (sent, failed, why) = load.stop().await;
    assert_eq!(failed, 0, "of {sent}: {why:?}\n{}", cell.api.log());
    let output = run(&["service", "rm", "six", "--api", &cell.api.url]);
    assert!(output.status.success(), "{output:?}");
    until("the end of every instance", || async {
        match cell.api.service("six").await {
            Ok(view) => Err(format!("{view:?}")),
            Err(why) if why.contains("404") || why.contains("no service") => Ok(()),
            Err(why) => Err(why),
        }
    })
    .await;
    cell.end().await;
}

fn redis_cli(redis: &RedisServer, words: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-u", &redis.url()]).args(words).output();
    String::from_utf8_lossy(&output.expect("redis-cli").stdout).into_owned()
}
