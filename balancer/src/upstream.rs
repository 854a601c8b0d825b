//! One connection to an instance: the request goes out and the answer comes in, both polled by the
//! task of the client's connection, so that no request costs a task or a channel.

use crate::chunk;
use crate::head::{self, Answer, Framing, Nonsense};
use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use http_body::Body;
use hyper::body::Incoming;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

/// A connection to an instance must stand within this; instances are near.
pub const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Room for an answer's head and a small body in one read.
pub const READ_BYTES: usize = 8 << 10;
/// Room for reading a large body.
const READ_BODY_BYTES: usize = 64 << 10;

/// Why an exchange with an instance failed.
#[derive(Debug)]
pub enum Fault {
    /// The connection broke.
    Io,
    /// It ended before the answer did.
    Eof,
    /// The answer must not be passed on.
    Nonsense(Nonsense),
    /// The client stopped sending its request.
    Client,
}

impl From<Nonsense> for Fault {
    fn from(nonsense: Nonsense) -> Fault {
        Fault::Nonsense(nonsense)
    }
}

/// One connection to an instance.
#[derive(Debug)]
pub struct Upstream {
    stream: TcpStream,
    /// Read and not yet taken.
    pub buffer: BytesMut,
    /// The memory of the last request's head, used again.
    spare: Vec<u8>,
    /// It carried an answer before.
    pub used: bool,
    /// A byte of the present answer was seen: the request must not be repeated.
    pub seen: bool,
    /// When it came back to the pool, in the worker's ticks.
    pub idle_since: u64,
}

impl Upstream {
    /// Connects.
    ///
    /// # Errors
    /// What the system says, or that it took too long.
    pub async fn connect(address: SocketAddr) -> io::Result<Upstream> {
        let connecting = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address));
        let stream = connecting.await.map_err(|_late| io::ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        Ok(Upstream {
            stream,
            buffer: BytesMut::new(),
            spare: Vec::new(),
            used: false,
            seen: false,
            idle_since: 0,
        })
    }

    /// Whether an idle connection still stands and is silent. Costs a system call only when the
    /// system has told of something.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let mut byte = [0];
        let read = self.stream.try_read(&mut byte);
        self.buffer.is_empty() && matches!(read, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// The memory for the next request's head.
    pub fn take_spare(&mut self) -> Vec<u8> {
        let mut spare = std::mem::take(&mut self.spare);
        spare.clear();
        spare
    }

    /// Gives that memory back.
    pub fn give_spare(&mut self, spare: Vec<u8>) {
        // A giant head once must not keep its memory for ever.
        if spare.capacity() <= 4 * READ_BYTES {
            self.spare = spare;
        }
    }

    /// Reads more into the buffer; 0 at the end.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.reserve(READ_BODY_BYTES);
        // A read that does not fill the buffer tells the runtime that there is no more, which
        // spares the next look at this connection a system call.
        let done = ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.buffer));
        self.seen |= matches!(done, Ok(n) if n > 0);
        Poll::Ready(done)
    }

    /// Reads a little by way of `scratch`, which stays in the processor's cache as no connection's
    /// own memory does; 0 at the end.
    fn poll_fill_little(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut read = ReadBuf::new(scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        let read = read.filled();
        self.buffer.extend_from_slice(read);
        self.seen |= !read.is_empty();
        Poll::Ready(Ok(read.len()))
    }

    /// Reads the answer's head; interim answers (100, 103) are skipped.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        scratch: &mut [u8],
    ) -> Poll<Result<Answer, Fault>> {
        loop {
            if !self.buffer.is_empty()
                && let Some(answer) = head::read_answer(&mut self.buffer, method)?
            {
                let interim = answer.status.is_informational()
                    && answer.status != http::StatusCode::SWITCHING_PROTOCOLS;
                if !interim {
                    return Poll::Ready(Ok(answer));
                }
                continue;
            }
            match ready!(self.poll_fill_little(cx, scratch)) {
                Ok(0) => return Poll::Ready(Err(Fault::Eof)),
                Ok(_) => {}
                Err(_broken) => return Poll::Ready(Err(Fault::Io)),
            }
        }
    }

    /// The bare stream and what was read ahead, for a tunnel.
    #[must_use]
    pub fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.stream, self.buffer)
    }
}

