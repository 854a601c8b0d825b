//! A request's head: read strictly, judged, and written anew as the instance gets it.

use super::field::{self, Field, Framing, Stretches, Wishes, line};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::ops::Range;

/// Headers of a request or an answer: what common servers take.
pub const HEADERS_MAX: usize = 100;
/// A request id or trace from outside that is longer is not passed on: it would fill logs.
const ID_BYTES_MAX: usize = 128;

/// A method, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `HEAD`: its answer has no body, whatever it says.
    Head,
    /// Another one that may be repeated (RFC 9110, 9.2.2).
    Idempotent,
    /// One that may not.
    Other,
}

/// Why a request is refused before anybody was asked. Its connection is closed: what follows on it
/// cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The status.
    pub status: u16,
    /// What is wrong, and what would be right.
    pub detail: &'static str,
}

const fn refused(status: u16, detail: &'static str) -> Refused {
    Refused { status, detail }
}

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

fn unreadable(error: httparse::Error) -> Refused {
    match error {
        httparse::Error::Version => refused(505, "this is HTTP/1.1; speak HTTP/1.1 or HTTP/1.0"),
        httparse::Error::TooManyHeaders => refused(431, "the request has too many headers"),
        httparse::Error::HeaderName => refused(400, "a header's name is no name"),
        httparse::Error::HeaderValue => refused(400, "a header's value has characters it may not"),
        httparse::Error::NewLine => refused(400, "a line of the request ends wrongly"),
        httparse::Error::Status | httparse::Error::Token => {
            refused(400, "the request's first line is not METHOD TARGET HTTP/1.1")
        }
    }
}

/// What the headers say together.
struct Judged<'a> {
    fields: [Field; HEADERS_MAX],
    method: Method,
    framing: Framing,
    keep: bool,
    old: bool,
    expects: bool,
    upgrade: Option<&'a [u8]>,
    wishes: Wishes,
    target: &'a [u8],
    host: &'a [u8],
}

fn method(name: &[u8]) -> Result<Method, Refused> {
    match name {
        b"GET" | b"PUT" | b"DELETE" | b"OPTIONS" | b"TRACE" => Ok(Method::Idempotent),
        b"HEAD" => Ok(Method::Head),
        b"CONNECT" => Err(refused(405, "this is a reverse proxy; CONNECT is not served")),
        _ => Ok(Method::Other),
    }
}

fn judge<'a>(head: &[u8], parsed: &'a httparse::Request<'_, '_>) -> Result<Judged<'a>, Refused> {
    if !field::has_clean_lines(head) {
        return Err(refused(400, "a line of the request ends without carriage return"));
    }
    let old = parsed.version == Some(0);
    let method = method(parsed.method.unwrap_or_default().as_bytes())?;
    let mut fields = [Field::Other; HEADERS_MAX];
    let mut found = Found::default();
    for (place, header) in fields.iter_mut().zip(parsed.headers.iter()) {
        *place = field::classify(header.name.as_bytes());
        found.take(*place, header.value)?;
    }
    let (target, authority) = split(parsed.path.unwrap_or_default().as_bytes(), parsed.method)?;
    let host = found.host(authority, old)?;
    let framing = found.framing(old)?;
    if found.expects && old {
        found.expects = false;
    }
    let upgrade = found.upgrade.filter(|to| {
        // Nobody here speaks HTTP/2 over a tunnel, and it would hide requests from all that
        // judges them.
        found.wishes.upgrade && !old && !field::has_word(to, b"h2c")
    });
    let keep = if old { found.wishes.keep_alive } else { true } && !found.wishes.close;
    let (expects, wishes) = (found.expects && framing != Framing::None, found.wishes);
    Ok(Judged { fields, method, framing, keep, old, expects, upgrade, wishes, target, host })
}

/// The headers that decide what a request means.
#[derive(Default)]
struct Found<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    expects: bool,
    upgrade: Option<&'a [u8]>,
    wishes: Wishes,
}

