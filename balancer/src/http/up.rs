//! A request on its way up: its body is read as the client sends it, and kept only where it may be
//! sent again.

use super::answer::Nonsense;
use super::body::{self, Piece, Reader};
use super::client::Client;
use super::field::Framing;
use super::request::Request;
use crate::upstream::Upstream;
use std::task::{Context, Poll, ready};

/// Why an exchange ended before its time.
#[derive(Debug)]
pub enum Fault {
    /// The instance's connection broke, or ended before the first byte of the answer.
    Lost,
    /// The instance's answer must not be passed on.
    Nonsense(&'static str),
    /// No answer in time.
    Late,
    /// The client went away, or stopped sending.
    Client,
    /// The client's body is framed wrongly.
    BadBody(&'static str),
    /// The client's body is larger than it may be.
    TooLarge,
    /// The answer broke off after its head was passed on.
    Broken(&'static str),
}

/// A request on its way up.
#[derive(Debug)]
pub struct Up {
    /// Bytes of the request's head, and of the body kept with it, that are out.
    sent: usize,
    /// Of the body, what is not kept.
    more: Vec<u8>,
    more_sent: usize,
    reader: Reader,
    framing: Framing,
    ended: bool,
    expects: bool,
    /// Bytes of the body so far, and how many there may be.
    bytes: u64,
    bytes_max: u64,
    /// Some of the body went out and is gone: the request cannot be repeated.
    gone: bool,
}

impl Up {
    /// The way up of a request.
    #[must_use]
    pub fn new(request: &Request, bytes_max: u64) -> Up {
        Up {
            sent: 0,
            more: Vec::new(),
            more_sent: 0,
            reader: Reader::new(request.framing),
            framing: request.framing,
            ended: matches!(request.framing, Framing::None | Framing::Length(0)),
            expects: request.expects,
            bytes: 0,
            bytes_max,
            gone: false,
        }
    }

    /// Whether all of the client's request was read.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether it can be sent from its beginning again.
    #[must_use]
    pub fn can_repeat(&self) -> bool {
        !self.gone
    }

    /// Starts anew.
    pub fn again(&mut self) {
        self.sent = 0;
    }

    /// Reads the body on from `bytes` and writes it into `out`, until it has enough; says how many
    /// bytes were used.
    ///
    /// # Errors
    /// [`Fault::BadBody`] and [`Fault::TooLarge`].
    fn absorb(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Fault> {
        let mut used = 0;
        while !self.ended {
            let (piece, n) =
                self.reader.step(&bytes[used..]).map_err(|Nonsense(why)| Fault::BadBody(why))?;
            used += n;
            if let Piece::Data(data) = &piece {
                self.bytes = self.bytes.saturating_add(data.len() as u64);
            }
            // A chunk that is too large is refused by its size, before it came.
            if self.bytes.saturating_add(self.reader.announced()) > self.bytes_max {
                return Err(Fault::TooLarge);
            }
            match piece {
                Piece::Data(data) => {
                    body::write(out, self.framing, data);
                    // A length needs no mark at its end.
                    self.ended = self.framing != Framing::Chunked && self.reader.is_done();
                }
                // Nothing announced trailers to the instance.
                Piece::Trailer(_) => {}
                Piece::More => break,
                Piece::End => {
                    body::end(out, self.framing, &[]);
                    self.ended = true;
                }
            }
        }
        Ok(used)
    }

    /// Takes what of the body is there already, and keeps it with the head.
    ///
    /// # Errors
    /// [`Fault::BadBody`] and [`Fault::TooLarge`].
    pub fn take_ahead(&mut self, client: &mut Client, request: &mut Request) -> Result<(), Fault> {
        if self.ended || client.input().is_empty() {
            return Ok(());
        }
        let used = self.absorb(client.input(), &mut request.head)?;
        client.take(used);
        Ok(())
    }

    /// Reads the body into memory until it is whole; for small ones.
    ///
    /// # Errors
    /// Whatever of [`Fault`] is the client's.
    pub fn poll_buffer(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        request: &mut Request,
        scratch: &mut [u8],
    ) -> Poll<Result<(), Fault>> {
        loop {
            self.take_ahead(client, request)?;
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            self.give_leave(cx, client);
            let n = ready!(poll_body(cx, client, scratch))?;
            client.keep(&scratch[..n]);
        }
    }

    /// The client is not told any more to send its body.
    pub fn forget_leave(&mut self) {
        self.expects = false;
    }

    /// Tells a client that waits for it to send its body.
    fn give_leave(&mut self, cx: &mut Context<'_>, client: &mut Client) {
        if std::mem::take(&mut self.expects) {
            client.output().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        // What cannot be written now goes before the answer.
        let _later = client.poll_flush(cx);
    }

    /// Sends on; ready when all is out. `Err(None)`: the instance takes no more.
    ///
    /// # Errors
    /// Whatever of [`Fault`] is the client's.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        upstream: &mut Upstream,
        request: &Request,
        scratch: &mut [u8],
    ) -> Poll<Result<(), Option<Fault>>> {
        loop {
            let left = request.head.get(self.sent..).unwrap_or_default();
            if !left.is_empty() {
                let n = ready!(upstream.poll_write(cx, left)).map_err(|_broken| None)?;
                self.sent += n;
                client.conn.moved(0);
                continue;
            }
            let left = self.more.get(self.more_sent..).unwrap_or_default();
            if !left.is_empty() {
                let n = ready!(upstream.poll_write(cx, left)).map_err(|_broken| None)?;
                self.more_sent += n;
                client.conn.moved(0);
                continue;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            self.more_sent = 0;
            let mut more = std::mem::take(&mut self.more);
            more.clear();
            self.gone = true;
            if client.input().is_empty() {
                self.give_leave(cx, client);
                let Poll::Ready(read) = poll_body(cx, client, scratch) else {
                    self.more = more;
                    return Poll::Pending;
                };
                let n = read.map_err(Some)?;
                let used = self.absorb(&scratch[..n], &mut more).map_err(Some)?;
                client.keep(&scratch[used..n]);
            } else {
                let used = self.absorb(client.input(), &mut more).map_err(Some)?;
                client.take(used);
            }
            self.more = more;
        }
    }
}

/// Reads more of a client's body.
fn poll_body(
    cx: &mut Context<'_>,
    client: &mut Client,
    scratch: &mut [u8],
) -> Poll<Result<usize, Fault>> {
    match client.poll_read(cx, scratch) {
        Poll::Pending => {
            client.conn.waits();
            Poll::Pending
        }
        Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(Fault::Client)),
        Poll::Ready(Ok(n)) => {
            client.conn.moved(n);
            Poll::Ready(Ok(n))
        }
    }
}
