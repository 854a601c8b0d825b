//! The client's side of a connection: its bytes in, ours out, both without waiting for the other.

use crate::conn::Conn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What of a client's bytes is read ahead while an answer is awaited: room for a pipelined request.
const AHEAD_BYTES_MAX: usize = 16 << 10;
/// Up to this much is copied behind what waits to be written: one plain write costs less than a
/// gathering one.
const SMALL_BYTES: usize = 4 << 10;
/// A buffer that grew beyond this is not kept.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// One client.
pub struct Client {
    stream: TcpStream,
    /// For the sweep.
    pub conn: Rc<Conn>,
    input: Vec<u8>,
    taken: usize,
    output: Vec<u8>,
    written: usize,
    /// Bytes written since [`Client::begin`].
    pub sent: u64,
    /// The status the client was told since then; 0: none yet.
    pub status: u16,
    ended: bool,
}

impl Client {
    /// A client on this stream.
    #[must_use]
    pub fn new(stream: TcpStream, conn: Rc<Conn>) -> Client {
        Client {
            stream,
            conn,
            input: Vec::new(),
            taken: 0,
            output: Vec::new(),
            written: 0,
            sent: 0,
            status: 0,
            ended: false,
        }
    }

    /// A new request begins.
    pub fn begin(&mut self) {
        (self.sent, self.status) = (0, 0);
    }

    /// Bytes read and not yet taken.
    #[must_use]
    pub fn input(&self) -> &[u8] {
        self.input.get(self.taken..).unwrap_or_default()
    }

    /// Takes `n` of them off the front. A quiet connection keeps no buffer.
    pub fn take(&mut self, n: usize) {
        self.taken = (self.taken + n).min(self.input.len());
        if self.taken == self.input.len() {
            self.taken = 0;
            self.input = Vec::new();
        }
    }

    /// Puts bytes behind those not yet taken.
    pub fn keep(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.input.drain(..self.taken);
            self.taken = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    /// Whether the client ended its side.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Reads into `scratch`; 0 at the end. A read that does not fill it tells the runtime that there
    /// is no more, which spares the next look a system call.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let n = buffer.filled().len();
        self.ended |= n == 0;
        Poll::Ready(Ok(n))
    }

    /// Looks, while something else is awaited, whether the client's connection broke; bytes of its
    /// next request are kept. A client that only ended its side still reads: that is no break.
    pub fn poll_broken(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<()> {
        while !self.ended && self.input().len() < AHEAD_BYTES_MAX {
            match self.poll_read(cx, scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Err(_broken)) => return Poll::Ready(()),
                Poll::Ready(Ok(n)) => self.keep(&scratch[..n]),
            }
        }
        Poll::Pending
    }

    /// The same for one who waits in a queue: there, an end counts as leaving, since most who end
    /// their side are gone, and others wait behind them.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<()> {
        let broken = self.poll_broken(cx, scratch);
        if self.ended { Poll::Ready(()) } else { broken }
    }

    /// Until told otherwise, closing this connection is a break and no end: for answers whose only
    /// end is the connection's.
    pub fn ends_by_break(&self, breaks: bool) {
        let linger = breaks.then_some(std::time::Duration::ZERO);
        // Where the system does not take it, the client sees what it saw before.
        let _set = socket2::SockRef::from(&self.stream).set_linger(linger);
    }

    /// What is to be written next, to be appended to.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Whether all is written.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.written == self.output.len()
    }

    /// Writes what waits to be written.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_flushed() {
            let left = &self.output[self.written..];
            match Pin::new(&mut self.stream).poll_write(cx, left) {
                Poll::Pending => {
                    self.conn.waits();
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => self.wrote(n),
            }
        }
        self.clear();
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, n: usize) {
        self.written += n;
        self.sent += n as u64;
        self.conn.moved(n);
    }

    fn clear(&mut self) {
        self.output.clear();
        self.written = 0;
    }

    /// Gives the output's memory away, for a time when none is needed.
    pub fn rest(&mut self) -> Option<Vec<u8>> {
        let whole = self.is_flushed() && self.output.capacity() > 0;
        whole.then(|| {
            self.written = 0;
            std::mem::take(&mut self.output)
        })
    }

    /// Memory for the output, if it has none.
    pub fn lend(&mut self, mut memory: Vec<u8>) {
        memory.clear();
        if self.output.capacity() == 0 {
            self.output = memory;
        }
    }

    /// Writes `data` behind what waits: at once as far as the client has room, the rest is kept.
    ///
    /// # Errors
    /// What the system says of the client's connection.
    pub fn send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        if data.len() <= SMALL_BYTES {
            self.output.extend_from_slice(data);
            return Ok(());
        }
        let waiting = self.output.len() - self.written;
        let mut from_data = 0;
        let parts = [IoSlice::new(&self.output[self.written..]), IoSlice::new(data)];
        let parts = if waiting == 0 { &parts[1..] } else { &parts[..] };
        match Pin::new(&mut self.stream).poll_write_vectored(cx, parts) {
            Poll::Pending => self.conn.waits(),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(n)) => {
                from_data = n.saturating_sub(waiting);
                self.sent += n as u64;
                self.conn.moved(n);
                self.written += n.min(waiting);
            }
        }
        if self.is_flushed() {
            self.clear();
        }
        self.output.extend_from_slice(&data[from_data..]);
        Ok(())
    }

    /// Ends our side, so that the client sees the end of what was written.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Closes so that what was written so far never looks complete, where an end would.
    pub fn abort(self) {
        self.ends_by_break(true);
    }

    /// The bare stream and what was read ahead, for a tunnel.
    #[must_use]
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        let ahead = self.input.get(self.taken..).unwrap_or_default().to_vec();
        (self.stream, ahead)
    }
}

/// Memory that connections use while a request is on its way, and give back after.
#[derive(Debug, Default)]
pub struct Buffers(Vec<Vec<u8>>);

/// Buffers kept by one worker: as many requests as are commonly on their way at once.
const BUFFERS_KEPT: usize = 256;

impl Buffers {
    /// An empty buffer, with memory if there is some.
    pub fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        // A giant head once must not keep its memory for ever.
        if self.0.len() < BUFFERS_KEPT && (1..=KEPT_BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}