/// A request on its way out: its head, then its body as the client sends it.
#[derive(Debug)]
pub struct Sending {
    /// The head, then the lines between chunks.
    out: Vec<u8>,
    sent: usize,
    data: Bytes,
    body: Option<Incoming>,
    framing: Framing,
    first_chunk: bool,
    ended: bool,
    /// The whole body, if it came in one piece: then the request can be repeated.
    kept: Kept,
}

/// What of a request's body was kept for another try.
#[derive(Debug, Default)]
enum Kept {
    /// The body was not touched.
    #[default]
    Untouched,
    /// This is all of it.
    Whole(Bytes),
    /// Some is gone.
    Gone,
}

impl Sending {
    /// A request with this head and body.
    #[must_use]
    pub fn new(head: Vec<u8>, body: Option<Incoming>, framing: Framing) -> Sending {
        let ended = body.is_none();
        Sending {
            out: head,
            sent: 0,
            data: Bytes::new(),
            body,
            framing,
            first_chunk: true,
            ended,
            kept: Kept::Untouched,
        }
    }

    /// The same request for another try with a new head; `None` when its body is gone.
    #[must_use]
    pub fn again(self, head: Vec<u8>) -> Option<Sending> {
        match self.kept {
            Kept::Untouched => Some(Sending::new(head, self.body, self.framing)),
            Kept::Whole(data) => Some(Sending {
                data: data.clone(),
                ended: true,
                kept: Kept::Whole(data),
                ..Sending::new(head, None, self.framing)
            }),
            Kept::Gone => None,
        }
    }

    /// Whether [`Sending::again`] would give the request.
    #[must_use]
    pub fn can_repeat(&self) -> bool {
        !matches!(self.kept, Kept::Gone)
    }

    /// Whether all of it is out.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.ended && self.data.is_empty() && self.sent == self.out.len()
    }

    /// The head's memory, when the request is out.
    #[must_use]
    pub fn into_spare(self) -> Vec<u8> {
        self.out
    }

    /// Sends on; ready when all is out.
    pub fn poll(&mut self, cx: &mut Context<'_>, to: &Upstream) -> Poll<Result<(), Fault>> {
        loop {
            if !self.ended && self.data.is_empty() {
                // The first piece of a body goes out with the head when it is there already.
                match self.poll_body(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending if self.sent == self.out.len() => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            if self.sent == self.out.len() && self.data.is_empty() {
                if self.ended {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if ready!(self.poll_write(cx, to)).is_err() {
                return Poll::Ready(Err(Fault::Io));
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let Some(body) = &mut self.body else {
            self.ended = true;
            return Poll::Ready(Ok(()));
        };
        let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(_gone)) => {
                self.kept = Kept::Gone;
                return Poll::Ready(Err(Fault::Client));
            }
            None => {
                self.finish();
                return Poll::Ready(Ok(()));
            }
        };
        let last = body.is_end_stream();
        // Trailers are not passed on: nothing announced them to the instance.
        let Ok(data) = frame.into_data() else { return Poll::Ready(Ok(())) };
        let whole = last && matches!(self.kept, Kept::Untouched);
        self.kept = if whole { Kept::Whole(data.clone()) } else { Kept::Gone };
        if self.framing == Framing::Chunked && !data.is_empty() {
            // A repeated request is sent with a length: its one chunk would need its line again.
            self.kept = Kept::Gone;
            chunk::write_size(&mut self.out, data.len(), self.first_chunk);
            self.first_chunk = false;
        }
        self.data = data;
        if last && self.framing != Framing::Chunked {
            self.finish();
        }
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self) {
        if self.framing == Framing::Chunked {
            chunk::write_end(&mut self.out, self.first_chunk);
        }
        self.ended = true;
        self.body = None;
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, to: &Upstream) -> Poll<io::Result<()>> {
        loop {
            let head = &self.out[self.sent..];
            let result = match (head.is_empty(), self.data.is_empty()) {
                (false, true) => to.stream.try_write(head),
                (true, false) => to.stream.try_write(&self.data),
                _ => to.stream.try_write_vectored(&[IoSlice::new(head), IoSlice::new(&self.data)]),
            };
            match result {
                Ok(written) => {
                    let from_head = written.min(head.len());
                    self.sent += from_head;
                    self.data.advance(written - from_head);
                    if self.sent == self.out.len() {
                        self.sent = 0;
                        self.out.clear();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready!(to.stream.poll_write_ready(cx))?;
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}
