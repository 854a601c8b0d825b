//! Chunked bodies: read strictly piece by piece, written plainly.

use super::answer::Nonsense;

/// Longest line between chunks, extensions included: nobody sends them, attackers send long ones.
pub const LINE_BYTES_MAX: usize = 1024;
/// Bytes of trailers that are read.
pub const TRAILER_BYTES_MAX: usize = 16 << 10;

/// Where in a chunked body a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailer(usize),
    Done,
}

/// A reader of one chunked body. It keeps only what a line lacked.
#[derive(Debug, Clone)]
pub struct Chunks {
    state: State,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
}

/// What the bytes at hand gave; the number says how many of them were used.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Some of the body.
    Data(&'a [u8], usize),
    /// A trailer's name and value.
    Trailer(Vec<u8>, usize),
    /// All were used, and more are needed.
    More,
    /// The body is complete; the rest is not part of it.
    End(usize),
}

impl Default for Chunks {
    fn default() -> Chunks {
        Chunks { state: State::Size, line: Vec::new() }
    }
}

impl Chunks {
    /// Reads on from the front of `bytes`; to be called again with what was not used.
    ///
    /// # Errors
    /// [`Nonsense`] where the framing is broken.
    pub fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<Step<'a>, Nonsense> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            match self.state {
                State::Done => return Ok(Step::End(used)),
                State::Data(left) => {
                    if rest.is_empty() {
                        return Ok(Step::More);
                    }
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let left = left - here as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Step::Data(&rest[..here], used + here));
                }
                State::DataEnd => {
                    let Some(line) = self.take_line(rest, &mut used, 0)? else {
                        return Ok(Step::More);
                    };
                    if !line.is_empty() {
                        return Err(Nonsense("a chunk is longer than it said"));
                    }
                    self.state = State::Size;
                }
                State::Size => {
                    let Some(line) = self.take_line(rest, &mut used, LINE_BYTES_MAX)? else {
                        return Ok(Step::More);
                    };
                    let size = chunk_size(&line)?;
                    self.state = if size == 0 { State::Trailer(0) } else { State::Data(size) };
                }
                State::Trailer(seen) => {
                    let Some(line) = self.take_line(rest, &mut used, TRAILER_BYTES_MAX)? else {
                        return Ok(Step::More);
                    };
                    if line.is_empty() {
                        self.state = State::Done;
                        continue;
                    }
                    let seen = seen + line.len();
                    if seen > TRAILER_BYTES_MAX {
                        return Err(Nonsense("its trailers are too long"));
                    }
                    self.state = State::Trailer(seen);
                    if !is_trailer(&line) {
                        return Err(Nonsense("a trailer is no header"));
                    }
                    return Ok(Step::Trailer(line, used));
                }
            }
        }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of the chunk at hand that are still to come, as its size said.
    #[must_use]
    pub fn announced(&self) -> u64 {
        if let State::Data(left) = self.state { left } else { 0 }
    }

    /// A whole line without its CR LF, put together from before and now. A bare LF or CR is refused,
    /// as is a line over `max`.
    fn take_line(
        &mut self,
        rest: &[u8],
        used: &mut usize,
        max: usize,
    ) -> Result<Option<Vec<u8>>, Nonsense> {
        const WRONG: Nonsense = Nonsense("a line of its chunks ends wrongly");
        const LONG: Nonsense = Nonsense("a line of its chunks is too long");
        let (part, whole) = match memchr::memchr(b'\n', rest) {
            Some(end) => (&rest[..=end], true),
            None => (rest, false),
        };
        if self.line.len() + part.len() > max + 2 {
            return Err(LONG);
        }
        *used += part.len();
        self.line.extend_from_slice(part);
        if !whole {
            // A CR may only be the last byte so far.
            let cut = self.line.len().saturating_sub(1);
            let bare = memchr::memchr(b'\r', &self.line[..cut]).is_some();
            return if bare { Err(WRONG) } else { Ok(None) };
        }
        let mut line = std::mem::take(&mut self.line);
        line.pop();
        if line.pop() != Some(b'\r') || memchr::memchr(b'\r', &line).is_some() {
            return Err(WRONG);
        }
        Ok(Some(line))
    }
}

/// The size on a chunk's first line; extensions after `;` are dropped.
fn chunk_size(line: &[u8]) -> Result<u64, Nonsense> {
    const WRONG: Nonsense = Nonsense("a chunk's size is no number");
    let digits = line.split(|b| *b == b';').next().unwrap_or(line);
    // Space before an extension is sent by old servers and harmless.
    let spaced = digits.len() < line.len();
    let digits = if spaced { digits.trim_ascii_end() } else { digits };
    if line.iter().any(|b| (*b < b' ' && *b != b'\t') || *b == 0x7f) {
        return Err(WRONG);
    }
    if digits.is_empty() || digits.len() > 15 {
        return Err(WRONG);
    }
    digits.iter().try_fold(0u64, |size, digit| {
        let value = char::from(*digit).to_digit(16);
        value.map(|v| size * 16 + u64::from(v)).ok_or(WRONG)
    })
}

/// Whether a trailer reads as `name: value`.
fn is_trailer(line: &[u8]) -> bool {
    let Some(colon) = memchr::memchr(b':', line) else { return false };
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let text = |b: &u8| (*b >= b' ' || *b == b'\t') && *b != 0x7f;
    colon > 0 && line[..colon].iter().all(token) && line[colon + 1..].iter().all(text)
}

/// Writes one chunk; an empty one would be the end and is left out.
pub fn write(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    write_size(out, data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Writes the line before a chunk of `size` bytes.
pub fn write_size(out: &mut Vec<u8>, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bits = usize::BITS - size.leading_zeros();
    let mut shift = bits.div_ceil(4).max(1) * 4;
    while shift > 0 {
        shift -= 4;
        out.push(DIGITS[(size >> shift) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// The last chunk; trailers and an empty line follow.
pub const LAST: &[u8] = b"0\r\n";

#[cfg(test)]
#[path = "chunks_tests.rs"]
mod tests;
