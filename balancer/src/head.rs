//! Heads on the way up and down: what is passed on, what is taken off, how a body is framed.

use crate::conn::Conn;
use bytes::BytesMut;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Version};
use std::mem::MaybeUninit;

/// Longest answer head: what common servers send at most, doubled.
pub const ANSWER_HEAD_BYTES_MAX: usize = 64 << 10;
/// Most headers of an answer.
pub const ANSWER_HEADERS_MAX: usize = 100;
/// The load of an answering instance, in its answer's header (ORCA); never shown to clients.
pub const LOAD_HEADER: HeaderName = HeaderName::from_static("endpoint-load-metrics");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How a body's end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// When the connection ends.
    Close,
}

/// Whether a header is about one connection alone (RFC 9110, 7.6.1), or about framing, which each
/// side has its own of.
fn is_hop(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::CONTENT_LENGTH
        || *name == header::UPGRADE
        || *name == header::TE
        || *name == header::TRAILER
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
}

/// Header names that `Connection` declares to be about this connection alone. Usually none.
struct Named<'a> {
    values: Option<&'a HeaderMap>,
}

impl<'a> Named<'a> {
    fn of(headers: &'a HeaderMap) -> Named<'a> {
        let plain = |v: &HeaderValue| {
            v.as_bytes().eq_ignore_ascii_case(b"keep-alive")
                || v.as_bytes().eq_ignore_ascii_case(b"close")
        };
        let any = headers.get_all(header::CONNECTION).iter().any(|v| !plain(v));
        Named { values: any.then_some(headers) }
    }

    fn has(&self, name: &HeaderName) -> bool {
        let Some(headers) = self.values else { return false };
        // `Host` and the length cannot be talked away (they carry the request's meaning).
        *name != header::HOST
            && headers
                .get_all(header::CONNECTION)
                .iter()
                .any(|v| has_token(v.as_bytes(), name.as_str().as_bytes()))
    }
}

/// Whether a comma-separated list has a word, in any case.
#[must_use]
pub fn has_token(list: &[u8], word: &[u8]) -> bool {
    list.split(|b| *b == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
}

/// Whether a request asks to switch protocols, and to which.
#[must_use]
pub fn wants_upgrade(headers: &HeaderMap) -> Option<&HeaderValue> {
    let upgrade = headers.get(header::UPGRADE)?;
    let asked =
        headers.get_all(header::CONNECTION).iter().any(|v| has_token(v.as_bytes(), b"upgrade"));
    asked.then_some(upgrade)
}

/// Whether it is clear which host a request is for (RFC 9112, 3.2): two parts of a chain must never
/// believe different ones.
#[must_use]
pub fn has_one_host<B>(request: &http::Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => true,
        (None, _) => request.version() < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}

/// The host a request is for: its target's, else its `Host` header's.
#[must_use]
pub fn host(parts: &Parts) -> &[u8] {
    match parts.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => parts.headers.get(header::HOST).map_or(b"", HeaderValue::as_bytes),
    }
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes a request's head as the instance gets it.
pub fn write_request(out: &mut Vec<u8>, parts: &Parts, framing: Framing, conn: &Conn) {
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let host = host(parts);
    line(out, "host", host);
    let named = Named::of(&parts.headers);
    let upgrade = wants_upgrade(&parts.headers);
    let mut seen_for = false;
    for (name, value) in &parts.headers {
        let own = *name == header::HOST
            || *name == FORWARDED_PROTO
            || *name == FORWARDED_HOST
            || *name == header::EXPECT;
        if own || is_hop(name) || named.has(name) {
            continue;
        }
        if *name == FORWARDED_FOR {
            // Only the last of several may be continued; they are one list.
            out.extend_from_slice(if seen_for { b", " } else { b"x-forwarded-for: " });
            out.extend_from_slice(value.as_bytes());
            seen_for = true;
            continue;
        }
        if seen_for {
            finish_for(out, conn);
            seen_for = false;
            line(out, name.as_str(), value.as_bytes());
            continue;
        }
        line(out, name.as_str(), value.as_bytes());
    }
    if seen_for {
        finish_for(out, conn);
    } else if !parts.headers.contains_key(FORWARDED_FOR) || named.has(&FORWARDED_FOR) {
        line(out, "x-forwarded-for", conn.peer.as_bytes());
    }
    line(out, "x-forwarded-proto", b"http");
    line(out, "x-forwarded-host", host);
    match framing {
        Framing::Length(n) => {
            let mut digits = [0; 20];
            line(out, "content-length", decimal(n, &mut digits));
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::None | Framing::Close => {}
    }
    if let Some(protocol) = upgrade {
        out.extend_from_slice(b"connection: upgrade\r\n");
        line(out, "upgrade", protocol.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn finish_for(out: &mut Vec<u8>, conn: &Conn) {
    out.extend_from_slice(b", ");
    out.extend_from_slice(conn.peer.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// `n` in decimal digits.
pub fn decimal(mut n: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        // A remainder of ten fits a byte.
        digits[at] = b'0' + u8::try_from(n % 10).unwrap_or(0);
        n /= 10;
        if n == 0 {
            return &digits[at..];
        }
    }
}

/// An answer's head.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, without those about the connection to the instance; `content-length` is kept.
    pub headers: HeaderMap,
    /// How its body ends.
    pub framing: Framing,
    /// The connection may carry another request afterwards.
    pub keep: bool,
    /// What the instance switched to, with a 101.
    pub upgrade: Option<HeaderValue>,
    /// What the instance said of its load.
    pub load: Option<HeaderValue>,
}

/// An answer that must not be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonsense(pub &'static str);

/// Reads an answer's head from the front of `buffer`; `None`: more bytes are needed.
///
/// # Errors
/// [`Nonsense`], when the bytes are no answer or its end could be read in two ways.
pub fn read_answer(buffer: &mut BytesMut, method: &Method) -> Result<Option<Answer>, Nonsense> {
    // Space that is not filled with zeros first: it is larger than most heads.
    let mut headers = [const { MaybeUninit::uninit() }; ANSWER_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        buffer,
        &mut headers,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if buffer.len() < ANSWER_HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(Nonsense("its head is too long")),
        Err(_unreadable) => return Err(Nonsense("its head is not HTTP/1.1")),
    };
    let code = response.code.unwrap_or(0);
    let status = StatusCode::from_u16(code).map_err(|_bad| Nonsense("its status is none"))?;
    let version = if response.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    // Where each header lies, so that its value can share the buffer instead of being copied.
    let start = buffer.as_ptr().addr();
    let mut spans = [Span::default(); ANSWER_HEADERS_MAX];
    let count = response.headers.len();
    for (span, header) in spans.iter_mut().zip(response.headers.iter()) {
        *span = Span::of(header, start);
    }
    let head = buffer.split_to(length).freeze();
    let mut hops = Hops::default();
    let mut map = HeaderMap::with_capacity(count);
    for span in &spans[..count] {
        let name = HeaderName::from_bytes(&head[span.name()])
            .map_err(|_bad| Nonsense("a header's name is none"))?;
        let value = HeaderValue::from_maybe_shared(head.slice(span.value()))
            .map_err(|_bad| Nonsense("a header's value is none"))?;
        if let Some((name, value)) = hops.sort_out(name, value) {
            map.try_append(name, value).map_err(|_full| Nonsense("it has too many headers"))?;
        }
    }
    finish(status, version, map, hops, method).map(Some)
}

/// Where a header lies in its head. Heads are shorter than 2^32 bytes by far.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    name: u32,
    name_len: u32,
    value: u32,
    value_len: u32,
}

impl Span {
    /// The place of a header that was parsed from bytes beginning at the address `start`.
    fn of(header: &httparse::Header<'_>, start: usize) -> Span {
        let offset = |bytes: &[u8]| u32::try_from(bytes.as_ptr().addr().wrapping_sub(start));
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(0);
        let value_len = length(header.value);
        // An empty value may point anywhere.
        let value = if value_len == 0 { 0 } else { offset(header.value).unwrap_or(0) };
        let name = header.name.as_bytes();
        Span { name: offset(name).unwrap_or(0), name_len: length(name), value, value_len }
    }

    fn name(&self) -> std::ops::Range<usize> {
        self.name as usize..self.name as usize + self.name_len as usize
    }

    fn value(&self) -> std::ops::Range<usize> {
        self.value as usize..self.value as usize + self.value_len as usize
    }
}

/// Headers of an answer that go no further, but say something to the balancer.
#[derive(Debug, Default)]
struct Hops {
    connection: Vec<HeaderValue>,
    codings: Vec<HeaderValue>,
    upgrade: Option<HeaderValue>,
    load: Option<HeaderValue>,
}

impl Hops {
    /// The header itself if it goes on.
    fn sort_out(
        &mut self,
        name: HeaderName,
        value: HeaderValue,
    ) -> Option<(HeaderName, HeaderValue)> {
        if name == header::CONTENT_LENGTH {
            return Some((name, value));
        }
        if name == LOAD_HEADER {
            self.load = Some(value);
        } else if !is_hop(&name) {
            return Some((name, value));
        } else if name == header::CONNECTION {
            self.connection.push(value);
        } else if name == header::TRANSFER_ENCODING {
            self.codings.push(value);
        } else if name == header::UPGRADE {
            self.upgrade = Some(value);
        }
        None
    }
}

fn finish(
    status: StatusCode,
    version: Version,
    mut headers: HeaderMap,
    hops: Hops,
    method: &Method,
) -> Result<Answer, Nonsense> {
    let bodiless = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || *method == Method::HEAD;
    let mut keep = version == Version::HTTP_11;
    let mut framing = Framing::Close;
    if let Some(length) = one_length(&headers)? {
        framing = Framing::Length(length);
    }
    if let Some(coding) = hops.codings.first() {
        let plain = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        if !plain || hops.codings.len() > 1 || version == Version::HTTP_10 {
            return Err(Nonsense("its transfer coding is not just chunked"));
        }
        // Both ways to end a body: somebody between may believe the other one. The chunks count,
        // and nothing more is read from this connection.
        keep &= framing == Framing::Close;
        framing = Framing::Chunked;
        headers.remove(header::CONTENT_LENGTH);
    }
    for value in &hops.connection {
        keep &= !has_token(value.as_bytes(), b"close");
        keep |= version == Version::HTTP_10 && has_token(value.as_bytes(), b"keep-alive");
        take_off_named(&mut headers, value);
    }
    if bodiless {
        framing = Framing::None;
    }
    keep &= framing != Framing::Close;
    let upgrade = hops.upgrade.filter(|_| status == StatusCode::SWITCHING_PROTOCOLS);
    Ok(Answer { status, headers, framing, keep, upgrade, load: hops.load })
}

/// Removes headers that `Connection` names, except the length.
fn take_off_named(headers: &mut HeaderMap, connection: &HeaderValue) {
    for word in connection.as_bytes().split(|b| *b == b',') {
        if let Ok(name) = HeaderName::from_bytes(word.trim_ascii())
            && name != header::CONTENT_LENGTH
        {
            headers.remove(name);
        }
    }
}

/// The one length that all `Content-Length` headers agree on.
fn one_length(headers: &HeaderMap) -> Result<Option<u64>, Nonsense> {
    let mut found = None;
    let mut several = false;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let digits = value.as_bytes();
        // Longer than 18 digits is no file; signs and spaces are no digits.
        let right = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
        if !right {
            return Err(Nonsense("its length is no number"));
        }
        let length = digits.iter().fold(0u64, |n, digit| n * 10 + u64::from(digit - b'0'));
        several |= found.is_some();
        if found.is_some_and(|n| n != length) {
            return Err(Nonsense("it has two lengths"));
        }
        found = Some(length);
    }
    if several {
        return Err(Nonsense("it has several lengths"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
