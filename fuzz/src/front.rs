//! What clients and instances say to the front door. What it passes on is judged by a reader that
//! forgives nothing and shares no code with it.

use balancer::fuzzing;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use torture::strict::{Kind, Malformed, Message, Reader};

/// Bytes at hand are always ready: the reader never waits.
fn at_once<T>(reading: impl Future<Output = T>) -> T {
    let mut reading = pin!(reading);
    match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(read) => read,
        Poll::Pending => panic!("reading of bytes at hand waits"),
    }
}

fn strict_head(bytes: &[u8], kind: Kind) -> Message {
    let mut reader = Reader::new(bytes);
    let head: Result<Option<Message>, Malformed> = at_once(reader.head(kind));
    let head = head.unwrap_or_else(|why| panic!("passed on, but {why}"));
    assert!(reader.ahead.is_empty() && reader.io.is_empty(), "more than a head is passed on");
    head.expect("a head is passed on")
}

/// Whether the head says what the front door took it for.
fn framed(head: &Message, framing: &str, length: u64) {
    let (lengths, codings) = (head.count("content-length"), head.count("transfer-encoding"));
    match framing {
        "chunked" => {
            assert_eq!((lengths, codings), (0, 1), "{head:?}");
            assert_eq!(head.field("transfer-encoding").as_deref(), Some("chunked"), "{head:?}");
        }
        "length" => {
            assert_eq!((lengths, codings), (1, 0), "{head:?}");
            let said = head.field("content-length").expect("it has one");
            assert_eq!(said.parse(), Ok(length), "{head:?}");
        }
        _ => assert_eq!((lengths, codings), (0, 0), "{head:?}"),
    }
}

/// Headers a front door takes.
const HEADERS_MAX: usize = 100;

/// A request's head.
pub fn request_head(bytes: &[u8]) {
    let Some(taken) = fuzzing::request_head(bytes) else { return };
    let head = strict_head(&taken.written, Kind::Request);
    framed(&head, taken.framing.0, taken.framing.1);
    assert_eq!(head.count("host"), 1, "{head:?}");
    assert!(bytes[..taken.used].ends_with(b"\r\n\r\n"), "a head that does not end as one");
    // Nothing about this connection goes on to the next.
    for hop in ["keep-alive", "proxy-connection", "trailer"] {
        assert_eq!(head.count(hop), 0, "{head:?}");
    }
    // But that trailers are taken, which the front door then passes on.
    if head.count("te") > 0 {
        assert_eq!(head.count("te"), 1, "{head:?}");
        assert_eq!(head.field("te").as_deref(), Some("trailers"), "{head:?}");
    }
    // HTTP/1.0 need not say whose it is; HTTP/1.1 then says so with an empty host.
    if taken.host.is_empty() {
        return;
    }
    // We add some lines of our own: beyond our own bound on headers, the next one may refuse it.
    if taken.written.iter().filter(|b| **b == b'\n').count() > HEADERS_MAX {
        return;
    }
    // What is passed on means the same to the next front door.
    let again = fuzzing::request_head(&taken.written).expect("our own head is refused");
    assert_eq!((again.framing, again.target), (taken.framing, taken.target), "{head:?}");
    assert_eq!(again.host, taken.host, "{head:?}");
}

/// An answer's head; the first byte says to what kind of request.
pub fn answer_head(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let (head_only, old) = (kind & 1 == 1, kind & 2 == 2);
    let Some((written, framing)) = fuzzing::answer_head(rest, head_only, old) else { return };
    let head = strict_head(&written, Kind::Answer { bodiless: head_only });
    assert!((100..600).contains(&head.status()), "{head:?}");
    if framing == "chunked" {
        assert_eq!((head.count("content-length"), head.count("transfer-encoding")), (0, 1));
        assert!(!old, "chunks for a client that knows none");
    } else {
        assert_eq!(head.count("transfer-encoding"), 0, "{head:?}");
        assert!(head.count("content-length") <= 1, "{head:?}");
    }
    assert_eq!(head.count("endpoint-load-metrics"), 0, "{head:?}");
}

/// A chunked body; the first byte says where it is cut.
pub fn chunks(bytes: &[u8]) {
    let Some((cut, rest)) = bytes.split_first() else { return };
    let cut = usize::from(*cut).min(rest.len());
    let whole = fuzzing::chunks(&[rest]);
    let pieces = fuzzing::chunks(&[&rest[..cut], &rest[cut..]]);
    assert_eq!(whole, pieces, "the same bytes in two pieces are another body");
    let one_by_one: Vec<&[u8]> = rest.chunks(1).collect();
    assert_eq!(whole, fuzzing::chunks(&one_by_one), "the same bytes one by one are another body");
    // What the strict reader takes is taken, and is the same.
    let head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    let text = [&head[..], rest].concat();
    let mut reader = Reader::new(&text[..]);
    if let Ok(Some(message)) = at_once(reader.message(Kind::Request))
        && message.complete
    {
        let (body, ended, left) = whole.expect("a right body is refused");
        assert!(ended, "a whole body has no end");
        assert_eq!(body, message.body);
        assert_eq!(left, reader.ahead.len() + reader.io.len());
    }
}

/// The view that is kept over a restart.
pub fn saved_view(bytes: &[u8]) {
    let _count = fuzzing::saved_view(bytes);
}

/// An answer to a health check or a probe.
pub fn check_answer(bytes: &[u8]) {
    let Some((_status, end)) = fuzzing::check_answer(bytes) else { return };
    assert!((1..=bytes.len()).contains(&end), "a head longer than what came");
}
