//! An answer's head: read strictly, judged, and written anew as the client gets it.

use super::field::{self, Field, Framing, Stretches, Wishes, line};
use super::request::{HEADERS_MAX, Method};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Longest answer head: what common servers send at most, doubled.
pub const HEAD_BYTES_MAX: usize = 64 << 10;

/// An answer that must not be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonsense(pub &'static str);

/// What an answer's head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// How its body ends.
    pub framing: Framing,
    /// The instance's connection may carry another request afterwards.
    pub keep: bool,
    /// The length of the head it was read from.
    pub length: usize,
    /// What the instance said of its load: places of the header's name and value in that head.
    pub load: Option<(Range<usize>, Range<usize>)>,
    /// The instance gave the answer a request id of its own.
    pub has_id: bool,
}

impl Answer {
    /// Whether another head follows for the same request (100, 102, 103).
    #[must_use]
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != SWITCHING
    }
}

/// 101: the connection speaks another protocol from here on.
pub const SWITCHING: u16 = 101;

/// What the client must be told of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Toward {
    /// The method it used.
    pub method: Method,
    /// It speaks HTTP/1.0.
    pub old: bool,
    /// Its connection stays open, as far as the request goes.
    pub keep: bool,
    /// It asked to switch protocols.
    pub upgrade: bool,
}

/// What reading the front of some bytes gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// More bytes are needed.
    Partial,
    /// A head, written for the client.
    Whole(Answer),
}

/// How the client finds the answer's end, and whether its connection can go on after it.
#[must_use]
pub fn outward(framing: Framing, toward: Toward) -> (Framing, bool) {
    match framing {
        Framing::None | Framing::Length(_) => (framing, toward.keep),
        Framing::Chunked | Framing::Close if toward.old => (Framing::Close, false),
        Framing::Chunked | Framing::Close => (Framing::Chunked, toward.keep),
    }
}

/// Reads the head at the front of `bytes` and appends to `out` what the client gets of it, all but
/// the last lines (see [`finish`]). Nothing is written unless the head is whole and right.
///
/// # Errors
/// [`Nonsense`]: it is no answer, or its end could be read in two ways.
pub fn read(bytes: &[u8], toward: Toward, out: &mut Vec<u8>) -> Result<Read, Nonsense> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let outcome = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        bytes,
        &mut headers,
    );
    let length = match outcome {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(Read::Partial),
        Ok(httparse::Status::Partial) => return Err(Nonsense("its head is too long")),
        Err(_unreadable) => return Err(Nonsense("its head is not HTTP/1.1")),
    };
    let head = &bytes[..length];
    let (answer, fields, wishes) = judge(head, &parsed, toward)?;
    write(head, &parsed, &answer, &fields, wishes, out);
    Ok(Read::Whole(answer))
}

type Fields = [Field; HEADERS_MAX];

fn judge(
    head: &[u8],
    parsed: &httparse::Response<'_, '_>,
    toward: Toward,
) -> Result<(Answer, Fields, Wishes), Nonsense> {
    if !field::has_clean_lines(head) {
        return Err(Nonsense("a line of its head ends wrongly"));
    }
    let status = parsed.code.unwrap_or(0);
    if !(100..600).contains(&status) {
        return Err(Nonsense("its status is none"));
    }
    let old = parsed.version == Some(0);
    let mut fields = [Field::Other; HEADERS_MAX];
    let mut wishes = Wishes::default();
    let (mut length, mut chunked, mut load, mut has_id) = (None, false, None, false);
    for (place, header) in fields.iter_mut().zip(parsed.headers.iter()) {
        let name = header.name.as_bytes();
        *place = field::classify(name);
        match *place {
            Field::ContentLength if length.is_some() => {
                return Err(Nonsense("it has several lengths"));
            }
            Field::ContentLength => {
                let right = field::length(header.value);
                length = Some(right.ok_or(Nonsense("its length is no number"))?);
            }
            Field::TransferEncoding => {
                let plain = header.value.trim_ascii().eq_ignore_ascii_case(b"chunked");
                if !plain || chunked || old {
                    return Err(Nonsense("its transfer coding is not just chunked"));
                }
                chunked = true;
            }
            Field::Connection => wishes.read(header.value),
            Field::LoadMetrics if load.is_none() => {
                let place = |part: &[u8]| {
                    let start = if part.is_empty() { 0 } else { field::offset(part, head) };
                    start..start + part.len()
                };
                load = Some((place(name), place(header.value)));
            }
            Field::RequestId => has_id = true,
            Field::Other
            | Field::Host
            | Field::Upgrade
            | Field::Expect
            | Field::Hop
            | Field::Te
            | Field::ForwardedFor
            | Field::ForwardedOwn
            | Field::Traceparent
            | Field::LoadMetrics
            | Field::LoadFormat => {}
        }
    }
    if status == SWITCHING && !(toward.upgrade && wishes.upgrade) {
        return Err(Nonsense("it switched protocols unasked"));
    }
    let (framing, keep) = framing(status, length, chunked, toward.method)?;
    let lasting = if old { wishes.keep_alive } else { true } && !wishes.close;
    let keep = keep && lasting;
    let answer = Answer { status, framing, keep, length: head.len(), load, has_id };
    Ok((answer, fields, wishes))
}

