//! A request's head: read strictly, judged, and written anew as the instance gets it.

pub use super::judge::{Method, Refused};

use super::field::{self, Field, Framing, Stretches, line};
use super::judge::{Judged, judge, refused, unreadable};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::ops::Range;

/// Headers of a request or an answer: what common servers take.
pub const HEADERS_MAX: usize = 100;
/// A request id or trace from outside that is longer is not passed on: it would fill logs.
const ID_BYTES_MAX: usize = 128;

/// One request.
#[derive(Debug)]
pub struct Request {
    /// The head for the instance, then its body as far as it is there.
    pub head: Vec<u8>,
    /// Where the head ends in it.
    pub head_end: usize,
    /// Its method.
    pub method: Method,
    /// How its body ends.
    pub framing: Framing,
    /// The client's connection may carry another request.
    pub keep: bool,
    /// The client speaks HTTP/1.0: no chunks, and it must be told that the connection stays.
    pub old: bool,
    /// The client waits for leave to send its body.
    pub expects: bool,
    /// It asks to switch protocols.
    pub upgrade: bool,
    /// The client takes trailers after an answer's body.
    pub trailers: bool,
    /// The client is told the request's id.
    pub id: Option<Range<usize>>,
    /// Asked for the service's load in this form.
    pub load_format: Option<Range<usize>>,
    method_end: usize,
    target: Range<usize>,
    host: Range<usize>,
}

impl Request {
    /// The form in which the client asks for the service's load.
    #[must_use]
    pub fn load_format(&self) -> Option<&[u8]> {
        self.head.get(self.load_format.clone()?)
    }

    /// The method's name.
    #[must_use]
    pub fn method_name(&self) -> &[u8] {
        self.head.get(..self.method_end).unwrap_or_default()
    }

    /// Path and query.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        self.head.get(self.target.clone()).unwrap_or_default()
    }

    /// The path alone.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        let target = self.target();
        let end = memchr::memchr(b'?', target).unwrap_or(target.len());
        &target[..end]
    }

    /// The host it is for, with its port if it has one.
    #[must_use]
    pub fn host(&self) -> &[u8] {
        self.head.get(self.host.clone()).unwrap_or_default()
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        self.id.clone().and_then(|at| self.head.get(at)).unwrap_or_default()
    }

    /// The first value of a header, as it goes to the instance.
    #[must_use]
    pub fn header(&self, name: &[u8]) -> Option<&[u8]> {
        let head = self.head.get(..self.head_end)?;
        head.split(|b| *b == b'\n').skip(1).find_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            line[..colon].eq_ignore_ascii_case(name).then(|| line[colon + 1..].trim_ascii())
        })
    }

    /// Whether it may be sent again where it is not known how far it came.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.method != Method::Other
    }
}

/// What a connection adds to the requests on it.
#[derive(Debug)]
pub struct Origin<'a> {
    /// The client's address, as text.
    pub peer: &'a [u8],
    /// An id for a request that has none.
    pub fresh_id: [u8; 16],
    /// Longest target.
    pub target_bytes_max: usize,
}

/// What reading the front of some bytes gave; a refusal gives the memory back.
pub type Outcome = Result<Option<(Request, usize)>, (Refused, Vec<u8>)>;

/// Reads the head at the front of `bytes`, and writes it for the instance into `out`, which is
/// empty. `Ok(None)`: more bytes are needed. Otherwise the request and the length of its head.
///
/// # Errors
/// [`Refused`]: it is not HTTP/1.1, or could be read in two ways.
pub fn read(bytes: &[u8], origin: &Origin<'_>, out: Vec<u8>) -> Outcome {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let outcome = parsed.parse_with_uninit_headers(bytes, &mut headers);
    let length = match outcome {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err((unreadable(error), out)),
    };
    let head = &bytes[..length];
    match judge(head, &parsed) {
        Ok(judged) => Ok(Some((write(head, &parsed, judged, origin, out), length))),
        Err(refused) => Err((refused, out)),
    }
    .and_then(|read| match read {
        Some((request, _)) if request.target().len() > origin.target_bytes_max => {
            Err((refused(414, "the request's target is too long"), request.head))
        }
        read => Ok(read),
    })
}

