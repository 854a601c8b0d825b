//! After a switch of protocols: bytes in both directions until both sides ended, the sweep of the
//! client's connection watching.

use crate::conn::Conn;
use crate::tcp::flow::{Flow, Tools};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// A client and an instance that speak a protocol of their own.
pub struct Tunnel {
    client: TcpStream,
    instance: TcpStream,
    up: Flow,
    down: Flow,
    tools: Rc<Tools>,
}

impl Tunnel {
    /// Joins the two; each brings what was read ahead of it.
    #[must_use]
    pub fn new(
        client: (TcpStream, Vec<u8>),
        instance: (TcpStream, Vec<u8>),
        tools: Rc<Tools>,
    ) -> Tunnel {
        let (up, down) = (Flow::with_ahead(client.1), Flow::with_ahead(instance.1));
        Tunnel { client: client.0, instance: instance.0, up, down, tools }
    }

    /// Goes on; ready when both directions are over, or one broke.
    pub fn poll(&mut self, cx: &mut Context<'_>, conn: &Conn) -> Poll<io::Result<()>> {
        let before = self.up.bytes() + self.down.bytes();
        let Tunnel { client, instance, up, down, tools } = self;
        let downward = down.poll(cx, instance, client, tools);
        let upward = up.poll(cx, client, instance, tools);
        let moved = self.up.bytes() + self.down.bytes() - before;
        if moved > 0 {
            conn.moved(usize::try_from(moved).unwrap_or(usize::MAX));
        }
        match (upward, downward) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.up.abandon(&self.tools);
        self.down.abandon(&self.tools);
    }
}
