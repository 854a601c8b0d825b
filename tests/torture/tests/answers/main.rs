//! Answers by raw bytes: what cannot be trusted is a 502 or looks broken to the client, and its
//! connection serves nobody else.

mod table;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use table::{CUTS, Case, HEADS, LENGTHS, RIGHT, SPLITS, Then, Told};
use tokio::io::AsyncWriteExt;
use torture::client::Client;
use torture::front::Front;
use torture::instance::{Instance, next, ok, reset};

/// Far beyond any sensible limit of a head.
const FAR_TOO_LONG: usize = 300_000;
/// Far more fields than a head has.
const FAR_TOO_MANY: usize = 3_000;

type Cases = BTreeMap<String, (Vec<u8>, Then, Told)>;

/// Where each case was answered, and what came there afterwards.
#[derive(Default)]
struct Places {
    /// Case, connection.
    answered: Mutex<BTreeMap<String, usize>>,
    /// Requests that came on a connection after a case's answer.
    reused: AtomicUsize,
}

/// An instance that answers `/CASE` by the table, and anything else plainly.
async fn instance(cases: Arc<Cases>, places: Arc<Places>) -> Instance {
    Instance::raw(move |mut reader, seen, number| {
        let (cases, places) = (Arc::clone(&cases), Arc::clone(&places));
        async move {
            let mut poisoned = false;
            while let Some(request) = next(&mut reader, &seen).await {
                if poisoned {
                    places.reused.fetch_add(1, Relaxed);
                }
                let case = cases.get(request.target().trim_start_matches('/'));
                let Some((bytes, then, told)) = case else {
                    let _gone = reader.io.write_all(&ok(&request)).await;
                    continue;
                };
                let name = request.target().to_owned();
                places.answered.lock().expect("no panic").insert(name, number);
                poisoned |= !matches!(told, Told::Passed(..) | Told::Either(..));
                let _gone = reader.io.write_all(bytes).await;
                match then {
                    Then::Keep => {}
                    Then::Close => return,
                    Then::Reset => {
                        // What was sent must have been read: a reset takes back what was not.
                        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                        reset(&reader.io);
                        return;
                    }
                }
            }
        }
    })
    .await
}

