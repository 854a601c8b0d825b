//! Requests' heads: what is refused, what is passed on, and how.

use super::*;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

fn origin() -> Origin<'static> {
    Origin { peer: b"10.0.0.9", fresh_id: *b"0123456789abcdef", target_bytes_max: 64 }
}

fn read_all(text: &[u8]) -> Result<Option<(Request, usize)>, Refused> {
    read(text, &origin(), Vec::new()).map_err(|(refused, _)| refused)
}

fn passed(text: &str) -> (Request, Vec<String>) {
    let (request, length) = read_all(text.as_bytes()).unwrap().unwrap();
    assert_eq!(length, text.find("\r\n\r\n").unwrap() + 4);
    let head = String::from_utf8(request.head.clone()).unwrap();
    let lines = head.trim_end().split("\r\n").map(str::to_owned).collect();
    (request, lines)
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let host = "Host: x\r\n";
    for (text, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: user@b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: b\0c\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ] {
        let refused = read_all(text.as_bytes()).map(|r| r.map(|(r, _)| r.head)).unwrap_err();
        assert_eq!(refused.status, status, "{text:?}: {refused:?}");
    }
    for (lines, status) in [
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", 400),
        ("Content-Length: 1, 1\r\n", 400),
        ("Content-Length: +1\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: 99999999999999999999\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked, chunked\r\n", 501),
        ("Transfer-Encoding: identity\r\n", 501),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: \x0bchunked\r\n", 400),
        ("Expect: money\r\n", 417),
    ] {
        let text = format!("POST / HTTP/1.1\r\n{host}{lines}\r\n");
        let refused = read_all(text.as_bytes()).map(|r| r.map(|(r, _)| r.head)).unwrap_err();
        assert_eq!(refused.status, status, "{lines:?}: {refused:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n{host}\r\n", "x".repeat(70));
    assert_eq!(read_all(long.as_bytes()).map(|r| r.is_some()).unwrap_err().status, 414);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1));
    assert_eq!(read_all(many.as_bytes()).map(|r| r.is_some()).unwrap_err().status, 431);
}

#[test]
fn a_head_is_written_anew() {
    let (request, lines) = passed(
        "GET /a?b=c HTTP/1.1\r\nHost: Shop:80\r\nA: 1\r\nConnection: close, B\r\nB: 2\r\nC: 3\r\n\
         X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8\r\nX-Forwarded-Host: evil\r\n\
         Trailer: X\r\nTE: trailers\r\nKeep-Alive: 3\r\nX-Request-Id: mine\r\nD: 4\r\n\r\n",
    );
    assert_eq!(
        lines,
        [
            "GET /a?b=c HTTP/1.1",
            "host: Shop:80",
            "A: 1",
            "C: 3",
            "x-request-id: mine",
            "D: 4",
            "x-forwarded-for: 9.9.9.9, 8.8.8.8, 10.0.0.9",
            "x-forwarded-proto: http",
            "x-forwarded-host: Shop:80",
            "connection: te",
            "te: trailers",
        ]
    );
    assert!(request.trailers);
    assert_eq!(
        (request.host(), request.path(), request.id()),
        (&b"Shop:80"[..], &b"/a"[..], &b"mine"[..])
    );
    assert_eq!(request.target(), b"/a?b=c");
    assert_eq!(request.header(b"c"), Some(&b"3"[..]));
    assert_eq!(
        (request.keep, request.method, request.framing),
        (false, Method::Idempotent, Framing::None)
    );
}

#[test]
fn bodies_upgrades_and_versions_are_told() {
    let (request, lines) =
        passed("POST http://x/y HTTP/1.1\r\nHost: X\r\nContent-Length: 007\r\n\r\n");
    assert_eq!((request.framing, request.method), (Framing::Length(7), Method::Other));
    assert_eq!(lines.first().map(String::as_str), Some("POST /y HTTP/1.1"));
    assert!(lines.contains(&"content-length: 7".to_owned()));
    assert!(lines.contains(&"x-request-id: 0123456789abcdef".to_owned()));
    let (request, lines) =
        passed("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(
        request.upgrade
            && lines.ends_with(&["connection: upgrade".into(), "upgrade: websocket".into()])
    );
    let (request, lines) = passed(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAA\r\n\r\n",
    );
    assert!(!request.upgrade && !lines.iter().any(|l| l.contains("upgrade")), "{lines:?}");
    let (request, _) = passed("GET / HTTP/1.0\r\n\r\n");
    assert!(request.old && !request.keep && request.host().is_empty());
    let (request, _) = passed("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    assert!(request.keep);
    let (request, _) =
        passed("PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n");
    assert!(request.expects);
    let (request, _) = passed("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n");
    assert_eq!(request.host(), b"[::1]:80");
    let (request, _) = passed("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(request.path(), b"*");
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _outcome = read_all(&bytes).map(|r| r.is_some());
    }

    #[test]
    fn a_part_is_never_taken_for_the_whole(cut in 0usize..60, name in "[A-Za-z-]{1,9}", value in "[ -~]{0,20}") {
        let text = format!("GET /p HTTP/1.1\r\nHost: h\r\nQ{name}: {value}\r\n\r\n");
        let cut = cut.min(text.len() - 1);
        prop_assert!(matches!(read_all(&text.as_bytes()[..cut]), Ok(None)));
    }

    #[test]
    fn what_goes_to_the_instance_is_read_the_same(
        name in "[A-Za-z][A-Za-z-]{0,12}", value in "[!-~]{0,20}", length in 0u64..1000,
    ) {
        let text = format!("PUT /p HTTP/1.1\r\nHost: h\r\n{name}: {value}\r\nContent-Length: {length}\r\n\r\n");
        if let Ok(Some((once, _))) = read_all(text.as_bytes()) {
            let (twice, used) = read_all(&once.head).unwrap().unwrap();
            prop_assert_eq!(used, once.head.len());
            prop_assert_eq!(twice.framing, once.framing);
            prop_assert_eq!(twice.host(), once.host());
        }
    }
}
