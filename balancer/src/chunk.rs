//! Chunked bodies: reading them strictly, writing them plainly.

use crate::head::Nonsense;
use bytes::{Buf, Bytes, BytesMut};

/// Longest line between chunks, extensions included: nobody sends them, attackers send long ones.
const LINE_BYTES_MAX: usize = 1024;
/// Bytes of trailers that are read and dropped.
const TRAILER_BYTES_MAX: usize = 16 << 10;

/// Where in a chunked body a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailer(usize),
    Done,
}

/// A reader of one chunked body.
#[derive(Debug)]
pub struct Chunks {
    state: State,
}

/// What the bytes at hand gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Some of the body.
    Data(Bytes),
    /// More bytes are needed.
    More,
    /// The body is complete; what is left in the buffer is not part of it.
    End,
}

impl Default for Chunks {
    fn default() -> Chunks {
        Chunks { state: State::Size }
    }
}

impl Chunks {
    /// Reads on from the front of `buffer`.
    ///
    /// # Errors
    /// [`Nonsense`] where the framing is broken.
    pub fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, Nonsense> {
        loop {
            match self.state {
                State::Done => return Ok(Step::End),
                State::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Step::More);
                    }
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let left = left - here as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Step::Data(buffer.split_to(here).freeze()));
                }
                State::DataEnd => {
                    if buffer.len() < 2 {
                        return Ok(Step::More);
                    }
                    if &buffer[..2] != b"\r\n" {
                        return Err(Nonsense("a chunk is longer than it said"));
                    }
                    buffer.advance(2);
                    self.state = State::Size;
                }
                State::Size => {
                    let Some(end) = line_end(buffer, LINE_BYTES_MAX)? else {
                        return Ok(Step::More);
                    };
                    let size = chunk_size(&buffer[..end])?;
                    buffer.advance(end + 2);
                    self.state = if size == 0 { State::Trailer(0) } else { State::Data(size) };
                }
                State::Trailer(seen) => {
                    let Some(end) = line_end(buffer, TRAILER_BYTES_MAX)? else {
                        return Ok(Step::More);
                    };
                    buffer.advance(end + 2);
                    let seen = seen + end;
                    if seen > TRAILER_BYTES_MAX {
                        return Err(Nonsense("its trailers are too long"));
                    }
                    self.state = if end == 0 { State::Done } else { State::Trailer(seen) };
                }
            }
        }
    }
}

/// The length of the line at the front, without its CR LF. A bare LF or CR is refused.
fn line_end(buffer: &[u8], max: usize) -> Result<Option<usize>, Nonsense> {
    match buffer.iter().position(|b| matches!(b, b'\r' | b'\n')) {
        None if buffer.len() > max => Err(Nonsense("a line of its chunks is too long")),
        None => Ok(None),
        Some(end) if end > max => Err(Nonsense("a line of its chunks is too long")),
        Some(end) if buffer[end] == b'\n' => Err(Nonsense("a line of its chunks ends wrongly")),
        Some(end) => match buffer.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(end)),
            Some(_) => Err(Nonsense("a line of its chunks ends wrongly")),
        },
    }
}

/// The size on a chunk's first line; extensions after `;` are dropped.
fn chunk_size(line: &[u8]) -> Result<u64, Nonsense> {
    let digits = line.split(|b| *b == b';').next().unwrap_or(line);
    // Space before an extension is sent by old servers and harmless.
    let digits = digits.trim_ascii_end();
    if digits.is_empty() || digits.len() > 15 {
        return Err(Nonsense("a chunk's size is no number"));
    }
    digits.iter().try_fold(0u64, |size, digit| {
        let value = char::from(*digit).to_digit(16);
        value.map(|v| size * 16 + u64::from(v)).ok_or(Nonsense("a chunk's size is no number"))
    })
}

/// Writes the line before a chunk of `size` bytes, after the end of the one before it.
pub fn write_size(out: &mut Vec<u8>, size: usize, first: bool) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    if !first {
        out.extend_from_slice(b"\r\n");
    }
    let mut shift = usize::BITS - size.leading_zeros();
    shift = shift.div_ceil(4).max(1) * 4;
    while shift > 0 {
        shift -= 4;
        out.push(DIGITS[(size >> shift) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes what follows the last chunk.
pub fn write_end(out: &mut Vec<u8>, first: bool) {
    out.extend_from_slice(if first { b"0\r\n\r\n" } else { b"\r\n0\r\n\r\n" });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    fn read(text: &[u8]) -> Result<(Vec<u8>, bool, usize), Nonsense> {
        let (mut chunks, mut buffer, mut body) = (Chunks::default(), BytesMut::from(text), vec![]);
        loop {
            match chunks.step(&mut buffer)? {
                Step::Data(bytes) => body.extend_from_slice(&bytes),
                Step::More => return Ok((body, false, buffer.len())),
                Step::End => return Ok((body, true, buffer.len())),
            }
        }
    }

    #[test]
    fn chunks_are_joined_and_trailers_dropped() {
        let text = b"5\r\nhello\r\n6 ;a=b\r\n world\r\n0\r\nX-T: 1\r\n\r\nNEXT";
        assert_eq!(read(text), Ok((b"hello world".to_vec(), true, 4)));
        assert_eq!(read(b"5\r\nhel"), Ok((b"hel".to_vec(), false, 0)));
    }

    #[test]
    fn broken_framing_is_refused() {
        for text in [
            "5\nhello",
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "5\r\nhelloX\r\n",
            "0x5\r\nhello",
            "fffffffffffffffff\r\n",
            "5\rhello",
            " 5\r\nhello",
            "0\r\nX: 1\n\n",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(read(&[b'1'; LINE_BYTES_MAX + 1]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8)) {
            let mut out = Vec::new();
            for (i, part) in parts.iter().enumerate() {
                write_size(&mut out, part.len(), i == 0);
                out.extend_from_slice(part);
            }
            write_end(&mut out, parts.is_empty());
            prop_assert_eq!(read(&out), Ok((parts.concat(), true, 0)));
        }

        #[test]
        fn pieces_give_the_same_as_the_whole(bytes in "[0-9a-f;\r\n x]{0,60}", cut in 0usize..60) {
            let whole = read(bytes.as_bytes());
            let cut = cut.min(bytes.len());
            let (mut chunks, mut buffer, mut body) = (Chunks::default(), BytesMut::new(), vec![]);
            let mut ended = Ok(false);
            for part in [&bytes[..cut], &bytes[cut..]] {
                buffer.extend_from_slice(part.as_bytes());
                while let Ok(false) = ended {
                    match chunks.step(&mut buffer) {
                        Ok(Step::Data(bytes)) => body.extend_from_slice(&bytes),
                        Ok(Step::More) => break,
                        Ok(Step::End) => ended = Ok(true),
                        Err(e) => ended = Err(e),
                    }
                }
            }
            match (whole, ended) {
                (Ok((a, end, _)), Ok(e)) => prop_assert!(a == body && end == e),
                (Err(_), Err(_)) => {}
                (a, b) => prop_assert!(false, "{:?} {:?}", a, b),
            }
        }
    }
}
