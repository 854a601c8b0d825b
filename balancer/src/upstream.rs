//! One connection to an instance. It is polled by the task of the client's connection, so that no
//! request costs a task or a channel.

use chassis::dial;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection to an instance must stand within this; instances are near.
pub const CONNECT_MAX: Duration = Duration::from_secs(2);

/// One connection to an instance.
#[derive(Debug)]
pub struct Upstream {
    stream: TcpStream,
    /// Read and not yet taken: the beginning of a head whose end has not come.
    pub buffer: Vec<u8>,
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
        let connecting = tokio::time::timeout(CONNECT_MAX, dial::connect(address));
        let stream = connecting.await.map_err(|_late| io::ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        Ok(Upstream { stream, buffer: Vec::new(), used: false, seen: false, idle_since: 0 })
    }

    /// Whether an idle connection still stands and is silent. Costs a system call only when the
    /// system has told of something.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let mut byte = [0];
        let read = self.stream.try_read(&mut byte);
        self.buffer.is_empty() && matches!(read, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Reads into `scratch`, which stays in the processor's cache as no connection's own memory
    /// does; 0 at the end.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let n = buffer.filled().len();
        self.seen |= n > 0;
        Poll::Ready(Ok(n))
    }

    /// Writes some of `bytes`.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// The bare stream and what was read ahead, for a tunnel.
    #[must_use]
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.buffer)
    }
}
