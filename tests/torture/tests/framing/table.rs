//! The table: what a client may send, and what must become of it. `{id}` is the case's own name.

/// What must become of a case.
#[derive(Debug, Clone, Copy)]
pub enum Expect {
    /// Refused with one of these; the connection ends; nothing reaches an instance.
    Refused(&'static [u16]),
    /// A body that breaks its framing: refused with one of these or cut; the connection ends; no
    /// instance sees a whole request.
    Cut(&'static [u16]),
    /// One request with this body reaches an instance, and the connection goes on after it.
    Served(&'static [u8]),
    /// The same, and the connection ends after the answer.
    Last(&'static [u8]),
    /// Refused, or served with this body: both are sound readings.
    Either(&'static [u16], &'static [u8]),
}

use Expect::{Cut, Either, Last, Refused, Served};

/// One case: its name, what is sent, what must become of it.
pub type Case = (&'static str, &'static [u8], Expect);

const BAD: &[u16] = &[400];
const BAD_CODING: &[u16] = &[400, 501];
const BAD_VERSION: &[u16] = &[400, 505];

/// How a body's length is said.
pub const LENGTHS: &[Case] = &[
    (
        "length-and-coding",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
        Refused(BAD),
    ),
    (
        "coding-and-length",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        Refused(BAD),
    ),
    (
        "two-unequal-lengths",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        Refused(BAD),
    ),
    (
        "two-equal-lengths",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        Either(BAD, b"abc"),
    ),
    (
        "list-of-equal-lengths",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc",
        Either(BAD, b"abc"),
    ),
    (
        "list-of-unequal-lengths",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 4\r\n\r\nabc",
        Refused(BAD),
    ),
    (
        "equal-lengths-written-unequally",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 03\r\n\r\nabc",
        Either(BAD, b"abc"),
    ),
    ("plus-sign", b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc", Refused(BAD)),
    ("minus-sign", b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\nabc", Refused(BAD)),
    ("minus-zero", b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: -0\r\n\r\n", Refused(BAD)),
    ("blank-within", b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 1 2\r\n\r\nabc", Refused(BAD)),
    ("hexadecimal", b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 0x3\r\n\r\nabc", Refused(BAD)),
    ("exponent", b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 1e1\r\n\r\nabc", Refused(BAD)),
    ("decimal-point", b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 3.0\r\n\r\nabc", Refused(BAD)),
    ("empty-length", b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n", Refused(BAD)),
    ("blank-length", b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: \t \r\n\r\n", Refused(BAD)),
    ("quoted-length", b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: \"3\"\r\n\r\nabc", Refused(BAD)),
    ("trailing-comma", b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 3,\r\n\r\nabc", Refused(BAD)),
    ("leading-comma", b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: ,3\r\n\r\nabc", Refused(BAD)),
    ("vertical-tab", b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: \x0b3\r\n\r\nabc", Refused(BAD)),
    (
        "digits-of-another-script",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: \xd9\xa3\r\n\r\nabc",
        Refused(BAD),
    ),
    (
        "overflow-by-one",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616\r\n\r\nabc",
        Refused(&[400, 413]),
    ),
    (
        "overflow-to-three",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551619\r\n\r\nabc",
        Refused(&[400, 413]),
    ),
    (
        "forty-digits",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 1111111111111111111111111111111111111111\r\n\r\nabc",
        Refused(&[400, 413]),
    ),
    (
        "beyond-any-body",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999999999\r\n\r\nabc",
        Refused(&[400, 413]),
    ),
    ("blanks-around", b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: \t 3 \t\r\n\r\nabc", Served(b"abc")),
    ("any-case", b"POST /{id} HTTP/1.1\r\nhOsT: x\r\ncOnTeNt-LeNgTh: 3\r\n\r\nabc", Served(b"abc")),
    ("leading-zeros", b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 003\r\n\r\nabc", Either(BAD, b"abc")),
    ("a-body-with-get", b"GET /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", Either(BAD, b"abc")),
    (
        "a-name-that-looks-alike",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent_Length: 9\r\nContent-Length: 3\r\n\r\nabc",
        Either(BAD, b"abc"),
    ),
    (
        "a-length-talked-away",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nConnection: content-length\r\nContent-Length: 3\r\n\r\nabc",
        Either(BAD, b"abc"),
    ),
    ("no-length-no-body", b"POST /{id} HTTP/1.1\r\nHost: x\r\n\r\n", Either(&[411], b"")),
];

/// What codings are said.
pub const CODINGS: &[Case] = &[
    ("identity", b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\nabc", Refused(BAD_CODING)),
    (
        "identity-with-length",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
        Refused(BAD_CODING),
    ),
    ("gzip", b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc", Refused(BAD_CODING)),
    (
        "gzip-chunked",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD_CODING),
    ),
    (
        "chunked-gzip",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        Refused(BAD_CODING),
    ),
    (
        "chunked-chunked",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD_CODING),
    ),
    (
        "chunked-twice",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD_CODING),
    ),
    (
        "chunked-then-identity",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        Refused(BAD_CODING),
    ),
    (
        "chunked-identity",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        Refused(BAD_CODING),
    ),
    ("empty-coding", b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n", Refused(BAD_CODING)),
    (
        "empty-coding-with-length",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc",
        Refused(BAD_CODING),
    ),
    ("comma-chunked", b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", Either(BAD_CODING, b"")),
    ("xchunked", b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refused(BAD_CODING)),
    ("chunkedx", b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", Refused(BAD_CODING)),
    ("quoted", b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refused(BAD_CODING)),
    ("parameter", b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Refused(BAD_CODING)),
    ("vertical-tab-coding", b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Refused(BAD)),
    ("nul-coding", b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n", Refused(BAD)),
    (
        "old-version-chunked",
        b"POST /{id} HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD_CODING),
    ),
    (
        "old-version-both",
        b"POST /{id} HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD_CODING),
    ),
    (
        "a-coding-that-looks-alike",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer_Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        Either(BAD, b"abc"),
    ),
    (
        "a-coding-talked-away",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        Either(BAD, b"abc"),
    ),
    ("chunked", b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Served(b"abc")),
    ("chunked-any-case", b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \tcHuNkEd \r\n\r\n3\r\nabc\r\n0\r\n\r\n", Served(b"abc")),
];

/// Lines and fields.
pub const LINES: &[Case] = &[
    ("bare-lf-everywhere", b"GET /{id} HTTP/1.1\nHost: x\n\n", Refused(BAD)),
    ("bare-lf-after-first-line", b"GET /{id} HTTP/1.1\nHost: x\r\n\r\n", Refused(BAD)),
    ("bare-lf-after-field", b"GET /{id} HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", Refused(BAD)),
    ("bare-lf-at-the-end", b"GET /{id} HTTP/1.1\r\nHost: x\r\n\n", Refused(BAD)),
    (
        "bare-lf-before-coding",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nA: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD),
    ),
    ("cr-cr-lf", b"GET /{id} HTTP/1.1\r\nHost: x\r\r\n\r\n", Refused(BAD)),
    ("bare-cr-everywhere", b"GET /{id} HTTP/1.1\rHost: x\r\r", Refused(BAD)),
    ("bare-cr-in-value", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n", Refused(BAD)),
    ("bare-cr-in-name", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA\rB: c\r\n\r\n", Refused(BAD)),
    ("bare-cr-in-first-line", b"GET /{id}\r HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("fold-by-blank", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", Refused(BAD)),
    ("fold-by-tab", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA: b\r\n\tc\r\n\r\n", Refused(BAD)),
    (
        "fold-of-coding",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD),
    ),
    (
        "fold-of-length",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n 3\r\n\r\nabc",
        Refused(BAD),
    ),
    ("fold-of-the-first-field", b"GET /{id} HTTP/1.1\r\n Host: x\r\n\r\n", Refused(BAD)),
    ("fold-of-nothing", b"GET /{id} HTTP/1.1\r\nHost: x\r\n \r\n\r\n", Refused(BAD)),
    ("blank-before-colon", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", Refused(BAD)),
    ("tab-before-colon", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA\t: b\r\n\r\n", Refused(BAD)),
    (
        "blank-before-colon-of-coding",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        Refused(BAD),
    ),
    (
        "blank-before-colon-of-length",
        b"POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length : 3\r\n\r\nabc",
        Refused(BAD),
    ),
    ("blank-within-name", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA B: c\r\n\r\n", Refused(BAD)),
    ("empty-name", b"GET /{id} HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", Refused(BAD)),
    ("no-colon", b"GET /{id} HTTP/1.1\r\nHost: x\r\nAB\r\n\r\n", Refused(BAD)),
    ("nul-in-name", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n", Refused(BAD)),
    ("nul-in-value", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", Refused(BAD)),
    ("control-in-value", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA: b\x01c\r\n\r\n", Refused(BAD)),
    ("escape-in-value", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA: \x1b[0m\r\n\r\n", Refused(BAD)),
    ("delete-in-value", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA: b\x7f\r\n\r\n", Refused(BAD)),
    ("form-feed-in-value", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA: b\x0cc\r\n\r\n", Refused(BAD)),
    ("parenthesis-in-name", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA(b): c\r\n\r\n", Refused(BAD)),
    ("quote-in-name", b"GET /{id} HTTP/1.1\r\nHost: x\r\n\"A\": c\r\n\r\n", Refused(BAD)),
    ("high-byte-in-name", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA\xe4: c\r\n\r\n", Refused(BAD)),
    (
        "high-byte-in-value",
        b"GET /{id} HTTP/1.1\r\nHost: x\r\nA: \xe4\xf6\r\n\r\n",
        Either(BAD, b""),
    ),
    ("tab-in-value", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA: b\tc\r\n\r\n", Served(b"")),
    ("empty-value", b"GET /{id} HTTP/1.1\r\nHost: x\r\nA:\r\nB: \r\n\r\n", Served(b"")),
    (
        "odd-but-right-name",
        b"GET /{id} HTTP/1.1\r\nHost: x\r\n!#$%&'*+-.^_`|~1a: b\r\n\r\n",
        Served(b""),
    ),
    ("one-empty-line-first", b"\r\nGET /{id} HTTP/1.1\r\nHost: x\r\n\r\n", Either(BAD, b"")),
    ("blank-line-first", b" \r\nGET /{id} HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("bare-lf-first", b"\nGET /{id} HTTP/1.1\r\nHost: x\r\n\r\n", Either(BAD, b"")),
];

/// First lines, targets and versions.
pub const FIRST_LINES: &[Case] = &[
    ("two-blanks", b"GET  /{id} HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("tab-for-blank", b"GET\t/{id}\tHTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("blank-at-the-end", b"GET /{id} HTTP/1.1 \r\nHost: x\r\n\r\n", Refused(BAD)),
    ("four-words", b"GET /{id} a HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD_VERSION)),
    ("blank-first", b" GET /{id} HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("no-target", b"GET HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("relative-target", b"GET {id} HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("query-alone", b"GET ?{id} HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("nul-in-target", b"GET /{id}\x00 HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("control-in-target", b"GET /{id}\x01 HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("delete-in-target", b"GET /{id}\x7f HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("high-byte-in-target", b"GET /{id}\xe4 HTTP/1.1\r\nHost: x\r\n\r\n", Either(BAD, b"")),
    ("fragment", b"GET /{id}#a HTTP/1.1\r\nHost: x\r\n\r\n", Either(BAD, b"")),
    ("no-version", b"GET /{id}\r\nHost: x\r\n\r\n", Refused(BAD_VERSION)),
    ("simple-request", b"GET /{id}\r\n", Refused(BAD_VERSION)),
    ("version-0.9", b"GET /{id} HTTP/0.9\r\nHost: x\r\n\r\n", Refused(BAD_VERSION)),
    ("version-1.2", b"GET /{id} HTTP/1.2\r\nHost: x\r\n\r\n", Either(BAD_VERSION, b"")),
    ("version-2.0", b"GET /{id} HTTP/2.0\r\nHost: x\r\n\r\n", Refused(BAD_VERSION)),
    ("version-1.10", b"GET /{id} HTTP/1.10\r\nHost: x\r\n\r\n", Refused(BAD_VERSION)),
    ("version-01.1", b"GET /{id} HTTP/01.1\r\nHost: x\r\n\r\n", Refused(BAD_VERSION)),
    ("version-1", b"GET /{id} HTTP/1\r\nHost: x\r\n\r\n", Refused(BAD_VERSION)),
    ("version-1.", b"GET /{id} HTTP/1.\r\nHost: x\r\n\r\n", Refused(BAD_VERSION)),
    ("version-minus", b"GET /{id} HTTP/-1.1\r\nHost: x\r\n\r\n", Refused(BAD_VERSION)),
    ("small-letters-version", b"GET /{id} http/1.1\r\nHost: x\r\n\r\n", Refused(BAD_VERSION)),
    ("another-protocol", b"GET /{id} ICY/1.1\r\nHost: x\r\n\r\n", Refused(BAD_VERSION)),
    ("preface-of-http-2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused(&[400, 404, 405, 421, 505])),
    ("hello-of-tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", Refused(BAD)),
    ("at-in-method", b"G@T /{id} HTTP/1.1\r\nHost: x\r\n\r\n", Refused(&[400, 405, 501])),
    (
        "parenthesis-in-method",
        b"GET() /{id} HTTP/1.1\r\nHost: x\r\n\r\n",
        Refused(&[400, 405, 501]),
    ),
    ("unknown-method", b"BREW /{id} HTTP/1.1\r\nHost: x\r\n\r\n", Either(&[405, 501], b"")),
    (
        "small-letters-method",
        b"get /{id} HTTP/1.1\r\nHost: x\r\n\r\n",
        Either(&[400, 405, 501], b""),
    ),
    ("options", b"OPTIONS /{id} HTTP/1.1\r\nHost: x\r\n\r\n", Served(b"")),
    ("trace", b"TRACE /{id} HTTP/1.1\r\nHost: x\r\n\r\n", Either(&[405, 501], b"")),
    (
        "connect",
        b"CONNECT {id}:80 HTTP/1.1\r\nHost: {id}:80\r\n\r\n",
        Refused(&[400, 403, 405, 501]),
    ),
    (
        "connect-to-path",
        b"CONNECT /{id} HTTP/1.1\r\nHost: x\r\n\r\n",
        Refused(&[400, 403, 405, 501]),
    ),
    ("authority-form", b"GET {id}:80 HTTP/1.1\r\nHost: {id}:80\r\n\r\n", Refused(BAD)),
    ("asterisk-with-get", b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("asterisk-and-more", b"OPTIONS *{id} HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("old-version", b"GET /{id} HTTP/1.0\r\n\r\n", Last(b"")),
    (
        "old-version-with-length",
        b"POST /{id} HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
        Last(b"abc"),
    ),
    (
        "old-version-kept-alive",
        b"GET /{id} HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
        Either(BAD, b""),
    ),
    ("asked-to-close", b"GET /{id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", Last(b"")),
    (
        "asked-to-close-in-a-list",
        b"GET /{id} HTTP/1.1\r\nHost: x\r\nConnection: a, ClOsE\r\n\r\n",
        Last(b""),
    ),
    (
        "asked-to-close-twice",
        b"GET /{id} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
        Last(b""),
    ),
];

/// Whose request it is.
pub const HOSTS: &[Case] = &[
    ("no-host", b"GET /{id} HTTP/1.1\r\n\r\n", Refused(BAD)),
    ("two-hosts", b"GET /{id} HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", Refused(BAD)),
    ("two-equal-hosts", b"GET /{id} HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("two-hosts-of-two-cases", b"GET /{id} HTTP/1.1\r\nHost: x\r\nhOST: y\r\n\r\n", Refused(BAD)),
    ("list-of-hosts", b"GET /{id} HTTP/1.1\r\nHost: x, y\r\n\r\n", Refused(BAD)),
    ("blank-in-host", b"GET /{id} HTTP/1.1\r\nHost: x y\r\n\r\n", Refused(BAD)),
    ("path-in-host", b"GET /{id} HTTP/1.1\r\nHost: x/y\r\n\r\n", Refused(BAD)),
    ("user-in-host", b"GET /{id} HTTP/1.1\r\nHost: a@x\r\n\r\n", Refused(BAD)),
    ("query-in-host", b"GET /{id} HTTP/1.1\r\nHost: x?a\r\n\r\n", Refused(BAD)),
    ("fragment-in-host", b"GET /{id} HTTP/1.1\r\nHost: x#a\r\n\r\n", Refused(BAD)),
    ("backslash-in-host", b"GET /{id} HTTP/1.1\r\nHost: x\\y\r\n\r\n", Refused(BAD)),
    ("markup-in-host", b"GET /{id} HTTP/1.1\r\nHost: <x>\r\n\r\n", Refused(BAD)),
    ("port-of-letters", b"GET /{id} HTTP/1.1\r\nHost: x:ab\r\n\r\n", Refused(BAD)),
    ("port-too-large", b"GET /{id} HTTP/1.1\r\nHost: x:99999\r\n\r\n", Either(BAD, b"")),
    ("two-ports", b"GET /{id} HTTP/1.1\r\nHost: x:1:2\r\n\r\n", Refused(BAD)),
    ("empty-host", b"GET /{id} HTTP/1.1\r\nHost:\r\n\r\n", Either(BAD, b"")),
    ("folded-host", b"GET /{id} HTTP/1.1\r\nHost:\r\n x\r\n\r\n", Refused(BAD)),
    ("two-hosts-in-old-version", b"GET /{id} HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", Refused(BAD)),
    ("host-with-port", b"GET /{id} HTTP/1.1\r\nHost: x:8080\r\n\r\n", Served(b"")),
    ("host-of-six", b"GET /{id} HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", Served(b"")),
    (
        "host-talked-away",
        b"GET /{id} HTTP/1.1\r\nHost: x\r\nConnection: host\r\n\r\n",
        Either(BAD, b""),
    ),
    ("absolute-form", b"GET http://x/{id} HTTP/1.1\r\nHost: x\r\n\r\n", Served(b"")),
    (
        "absolute-form-of-another",
        b"GET http://x/{id} HTTP/1.1\r\nHost: y\r\n\r\n",
        Either(BAD, b""),
    ),
    ("absolute-form-without-host", b"GET http://x/{id} HTTP/1.1\r\n\r\n", Refused(BAD)),
    ("absolute-form-with-user", b"GET http://a@x/{id} HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("absolute-form-of-nobody", b"GET http:///{id} HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
    ("absolute-form-of-a-file", b"GET file:///{id} HTTP/1.1\r\nHost: x\r\n\r\n", Refused(BAD)),
];

/// Chunked bodies. Their head may have gone on before the fault is seen.
pub const CHUNKS: &[Case] = &[
    ("no-size", b"\r\nabc\r\n0\r\n\r\n", Cut(BAD)),
    ("size-of-letters", b"xyz\r\nabc\r\n0\r\n\r\n", Cut(BAD)),
    ("size-with-plus", b"+3\r\nabc\r\n0\r\n\r\n", Cut(BAD)),
    ("size-with-minus", b"-3\r\nabc\r\n0\r\n\r\n", Cut(BAD)),
    ("size-with-0x", b"0x3\r\nabc\r\n0\r\n\r\n", Cut(BAD)),
    ("size-after-blank", b" 3\r\nabc\r\n0\r\n\r\n", Cut(BAD)),
    ("size-before-blank", b"3 \r\nabc\r\n0\r\n\r\n", Either(BAD, b"abc")),
    ("size-before-tab", b"3\t\r\nabc\r\n0\r\n\r\n", Either(BAD, b"abc")),
    ("size-with-blank", b"1 3\r\nabc\r\n0\r\n\r\n", Cut(BAD)),
    ("size-with-nul", b"3\x00\r\nabc\r\n0\r\n\r\n", Cut(BAD)),
    ("size-with-underscore", b"0_3\r\nabc\r\n0\r\n\r\n", Cut(BAD)),
    ("size-beyond-64-bits", b"10000000000000003\r\nabc\r\n0\r\n\r\n", Cut(&[400, 413])),
    ("size-of-64-bits", b"ffffffffffffffff\r\nabc\r\n0\r\n\r\n", Cut(&[400, 413])),
    ("size-of-63-bits", b"8000000000000000\r\nabc\r\n0\r\n\r\n", Cut(&[400, 413])),
    (
        "size-of-forty-digits",
        b"0000000000000000000000000000000000000003\r\nabc\r\n0\r\n\r\n",
        Either(BAD, b"abc"),
    ),
    ("capitals", b"A\r\n0123456789\r\n0\r\n\r\n", Served(b"0123456789")),
    ("zeros-before", b"003\r\nabc\r\n0\r\n\r\n", Served(b"abc")),
    ("last-of-many-zeros", b"3\r\nabc\r\n000\r\n\r\n", Either(BAD, b"abc")),
    ("bare-lf-after-size", b"3\nabc\r\n0\r\n\r\n", Cut(BAD)),
    ("bare-cr-after-size", b"3\rabc\r\n0\r\n\r\n", Cut(BAD)),
    ("cr-cr-lf-after-size", b"3\r\r\nabc\r\n0\r\n\r\n", Cut(BAD)),
    ("bare-lf-after-data", b"3\r\nabc\n0\r\n\r\n", Cut(BAD)),
    ("nothing-after-data", b"3\r\nabc0\r\n\r\n", Cut(BAD)),
    ("two-bytes-too-many", b"3\r\nabcde\r\n0\r\n\r\n", Cut(BAD)),
    ("two-letters-after-data", b"3\r\nabcXX0\r\n\r\n", Cut(BAD)),
    ("one-byte-too-few", b"4\r\nabc\r\n0\r\n\r\n", Cut(BAD)),
    ("bare-lf-at-the-end", b"3\r\nabc\r\n0\n\n", Cut(BAD)),
    ("bare-lf-last", b"3\r\nabc\r\n0\r\n\n", Cut(BAD)),
    ("no-last-line", b"3\r\nabc\r\n0\r\nX", Cut(BAD)),
    ("extension", b"3;a=b\r\nabc\r\n0\r\n\r\n", Either(BAD, b"abc")),
    ("extension-quoted", b"3;a=\"b;c\"\r\nabc\r\n0;d\r\n\r\n", Either(BAD, b"abc")),
    ("extension-with-bare-lf", b"3;a\nb\r\nabc\r\n0\r\n\r\n", Cut(BAD)),
    ("extension-with-bare-cr", b"3;a\rb\r\nabc\r\n0\r\n\r\n", Cut(BAD)),
    ("extension-quoting-a-line", b"3;a=\"\r\nabc\r\n0\r\n\r\n", Either(BAD, b"abc")),
    ("extension-with-nul", b"3;a=\x00\r\nabc\r\n0\r\n\r\n", Either(BAD, b"abc")),
    ("extension-without-size", b";a=b\r\nabc\r\n0\r\n\r\n", Cut(BAD)),
    ("trailer", b"3\r\nabc\r\n0\r\nT: 1\r\n\r\n", Served(b"abc")),
    ("trailer-of-length", b"3\r\nabc\r\n0\r\nContent-Length: 99\r\n\r\n", Either(BAD, b"abc")),
    (
        "trailer-of-coding",
        b"3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        Either(BAD, b"abc"),
    ),
    ("trailer-of-host", b"3\r\nabc\r\n0\r\nHost: evil\r\n\r\n", Either(BAD, b"abc")),
    ("trailer-with-blank", b"3\r\nabc\r\n0\r\nT : 1\r\n\r\n", Cut(BAD)),
    ("trailer-with-bare-lf", b"3\r\nabc\r\n0\r\nT: 1\n\r\n", Cut(BAD)),
    ("trailer-with-nul", b"3\r\nabc\r\n0\r\nT: \x00\r\n\r\n", Cut(BAD)),
    ("trailer-folded", b"3\r\nabc\r\n0\r\nT: 1\r\n 2\r\n\r\n", Cut(BAD)),
    (
        "trailer-that-is-a-request",
        b"3\r\nabc\r\n0\r\nGET /marker-{id} HTTP/1.1\r\nHost: x\r\n\r\n",
        Cut(BAD),
    ),
];
