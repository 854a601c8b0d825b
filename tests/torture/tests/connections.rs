//! What happens along a connection: pipelining, expectation, upgrades, unread bodies, stale ones.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use torture::client::Client;
use torture::front::Front;
use torture::instance::{Instance, Reply, next, ok};
use torture::strict::{Kind, Message};

async fn front(instance: &Instance) -> Front {
    Front::of(env!("CARGO_BIN_EXE_front"), &[instance.address]).await
}

async fn answer(client: &mut Client) -> Message {
    client.answer(false).await.expect("an answer that can be read").expect("an answer")
}

fn request_that_hides(n: usize) -> String {
    format!("GET /marker-{n} HTTP/1.1\r\nHost: x\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let instance = Instance::raw(|mut reader, seen, _| async move {
        while let Some(request) = next(&mut reader, &seen).await {
            // The earlier, the slower: an order by speed would be the wrong one.
            let n: u64 = request.target()[1..].parse().unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(20_u64.saturating_sub(n))).await;
            let _gone = reader.io.write_all(&ok(&request)).await;
        }
    })
    .await;
    let front = front(&instance).await;
    let mut client = Client::connect(front.address).await;
    let mut sent = String::new();
    for n in 0..60 {
        sent += &match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /"),
            _ => format!(
                "PUT /{n} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3\r\nGET\r\n2\r\n /\r\n0\r\n\r\n"
            ),
        };
    }
    client.send(sent).await;
    for n in 0..60 {
        let answer = answer(&mut client).await;
        let length = if n % 3 == 0 { 0 } else { 5 };
        assert_eq!(answer.text(), format!("/{n} {length}"));
    }
    assert_eq!(instance.seen.requests().len(), 60);
}

