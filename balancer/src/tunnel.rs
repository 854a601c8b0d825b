//! After a switch of protocols: bytes in both directions until both sides ended.

use crate::conn::Conn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// One direction.
struct Flow {
    /// Read and not yet written.
    pending: Vec<u8>,
    written: usize,
    ended: bool,
}

impl Flow {
    fn new(ahead: Vec<u8>) -> Flow {
        Flow { pending: ahead, written: 0, ended: false }
    }

    /// Passes on what there is; ready when this direction is over and its end was passed on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        conn: &Conn,
        scratch: &mut [u8],
    ) -> Poll<io::Result<()>> {
        loop {
            while self.written < self.pending.len() {
                let left = &self.pending[self.written..];
                let n = ready!(Pin::new(&mut *to).poll_write(cx, left))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.written += n;
                conn.moved(n);
            }
            // A quiet direction keeps no buffer.
            (self.pending, self.written) = (Vec::new(), 0);
            if self.ended {
                return Pin::new(&mut *to).poll_shutdown(cx);
            }
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut read))?;
            let data = read.filled();
            self.ended = data.is_empty();
            if self.ended {
                continue;
            }
            conn.moved(data.len());
            let n = match Pin::new(&mut *to).poll_write(cx, data) {
                Poll::Ready(done) => done?,
                Poll::Pending => 0,
            };
            self.pending.extend_from_slice(&data[n..]);
        }
    }
}

/// A client and an instance that speak a protocol of their own.
pub struct Tunnel {
    client: TcpStream,
    instance: TcpStream,
    up: Flow,
    down: Flow,
    up_over: bool,
    down_over: bool,
}

impl Tunnel {
    /// Joins the two; each brings what was read ahead of it.
    #[must_use]
    pub fn new(client: (TcpStream, Vec<u8>), instance: (TcpStream, Vec<u8>)) -> Tunnel {
        Tunnel {
            client: client.0,
            instance: instance.0,
            up: Flow::new(client.1),
            down: Flow::new(instance.1),
            up_over: false,
            down_over: false,
        }
    }

    /// Goes on; ready when both directions are over, or one broke.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        conn: &Conn,
        scratch: &mut [u8],
    ) -> Poll<io::Result<()>> {
        let Tunnel { client, instance, up, down, up_over, down_over } = self;
        if !*up_over && up.poll(cx, client, instance, conn, scratch)?.is_ready() {
            *up_over = true;
        }
        if !*down_over && down.poll(cx, instance, client, conn, scratch)?.is_ready() {
            *down_over = true;
        }
        if *up_over && *down_over { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}
