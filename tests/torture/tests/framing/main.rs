//! Framing by raw bytes: what is refused ends its connection and reaches nobody, and what is served
//! reaches one instance as one request.

mod limits;
mod table;

use std::sync::Arc;
use table::{CHUNKS, CODINGS, Case, Expect, FIRST_LINES, HOSTS, LENGTHS, LINES};
use tokio::task::JoinSet;
use torture::client::Client;
use torture::front::Front;
use torture::instance::{Instance, Seen};

/// A front and the one instance behind it.
struct Door {
    front: Front,
    instance: Instance,
}

impl Door {
    async fn open() -> Arc<Door> {
        let instance = Instance::echoing().await;
        let front = Front::of(env!("CARGO_BIN_EXE_front"), &[instance.address]).await;
        Arc::new(Door { front, instance })
    }
}

/// Plays a case; what was wrong, in words.
async fn play(door: &Door, id: &str, bytes: &[u8], expect: Expect) -> Result<(), String> {
    let marker = format!("GET /marker-{id} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut client = Client::connect(door.front.address).await;
    client.send([bytes, marker.as_bytes()].concat()).await;
    let first = client.answer(false).await.map_err(|why| format!("{id}: {why}"))?;
    let status = first.as_ref().map_or(0, torture::strict::Message::status);
    let seen = &door.instance.seen;
    let judged = match expect {
        Expect::Refused(codes) => match status {
            0 => Err("closed without an answer".to_owned()),
            status if codes.contains(&status) => refused(&mut client, seen, id).await,
            other => Err(format!("answered {other}")),
        },
        Expect::Cut(codes) if status == 0 || codes.contains(&status) => {
            refused(&mut client, seen, id).await
        }
        Expect::Cut(_) => Err(format!("answered {status}")),
        Expect::Served(body) => match served(status, seen, id, body) {
            Ok(()) => goes_on(&mut client, seen, id).await,
            wrong => wrong,
        },
        Expect::Last(body) => match served(status, seen, id, body) {
            Ok(()) if client.is_closed().await => no_marker(seen, id),
            Ok(()) => Err("its connection goes on".to_owned()),
            wrong => wrong,
        },
        Expect::Either(codes, _) if codes.contains(&status) => refused(&mut client, seen, id).await,
        Expect::Either(_, body) => served(status, seen, id, body),
    };
    judged.map_err(|why| format!("{id}: {why}; {first:?}"))
}

/// The connection ends and no instance saw a whole request of it.
async fn refused(client: &mut Client, seen: &Seen, id: &str) -> Result<(), String> {
    if !client.is_closed().await {
        let left = client.rest().await;
        return Err(format!("not closed: {:?}", String::from_utf8_lossy(&left)));
    }
    let whole = seen.with_target(id).iter().filter(|r| r.complete).count();
    if whole > 0 {
        return Err(format!("{whole} requests of it reached the instance"));
    }
    Ok(())
}

fn served(status: u16, seen: &Seen, id: &str, body: &[u8]) -> Result<(), String> {
    let all = seen.with_target(id);
    let of: Vec<_> = all.iter().filter(|r| !r.start.contains("marker-")).collect();
    match of.as_slice() {
        [one] if status == 200 && one.complete && one.body == body && one.trailers.is_empty() => {
            Ok(())
        }
        other => Err(format!("answered {status}, the instance saw {other:?}")),
    }
}

fn no_marker(seen: &Seen, id: &str) -> Result<(), String> {
    let markers = seen.with_target(&format!("marker-{id}"));
    if markers.is_empty() { Ok(()) } else { Err("the instance saw what came after".to_owned()) }
}

/// The next request on the connection is the one that was sent next.
async fn goes_on(client: &mut Client, seen: &Seen, id: &str) -> Result<(), String> {
    let next = client.answer(false).await.map_err(|why| why.0)?;
    let target = format!("/marker-{id}");
    let right = next.as_ref().is_some_and(|a| a.field("x-for").as_deref() == Some(&target));
    let once = seen.with_target(&target).len() == 1;
    if right && once { Ok(()) } else { Err(format!("the next request got {next:?}")) }
}

/// Plays all cases at once, each on a connection of its own, and then looks again: nothing may
/// arrive late, and what arrives must be whole.
async fn play_all(group: &str, cases: Vec<(String, Vec<u8>, Expect)>) {
    let door = Door::open().await;
    let mut playing = JoinSet::new();
    let mut refused = Vec::new();
    for (name, bytes, expect) in cases {
        let door = Arc::clone(&door);
        let id = format!("{group}.{name}.");
        if matches!(expect, Expect::Refused(_) | Expect::Cut(_)) {
            refused.push(id.clone());
        }
        let bytes = fill(&bytes, &id);
        playing.spawn(async move { play(&door, &id, &bytes, expect).await });
    }
    let count = playing.len();
    let played = playing.join_all().await;
    let mut wrong: Vec<String> = played.into_iter().filter_map(Result::err).collect();
    door.front.is_quiet().await;
    for request in door.instance.seen.requests() {
        if request.complete && refused.iter().any(|id| request.start.contains(id.as_str())) {
            wrong.push(format!("reached the instance: {}", request.start));
        }
    }
    // A body that broke off leaves a request without its end; nothing else may be unreadable.
    wrong.extend(door.instance.seen.nonsense().into_iter().map(|n| format!("instance got {n}")));
    wrong.sort();
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

fn fill(bytes: &[u8], id: &str) -> Vec<u8> {
    let mut filled = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(4).position(|w| w == b"{id}") {
        filled.extend_from_slice(&rest[..at]);
        filled.extend_from_slice(id.as_bytes());
        rest = &rest[at + 4..];
    }
    filled.extend_from_slice(rest);
    filled
}

fn owned(cases: &[Case]) -> Vec<(String, Vec<u8>, Expect)> {
    cases.iter().map(|(name, bytes, e)| ((*name).to_owned(), bytes.to_vec(), *e)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths() {
    play_all("lengths", owned(LENGTHS)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codings() {
    play_all("codings", owned(CODINGS)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_and_fields() {
    play_all("lines", owned(LINES)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_lines() {
    play_all("first", owned(FIRST_LINES)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts() {
    play_all("hosts", owned(HOSTS)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks() {
    let head = b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let with_head =
        |(name, body, expect): &Case| ((*name).to_owned(), [&head[..], body].concat(), *expect);
    play_all("chunks", CHUNKS.iter().map(with_head).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_have_names_of_their_own() {
    play_all("limits", limits::cases()).await;
}