/// The same bytes cut anywhere are the same requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_may_come_one_by_one() {
    let instance = Instance::echoing().await;
    let front = front(&instance).await;
    let mut client = Client::connect(front.address).await;
    let sent = "POST /one HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                3\r\nabc\r\n0\r\nT: 1\r\n\r\nGET /two HTTP/1.1\r\nHost: x\r\n\r\n";
    for byte in sent.bytes() {
        client.send([byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(answer(&mut client).await.text(), "/one 3");
    assert_eq!(answer(&mut client).await.text(), "/two 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expected_body_is_asked_for_once() {
    let instance = Instance::echoing().await;
    let front = front(&instance).await;
    let mut client = Client::connect(front.address).await;
    let head = "Host: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    client.send(format!("POST /waits HTTP/1.1\r\n{head}")).await;
    let asked = client.any_answer(false).await.expect("readable").expect("a word");
    assert_eq!(asked.status(), 100, "{asked:?}");
    client.send("abc").await;
    assert_eq!(answer(&mut client).await.text(), "/waits 3");
    // One that does not wait may or may not be asked, and is served.
    client.send(format!("POST /hurries HTTP/1.1\r\n{head}abc")).await;
    assert_eq!(answer(&mut client).await.text(), "/hurries 3");
    // Nothing to wait for: no word before the answer.
    let none = "Host: x\r\nExpect: 100-continue\r\n\r\n";
    client.send(format!("GET /none HTTP/1.1\r\n{none}")).await;
    let only = client.any_answer(false).await.expect("readable").expect("a word");
    assert_eq!((only.status(), only.text().as_str()), (200, "/none 0"));
    // An old client knows no interim answers.
    let mut old = Client::connect(front.address).await;
    old.send(format!("POST /old HTTP/1.0\r\n{head}abc")).await;
    let only = old.any_answer(false).await.expect("readable").expect("a word");
    assert_eq!((only.status(), only.text().as_str()), (200, "/old 3"));
    assert!(instance.seen.requests().iter().all(|r| r.complete));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_of_one_hop_stay_on_it() {
    let instance = Instance::replying(|request| {
        let body = format!("{request:?}");
        let head = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Inner, X-Other\r\nKeep-Alive: 9\r\n\
                    X-Inner: 1\r\nX-Other: 2\r\nX-Kept: 3\r\nProxy-Connection: close\r\nTrailer: T\r\n\
                    Proxy-Authenticate: Basic\r\n";
        Reply::Keep(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
    })
    .await;
    let front = front(&instance).await;
    let mut client = Client::connect(front.address).await;
    client
        .send(
            "GET /hop HTTP/1.1\r\nHost: x\r\nConnection: X-Mine, keep-alive\r\nConnection: x-AlsO\r\n\
             X-Mine: 1\r\nX-Also: 2\r\nX-Stays: 3\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\n\
             TE: trailers\r\nTrailer: T\r\nUpgrade: h2c\r\nHTTP2-Settings: a\r\n\r\n",
        )
        .await;
    let answer = answer(&mut client).await;
    let seen = &instance.seen.requests()[0];
    for gone in ["x-mine", "x-also", "keep-alive", "proxy-connection", "trailer", "upgrade"] {
        assert_eq!(seen.count(gone), 0, "{gone}: {seen:?}");
    }
    for gone in ["x-inner", "x-other", "keep-alive", "proxy-connection"] {
        assert_eq!(answer.count(gone), 0, "{gone}: {answer:?}");
    }
    assert_eq!(seen.field("x-stays").as_deref(), Some("3"));
    assert_eq!(answer.field("x-kept").as_deref(), Some("3"));
    assert_eq!(seen.count("host"), 1);
}

/// Switches when asked for `/switch`, and answers plainly otherwise.
async fn switching() -> Instance {
    Instance::raw(|mut reader, seen, _| async move {
        while let Some(request) = next(&mut reader, &seen).await {
            if !request.target().starts_with("/switch") {
                let _gone = reader.io.write_all(&ok(&request)).await;
                continue;
            }
            let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                        Upgrade: echo\r\n\r\nwelcome ";
            let _gone = reader.io.write_all(head.as_bytes()).await;
            loop {
                let ahead = std::mem::take(&mut reader.ahead);
                if reader.io.write_all(&ahead).await.is_err() || !reader.fill().await {
                    return;
                }
            }
        }
    })
    .await
}

const ASKS: &str = "Host: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_opens_only_after_101() {
    let instance = switching().await;
    let front = front(&instance).await;
    // What comes right behind the request belongs to the tunnel once there is one.
    let mut client = Client::connect(front.address).await;
    client.send(format!("GET /switch HTTP/1.1\r\n{ASKS}first ")).await;
    let switched = client.any_answer(false).await.expect("readable").expect("an answer");
    assert_eq!(switched.status(), 101, "{switched:?}");
    assert_eq!(switched.field("upgrade").as_deref(), Some("echo"));
    client.send(request_that_hides(1)).await;
    let expected = format!("welcome first {}", request_that_hides(1));
    while client.reader.ahead.len() < expected.len() {
        assert!(client.reader.fill().await, "{:?}", client.reader.ahead);
    }
    assert_eq!(String::from_utf8_lossy(&client.reader.ahead), expected);
    // An end of one side is an end of the other.
    drop(client);
    front.is_quiet().await;
    assert_eq!(instance.seen.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_101_the_connection_stays_http() {
    let instance = switching().await;
    let front = front(&instance).await;
    let mut client = Client::connect(front.address).await;
    // Answered 200: what follows is another request, read as strictly as any.
    client.send(format!("GET /plain HTTP/1.1\r\n{ASKS}{}", request_that_hides(1))).await;
    assert_eq!(answer(&mut client).await.text(), "/plain 0");
    let after = client.answer(false).await.expect("readable");
    if let Some(after) = after {
        assert_eq!(after.text(), "/marker-1 0");
    }
    // And nonsense after it is refused by the front, not passed on.
    let mut client = Client::connect(front.address).await;
    client.send(format!("GET /plain2 HTTP/1.1\r\n{ASKS}\x01\x02nonsense\r\n\r\n")).await;
    assert_eq!(answer(&mut client).await.text(), "/plain2 0");
    let after = client.answer(false).await.expect("readable");
    assert!(after.is_none_or(|a| a.status() == 400));
    assert!(instance.seen.nonsense().is_empty(), "{:?}", instance.seen.nonsense());
    // The instance switches although nobody asked: not with a word of `Connection`, not at all.
    for asks in ["Host: x\r\nUpgrade: echo\r\n\r\n", "Host: x\r\nConnection: upgrade\r\n\r\n"] {
        let mut client = Client::connect(front.address).await;
        client.send(format!("GET /switch HTTP/1.1\r\n{asks}")).await;
        assert_eq!(answer(&mut client).await.status(), 502);
    }
    front.is_quiet().await;
}

/// An instance that answers at the head and never reads the body: the body must not become
/// requests, on neither side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unread_body_never_becomes_a_request() {
    for keeps in [true, false] {
        let instance = Instance::raw(move |mut reader, seen, _| async move {
            loop {
                let Ok(Some(mut request)) = reader.head(Kind::Request).await else { return };
                if request.target().starts_with("/early") {
                    let told = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
                    let _gone = reader.io.write_all(told).await;
                    if !keeps {
                        return;
                    }
                }
                if reader.body(&mut request, Kind::Request).await.is_err() {
                    seen.complain(format!("{request:?}"));
                    return;
                }
                seen.keep(request.clone());
                if !request.complete {
                    return;
                }
                if !request.target().starts_with("/early") {
                    let _gone = reader.io.write_all(&ok(&request)).await;
                }
            }
        })
        .await;
        let front = front(&instance).await;
        let body = request_that_hides(7).repeat(60_000);
        for framing in ["length", "chunked"] {
            let mut client = Client::connect(front.address).await;
            let head = match framing {
                "length" => format!("Content-Length: {}\r\n\r\n", body.len()),
                _ => format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()),
            };
            client.send(format!("POST /early-{framing} HTTP/1.1\r\nHost: x\r\n{head}")).await;
            client.send(&body[..body.len() / 2]).await;
            let early = client.answer(false).await.expect("readable");
            if let Some(early) = early {
                assert_eq!(early.status(), 403, "{early:?}");
            }
            // The rest, and then another request, as if the connection went on.
            client.send(&body[body.len() / 2..]).await;
            let end = if framing == "length" { "" } else { "\r\n0\r\n\r\n" };
            client.send(format!("{end}GET /next-{framing} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            if let Ok(Some(next)) = client.answer(false).await {
                assert_eq!(next.field("x-for"), Some(format!("/next-{framing}")), "{next:?}");
            }
        }
        front.is_quiet().await;
        let markers = instance.seen.with_target("marker");
        assert!(markers.is_empty(), "{keeps}: {markers:?}");
        assert!(instance.seen.nonsense().is_empty(), "{:?}", instance.seen.nonsense());
        let answer = torture::client::Client::connect(front.address);
        let mut client = answer.await;
        client.send("GET /sound HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(self::answer(&mut client).await.text(), "/sound 0");
    }
}

/// Instances that close what they kept, at every moment at which they may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_connections_cost_no_get_and_double_no_post() {
    for reads_first in [false, true] {
        let instance = Instance::raw(move |mut reader, seen, _| async move {
            if let Some(request) = next(&mut reader, &seen).await {
                let _gone = reader.io.write_all(&ok(&request)).await;
            }
            if reads_first {
                // Takes the second request and closes without a word.
                next(&mut reader, &seen).await;
            } else {
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
        })
        .await;
        let front = front(&instance).await;
        let mut client = Client::connect(front.address).await;
        for n in 0..200 {
            client.send(format!("GET /get-{n} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            let got = answer(&mut client).await;
            assert_eq!(got.text(), format!("/get-{n} 0"), "{got:?}");
            let post =
                format!("POST /post-{n}- HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
            client.send(post).await;
            let Ok(Some(told)) = client.answer(false).await else {
                client = Client::connect(front.address).await;
                continue;
            };
            assert!(matches!(told.status(), 200 | 502), "{told:?}");
            if told.field("connection").as_deref() == Some("close") {
                client = Client::connect(front.address).await;
            }
        }
        let mut posts: BTreeMap<String, usize> = BTreeMap::new();
        for post in instance.seen.with_target("/post-") {
            *posts.entry(post.start).or_default() += 1;
        }
        posts.retain(|_, times| *times > 1);
        assert!(posts.is_empty(), "carried out more than once: {posts:?}");
        torture::note(&format!("{} connections", instance.seen.connections.load(Relaxed)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_go_away_leave_nothing() {
    let instance = Instance::echoing().await;
    let front = front(&instance).await;
    let parts = [
        "",
        "GET /a",
        "GET /a HTTP/1.1\r\nHost: x\r\n",
        "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
        "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        "GET /whole HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    for n in 0..140 {
        let mut client = Client::connect(front.address).await;
        client.send(parts[n % parts.len()]).await;
        if n % 2 == 0 {
            torture::instance::reset(&client.reader.io);
        }
    }
    front.is_quiet().await;
    let broken: Vec<_> =
        instance.seen.with_target("/a ").into_iter().filter(|r| r.complete).collect();
    assert!(broken.is_empty(), "half a request became a whole one: {broken:?}");
    assert!(instance.seen.nonsense().is_empty(), "{:?}", instance.seen.nonsense());
}
