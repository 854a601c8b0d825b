//! One client connection: what it is doing, since when, and its bytes. Deadlines are checked by a
//! sweep of the worker, so that no request pays for a timer.

use futures_util::task::AtomicWaker;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A quiet keep-alive connection is closed after this: longer than common clients keep theirs
/// (60 s), so that the client closes first and no request meets a closing connection.
pub const IDLE_MAX: Duration = Duration::from_secs(75);
/// A request head must be complete this long after its first byte; slower is an attack or broken.
pub const HEAD_MAX: Duration = Duration::from_secs(10);
/// An answer's head must come this long after the request was sent.
pub const ANSWER_MAX: Duration = Duration::from_secs(120);
/// A body in either direction must move within this time.
pub const STALL_MAX: Duration = Duration::from_secs(300);
/// A tunnel must move within this time.
pub const TUNNEL_IDLE_MAX: Duration = Duration::from_secs(3600);
/// How often the sweep looks: deadlines are late by at most this.
pub const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// A head and body up to this are copied together: one plain write costs less than a gathering one.
const SMALL_WRITE_BYTES: usize = 1024;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Between requests.
    Idle = 0,
    /// Reading a request's head.
    Head = 1,
    /// Waiting in a queue, which has its own deadline.
    Held = 2,
    /// Waiting for an answer's head.
    Answer = 3,
    /// Passing an answer on.
    Stream = 4,
    /// Passing bytes on after an upgrade.
    Tunnel = 5,
}

impl Phase {
    fn from(n: u8) -> Phase {
        match n {
            1 => Phase::Head,
            2 => Phase::Held,
            3 => Phase::Answer,
            4 => Phase::Stream,
            5 => Phase::Tunnel,
            _ => Phase::Idle,
        }
    }

    fn limit(self) -> Option<Duration> {
        match self {
            Phase::Idle => Some(IDLE_MAX),
            Phase::Head => Some(HEAD_MAX),
            Phase::Held => None,
            Phase::Answer => Some(ANSWER_MAX),
            Phase::Stream => Some(STALL_MAX),
            Phase::Tunnel => Some(TUNNEL_IDLE_MAX),
        }
    }
}

/// The worker's coarse clock: milliseconds, moved on by the sweep.
#[derive(Debug, Default)]
pub struct Tick(pub AtomicU64);

/// What is known of a connection, for the sweep.
#[derive(Debug)]
pub struct Conn {
    /// The client's address, for `X-Forwarded-For`.
    pub peer: String,
    tick: Arc<Tick>,
    phase: AtomicU8,
    since: AtomicU64,
    late: AtomicBool,
    closing: AtomicBool,
    stopping: AtomicBool,
    task: AtomicWaker,
}

impl Conn {
    /// A fresh connection.
    #[must_use]
    pub fn new(peer: SocketAddr, tick: Arc<Tick>) -> Conn {
        let since = AtomicU64::new(tick.0.load(Relaxed));
        Conn {
            peer: peer.ip().to_canonical().to_string(),
            tick,
            phase: AtomicU8::new(Phase::Head as u8),
            since,
            late: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            task: AtomicWaker::new(),
        }
    }

    /// It does something else from now on.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
        self.since.store(self.tick.0.load(Relaxed), Relaxed);
    }

    /// Bytes came or went.
    pub fn moved(&self, read: bool) {
        match Phase::from(self.phase.load(Relaxed)) {
            Phase::Idle if read => self.enter(Phase::Head),
            // A head that trickles in is not progress.
            Phase::Head => {}
            Phase::Idle | Phase::Held | Phase::Answer | Phase::Stream | Phase::Tunnel => {
                self.since.store(self.tick.0.load(Relaxed), Relaxed);
            }
        }
    }

    /// The task that drives this connection, for [`Conn::check`] to wake.
    pub fn driven_by(&self, cx: &Context<'_>) {
        self.task.register(cx.waker());
    }

    /// The sweep's look at it.
    pub fn check(&self) {
        let phase = Phase::from(self.phase.load(Relaxed));
        let quiet = self.tick.0.load(Relaxed).saturating_sub(self.since.load(Relaxed));
        let over = phase.limit().is_some_and(|limit| Duration::from_millis(quiet) > limit);
        if !over {
            return;
        }
        let flag = if phase == Phase::Answer { &self.late } else { &self.closing };
        flag.store(true, Relaxed);
        self.task.wake();
    }

    /// Asks it to end after the request in hand.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.task.wake();
    }

    /// Whether the answer's deadline passed; asking takes the flag back.
    #[must_use]
    pub fn take_late(&self) -> bool {
        self.late.load(Relaxed) && self.late.swap(false, Relaxed)
    }

    /// Whether it must be closed now.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Whether it was asked to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }
}

/// The client's bytes, as the HTTP server reads and writes them.
#[derive(Debug)]
pub struct ClientIo {
    stream: TcpStream,
    conn: Arc<Conn>,
}

impl ClientIo {
    /// Wraps a stream.
    #[must_use]
    pub fn new(stream: TcpStream, conn: Arc<Conn>) -> ClientIo {
        ClientIo { stream, conn }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.conn.moved(true);
        }
        result
    }
}

impl ClientIo {
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &result
            && *n > 0
        {
            self.conn.moved(false);
        }
        result
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let result = if total <= SMALL_WRITE_BYTES {
            let mut together = [0; SMALL_WRITE_BYTES];
            let mut room = &mut together[..];
            for slice in slices {
                // There is room for all of them: writing to a slice does not fail.
                let _all = io::Write::write(&mut room, slice);
            }
            Pin::new(&mut self.stream).poll_write(cx, &together[..total])
        } else {
            Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
        };
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_its_deadline() {
        let tick = Arc::new(Tick::default());
        let conn = Conn::new("127.0.0.1:1".parse().unwrap(), Arc::clone(&tick));
        let pass = |span: Duration| {
            tick.0.fetch_add(u64::try_from(span.as_millis()).unwrap(), Relaxed);
            conn.check();
        };
        conn.enter(Phase::Answer);
        pass(ANSWER_MAX);
        assert!(!conn.take_late());
        pass(Duration::from_millis(1));
        assert!(conn.take_late() && !conn.take_late() && !conn.is_closing());
        conn.enter(Phase::Held);
        pass(Duration::from_secs(9999));
        assert!(!conn.is_closing(), "the queue has its own deadline");
        conn.enter(Phase::Idle);
        pass(IDLE_MAX);
        conn.moved(true);
        pass(HEAD_MAX);
        conn.moved(true);
        assert!(!conn.is_closing());
        pass(Duration::from_millis(1));
        assert!(conn.is_closing(), "a head that trickles in is late");
    }
}
