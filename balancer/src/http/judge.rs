//! What a request's head means, or why it is refused: one reading or none.

use super::field::{self, Field, Framing, Wishes};
use super::request::HEADERS_MAX;

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

/// A refusal.
#[must_use]
pub const fn refused(status: u16, detail: &'static str) -> Refused {
    Refused { status, detail }
}

/// Why a head cannot be read at all.
#[must_use]
pub fn unreadable(error: httparse::Error) -> Refused {
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
pub struct Judged<'a> {
    /// Each header by what is done with it.
    pub fields: [Field; HEADERS_MAX],
    /// Its method.
    pub method: Method,
    /// How its body ends.
    pub framing: Framing,
    /// The connection may carry another request.
    pub keep: bool,
    /// HTTP/1.0.
    pub old: bool,
    /// The client waits for leave to send its body.
    pub expects: bool,
    /// The protocol it asks to switch to.
    pub upgrade: Option<&'a [u8]>,
    /// It takes trailers after an answer's body.
    pub trailers: bool,
    /// What `Connection` says.
    pub wishes: Wishes,
    /// Path and query.
    pub target: &'a [u8],
    /// The host it is for.
    pub host: &'a [u8],
}

fn method(name: &[u8]) -> Result<Method, Refused> {
    match name {
        b"GET" | b"PUT" | b"DELETE" | b"OPTIONS" | b"TRACE" => Ok(Method::Idempotent),
        b"HEAD" => Ok(Method::Head),
        b"CONNECT" => Err(refused(405, "this is a reverse proxy; CONNECT is not served")),
        _ => Ok(Method::Other),
    }
}

/// Judges a whole head.
///
/// # Errors
/// [`Refused`].
pub fn judge<'a>(
    head: &[u8],
    parsed: &'a httparse::Request<'_, '_>,
) -> Result<Judged<'a>, Refused> {
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
    let trailers = found.trailers && !old;
    Ok(Judged {
        fields,
        method,
        framing,
        keep,
        old,
        expects,
        upgrade,
        trailers,
        wishes,
        target,
        host,
    })
}

/// The headers that decide what a request means.
#[derive(Default)]
struct Found<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    expects: bool,
    upgrade: Option<&'a [u8]>,
    trailers: bool,
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
            Field::Te => self.trailers |= field::has_word(value, b"trailers"),
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