impl<'a> Found<'a> {
    fn take(&mut self, field: Field, value: &'a [u8]) -> Result<(), Refused> {
        match field {
            Field::Host if self.host.is_some() => {
                return Err(refused(400, "a request has one Host header, not several"));
            }
            Field::Host => self.host = Some(value),
            Field::ContentLength if self.length.is_some() => {
                return Err(refused(400, "a request has one Content-Length, not several"));
            }
            Field::ContentLength => {
                let length = field::length(value);
                self.length = Some(length.ok_or(refused(400, "Content-Length is no number"))?);
            }
            Field::TransferEncoding => {
                if self.chunked {
                    return Err(refused(400, "a request has one Transfer-Encoding, not several"));
                }
                if !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(refused(501, "the only transfer coding served is chunked"));
                }
                self.chunked = true;
            }
            Field::Expect => {
                if !value.trim_ascii().eq_ignore_ascii_case(b"100-continue") {
                    return Err(refused(417, "the only expectation met is 100-continue"));
                }
                self.expects = true;
            }
            Field::Upgrade => self.upgrade = Some(value),
            Field::Connection => self.wishes.read(value),
            Field::Other
            | Field::Hop
            | Field::ForwardedFor
            | Field::ForwardedOwn
            | Field::RequestId
            | Field::Traceparent
            | Field::LoadMetrics
            | Field::LoadFormat => {}
        }
        Ok(())
    }

    /// The one host the request is for: two parts of a chain must never believe different ones
    /// (RFC 9112, 3.2).
    fn host(&self, authority: Option<&'a [u8]>, old: bool) -> Result<&'a [u8], Refused> {
        let host = match (self.host, authority) {
            (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => {
                return Err(refused(400, "the Host header is not the target's host"));
            }
            (Some(host), _) => host,
            (None, Some(authority)) if old => authority,
            (None, None) if old => b"",
            (None, _) => return Err(refused(400, "a request needs a Host header")),
        };
        if is_host(host) || (old && host.is_empty()) {
            Ok(host)
        } else {
            Err(refused(400, "the Host header is no host"))
        }
    }

    fn framing(&self, old: bool) -> Result<Framing, Refused> {
        match (self.chunked, self.length) {
            (true, Some(_)) => {
                Err(refused(400, "Content-Length and Transfer-Encoding exclude each other"))
            }
            (true, None) if old => Err(refused(400, "HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::None),
        }
    }
}

/// Whether this is a name or an address, with a port or without (RFC 9110, 7.2; RFC 3986, 3.2.2).
fn is_host(host: &[u8]) -> bool {
    let end = match host {
        [b'[', ..] => memchr::memchr(b']', host).map_or(0, |end| end + 1),
        _ => memchr::memchr(b':', host).unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'~' | b'%');
    let right = match name {
        [b'[', address @ .., b']'] => {
            !address.is_empty() && address.iter().all(|b| plain(b) || *b == b':')
        }
        name => !name.is_empty() && name.iter().all(plain),
    };
    let port_right = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    right && port_right
}

/// Splits a target into path with query, and its host if it has one.
fn split<'a>(
    target: &'a [u8],
    method: Option<&str>,
) -> Result<(&'a [u8], Option<&'a [u8]>), Refused> {
    let clean = |b: &u8| *b > b' ' && *b != b'#' && *b != 0x7f;
    if !target.iter().all(clean) {
        return Err(refused(400, "the request's target has characters it may not"));
    }
    if target.first() == Some(&b'/') {
        return Ok((target, None));
    }
    if target == b"*" && method == Some("OPTIONS") {
        return Ok((target, None));
    }
    let scheme = [&b"http://"[..], b"https://"];
    let rest = scheme.iter().find_map(|s| {
        let (start, rest) = target.split_at_checked(s.len())?;
        start.eq_ignore_ascii_case(s).then_some(rest)
    });
    let wrong = refused(400, "the request's target is neither a path nor a URL");
    let rest = rest.ok_or(wrong)?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // A path that begins with the query has its slash left out; instances want it.
    match (authority, path) {
        ([], _) | (_, [b'?', ..]) => Err(wrong),
        (_, []) => Ok((b"/", Some(authority))),
        (_, path) => Ok((path, Some(authority))),
    }
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
    if let Some(protocol) = judged.upgrade {
        out.extend_from_slice(b"connection: upgrade\r\n");
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
