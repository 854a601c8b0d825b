//! Requests and answers on their way through: routes, headers, bodies, tunnels.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use balancer::Limits;
use domain::Bytes;
use scoreboard::Board;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use support::{Backend, Running, Setup, front, ok, read_request, read_until, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::quantity::{Q, Span};

#[tokio::test]
async fn requests_go_by_host_and_path() {
    let running = Running::start().await;
    let (shop, cart) = (Backend::named("shop").await, Backend::named("cart").await);
    let mut of_shop = front("shop");
    of_shop.hosts = vec!["shop.example.com".to_owned()];
    let mut of_cart = front("cart");
    of_cart.hosts = of_shop.hosts.clone();
    of_cart.paths = vec!["/cart".to_owned()];
    running.publish(&of_shop, &[shop.address]).await;
    running.publish(&of_cart, &[cart.address]).await;
    for (host, path, expected) in [
        ("shop.example.com", "/", "shop"),
        ("SHOP.example.com:80", "/cart/1?x=/", "cart"),
        ("shop.example.com", "/cartoon", "shop"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = running.send(&request).await;
        assert_eq!((answer.status(), answer.body()), (200, expected), "{host}{path}");
    }
    let stranger = running.get("/").await;
    assert_eq!(stranger.status(), 404);
    assert!(stranger.has("content-type: application/problem+json"), "{stranger:?}");
    assert!(stranger.body().contains("/problems/not-found"), "{stranger:?}");
}

#[tokio::test]
async fn headers_of_one_connection_stay_on_it() {
    let running = Running::start().await;
    let echo = Backend::answering(|request| {
        let body = request.replace("\r\n", "|");
        format!(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Inner\r\nKeep-Alive: 7\r\nX-Inner: 1\r\n\
             Set-Cookie: a=1\r\nEndpoint-Load-Metrics: TEXT application_utilization=0.42\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    })
    .await;
    running.publish(&front("echo"), &[echo.address]).await;
    let answer = running
        .send(
            "GET /a?b HTTP/1.1\r\nHost: shop\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\n\
             X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nTE: gzip\r\nX-Kept: yes\r\n\r\n",
        )
        .await;
    let seen: Vec<&str> = answer.body().split('|').filter(|l| !l.is_empty()).collect();
    let expected = [
        "GET /a?b HTTP/1.1",
        "host: shop",
        "X-Kept: yes",
        "x-forwarded-for: 9.9.9.9, 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop",
    ];
    assert_eq!(seen[..expected.len()], expected);
    let id = seen[expected.len()].strip_prefix("x-request-id: ").unwrap();
    assert!(id.len() == 16 && answer.has(&format!("x-request-id: {id}")), "{seen:?} {answer:?}");
    assert!(answer.has("set-cookie: a=1"));
    for gone in ["keep-alive", "x-inner", "endpoint-load-metrics"] {
        assert!(!answer.head().to_ascii_lowercase().contains(gone), "{gone}: {answer:?}");
    }
    let service = "echo".parse().unwrap();
    until("the load from the answer is on the board", || async {
        let view = running.board.service(&service).await.unwrap();
        view.loads.iter().any(|l| l.report.load.ten_thousandths() == 4200)
    })
    .await;
}

#[tokio::test]
async fn bodies_are_passed_on_in_every_framing() {
    let running = Running::start().await;
    let backend = Backend::answering(|request| match request.split(' ').nth(1).unwrap() {
        "/chunked" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                       5\r\nhello\r\n6\r\n world\r\n0\r\nx-trailer: 1\r\n\r\n"
            .to_owned(),
        "/empty" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "/same" => "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n".to_owned(),
        "/large" => ok(&"x".repeat(3_000_000)),
        "/early" => "HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n".to_owned() + &ok("late"),
        _ if request.starts_with("HEAD") => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".into(),
        _ => ok(request.split_once("\r\n\r\n").unwrap().1),
    })
    .await;
    running.publish(&front("any"), &[backend.address]).await;
    // One client connection for all: nothing may be left over between requests.
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    for round in 0..3 {
        for (request, end) in [
            ("GET /chunked HTTP/1.1\r\nhost: x\r\n\r\n", "0\r\n\r\n"),
            ("GET /empty HTTP/1.1\r\nhost: x\r\n\r\n", "\r\n\r\n"),
            ("GET /same HTTP/1.1\r\nhost: x\r\n\r\n", "\r\n\r\n"),
            ("HEAD / HTTP/1.1\r\nhost: x\r\n\r\n", "\r\n\r\n"),
            ("GET /early HTTP/1.1\r\nhost: x\r\n\r\n", "late"),
            ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody", "body"),
            (
                "PUT / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 0\r\n\r\n",
                "\r\n\r\n",
            ),
        ] {
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = read_until(&mut stream, end).await;
            let right = answer.ends_with(end) && !answer.contains("x-trailer");
            assert!(right, "{round} {request:?}: {answer:?}");
        }
    }
    let large = running.get("/large").await;
    assert_eq!((large.status(), large.body().len()), (200, 3_000_000));
    let old = running.send("GET /chunked HTTP/1.0\r\n\r\n").await;
    assert!(old.0.starts_with("HTTP/1.1 200") && old.body() == "hello world", "{old:?}");
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let running = Running::start().await;
    // Answers at once and then returns each chunk as it comes.
    let echo = Backend::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        let _ended = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    running.publish(&front("echo"), &[echo.address]).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    for word in ["one", "two", "three"] {
        let chunk = format!("{:x}\r\n{word}\r\n", word.len());
        stream.write_all(chunk.as_bytes()).await.unwrap();
        read_until(&mut stream, word).await;
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    read_until(&mut stream, "0\r\n\r\n").await;
}

#[tokio::test]
async fn a_slow_reader_holds_the_instance_back() {
    let running = Running::start().await;
    const BODY: usize = 64 << 20;
    let backend = Backend::raw(|mut stream, written| async move {
        read_request(&mut stream).await.unwrap();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let piece = [0u8; 65536];
        while written.load(Relaxed) < BODY && stream.write_all(&piece).await.is_ok() {
            written.fetch_add(piece.len(), Relaxed);
        }
    })
    .await;
    running.publish(&front("slow"), &[backend.address]).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    // It stands still once all buffers between are full, far from the end.
    let mut last = usize::MAX;
    until("the instance stands still", || {
        let now = backend.hits();
        let still = std::mem::replace(&mut last, now) == now && now > 0;
        async move {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            still
        }
    })
    .await;
    assert!(backend.hits() < BODY / 2, "{} bytes are somewhere in between", backend.hits());
    let mut rest = vec![0; 1 << 20];
    while backend.hits() < BODY {
        assert!(stream.read(&mut rest).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel() {
    let running = Running::start().await;
    let backend = Backend::raw(|mut stream, _| async move {
        let request = read_request(&mut stream).await.unwrap();
        assert!(request.contains("connection: upgrade\r\nupgrade: websocket"), "{request}");
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\n\r\nhello";
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        let _ended = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    running.publish(&front("ws"), &[backend.address]).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("upgrade: websocket"), "{answer}");
    stream.write_all(b"ping").await.unwrap();
    read_until(&mut stream, "ping").await;
    until("the tunnel is seen", || async {
        let demand = running.demand("ws").await.unwrap();
        demand.open_connections == 1 && demand.in_flight.values().sum::<u32>() == 1
    })
    .await;
    drop(stream);
    until("its end is seen", || async {
        let demand = running.demand("ws").await.unwrap();
        demand.open_connections == 0 && demand.in_flight.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_ends_and_is_counted() {
    let limits = Limits { tunnel_idle: Q(Span(Duration::from_millis(300))), ..Limits::default() };
    let running = Running::with(Setup { limits, ..Setup::default() }).await;
    let backend = Backend::raw(|mut stream, _| async move {
        let _request = read_request(&mut stream).await.unwrap();
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let _until_its_end = stream.read(&mut [0]).await;
    })
    .await;
    running.publish(&front("ws"), &[backend.address]).await;
    let answer = running
        .send("GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .await;
    assert_eq!(answer.status(), 101, "{answer:?}");
    let slow = running.metric("tally_balancer_connections_ended_total{reason=\"slow\"}").await;
    assert_eq!(slow, Some(1.0));
}

#[tokio::test]
async fn trailers_go_to_clients_that_take_them() {
    let running = Running::start().await;
    let backend = Backend::answering(|_| {
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nDigest: abc\r\n\
         content-length: 7\r\nendpoint-load-metrics: TEXT application_utilization=0.5\r\n\r\n"
            .to_owned()
    })
    .await;
    running.publish(&front("any"), &[backend.address]).await;
    let takes = "GET / HTTP/1.1\r\nhost: x\r\nte: gzip, trailers\r\nconnection: close, te\r\n\r\n";
    let answer = running.send(takes).await;
    assert_eq!(answer.body(), "2\r\nhi\r\n0\r\nDigest: abc\r\n\r\n", "{answer:?}");
    let answer = running.get("/").await;
    assert_eq!(answer.body(), "2\r\nhi\r\n0\r\n\r\n", "{answer:?}");
}

/// A port whose clients' data pile up at once: small segments, small window.
fn narrow() -> std::net::TcpListener {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_tcp_mss(536).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(16).unwrap();
    socket.into()
}

/// An instance that answers before it took the head: leave to send the body comes too late then.
#[tokio::test]
async fn leave_to_send_never_stands_within_an_answer() {
    let limits = Limits { head: Q(Bytes(1 << 20)), ..Limits::default() };
    let running = Running::with(Setup { limits, ..Setup::default() }).await;
    let listener = narrow();
    running.publish(&front("any"), &[listener.local_addr().unwrap()]).await;
    let mut client = TcpStream::connect(running.address).await.unwrap();
    let long = "z".repeat(1000 << 10);
    let head = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9000000\r\n\
         long: {long}\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let (mut instance, _) =
        tokio::task::spawn_blocking(move || listener.accept()).await.unwrap().unwrap();
    let instance = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
        instance.write_all(format!("{head}{}", "x".repeat(50)).as_bytes()).unwrap();
        // The client has the first half before the rest of the head is read.
        std::thread::sleep(Duration::from_millis(300));
        let mut taken = vec![0; 1 << 16];
        let mut all = 0;
        while all < 1000 << 10 {
            all += instance.read(&mut taken).unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
        instance.write_all("y".repeat(50).as_bytes()).unwrap();
        instance
    });
    let all = read_until(&mut client, &"y".repeat(50)).await;
    assert!(!all.contains("HTTP/1.1 100"), "{all}");
    drop(instance.await.unwrap());
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused() {
    let running = Running::start().await;
    let backend = Backend::named("never").await;
    running.publish(&front("any"), &[backend.address]).await;
    for (request, status) in [
        ("CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\nconnection: close\r\n\r\n", 405),
        ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", 400),
        ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\na", 400),
        ("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\na", 501),
        ("GET / HTTP/1.1\r\nhost: x\r\nbad header: 1\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n", 400),
    ] {
        let answer = running.send(request).await;
        assert_eq!(answer.status(), status, "{request:?}: {answer:?}");
    }
    let huge = format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(running.send(&huge).await.status(), 431);
    assert_eq!(backend.hits(), 0);
}

#[tokio::test]
async fn the_counters_are_there_to_be_read() {
    let running = Running::start().await;
    let backend = Backend::named("x").await;
    running.publish(&front("shop"), &[backend.address]).await;
    for _ in 0..3 {
        running.get("/").await;
    }
    let scrape = |path: &'static str| async move {
        let mut stream = TcpStream::connect(running.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    assert!(scrape("/livez").await.starts_with("HTTP/1.1 200"));
    assert!(scrape("/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = scrape("/metrics").await;
    for line in [
        "tally_balancer_requests_total{service=\"shop\",code=\"200\"} 3",
        "tally_balancer_request_duration_seconds_count{service=\"shop\"} 3",
        "tally_balancer_in_flight{service=\"shop\"} 0",
        "tally_balancer_held_requests{service=\"shop\"} 0",
        "tally_balancer_report_age_seconds_count{service=\"shop\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}