/// Where an answer ends (RFC 9112, 6.3), and whether anything can follow it.
fn framing(
    status: u16,
    length: Option<u64>,
    chunked: bool,
    method: Method,
) -> Result<(Framing, bool), Nonsense> {
    let bodiless = status < 200 || status == 204 || status == 304 || method == Method::Head;
    match (chunked, length) {
        (true, Some(_)) => Err(Nonsense("it has a length and chunks")),
        // It may send what it says all the same, and late: nobody else meets that.
        _ if status == 204 && (chunked || length.is_some_and(|n| n > 0)) => {
            Ok((Framing::None, false))
        }
        _ if bodiless => Ok((Framing::None, true)),
        (true, None) => Ok((Framing::Chunked, true)),
        (false, Some(length)) => Ok((Framing::Length(length), true)),
        (false, None) => Ok((Framing::Close, false)),
    }
}

fn write(
    head: &[u8],
    parsed: &httparse::Response<'_, '_>,
    answer: &Answer,
    fields: &Fields,
    wishes: Wishes,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    field::decimal(out, u64::from(answer.status));
    out.push(b' ');
    out.extend_from_slice(parsed.reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let headers = &*parsed.headers;
    let named = |name: &[u8]| {
        headers
            .iter()
            .zip(fields)
            .any(|(h, f)| *f == Field::Connection && field::has_word(h.value, name))
    };
    // 1xx and 204 have no length (RFC 9110, 8.6); somebody between might believe it.
    let lengthless = answer.status < 200 || answer.status == 204;
    let mut stretches = Stretches::default();
    for (index, header) in headers.iter().enumerate() {
        let passes = match fields[index] {
            Field::ContentLength => !lengthless,
            Field::Connection
            | Field::TransferEncoding
            | Field::Hop
            | Field::Te
            | Field::LoadMetrics => false,
            Field::Upgrade => {
                if answer.status == SWITCHING {
                    stretches.flush(head, out);
                    line(out, b"upgrade", header.value);
                }
                false
            }
            Field::Other
            | Field::Host
            | Field::Expect
            | Field::ForwardedFor
            | Field::ForwardedOwn
            | Field::RequestId
            | Field::Traceparent
            | Field::LoadFormat => !(wishes.names && named(header.name.as_bytes())),
        };
        if passes {
            let start = field::offset(header.name.as_bytes(), head);
            let end = match headers.get(index + 1) {
                Some(next) => field::offset(next.name.as_bytes(), head),
                None => head.len() - 2,
            };
            stretches.keep(start..end, head, out);
        }
    }
    stretches.flush(head, out);
}

/// Ends a head for the client: how the body ends, and what becomes of the connection.
pub fn finish(out: &mut Vec<u8>, status: u16, framing: Framing, old: bool, keep: bool) {
    if framing == Framing::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if status == SWITCHING {
        out.extend_from_slice(b"connection: upgrade\r\n");
    } else if !keep {
        out.extend_from_slice(b"connection: close\r\n");
    } else if old {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
