//! Thousands of requests that are almost right, through the front door and then through nginx,
//! HAProxy, Caddy and Apache: no request is ever split.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use torture::client::Client;
use torture::front::Front;
use torture::grammar::{Input, input};
use torture::instance::Instance;
use torture::peer::{Kind, Peer};
use torture::strict::Kind as Reads;

/// Inputs for each chain.
const INPUTS: u64 = 1_500;
/// The same when there is time.
const INPUTS_LONG: u64 = 20_000;
/// At once.
const LANES: usize = 32;
/// An input whose body never ends waits for this, and is then given up by its client.
const QUIET: Duration = Duration::from_millis(400);

/// What a client was told, answer by answer: the status, and for which target an instance spoke.
type Told = Vec<(u16, Option<String>)>;

/// Sends an input, and reads what comes back until nothing more does.
async fn play(front: std::net::SocketAddr, input: &Input) -> Result<Told, String> {
    let mut client = Client::connect(front).await;
    client.send(&input.bytes).await;
    let mut told = Told::new();
    let mut ended = false;
    loop {
        let reading = client.reader.message(Reads::Answer { bodiless: false });
        match timeout(QUIET, reading).await {
            Ok(Ok(Some(answer))) if answer.status() < 200 => {}
            Ok(Ok(Some(answer))) if answer.complete => {
                told.push((answer.status(), answer.field("x-for")));
            }
            Ok(Ok(_)) => return Ok(told),
            Ok(Err(_)) if client.reader.ended => return Ok(told),
            Ok(Err(why)) => return Err(format!("{}: {why}", input.id)),
            Err(_quiet) if ended => return Err(format!("{}: never closed", input.id)),
            Err(_quiet) => {
                // Nothing more is asked: an answer in hand may come, and then the end.
                ended = true;
                let _gone = client.reader.io.shutdown().await;
            }
        }
    }
}

/// Plays all inputs through `front`, and compares what clients were told with what was seen.
async fn compare(group: &str, front: &Front, responder: &Instance) {
    let count = if torture::long() { INPUTS_LONG } else { INPUTS };
    let lanes = Arc::new(Semaphore::new(LANES));
    let mut playing = JoinSet::new();
    for seed in 0..count {
        let (input, lanes, at) = (input(group, seed), Arc::clone(&lanes), front.address);
        playing.spawn(async move {
            let _lane = lanes.acquire().await;
            let told = play(at, &input).await;
            (input, told)
        });
    }
    let played = playing.join_all().await;
    front.is_quiet().await;
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for request in responder.seen.requests().into_iter().filter(|r| r.complete) {
        let target = request.target().trim_start_matches("http://x").to_owned();
        let words: Vec<&str> = target.trim_start_matches("/hidden-").split('.').collect();
        let id = format!("{}.{}.", words[0].trim_start_matches('/'), words.get(1).unwrap_or(&""));
        seen.entry(id).or_default().push(target);
    }
    let (mut wrong, mut served, mut refused) = (Vec::new(), 0, 0);
    for (input, told) in played {
        let told = match told {
            Ok(told) => told,
            Err(why) => {
                wrong.push(format!("{why}\n  {:?}", String::from_utf8_lossy(&input.bytes)));
                continue;
            }
        };
        let spoken: Vec<String> = told.iter().filter_map(|(_, target)| target.clone()).collect();
        let reached = seen.remove(&input.id).unwrap_or_default();
        served += spoken.len();
        refused += told.len() - spoken.len();
        if spoken != reached {
            let sent = String::from_utf8_lossy(&input.bytes).into_owned();
            wrong.push(format!("{}: told {told:?}, seen {reached:?}\n  {sent:?}", input.id));
        }
    }
    wrong.extend(seen.into_iter().map(|(id, seen)| format!("{id}: seen {seen:?}, sent by nobody")));
    wrong.extend(responder.seen.nonsense().into_iter().map(|n| format!("nonsense: {n}")));
    torture::note(&format!(
        "{group}: {count} inputs, {served} requests served, {refused} refused, {} wrong",
        wrong.len()
    ));
    assert!(
        wrong.is_empty(),
        "{group}: {} wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(12)].join("\n")
    );
    assert!(served > 100 && refused > 100, "the inputs are too harmless or too harmful");
}

async fn through(kind: Kind, group: &str) {
    let responder = Instance::echoing().await;
    let Some(peer) = Peer::start(kind, responder.address).await else {
        torture::skipped(group, &format!("{kind:?} is not installed"));
        return;
    };
    let front = Front::of(env!("CARGO_BIN_EXE_front"), &[peer.address]).await;
    compare(group, &front, &responder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_strict_reader_behind() {
    let responder = Instance::echoing().await;
    let front = Front::of(env!("CARGO_BIN_EXE_front"), &[responder.address]).await;
    compare("strict", &front, &responder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_nginx_behind() {
    through(Kind::Nginx, "nginx").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_haproxy_behind() {
    through(Kind::HaProxy, "haproxy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_caddy_behind() {
    through(Kind::Caddy, "caddy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_apache_behind() {
    through(Kind::Apache, "apache").await;
}
