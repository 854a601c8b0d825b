//! Reads answers as the generator needs them: the status, and where an answer ends.

/// An answer that is being read.
#[derive(Debug, Default)]
pub struct Answer {
    head: Vec<u8>,
    /// Status, bytes of body still to come, and whether the connection lives on.
    known: Option<(u16, usize, bool)>,
}

/// How far an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Not all is there.
    More,
    /// All is there.
    Whole {
        /// Its status.
        status: u16,
        /// Whether the connection can be used again.
        keep: bool,
    },
    /// It cannot be understood.
    Nonsense,
}

/// A head larger than this is not from a proxy in its right mind.
const HEAD_BYTES_MAX: usize = 32 << 10;

impl Answer {
    /// Takes the next bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Progress {
        if let Some((status, left, keep)) = &mut self.known {
            *left = left.saturating_sub(bytes.len());
            return if *left == 0 {
                Progress::Whole { status: *status, keep: *keep }
            } else {
                Progress::More
            };
        }
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head.windows(4).position(|w| w == b"\r\n\r\n") else {
            return if self.head.len() > HEAD_BYTES_MAX {
                Progress::Nonsense
            } else {
                Progress::More
            };
        };
        let Some((status, length, keep)) = read_head(&self.head[..end]) else {
            return Progress::Nonsense;
        };
        let left = length.saturating_sub(self.head.len() - end - 4);
        self.known = Some((status, left, keep));
        if left == 0 { Progress::Whole { status, keep } } else { Progress::More }
    }
}

fn read_head(head: &[u8]) -> Option<(u16, usize, bool)> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let (mut length, mut keep) = (None, true);
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse().ok()?);
        } else if name.eq_ignore_ascii_case("connection") {
            keep = !value.trim().eq_ignore_ascii_case("close");
        }
    }
    // Chunked answers are not asked for: an answer of unknown length ends with its connection.
    Some((status, length.unwrap_or(0), keep && length.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_where_their_length_says() {
        let mut answer = Answer::default();
        assert_eq!(answer.take(b"HTTP/1.1 200 OK\r\nContent-Le"), Progress::More);
        assert_eq!(answer.take(b"ngth: 5\r\n\r\nab"), Progress::More);
        assert_eq!(answer.take(b"cde"), Progress::Whole { status: 200, keep: true });
        let closing = b"HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(Answer::default().take(closing), Progress::Whole { status: 503, keep: false });
        assert_eq!(Answer::default().take(b"SMTP\r\n\r\n"), Progress::Nonsense);
    }
}
