//! The table: what an instance may answer, and what the client must be told.

/// What the client must see.
#[derive(Debug, Clone, Copy)]
pub enum Told {
    /// A 502, and the connection to the instance serves nobody else.
    Bad,
    /// This status and body, whole.
    Passed(u16, &'static [u8]),
    /// Either of the two.
    Either(u16, &'static [u8]),
    /// An answer that does not look whole, or a 502; the connection serves nobody else.
    Broken,
    /// This status and body, whole, and the connection serves nobody else: more came than was asked.
    PassedOnce(u16, &'static [u8]),
}

/// What the instance does after its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Waits for another request.
    Keep,
    /// Ends the connection.
    Close,
    /// Resets it.
    Reset,
}

use Then::{Close, Keep, Reset};
use Told::{Bad, Broken, Either, Passed, PassedOnce};

/// One case: its name, the bytes, what follows them, what the client must see.
pub type Case = (&'static str, &'static [u8], Then, Told);

/// Answers whose length could be read in two ways.
pub const LENGTHS: &[Case] = &[
    ("length-and-coding", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Keep, Bad),
    ("coding-and-length", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 13\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Keep, Bad),
    ("unequal-lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", Keep, Bad),
    ("equal-lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", Keep, Either(200, b"abc")),
    ("list-of-lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabcd", Keep, Bad),
    ("plus-sign", b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc", Keep, Bad),
    ("minus-sign", b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc", Keep, Bad),
    ("hexadecimal", b"HTTP/1.1 200 OK\r\nContent-Length: 0x3\r\n\r\nabc", Keep, Bad),
    ("empty-length", b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nabc", Close, Bad),
    ("overflow", b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551619\r\n\r\nabc", Keep, Bad),
    ("gzip-coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc", Close, Bad),
    ("identity-coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nabc", Close, Either(200, b"abc")),
    ("chunked-chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Keep, Bad),
    ("chunked-twice", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Keep, Bad),
    ("chunked-gzip", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", Close, Bad),
    ("old-version-chunked", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Close, Either(200, b"abc")),
];

/// Heads that are none.
pub const HEADS: &[Case] = &[
    ("bare-lf", b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", Keep, Bad),
    ("bare-lf-after-field", b"HTTP/1.1 200 OK\r\nA: b\nContent-Length: 3\r\n\r\nabc", Keep, Bad),
    (
        "fold",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 3\r\n\r\nabc",
        Keep,
        Either(200, b"abc"),
    ),
    ("fold-of-length", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n 4\r\n\r\nabc", Keep, Bad),
    ("blank-before-colon", b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc", Close, Bad),
    ("empty-name", b"HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 3\r\n\r\nabc", Keep, Bad),
    ("no-colon", b"HTTP/1.1 200 OK\r\nAB\r\nContent-Length: 3\r\n\r\nabc", Keep, Bad),
    ("nul-in-value", b"HTTP/1.1 200 OK\r\nA: b\x00c\r\nContent-Length: 3\r\n\r\nabc", Keep, Bad),
    (
        "bare-cr-in-value",
        b"HTTP/1.1 200 OK\r\nA: b\rSet-Cookie: evil=1\r\nContent-Length: 3\r\n\r\nabc",
        Keep,
        Bad,
    ),
    ("control-in-value", b"HTTP/1.1 200 OK\r\nA: b\x01\r\nContent-Length: 3\r\n\r\nabc", Keep, Bad),
    ("two-digits", b"HTTP/1.1 20 OK\r\nContent-Length: 3\r\n\r\nabc", Keep, Bad),
    ("four-digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 3\r\n\r\nabc", Keep, Bad),
    ("letters-for-status", b"HTTP/1.1 abc OK\r\nContent-Length: 3\r\n\r\nabc", Keep, Bad),
    ("status-below-100", b"HTTP/1.1 099 OK\r\nContent-Length: 3\r\n\r\nabc", Keep, Bad),
    ("version-2", b"HTTP/2.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", Keep, Bad),
    ("another-protocol", b"ICY 200 OK\r\nContent-Length: 3\r\n\r\nabc", Close, Bad),
    ("text", b"hello\r\n\r\n", Close, Bad),
    ("zeros", b"\x00\x00\x00\x00", Close, Bad),
    ("nothing", b"", Close, Bad),
    ("half-a-head", b"HTTP/1.1 200 OK\r\nContent-Le", Close, Bad),
    ("half-a-head-and-reset", b"HTTP/1.1 200 OK\r\nContent-Le", Reset, Bad),
    (
        "switched-unasked",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
        Keep,
        Bad,
    ),
    ("interim-and-no-more", b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n", Close, Bad),
    (
        "interim-with-nonsense",
        b"HTTP/1.1 103 Early Hints\r\nA : b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        Keep,
        Bad,
    ),
];

/// Bodies that end before their end.
pub const CUTS: &[Case] = &[
    ("length-cut", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", Close, Broken),
    ("length-reset", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", Reset, Broken),
    ("length-without-a-byte", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Close, Broken),
    ("no-last-chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Close, Broken),
    ("no-last-chunk-and-reset", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Reset, Broken),
    ("cut-within-data", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc", Close, Broken),
    ("cut-within-size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1", Close, Broken),
    ("cut-before-the-last-line", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", Close, Broken),
    ("no-chunk-at-all", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Close, Broken),
    ("bad-size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\nabc\r\n0\r\n\r\n", Keep, Broken),
    ("size-with-sign", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", Keep, Broken),
    ("no-crlf-after-data", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n", Keep, Broken),
    ("bare-lf-after-size", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", Keep, Broken),
    ("size-beyond-64-bits", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n", Keep, Broken),
    ("by-close-and-reset", b"HTTP/1.1 200 OK\r\n\r\nabc", Reset, Broken),
];

/// More than one answer to one request.
pub const SPLITS: &[Case] = &[
    ("two-answers", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", Keep, PassedOnce(200, b"abc")),
    ("bytes-after-a-length", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcX", Keep, PassedOnce(200, b"abc")),
    ("answer-after-chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", Keep, PassedOnce(200, b"abc")),
    ("body-of-204", b"HTTP/1.1 204 No Content\r\nContent-Length: 38\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Keep, PassedOnce(204, b"")),
    ("chunks-of-204", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", Keep, PassedOnce(204, b"")),
    ("body-of-304", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", Keep, PassedOnce(304, b"")),
    ("asked-to-close", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", Keep, PassedOnce(200, b"abc")),
    ("old-version", b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", Keep, PassedOnce(200, b"abc")),
];

/// What is right, and must not be hurt by all the rest.
pub const RIGHT: &[Case] = &[
    ("plain", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Keep, Passed(200, b"abc")),
    ("chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", Keep, Passed(200, b"abc")),
    ("chunks-with-extension", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b\"\r\nabc\r\n0;c\r\nT: 1\r\n\r\n", Keep, Passed(200, b"abc")),
    ("by-close", b"HTTP/1.1 200 OK\r\n\r\nabc", Close, Passed(200, b"abc")),
    ("by-close-and-empty", b"HTTP/1.1 200 OK\r\n\r\n", Close, Passed(200, b"")),
    ("old-version-by-close", b"HTTP/1.0 200 OK\r\n\r\nabc", Close, Passed(200, b"abc")),
    ("no-reason", b"HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc", Keep, Either(200, b"abc")),
    ("empty-reason", b"HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\nabc", Keep, Passed(200, b"abc")),
    ("unknown-status", b"HTTP/1.1 799 Odd\r\nContent-Length: 3\r\n\r\nabc", Keep, Either(799, b"abc")),
    ("no-content", b"HTTP/1.1 204 No Content\r\n\r\n", Keep, Passed(204, b"")),
    ("not-modified", b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", Keep, Passed(304, b"")),
    ("two-interim-ones", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Keep, Passed(200, b"abc")),
    ("failure", b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 3\r\n\r\nabc", Keep, Passed(500, b"abc")),
];