/// Asks for a case, judges the answer, and asks for something else on whatever is left open.
async fn play(front: &Front, places: &Places, name: &str, told: Told) -> Result<(), String> {
    let mut client = Client::connect(front.address).await;
    client.send(format!("GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    let answer = client.answer(false).await.map_err(|why| why.0)?;
    let Some(answer) = answer else {
        let broken = matches!(told, Told::Broken);
        return if broken { Ok(()) } else { Err(format!("no answer, expected {told:?}")) };
    };
    let is = |status: u16, body: &[u8]| {
        answer.status() == status && answer.body == body && answer.complete && !answer.by_close
    };
    let right = match told {
        Told::Bad => answer.status() == 502 && answer.complete,
        Told::Passed(status, body) | Told::PassedOnce(status, body) => is(status, body),
        Told::Either(status, body) => is(status, body) || answer.status() == 502,
        Told::Broken => answer.status() == 502 || !answer.complete || answer.by_close,
    };
    if !right {
        return Err(format!("expected {told:?}, got {answer:?}"));
    }
    if answer.field("set-cookie").is_some() {
        return Err("a header was smuggled in".to_owned());
    }
    if !answer.complete && !client.is_closed().await {
        return Err("a broken answer's connection goes on".to_owned());
    }
    if answer.complete && answer.field("connection").as_deref() != Some("close") {
        after(&mut client, name).await?;
    }
    // A new client finds the front sound, whatever the instance did.
    after(&mut Client::connect(front.address).await, name).await?;
    match places.reused.load(Relaxed) {
        0 => Ok(()),
        _ => Err("the connection to the instance was used again".to_owned()),
    }
}

async fn after(client: &mut Client, name: &str) -> Result<(), String> {
    let target = format!("/after-{name}");
    client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    let answer = client.answer(false).await.map_err(|why| why.0)?;
    match answer {
        Some(a) if a.status() == 200 && a.field("x-for").as_deref() == Some(&target) => Ok(()),
        other => Err(format!("the request after it got {other:?}")),
    }
}

async fn play_all(cases: &[Case]) {
    let mut all = Cases::new();
    for (name, bytes, then, told) in cases {
        all.insert((*name).to_owned(), (bytes.to_vec(), *then, *told));
    }
    play_map(all).await;
}

async fn play_map(all: Cases) {
    let (all, places) = (Arc::new(all), Arc::new(Places::default()));
    let instance = instance(Arc::clone(&all), Arc::clone(&places)).await;
    let front = Front::of(env!("CARGO_BIN_EXE_front"), &[instance.address]).await;
    let mut wrong = Vec::new();
    // One after another: whose connection was used again must be clear.
    for (name, (_, _, told)) in &*all {
        if let Err(why) = play(&front, &places, name, *told).await {
            wrong.push(format!("{name}: {why}"));
        }
        places.reused.store(0, Relaxed);
    }
    wrong.extend(instance.seen.nonsense());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    front.is_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths() {
    play_all(LENGTHS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads() {
    play_all(HEADS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_cut_off() {
    play_all(CUTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_split_in_two() {
    play_all(SPLITS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn right_answers() {
    play_all(RIGHT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_without_end() {
    let long = "a".repeat(FAR_TOO_LONG);
    let many: String = (0..FAR_TOO_MANY).map(|n| format!("a-{n}: b\r\n")).collect();
    let rest = "Content-Length: 3\r\n\r\nabc";
    let cases = [
        ("long-value", format!("HTTP/1.1 200 OK\r\nA: {long}\r\n{rest}")),
        ("long-reason", format!("HTTP/1.1 200 {long}\r\n{rest}")),
        ("many-fields", format!("HTTP/1.1 200 OK\r\n{many}{rest}")),
        ("many-interim-ones", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(FAR_TOO_MANY)),
    ];
    let owned = |(name, text): (&str, String)| {
        (name.to_owned(), (text.into_bytes(), Then::Close, Told::Bad))
    };
    play_map(cases.into_iter().map(owned).collect()).await;
}

/// A body with HEAD is none, whatever the head says; bytes behind it belong to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_head_has_no_body() {
    let instance = Instance::raw(|mut reader, seen, _| async move {
        while let Some(request) = next(&mut reader, &seen).await {
            let told = if request.target() == "/lies" {
                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil".to_owned()
            } else if request.word(0) == "HEAD" {
                "HTTP/1.1 200 OK\r\ncontent-length: 4000000000\r\n\r\n".to_owned()
            } else {
                String::from_utf8_lossy(&ok(&request)).into_owned()
            };
            let _gone = reader.io.write_all(told.as_bytes()).await;
        }
    })
    .await;
    let front = Front::of(env!("CARGO_BIN_EXE_front"), &[instance.address]).await;
    let mut client = Client::connect(front.address).await;
    for round in 0..3 {
        for target in ["/true", "/lies"] {
            client.send(format!("HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            let head = client.answer(true).await.expect("an answer").expect("an answer");
            assert_eq!(head.status(), 200, "{round} {target}");
            let length = if target == "/true" { "4000000000" } else { "4" };
            assert_eq!(head.field("content-length").as_deref(), Some(length));
            client.send(format!("GET /get-{round} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            let get = client.answer(false).await.expect("an answer").expect("an answer");
            assert_eq!(get.field("x-for"), Some(format!("/get-{round}")), "{get:?}");
        }
    }
}

/// What comes on a quiet connection was asked by nobody and is told to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_nobody_asked_for_is_told_to_nobody() {
    let instance = Instance::raw(|mut reader, seen, _| async move {
        while let Some(request) = next(&mut reader, &seen).await {
            let _gone = reader.io.write_all(&ok(&request)).await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            let late = b"HTTP/1.1 200 OK\r\nx-for: /evil\r\ncontent-length: 4\r\n\r\nevil";
            let _gone = reader.io.write_all(late).await;
        }
    })
    .await;
    let front = Front::of(env!("CARGO_BIN_EXE_front"), &[instance.address]).await;
    for n in 0..20 {
        let mut client = Client::connect(front.address).await;
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let answer = client.answer(false).await.expect("an answer").expect("an answer");
        assert_eq!(answer.field("x-for"), Some(format!("/{n}")), "{answer:?}");
        // The unasked answer arrives in between: that is the point of this pause.
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    }
}
