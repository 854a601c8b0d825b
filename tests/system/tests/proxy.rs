//! `tally proxy` with real processes: requests, reports, bytes, a graceful end, and what is refused.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use system_tests::process::{self, Process};
use system_tests::redis::RedisServer;
use system_tests::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// A web server that counts its requests and answers when it may.
struct Backend {
    address: SocketAddr,
    hits: Arc<AtomicUsize>,
    leave: Arc<Semaphore>,
}

impl Backend {
    async fn start(name: &'static str) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let (hits, leave) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(1 << 20)));
        let (counted, waiting) = (Arc::clone(&hits), Arc::clone(&leave));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counted, waiting) = (Arc::clone(&counted), Arc::clone(&waiting));
                tokio::spawn(answer(stream, name, counted, waiting));
            }
        });
        Backend { address, hits, leave }
    }

    fn hits(&self) -> usize {
        self.hits.load(Relaxed)
    }
}

/// Answers a connection's requests one after the other; `None`: it is over.
async fn answer(
    mut stream: TcpStream,
    name: &'static str,
    counted: Arc<AtomicUsize>,
    leave: Arc<Semaphore>,
) -> Option<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    loop {
        head.clear();
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).await.ok()?;
            head.push(byte[0]);
        }
        counted.fetch_add(1, Relaxed);
        leave.acquire().await.ok()?.forget();
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        stream.write_all(text.as_bytes()).await.ok()?;
    }
}

/// A running proxy and what it printed.
struct Proxy {
    process: Process,
    folder: tempfile::TempDir,
}

impl Proxy {
    async fn start(args: &[&str]) -> Proxy {
        let folder = tempfile::tempdir().expect("a folder");
        let mut all = vec!["proxy".to_owned()];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        let process = Process::start("proxy", folder.path(), &all);
        let proxy = Proxy { process, folder };
        until("the proxy", || std::future::ready(proxy.line("stop  ").ok_or(proxy.text()))).await;
        proxy
    }

    fn text(&self) -> String {
        let log: &Path = &self.folder.path().join("proxy.log");
        std::fs::read_to_string(log).unwrap_or_default()
    }

    /// The first line printed that holds `part`.
    fn line(&self, part: &str) -> Option<String> {
        self.text().lines().find(|line| line.contains(part)).map(str::to_owned)
    }

    /// The first address printed after `before`.
    fn address(&self, before: &str) -> SocketAddr {
        let line = self.line(before).expect("the line");
        let rest = line.split(before).nth(1).expect("the rest");
        let end = rest.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ':')));
        rest[..end.unwrap_or(rest.len())].parse().expect("an address")
    }

    fn instance(&self, at: SocketAddr) -> String {
        let line = self.line(&format!("  {at}")).expect("its line");
        line.split_whitespace().nth(1).expect("its id").to_owned()
    }
}

