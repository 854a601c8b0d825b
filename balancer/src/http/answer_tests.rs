//! Answers' heads: what is refused, what is passed on, and where a body ends.

use super::*;
use proptest::prelude::{any, prop, proptest};

const GET: Toward = Toward { method: Method::Idempotent, old: false, keep: true, upgrade: false };

fn passed(text: &str, toward: Toward) -> Result<(Answer, String), Nonsense> {
    let mut out = Vec::new();
    match read(text.as_bytes(), toward, &mut out)? {
        Read::Partial => panic!("{text:?} is a part"),
        Read::Whole(answer) => Ok((answer, String::from_utf8(out).unwrap())),
    }
}

#[test]
fn what_could_end_in_two_ways_is_refused() {
    for lines in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: x\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "A : b\r\n",
        "A: b\r\n folded\r\n",
        "A: b\n",
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        assert!(passed(&text, GET).is_err(), "{lines:?}");
    }
    for text in [
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ] {
        assert!(passed(text, GET).is_err(), "{text:?}");
    }
    let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(HEAD_BYTES_MAX));
    assert!(read(endless.as_bytes(), GET, &mut Vec::new()).is_err());
}

#[test]
fn bodies_end_as_the_rules_say() {
    let head = Toward { method: Method::Head, ..GET };
    for (text, toward, framing, keep) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", GET, Framing::Length(5), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", head, Framing::None, true),
        ("HTTP/1.1 200 OK\r\n\r\n", GET, Framing::Close, false),
        ("HTTP/1.1 204 None\r\n\r\n", GET, Framing::None, true),
        ("HTTP/1.1 204 None\r\nContent-Length: 0\r\n\r\n", GET, Framing::None, true),
        ("HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\n", GET, Framing::None, false),
        ("HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n", GET, Framing::None, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", GET, Framing::Chunked, true),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            GET,
            Framing::Length(0),
            false,
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", GET, Framing::Length(5), false),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
            GET,
            Framing::Length(5),
            true,
        ),
    ] {
        let (answer, _) = passed(text, toward).unwrap();
        assert_eq!((answer.framing, answer.keep), (framing, keep), "{text:?}");
    }
}

#[test]
fn a_head_is_written_anew() {
    let text = "HTTP/1.1 200 Fine\r\nA: 1\r\nConnection: B, close\r\nB: 2\r\nKeep-Alive: 1\r\n\
                Endpoint-Load-Metrics: TEXT cpu_utilization=0.5\r\nContent-Length: 3\r\n\r\nabc";
    let (answer, out) = passed(text, GET).unwrap();
    assert_eq!(out, "HTTP/1.1 200 Fine\r\nA: 1\r\nContent-Length: 3\r\n");
    let (name, value) = answer.load.unwrap();
    assert_eq!(&text[name], "Endpoint-Load-Metrics");
    assert_eq!(&text[value], "TEXT cpu_utilization=0.5");
    assert_eq!(answer.length, text.len() - 3);
    let (_, out) = passed("HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", GET).unwrap();
    assert_eq!(out, "HTTP/1.1 204 No\r\n", "204 has no length");
    let asked = Toward { upgrade: true, ..GET };
    let text = "HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (answer, mut out) = passed(text, asked).map(|(a, o)| (a, o.into_bytes())).unwrap();
    finish(&mut out, answer.status, answer.framing, false, true);
    assert_eq!(out, b"HTTP/1.1 101 Go\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
}

#[test]
fn old_clients_get_no_chunks() {
    let old = Toward { old: true, ..GET };
    assert_eq!(outward(Framing::Chunked, old), (Framing::Close, false));
    assert_eq!(outward(Framing::Close, GET), (Framing::Chunked, true));
    assert_eq!(outward(Framing::Length(3), old), (Framing::Length(3), true));
}

proptest! {
    #[test]
    fn any_bytes_are_an_answer_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _outcome = read(&bytes, GET, &mut Vec::new());
    }
}
