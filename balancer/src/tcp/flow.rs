//! One direction of a joined pair of connections. Bytes are read into the worker's one buffer and
//! written at once; only what the other side does not take yet is kept. Bulk goes through a pipe.

use super::pipe::{Pipe, Pipes};
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// The buffer all connections of a worker share: fits the second-level cache.
const SCRATCH_BYTES: usize = 64 << 10;
/// Bytes one direction moves before others get their turn: about a tenth of a millisecond.
const TURN_BYTES: usize = 512 << 10;
/// Full buffers in a row after which it is bulk, and a pipe is worth its four system calls.
const FULL_READS: u32 = 4;

/// What the flows of one worker share.
#[derive(Debug)]
pub struct Tools {
    scratch: RefCell<Box<[u8]>>,
    pipes: Pipes,
    splices: bool,
}

impl Tools {
    /// With or without pipes.
    #[must_use]
    pub fn new(splices: bool) -> Tools {
        let scratch = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
        Tools { scratch, pipes: Pipes::default(), splices }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// The source has ended; what is kept goes out, then the end.
    Ending,
    Ended,
}

/// One direction.
#[derive(Debug)]
pub struct Flow {
    stage: Stage,
    kept: Vec<u8>,
    gone: usize,
    pipe: Option<Pipe>,
    piped: usize,
    full_reads: u32,
    bytes: u64,
}

impl Default for Flow {
    fn default() -> Flow {
        Flow {
            stage: Stage::Open,
            kept: Vec::new(),
            gone: 0,
            pipe: None,
            piped: 0,
            full_reads: 0,
            bytes: 0,
        }
    }
}

impl Flow {
    /// A direction whose first bytes came already.
    #[must_use]
    pub fn with_ahead(ahead: Vec<u8>) -> Flow {
        Flow { bytes: ahead.len() as u64, kept: ahead, ..Flow::default() }
    }

    /// Bytes that came so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the source has ended.
    #[must_use]
    pub fn source_ended(&self) -> bool {
        self.stage != Stage::Open
    }

    /// Passes bytes on until there are none; ready when the end was passed on too.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        tools: &Tools,
    ) -> Poll<io::Result<()>> {
        let mut turn = TURN_BYTES;
        loop {
            ready!(self.poll_out(cx, to))?;
            match self.stage {
                Stage::Ended => return Poll::Ready(Ok(())),
                Stage::Ending => {
                    self.rest(tools);
                    // The other side may be gone altogether; then its own direction says so.
                    let _gone = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.stage = Stage::Ended;
                }
                Stage::Open if turn == 0 => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Stage::Open => match self.poll_in(cx, from, to, tools) {
                    Poll::Ready(Ok(0)) => self.stage = Stage::Ending,
                    Poll::Ready(Ok(n)) => {
                        self.bytes += n as u64;
                        turn = turn.saturating_sub(n);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        self.rest(tools);
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    /// Nothing is on its way: buffers and pipes are for those that move.
    fn rest(&mut self, tools: &Tools) {
        self.full_reads = 0;
        self.kept = Vec::new();
        if let Some(pipe) = self.pipe.take() {
            tools.pipes.back(Some(pipe));
        }
    }

    /// Ends for good, wherever it was.
    pub fn abandon(&mut self, tools: &Tools) {
        if let Some(pipe) = self.pipe.take() {
            tools.pipes.back((self.piped == 0).then_some(pipe));
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>, to: &mut TcpStream) -> Poll<io::Result<()>> {
        while self.gone < self.kept.len() {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.kept[self.gone..]))?;
            self.gone += n;
        }
        self.kept.clear();
        self.gone = 0;
        while self.piped > 0
            && let Some(pipe) = &self.pipe
        {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || pipe.give_to(to, self.piped)) {
                Ok(n) => self.piped -= n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes what goes out at once.
    fn poll_in(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        tools: &Tools,
    ) -> Poll<io::Result<usize>> {
        if tools.splices && self.pipe.is_none() && self.full_reads >= FULL_READS {
            self.pipe = tools.pipes.lend();
            self.full_reads = 0;
        }
        if self.pipe.is_some() {
            return self.poll_pipe(cx, from);
        }
        let mut scratch = tools.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        let bytes = buffer.filled();
        let n = bytes.len();
        self.full_reads = if n == SCRATCH_BYTES { self.full_reads + 1 } else { 0 };
        let mut gone = 0;
        if n > 0
            && let Poll::Ready(written) = Pin::new(to).poll_write(cx, bytes)
        {
            gone = written?;
        }
        self.kept.extend_from_slice(&bytes[gone..]);
        Poll::Ready(Ok(n))
    }

    fn poll_pipe(&mut self, cx: &mut Context<'_>, from: &TcpStream) -> Poll<io::Result<usize>> {
        loop {
            ready!(from.poll_read_ready(cx))?;
            let Some(pipe) = &self.pipe else { return Poll::Ready(Ok(0)) };
            match from.try_io(Interest::READABLE, || pipe.take_from(from)) {
                Ok(n) => {
                    self.piped = n;
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
