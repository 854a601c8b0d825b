//! The front door's readers as the fuzz targets see them: bytes in, plain values out.

use crate::http::answer::{self, Read, Toward};
use crate::http::chunks::{Chunks, Step};
use crate::http::field::Framing;
use crate::http::request::{self, Method, Origin};

/// How a body's end is known, in words.
fn framing(framing: Framing) -> (&'static str, u64) {
    match framing {
        Framing::None => ("none", 0),
        Framing::Length(length) => ("length", length),
        Framing::Chunked => ("chunked", 0),
        Framing::Close => ("close", 0),
    }
}

/// A request's head that was taken.
#[derive(Debug)]
pub struct Taken {
    /// What the instance gets, without a body.
    pub written: Vec<u8>,
    /// Bytes of what was read that belong to the head.
    pub used: usize,
    /// How its body ends: `none`, `length` or `chunked`; and the length.
    pub framing: (&'static str, u64),
    /// Its target.
    pub target: Vec<u8>,
    /// Whose it is.
    pub host: Vec<u8>,
}

/// Reads a request's head; `None` when it is refused or not whole.
#[must_use]
pub fn request_head(bytes: &[u8]) -> Option<Taken> {
    let origin =
        Origin { peer: b"10.0.0.9", fresh_id: *b"0123456789abcdef", target_bytes_max: 4096 };
    let (request, used) = request::read(bytes, &origin, Vec::new()).ok()??;
    Some(Taken {
        written: request.head[..request.head_end].to_vec(),
        used,
        framing: framing(request.framing),
        target: request.target().to_vec(),
        host: request.host().to_vec(),
    })
}

/// Reads an answer's head to a request of some kind, and gives what the client gets of it: the head
/// with its last lines, and how its body ends. `None` when it is refused or not whole.
#[must_use]
pub fn answer_head(bytes: &[u8], head_only: bool, old: bool) -> Option<(Vec<u8>, &'static str)> {
    let method = if head_only { Method::Head } else { Method::Idempotent };
    let toward = Toward { method, old, keep: true, upgrade: false };
    let mut out = Vec::new();
    let Ok(Read::Whole(head)) = answer::read(bytes, toward, &mut out) else { return None };
    if head.is_interim() {
        out.extend_from_slice(b"\r\n");
        return Some((out, "none"));
    }
    let (outward, keep) = answer::outward(head.framing, toward);
    answer::finish(&mut out, head.status, outward, old, keep);
    Some((out, framing(outward).0))
}

/// A chunked body, read piece by piece as it is cut: what it holds, whether it is whole, and how
/// many bytes are left behind it. `None` when its framing is broken.
#[must_use]
pub fn chunks(pieces: &[&[u8]]) -> Option<(Vec<u8>, bool, usize)> {
    let (mut reader, mut body, mut left) = (Chunks::default(), Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            match reader.step(rest).ok()? {
                Step::Data(data, used) => {
                    body.extend_from_slice(data);
                    rest = &rest[used..];
                }
                Step::Trailer(_, used) => rest = &rest[used..],
                Step::More => break,
                Step::End(used) => {
                    left += rest.len() - used;
                    break;
                }
            }
        }
    }
    Some((body, reader.is_done(), left))
}

/// A saved view: how many of its services can be read.
#[must_use]
pub fn saved_view(bytes: &[u8]) -> usize {
    crate::save::readable(bytes)
}

/// What a health check or a probe reads of an answer: its status and the length of its head.
#[must_use]
pub fn check_answer(bytes: &[u8]) -> Option<(u16, usize)> {
    crate::ask::readable(bytes)
}
