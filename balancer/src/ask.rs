//! Asks an instance something small over a connection of its own: does its port accept, what does a
//! path answer. For checks and probes; the request path has its own connections.

use crate::http::answer::HEAD_BYTES_MAX;
use crate::http::request::HEADERS_MAX;
use chassis::dial;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest body skipped so that the connection can be used again; a probe's answer has a few bytes.
const BODY_BYTES_MAX: usize = 4 << 10;

/// A connection that may be used again.
#[derive(Debug)]
pub struct Line(TcpStream);

/// An answer to a small question.
#[derive(Debug)]
pub struct Heard {
    /// Its status.
    pub status: u16,
    /// What it says of its load, by ORCA's header.
    pub load: Option<Vec<u8>>,
    /// The connection, where it can carry another question.
    pub line: Option<Line>,
}

/// Connects.
///
/// # Errors
/// What the system said, or that it took too long.
pub async fn connect(address: SocketAddr, limit: Duration) -> io::Result<Line> {
    let stream = tokio::time::timeout(limit, dial::connect(address)).await??;
    let _no_delay_is_a_wish = stream.set_nodelay(true);
    Ok(Line(stream))
}

impl Line {
    /// Asks for a path and reads the answer's head, and a short body.
    ///
    /// # Errors
    /// What the system said, that it took too long, or that the answer is not HTTP/1.1.
    pub async fn get(
        self,
        host: &str,
        path: &str,
        keep: bool,
        limit: Duration,
    ) -> io::Result<Heard> {
        tokio::time::timeout(limit, self.get_in_time(host, path, keep)).await?
    }

    async fn get_in_time(mut self, host: &str, path: &str, keep: bool) -> io::Result<Heard> {
        let connection = if keep { "keep-alive" } else { "close" };
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: tally\r\naccept: */*\r\n\
             connection: {connection}\r\n\r\n"
        );
        self.0.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::with_capacity(512);
        loop {
            if self.0.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(head) = read_head(&bytes)? {
                return self.end(head, bytes.len(), keep).await;
            }
            if bytes.len() > HEAD_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    async fn end(mut self, head: Head, have: usize, keep: bool) -> io::Result<Heard> {
        let Head { status, load, end, length, close } = head;
        let over = end.saturating_add(length.unwrap_or(usize::MAX));
        let reusable = keep && !close && length.is_some_and(|n| n <= BODY_BYTES_MAX);
        if !reusable || have > over {
            return Ok(Heard { status, load, line: None });
        }
        let mut rest = vec![0; over - have];
        self.0.read_exact(&mut rest).await?;
        Ok(Heard { status, load, line: Some(self) })
    }
}

#[derive(Debug)]
struct Head {
    status: u16,
    load: Option<Vec<u8>>,
    end: usize,
    length: Option<usize>,
    close: bool,
}

/// An answer's status and the length of its head, as health checks and probes read them; for the
/// fuzz target.
#[cfg(feature = "testing")]
pub(crate) fn readable(bytes: &[u8]) -> Option<(u16, usize)> {
    read_head(bytes).ok().flatten().map(|head| (head.status, head.end))
}

fn read_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    let outcome = parsed.parse(bytes);
    let Ok(outcome) = outcome else { return Err(io::ErrorKind::InvalidData.into()) };
    let httparse::Status::Complete(end) = outcome else { return Ok(None) };
    let find = |name: &str| {
        parsed.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value)
    };
    let length = find("content-length").and_then(|v| std::str::from_utf8(v).ok()?.parse().ok());
    let close = parsed.version != Some(1)
        || find("transfer-encoding").is_some()
        || find("connection").is_some_and(|v| v.eq_ignore_ascii_case(b"close"));
    let load = find(wire::orca::HEADER).map(<[u8]>::to_vec);
    Ok(Some(Head { status: parsed.code.unwrap_or(0), load, end, length, close }))
}
