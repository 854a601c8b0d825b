//! Header names that mean something to the balancer, token lists, numbers: what both heads share.

use std::ops::Range;

/// A header by what the balancer does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Passed on as it is.
    Other,
    /// `Host`.
    Host,
    /// `Connection`: about this connection, and names others that are.
    Connection,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Upgrade`.
    Upgrade,
    /// `Expect`.
    Expect,
    /// `TE`: the client takes trailers.
    Te,
    /// `Trailer`, `Keep-Alive`, `Proxy-Connection`, `HTTP2-Settings`: about this connection
    /// alone (RFC 9110, 7.6.1).
    Hop,
    /// `X-Forwarded-For`, which is continued.
    ForwardedFor,
    /// `X-Forwarded-Proto`, `X-Forwarded-Host`: what a client says there is not believed.
    ForwardedOwn,
    /// `X-Request-Id`.
    RequestId,
    /// `traceparent` (W3C Trace Context).
    Traceparent,
    /// `endpoint-load-metrics`, `-bin`: what an instance says of its load (ORCA).
    LoadMetrics,
    /// `endpoint-load-metrics-format`: a client asks for the service's load.
    LoadFormat,
}

/// Tells a header by its name.
#[must_use]
pub fn classify(name: &[u8]) -> Field {
    let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
    match name.len() {
        2 if is("te") => Field::Te,
        4 if is("host") => Field::Host,
        6 if is("expect") => Field::Expect,
        7 if is("upgrade") => Field::Upgrade,
        7 if is("trailer") => Field::Hop,
        10 if is("connection") => Field::Connection,
        10 if is("keep-alive") => Field::Hop,
        11 if is("traceparent") => Field::Traceparent,
        12 if is("x-request-id") => Field::RequestId,
        14 if is("content-length") => Field::ContentLength,
        14 if is("http2-settings") => Field::Hop,
        15 if is("x-forwarded-for") => Field::ForwardedFor,
        16 if is("proxy-connection") => Field::Hop,
        16 if is("x-forwarded-host") => Field::ForwardedOwn,
        17 if is("transfer-encoding") => Field::TransferEncoding,
        17 if is("x-forwarded-proto") => Field::ForwardedOwn,
        21 if is("endpoint-load-metrics") => Field::LoadMetrics,
        25 if is("endpoint-load-metrics-bin") => Field::LoadMetrics,
        28 if is("endpoint-load-metrics-format") => Field::LoadFormat,
        _ => Field::Other,
    }
}

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

/// The words of `Connection` headers that count here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `close`.
    pub close: bool,
    /// `keep-alive`.
    pub keep_alive: bool,
    /// `upgrade`.
    pub upgrade: bool,
    /// Any other word: a header of that name is not passed on.
    pub names: bool,
}

impl Wishes {
    /// Takes in one more header.
    pub fn read(&mut self, value: &[u8]) {
        for word in words(value) {
            if word.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if word.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if word.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if !word.is_empty() {
                self.names = true;
            }
        }
    }
}

/// The words of a comma-separated list.
pub fn words(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

/// Whether a comma-separated list has a word, in any case.
#[must_use]
pub fn has_word(list: &[u8], word: &[u8]) -> bool {
    words(list).any(|w| w.eq_ignore_ascii_case(word))
}

/// A length as `Content-Length` says it: digits alone, at most 18 of them (no file is longer).
#[must_use]
pub fn length(value: &[u8]) -> Option<u64> {
    let right = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    right.then(|| value.iter().fold(0u64, |n, digit| n * 10 + u64::from(digit - b'0')))
}

/// Writes a whole header.
pub fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes `n` in decimal digits.
pub fn decimal(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        // A remainder of ten fits a byte.
        digits[at] = b'0' + u8::try_from(n % 10).unwrap_or(0);
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Whether each line of a head ends with CR LF: httparse reads a bare LF as an end as well, and two
/// readers of one message must never see different lines.
#[must_use]
pub fn has_clean_lines(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head[at - 1] == b'\r')
}

/// Where the head at the front of `bytes` may end: whether an empty line was seen at or after
/// `from`, so that a head that trickles in is not parsed anew with each byte.
#[must_use]
pub fn may_be_whole(bytes: &[u8], from: usize) -> bool {
    let from = from.saturating_sub(3).min(bytes.len());
    let tail = &bytes[from..];
    memchr::memchr_iter(b'\n', tail).any(|at| {
        let next = &tail[at + 1..];
        next.first() == Some(&b'\n') || next.starts_with(b"\r\n")
    })
}

/// The headers that are passed on, as stretches of the head's own bytes: neighbours are one copy.
pub struct Stretches {
    run: Range<usize>,
}

impl Default for Stretches {
    fn default() -> Stretches {
        Stretches { run: 0..0 }
    }
}

impl Stretches {
    /// Adds the line at `line` of `head` to what is passed on.
    pub fn keep(&mut self, line: Range<usize>, head: &[u8], out: &mut Vec<u8>) {
        if self.run.end == line.start {
            self.run.end = line.end;
        } else {
            self.flush(head, out);
            self.run = line;
        }
    }

    /// Writes what was gathered.
    pub fn flush(&mut self, head: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(head.get(self.run.clone()).unwrap_or_default());
        self.run = 0..0;
    }
}

/// Where a slice of `whole` begins.
#[must_use]
pub fn offset(part: &[u8], whole: &[u8]) -> usize {
    part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_in_any_case() {
        for (name, field) in [
            ("HOST", Field::Host),
            ("hosT", Field::Host),
            ("hose", Field::Other),
            ("TE", Field::Te),
            ("Transfer-Encoding", Field::TransferEncoding),
            ("Transfer_Encoding", Field::Other),
            ("X-Forwarded-For", Field::ForwardedFor),
            ("endpoint-load-metrics-bin", Field::LoadMetrics),
            ("", Field::Other),
        ] {
            assert_eq!(classify(name.as_bytes()), field, "{name}");
        }
    }

    #[test]
    fn lengths_are_digits_alone() {
        assert_eq!(length(b"0"), Some(0));
        assert_eq!(length(b"999999999999999999"), Some(999_999_999_999_999_999));
        for text in ["", "+1", "-1", " 1", "1 ", "1,1", "0x1", "1.0", "1000000000000000000"] {
            assert_eq!(length(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn lines_end_with_both() {
        assert!(has_clean_lines(b"GET / HTTP/1.1\r\nA: b\r\n\r\n"));
        assert!(!has_clean_lines(b"GET / HTTP/1.1\nA: b\r\n\r\n"));
        assert!(!has_clean_lines(b"\nGET / HTTP/1.1\r\n\r\n"));
    }

    #[test]
    fn a_whole_head_is_never_taken_for_a_part() {
        for text in ["GET / HTTP/1.1\r\nA: b\r\n\r\n", "G\n\n", "\r\n\r\n", "x\n\r\n"] {
            let bytes = text.as_bytes();
            for from in 0..bytes.len() {
                assert!(may_be_whole(bytes, from), "{text:?} from {from}");
            }
        }
        assert!(!may_be_whole(b"GET / HTTP/1.1\r\nA: b\r\n", 0));
    }

    #[test]
    fn stretches_join_neighbours() {
        let head = b"a\r\nbb\r\nccc\r\n";
        let (mut out, mut stretches) = (Vec::new(), Stretches::default());
        stretches.keep(0..3, head, &mut out);
        stretches.keep(3..7, head, &mut out);
        assert!(out.is_empty());
        stretches.flush(head, &mut out);
        stretches.keep(7..12, head, &mut out);
        stretches.flush(head, &mut out);
        assert_eq!(out, head);
    }
}