fn write(
    head: &[u8],
    parsed: &httparse::Request<'_, '_>,
    judged: Judged<'_>,
    origin: &Origin<'_>,
    mut out: Vec<u8>,
) -> Request {
    out.extend_from_slice(parsed.method.unwrap_or_default().as_bytes());
    let method_end = out.len();
    out.push(b' ');
    let target = out.len()..out.len() + judged.target.len();
    out.extend_from_slice(judged.target);
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    let host = out.len()..out.len() + judged.host.len();
    out.extend_from_slice(judged.host);
    out.extend_from_slice(b"\r\n");
    let mut writer = Writer { head, out, stretches: Stretches::default(), id: None, format: None };
    writer.pass_on(parsed.headers, &judged);
    let Writer { mut out, id, format, .. } = writer;
    forwarded(&mut out, parsed.headers, &judged, origin);
    let id = id.unwrap_or_else(|| {
        out.extend_from_slice(b"x-request-id: ");
        let start = out.len();
        out.extend_from_slice(&origin.fresh_id);
        out.extend_from_slice(b"\r\n");
        start..start + origin.fresh_id.len()
    });
    match judged.framing {
        Framing::Length(n) => {
            out.extend_from_slice(b"content-length: ");
            field::decimal(&mut out, n);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::None | Framing::Close => {}
    }
    // What concerns one connection alone is named by it (RFC 9110, 10.1.4).
    match (judged.upgrade.is_some(), judged.trailers) {
        (true, true) => out.extend_from_slice(b"connection: upgrade, te\r\n"),
        (true, false) => out.extend_from_slice(b"connection: upgrade\r\n"),
        (false, true) => out.extend_from_slice(b"connection: te\r\n"),
        (false, false) => {}
    }
    if judged.trailers {
        out.extend_from_slice(b"te: trailers\r\n");
    }
    if let Some(protocol) = judged.upgrade {
        line(&mut out, b"upgrade", protocol);
    }
    out.extend_from_slice(b"\r\n");
    Request {
        head_end: out.len(),
        head: out,
        method: judged.method,
        framing: judged.framing,
        keep: judged.keep,
        old: judged.old,
        expects: judged.expects,
        upgrade: judged.upgrade.is_some(),
        trailers: judged.trailers,
        id: Some(id),
        load_format: format,
        method_end,
        target,
        host,
    }
}

/// Copies what is passed on.
struct Writer<'a> {
    head: &'a [u8],
    out: Vec<u8>,
    stretches: Stretches,
    id: Option<Range<usize>>,
    format: Option<Range<usize>>,
}

impl Writer<'_> {
    fn pass_on(&mut self, headers: &[httparse::Header<'_>], judged: &Judged<'_>) {
        for (index, header) in headers.iter().enumerate() {
            let field = judged.fields[index];
            if judged.wishes.names && is_named(headers, judged, header.name.as_bytes()) {
                continue;
            }
            match field {
                Field::Other | Field::Traceparent => {
                    let start = field::offset(header.name.as_bytes(), self.head);
                    let end = match headers.get(index + 1) {
                        Some(next) => field::offset(next.name.as_bytes(), self.head),
                        // The empty line is not one of the headers.
                        None => self.head.len() - 2,
                    };
                    self.stretches.keep(start..end, self.head, &mut self.out);
                }
                Field::RequestId if self.id.is_none() => {
                    let value = header.value;
                    let right = (1..=ID_BYTES_MAX).contains(&value.len())
                        && value.iter().all(u8::is_ascii_graphic);
                    if right {
                        self.id = Some(self.own(b"x-request-id", value));
                    }
                }
                Field::LoadFormat if self.format.is_none() => {
                    self.format = Some(self.own(b"endpoint-load-metrics-format", header.value));
                }
                Field::RequestId
                | Field::LoadFormat
                | Field::Host
                | Field::Connection
                | Field::ContentLength
                | Field::TransferEncoding
                | Field::Upgrade
                | Field::Expect
                | Field::Hop
                | Field::Te
                | Field::ForwardedFor
                | Field::ForwardedOwn
                | Field::LoadMetrics => {}
            }
        }
        self.stretches.flush(self.head, &mut self.out);
    }

    /// Writes a header whose place must be known.
    fn own(&mut self, name: &[u8], value: &[u8]) -> Range<usize> {
        self.stretches.flush(self.head, &mut self.out);
        let start = self.out.len() + name.len() + 2;
        line(&mut self.out, name, value);
        start..start + value.len()
    }
}

/// Whether `Connection` names this header. `Host` and lengths cannot be talked away: they carry the
/// request's meaning, and are written by the balancer itself.
fn is_named(headers: &[httparse::Header<'_>], judged: &Judged<'_>, name: &[u8]) -> bool {
    let connections = headers.iter().zip(judged.fields);
    connections
        .filter(|(_, field)| *field == Field::Connection)
        .any(|(header, _)| field::has_word(header.value, name))
}

/// Tells the instance of the client. A chain of proxies in one list.
fn forwarded(
    out: &mut Vec<u8>,
    headers: &[httparse::Header<'_>],
    judged: &Judged<'_>,
    origin: &Origin<'_>,
) {
    out.extend_from_slice(b"x-forwarded-for: ");
    let named = judged.wishes.names && is_named(headers, judged, b"x-forwarded-for");
    for (header, field) in headers.iter().zip(judged.fields) {
        if field == Field::ForwardedFor && !named && !header.value.is_empty() {
            out.extend_from_slice(header.value);
            out.extend_from_slice(b", ");
        }
    }
    out.extend_from_slice(origin.peer);
    out.extend_from_slice(b"\r\nx-forwarded-proto: http\r\nx-forwarded-host: ");
    out.extend_from_slice(judged.host);
    out.extend_from_slice(b"\r\n");
}

/// The text of a client's address.
#[must_use]
pub fn peer_text(peer: SocketAddr) -> String {
    peer.ip().to_canonical().to_string()
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
