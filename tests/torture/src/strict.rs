//! A reader of HTTP/1.1 that forgives nothing: the judge of what Tally sends to either side.

use std::fmt;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line: far beyond what Tally passes on.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes asked for at once.
const READ_BYTES: usize = 16 << 10;

/// One message, as far as it came.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The request line or status line.
    pub start: String,
    /// Names in small letters, and values.
    pub fields: Vec<(String, Vec<u8>)>,
    /// What came of the body.
    pub body: Vec<u8>,
    /// Fields after a chunked body.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// Whether the body came to the end that its framing says.
    pub complete: bool,
    /// The body went on to the end of the connection, which cannot tell an end from a loss.
    pub by_close: bool,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        write!(f, "{} | ", self.start)?;
        for (name, value) in &self.fields {
            write!(f, "{name}: {} | ", text(value))?;
        }
        let end = if self.complete { "" } else { " (broken off)" };
        write!(f, "{:?}{end}", text(&self.body))
    }
}

impl Message {
    /// The word at `index` of the first line.
    #[must_use]
    pub fn word(&self, index: usize) -> &str {
        self.start.split(' ').nth(index).unwrap_or("")
    }

    /// A request's target.
    #[must_use]
    pub fn target(&self) -> &str {
        self.word(1)
    }

    /// An answer's status; 0 for a request.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or(0)
    }

    /// The first value of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        let found = self.fields.iter().find(|(n, _)| n == name);
        found.map(|(_, v)| String::from_utf8_lossy(v).into_owned())
    }

    /// How often a field is there.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.fields.iter().filter(|(n, _)| n == name).count()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request.
    Request,
    /// An answer; `bodiless` when it answers HEAD.
    Answer {
        /// Whether no body follows whatever the head says.
        bodiless: bool,
    },
}

/// Bytes that are no message, or that could be read in two ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn malformed<T>(why: &str, bytes: &[u8]) -> Result<T, Malformed> {
    let shown = &bytes[..bytes.len().min(200)];
    Err(Malformed(format!("{why}: {:?}", String::from_utf8_lossy(shown))))
}

/// Messages from one stream.
#[derive(Debug)]
pub struct Reader<S> {
    /// Where the bytes come from.
    pub io: S,
    /// What was read and not yet used.
    pub ahead: Vec<u8>,
    /// The stream's end was seen.
    pub ended: bool,
}

enum Body {
    None,
    Length(usize),
    Chunked,
    Close,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    /// A reader of `io`.
    pub fn new(io: S) -> Reader<S> {
        Reader { io, ahead: Vec::new(), ended: false }
    }

    /// Reads more; false at the end. A reset is an end.
    pub async fn fill(&mut self) -> bool {
        self.ahead.reserve(READ_BYTES);
        match self.io.read_buf(&mut self.ahead).await {
            Ok(0) | Err(_) => {
                self.ended = true;
                false
            }
            Ok(_) => true,
        }
    }

    /// One line without its CRLF; `None` when the stream ends before its first byte.
    async fn line(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        let mut looked = 0;
        loop {
            if let Some(at) = self.ahead[looked..].iter().position(|b| *b == b'\n') {
                let end = looked + at;
                let mut line: Vec<u8> = self.ahead.drain(..=end).collect();
                line.pop();
                return match line.pop() {
                    Some(b'\r') if !line.contains(&b'\r') => Ok(Some(line)),
                    _ => malformed("a line does not end with CRLF alone", &line),
                };
            }
            looked = self.ahead.len();
            if looked > LINE_BYTES_MAX {
                return malformed("an endless line", &self.ahead);
            }
            if !self.fill().await {
                return if self.ahead.is_empty() { Ok(None) } else { self.broken() };
            }
        }
    }

    fn broken<T>(&mut self) -> Result<T, Malformed> {
        let left = std::mem::take(&mut self.ahead);
        malformed("it ends within a line", &left)
    }

    async fn fields(&mut self) -> Result<Vec<(String, Vec<u8>)>, Malformed> {
        let mut fields = Vec::new();
        loop {
            let Some(line) = self.line().await? else { return self.broken() };
            if line.is_empty() {
                return Ok(fields);
            }
            fields.push(field(&line)?);
        }
    }

    /// The head of the next message; `None` at the end of the stream.
    ///
    /// # Errors
    /// [`Malformed`].
    pub async fn head(&mut self, kind: Kind) -> Result<Option<Message>, Malformed> {
        let Some(line) = self.line().await? else { return Ok(None) };
        let start = start(&line, kind)?;
        let fields = self.fields().await?;
        Ok(Some(Message { start, fields, ..Message::default() }))
    }

    /// The next message; `None` at the end of the stream.
    ///
    /// # Errors
    /// [`Malformed`].
    pub async fn message(&mut self, kind: Kind) -> Result<Option<Message>, Malformed> {
        let Some(mut message) = self.head(kind).await? else { return Ok(None) };
        self.body(&mut message, kind).await?;
        Ok(Some(message))
    }

    /// The body that belongs to a head.
    ///
    /// # Errors
    /// [`Malformed`].
    pub async fn body(&mut self, message: &mut Message, kind: Kind) -> Result<(), Malformed> {
        match framing(message, kind)? {
            Body::None => message.complete = true,
            Body::Length(length) => {
                message.complete = self.take(length, &mut message.body).await;
            }
            Body::Close => {
                message.by_close = true;
                while self.fill().await {}
                message.body = std::mem::take(&mut self.ahead);
                message.complete = true;
            }
            Body::Chunked => self.chunks(message).await?,
        }
        Ok(())
    }