/// Sends one request and reads to the end.
async fn ask(at: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(at).await.expect("a connection");
    let length = body.len();
    let text = format!(
        "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_addresses_are_balanced_by_their_loads_and_the_end_is_graceful() {
    let (first, second) = (Backend::start("first").await, Backend::start("second").await);
    let (a, b) = (first.address.to_string(), second.address.to_string());
    let proxy = Proxy::start(&[
        "--from",
        "127.0.0.1:0",
        "--to",
        &a,
        "--to",
        &b,
        "--load-listen",
        "127.0.0.1:0",
        "--agent-listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--policy",
        "lowest-score",
    ])
    .await;
    let from = proxy.address("http://");
    let reports = proxy.address("-X POST http://");
    let (busy, idle) = (proxy.instance(first.address), proxy.instance(second.address));
    for (instance, load) in [(&busy, 0.9), (&idle, 0.1)] {
        let body =
            format!("{{\"service\": \"proxy\", \"instance\": \"{instance}\", \"load\": {load}}}");
        let answer = ask(reports, "POST /v1/load", &body).await;
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    }
    until("the reports count", async || {
        let before = (first.hits(), second.hits());
        for _ in 0..10 {
            let answer = ask(from, "GET /", "").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        let got = (first.hits() - before.0, second.hits() - before.1);
        if got == (0, 10) { Ok(()) } else { Err(got) }
    })
    .await;
    let total = ask(reports, "GET /v1/load?service=proxy", "").await;
    assert!(total.contains("\"load\":0.5,") && total.contains("\"reporting\":2"), "{total}");
    let metrics = ask(proxy.address("metrics    curl http://"), "GET /metrics", "").await;
    assert!(metrics.contains("tally_balancer_requests_total{service=\"proxy\""), "{metrics}");

    // A request in hand is finished; then the end is a good one.
    second.leave.forget_permits(1 << 20);
    let hits = second.hits();
    let asking = tokio::spawn(async move { ask(from, "GET /", "").await });
    until(
        "the request is at its instance",
        async || {
            if second.hits() > hits { Ok(()) } else { Err(()) }
        },
    )
    .await;
    let ending = tokio::spawn(proxy.process.term());
    second.leave.add_permits(1);
    assert!(asking.await.expect("asked").ends_with("second"));
    assert_eq!(ending.await.expect("ended").code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_passed_on_in_mode_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let echo = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    let free = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let from = free.local_addr().expect("an address");
    drop(free);
    let proxy = Proxy::start(&["--from", &from.to_string(), "--to", &echo, "--mode", "tcp"]).await;
    let mut stream = TcpStream::connect(from).await.expect("a connection");
    stream.write_all(b"as they are\0\n").await.expect("sent");
    let mut back = [0; 13];
    stream.read_exact(&mut back).await.expect("back");
    assert_eq!(&back, b"as they are\0\n");
    drop(stream);
    assert_eq!(proxy.process.interrupt().await.code(), Some(0));
}

/// All it needs to serve is on its command line: a Redis that is away at the start is no reason to
/// refuse, and is used once it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_served_while_redis_is_away() {
    let Some(mut redis) = RedisServer::start() else {
        system_tests::skipped("addresses_are_served_while_redis_is_away", "no redis-server");
        return;
    };
    redis.kill();
    let backend = Backend::start("here").await;
    let (to, url) = (backend.address.to_string(), redis.url());
    let proxy = Proxy::start(&["--from", "0", "--to", &to, "--redis", &url]).await;
    assert!(proxy.line("the scoreboard does not answer").is_some(), "{}", proxy.text());
    let from = proxy.address("http://");
    assert!(ask(from, "GET /", "").await.ends_with("here"));
    redis.start_again();
    let at = url.trim_start_matches("redis://").trim_end_matches('/').to_owned();
    until("the service on the board", || async {
        let mut redis = TcpStream::connect(&at).await.map_err(|e| e.to_string())?;
        redis.write_all(b"KEYS tally:*\r\nQUIT\r\n").await.map_err(|e| e.to_string())?;
        let mut keys = String::new();
        redis.read_to_string(&mut keys).await.map_err(|e| e.to_string())?;
        if keys.contains("proxy") { Ok(()) } else { Err(keys) }
    })
    .await;
    assert!(ask(from, "GET /", "").await.ends_with("here"));
    assert_eq!(proxy.process.interrupt().await.code(), Some(0));
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    for (args, code, told) in [
        (&["proxy"][..], 2, "--from"),
        (&["proxy", "--from", "0", "--to", "app"], 2, "write HOST:PORT, such as 10.0.0.7:8080"),
        (&["proxy", "--from", "0", "--to", "https://app:443"], 2, "without TLS"),
        (&["proxy", "--from", "x", "--to", "a:1"], 2, "HOST:PORT, :PORT or PORT"),
        (
            &["proxy", "--from", "0", "--to", "a:1", "--policy", "best"],
            2,
            "must be one of feedback",
        ),
        (&["proxy", "--from", "0", "--to", "a:1", "--mode", "udp"], 2, "http, tcp or nat"),
        (&["proxy", "--from", "0", "--to", "127.0.0.1:1", "--mode", "tcp"], 2, "needs a port"),
        (&["proxy", "--from", "0", "--to", "a:1", "--health", "up"], 2, "begins with /"),
        (&["proxy", "--from", "0", "--to", "no-such-name.invalid:1"], 1, "check the name"),
    ] {
        let output = process::run(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(told), "{args:?}: {text}");
    }
}
