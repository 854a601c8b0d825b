//! Bodies on their way: how far one is read, and how it is written on.

use super::answer::Nonsense;
use super::chunks::{self, Chunks, Step};
use super::field::Framing;

/// How far a body is read.
#[derive(Debug)]
pub enum Reader {
    /// So many bytes are left.
    Length(u64),
    /// In chunks.
    Chunked(Box<Chunks>),
    /// Until the connection ends.
    Close,
}

/// What the front of some bytes gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Some of the body.
    Data(&'a [u8]),
    /// A trailer, whole, as it came.
    Trailer(Vec<u8>),
    /// More bytes are needed.
    More,
    /// It is complete.
    End,
}

impl Reader {
    /// A reader of a body with this framing.
    #[must_use]
    pub fn new(framing: Framing) -> Reader {
        match framing {
            Framing::None => Reader::Length(0),
            Framing::Length(n) => Reader::Length(n),
            Framing::Chunked => Reader::Chunked(Box::default()),
            Framing::Close => Reader::Close,
        }
    }

    /// Reads on from the front of `bytes`; the number says how many were used.
    ///
    /// # Errors
    /// [`Nonsense`] where the framing is broken.
    pub fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<(Piece<'a>, usize), Nonsense> {
        match self {
            Reader::Length(0) => Ok((Piece::End, 0)),
            Reader::Chunked(chunks) => Ok(match chunks.step(bytes)? {
                Step::Data(data, used) => (Piece::Data(data), used),
                Step::Trailer(line, used) => (Piece::Trailer(line), used),
                Step::More => (Piece::More, bytes.len()),
                Step::End(used) => (Piece::End, used),
            }),
            Reader::Length(_) | Reader::Close if bytes.is_empty() => Ok((Piece::More, 0)),
            Reader::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= here as u64;
                Ok((Piece::Data(&bytes[..here]), here))
            }
            Reader::Close => Ok((Piece::Data(bytes), bytes.len())),
        }
    }

    /// Bytes that are sure to come, as far as the framing says.
    #[must_use]
    pub fn announced(&self) -> u64 {
        match self {
            Reader::Length(left) => *left,
            Reader::Chunked(chunks) => chunks.announced(),
            Reader::Close => 0,
        }
    }

    /// Whether nothing more is needed.
    #[must_use]
    pub fn is_done(&self) -> bool {
        match self {
            Reader::Length(left) => *left == 0,
            Reader::Chunked(chunks) => chunks.is_done(),
            Reader::Close => false,
        }
    }

    /// Whether the end of the connection is the end of the body.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        matches!(self, Reader::Close)
    }
}

/// Writes a piece of a body in this framing.
pub fn write(out: &mut Vec<u8>, framing: Framing, data: &[u8]) {
    if framing == Framing::Chunked {
        chunks::write(out, data);
    } else {
        out.extend_from_slice(data);
    }
}

/// Writes the end of a body in this framing, with these lines behind it where it can have any.
pub fn end(out: &mut Vec<u8>, framing: Framing, trailers: &[u8]) {
    if framing == Framing::Chunked {
        out.extend_from_slice(chunks::LAST);
        out.extend_from_slice(trailers);
        out.extend_from_slice(b"\r\n");
    }
}
