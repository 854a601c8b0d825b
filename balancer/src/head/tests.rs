//! Tables of heads in both directions.

use super::*;
use crate::conn::Tick;
use std::sync::Arc;

fn written(request: http::Request<()>, framing: Framing) -> String {
    let conn = Conn::new("10.0.0.7:1".parse().unwrap(), Arc::new(Tick::default()));
    let mut out = Vec::new();
    write_request(&mut out, &request.into_parts().0, framing, &conn);
    String::from_utf8(out).unwrap()
}

fn answer(text: &str) -> Result<Option<Answer>, Nonsense> {
    read_answer(&mut BytesMut::from(text), &Method::GET)
}

#[test]
fn requests_lose_what_concerns_the_clients_connection_alone() {
    let request = http::Request::get("/a?b=c")
        .header("host", "shop.example.com")
        .header("connection", "keep-alive, X-Secret, host")
        .header("x-secret", "1")
        .header("keep-alive", "5")
        .header("te", "trailers")
        .header("proxy-connection", "close")
        .header("transfer-encoding", "chunked")
        .header("upgrade", "h2c")
        .header("expect", "100-continue")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x-forwarded-for", "5.6.7.8")
        .header("x-forwarded-proto", "https")
        .header("accept", "*/*")
        .body(())
        .unwrap();
    assert_eq!(
        written(request, Framing::Chunked),
        "GET /a?b=c HTTP/1.1\r\nhost: shop.example.com\r\n\
         x-forwarded-for: 1.2.3.4, 5.6.7.8, 10.0.0.7\r\naccept: */*\r\n\
         x-forwarded-proto: http\r\nx-forwarded-host: shop.example.com\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
}

#[test]
fn an_absolute_target_gives_the_host() {
    let request = http::Request::post("http://real.example/x").header("host", "forged").body(());
    assert_eq!(
        written(request.unwrap(), Framing::Length(12)),
        "POST /x HTTP/1.1\r\nhost: real.example\r\nx-forwarded-for: 10.0.0.7\r\n\
         x-forwarded-proto: http\r\nx-forwarded-host: real.example\r\ncontent-length: 12\r\n\r\n"
    );
}

#[test]
fn an_upgrade_is_passed_on() {
    let request = http::Request::get("/ws")
        .header("host", "h")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .body(())
        .unwrap();
    let text = written(request, Framing::None);
    assert!(text.ends_with("connection: upgrade\r\nupgrade: websocket\r\n\r\n"), "{text}");
}

#[test]
fn answers_end_in_exactly_one_way() {
    for (text, framing, keep) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Framing::Length(5), true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked, true),
        ("HTTP/1.1 200 OK\r\n\r\n", Framing::Close, false),
        ("HTTP/1.1 204 No\r\n\r\n", Framing::None, true),
        ("HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", Framing::None, true),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            Framing::Length(0),
            false,
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", Framing::Length(1), false),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n",
            Framing::Length(1),
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing::Chunked,
            false,
        ),
    ] {
        let answer = answer(text).unwrap().unwrap();
        assert_eq!((answer.framing, answer.keep), (framing, keep), "{text}");
        assert!(
            answer.framing != Framing::Chunked || !answer.headers.contains_key("content-length")
        );
    }
}

#[test]
fn answers_that_can_be_read_in_two_ways_are_refused() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
    ] {
        assert!(answer(text).is_err(), "{text}");
    }
}

#[test]
fn answers_lose_what_concerns_the_instances_connection_alone() {
    let text = "HTTP/1.1 200 OK\r\nConnection: X-Inner, close\r\nX-Inner: 1\r\nKeep-Alive: 1\r\n\
                Set-Cookie: a\r\nSet-Cookie: b\r\nX-Empty:\r\n\
                Endpoint-Load-Metrics: TEXT cpu_utilization=0.3\r\nContent-Length: 0\r\n\r\n";
    let answer = answer(text).unwrap().unwrap();
    let mut names: Vec<_> = answer.headers.iter().map(|(n, _)| n.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "set-cookie", "set-cookie", "x-empty"]);
    assert_eq!(answer.load.unwrap(), "TEXT cpu_utilization=0.3");
}

#[test]
fn a_head_in_pieces_waits_for_the_rest() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let head = text.len() - 5;
    for end in 0..head {
        let mut buffer = BytesMut::from(&text[..end]);
        assert!(read_answer(&mut buffer, &Method::GET).unwrap().is_none());
        assert_eq!(buffer.len(), end, "nothing is taken before it is whole");
    }
    let mut buffer = BytesMut::from(text);
    assert!(read_answer(&mut buffer, &Method::GET).unwrap().is_some());
    assert_eq!(&buffer[..], b"hello");
    let mut endless = BytesMut::from("HTTP/1.1 200 OK\r\nX: ");
    endless.resize(ANSWER_HEAD_BYTES_MAX, b'x');
    assert!(read_answer(&mut endless, &Method::GET).is_err());
}

#[test]
fn numbers_are_written_in_full() {
    for n in [0, 7, 10, 12345, u64::MAX] {
        assert_eq!(decimal(n, &mut [0; 20]), n.to_string().as_bytes());
    }
}