    async fn take(&mut self, mut length: usize, into: &mut Vec<u8>) -> bool {
        while length > 0 {
            if self.ahead.is_empty() && !self.fill().await {
                return false;
            }
            let here = length.min(self.ahead.len());
            into.extend(self.ahead.drain(..here));
            length -= here;
        }
        true
    }

    async fn chunks(&mut self, message: &mut Message) -> Result<(), Malformed> {
        loop {
            // An end here is a loss, not nonsense.
            let line = match self.line().await {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                Err(_) if self.ended => return Ok(()),
                Err(why) => return Err(why),
            };
            let size = chunk_size(&line)?;
            if size == 0 {
                break;
            }
            if !self.take(size, &mut message.body).await {
                return Ok(());
            }
            match self.line().await {
                Ok(Some(line)) if line.is_empty() => {}
                Ok(Some(line)) => return malformed("no CRLF after a chunk", &line),
                Ok(None) => return Ok(()),
                Err(_) if self.ended => return Ok(()),
                Err(why) => return Err(why),
            }
        }
        match self.fields().await {
            Ok(trailers) => message.trailers = trailers,
            Err(_) if self.ended => return Ok(()),
            Err(why) => return Err(why),
        }
        message.complete = true;
        Ok(())
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), Malformed> {
    let Some(colon) = line.iter().position(|b| *b == b':') else {
        return malformed("a field without a colon", line);
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
        return malformed("a field's name is none", line);
    }
    if value.iter().any(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f) {
        return malformed("a control character in a field", line);
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    Ok((name, value.trim_ascii().to_vec()))
}

fn start(line: &[u8], kind: Kind) -> Result<String, Malformed> {
    let text = String::from_utf8_lossy(line).into_owned();
    // A reason may hold tabs, as the standard has it.
    let tab = matches!(kind, Kind::Answer { .. });
    if line.iter().any(|b| (*b < 0x20 && !(tab && *b == b'\t')) || *b == 0x7f) {
        return malformed("a control character in the first line", line);
    }
    let words: Vec<&str> = text.split(' ').collect();
    let right = match kind {
        Kind::Request => {
            words.len() == 3
                && !words[0].is_empty()
                && words[0].bytes().all(is_token)
                && !words[1].is_empty()
                && words[2] == "HTTP/1.1"
        }
        Kind::Answer { .. } => {
            words.len() >= 2
                && matches!(words[0], "HTTP/1.1" | "HTTP/1.0")
                && words[1].len() == 3
                && words[1].bytes().all(|b| b.is_ascii_digit())
        }
    };
    if right { Ok(text) } else { malformed("no first line", line) }
}

fn framing(message: &Message, kind: Kind) -> Result<Body, Malformed> {
    let lengths = message.count("content-length");
    let codings = message.count("transfer-encoding");
    if lengths + codings > 1 {
        return malformed("a body framed twice", message.start.as_bytes());
    }
    let length = match message.field("content-length") {
        None => None,
        Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            match text.parse::<usize>() {
                Ok(length) => Some(length),
                Err(_) => return malformed("a length beyond all bounds", text.as_bytes()),
            }
        }
        Some(text) => return malformed("a length that is no number", text.as_bytes()),
    };
    let chunked = match message.field("transfer-encoding") {
        None => false,
        Some(coding) if coding == "chunked" => true,
        Some(coding) => return malformed("a coding other than chunked", coding.as_bytes()),
    };
    if let Kind::Answer { bodiless } = kind {
        let status = message.status();
        if bodiless || status < 200 || status == 204 || status == 304 {
            return Ok(Body::None);
        }
        if !chunked && length.is_none() {
            return Ok(Body::Close);
        }
    }
    Ok(match (chunked, length) {
        (true, _) => Body::Chunked,
        (false, Some(length)) => Body::Length(length),
        (false, None) => Body::None,
    })
}

fn chunk_size(line: &[u8]) -> Result<usize, Malformed> {
    let right = !line.is_empty() && line.len() <= 15 && line.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(line).unwrap_or("");
    match usize::from_str_radix(text, 16) {
        Ok(size) if right => Ok(size),
        _ => malformed("a chunk's size is no number", line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &[u8]) -> Result<Option<Message>, Malformed> {
        Reader::new(text).message(Kind::Request).await
    }

    #[tokio::test]
    async fn right_messages_are_read_and_others_are_not() {
        let text = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                     3\r\nabc\r\n0\r\nT: 1\r\n\r\n";
        let message = read(text).await.unwrap().unwrap();
        assert!(message.complete && message.body == b"abc" && message.target() == "/a");
        let cut = read(&text[..text.len() - 3]).await.unwrap().unwrap();
        assert!(!cut.complete);
        for bad in [
            &b"GET / HTTP/1.1\nHost: x\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\x00\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\na",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a\r\nx\r\n0\r\n\r\n",
        ] {
            assert!(read(bad).await.is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[tokio::test]
    async fn an_end_by_close_is_told_from_a_framed_one() {
        let kind = Kind::Answer { bodiless: false };
        let by_close = Reader::new(&b"HTTP/1.1 200 OK\r\n\r\nabc"[..]).message(kind).await;
        assert!(by_close.unwrap().unwrap().by_close);
        let short = &b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"[..];
        assert!(!Reader::new(short).message(kind).await.unwrap().unwrap().complete);
    }
}
