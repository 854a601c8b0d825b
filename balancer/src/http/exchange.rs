//! One request at one instance: the request goes up as the client sends it, the answer comes down as
//! the client takes it, both at once, nothing kept that need not be.

use super::answer::{self, Answer, Nonsense, Toward};
use super::body::{self, Piece, Reader};
use super::chunks;
use super::client::Client;
use super::field::{self, Field, Framing};
use super::request::Request;
use super::up::{Fault, Up};
use crate::conn::Phase;
use crate::orca;
use crate::outcome::AtInstance;
use crate::upstream::Upstream;
use std::ops::Range;
use std::task::{Context, Poll, ready};

/// Interim answers to one request: more are a loop.
const INTERIM_MAX: u32 = 16;

/// How far the answer is.
#[derive(Debug)]
enum Stage {
    Head,
    Body { reader: Reader, outward: Framing },
    Done,
}

/// What is said to the client in an answer's head besides what the instance said: whole lines.
pub type Additions<'a> = &'a dyn Fn(&Answer, &mut Vec<u8>);

/// One request at one instance.
pub struct Exchange<'a> {
    /// The request.
    pub request: &'a Request,
    /// Its way up.
    pub up: &'a mut Up,
    /// The connection to the instance.
    pub upstream: Upstream,
    /// The request's place there.
    pub at: &'a AtInstance,
    /// What is added to the answer's head.
    pub additions: Additions<'a>,
    up_over: bool,
    up_broken: bool,
    stage: Stage,
    interim: u32,
    status: u16,
    outward: Framing,
    /// Lines that follow the answer's body.
    trailers: Vec<u8>,
    keep: bool,
    reusable: bool,
}

impl<'a> Exchange<'a> {
    /// An exchange that has not begun.
    #[must_use]
    pub fn new(
        request: &'a Request,
        up: &'a mut Up,
        upstream: Upstream,
        at: &'a AtInstance,
        additions: Additions<'a>,
    ) -> Exchange<'a> {
        Exchange {
            request,
            up,
            upstream,
            at,
            additions,
            up_over: false,
            up_broken: false,
            stage: Stage::Head,
            interim: 0,
            status: 0,
            outward: Framing::None,
            trailers: Vec::new(),
            keep: false,
            reusable: false,
        }
    }

    /// The answer's status; 0 while there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the instance switched protocols.
    #[must_use]
    pub fn has_switched(&self) -> bool {
        self.status == answer::SWITCHING
    }

    /// Whether the client's connection may carry another request.
    #[must_use]
    pub fn keeps_client(&self) -> bool {
        self.keep
    }

    /// Whether only the end of the client's connection ends the answer.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        self.outward == Framing::Close
    }

    /// Whether the instance's connection may carry another request.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        self.reusable
    }

    /// Goes on; ready when the answer is with the client.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        scratch: &mut [u8],
    ) -> Poll<Result<(), Fault>> {
        if client.conn.is_slow() {
            self.at.step_aside();
        }
        if !self.up_over {
            // An answer that began says all: leave to send would stand in the middle of it.
            if self.status > 0 {
                self.up.forget_leave();
            }
            match self.up.poll(cx, client, &mut self.upstream, self.request, scratch) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.up_is_over(client),
                Poll::Ready(Err(Some(fault))) => return Poll::Ready(Err(self.classed(fault))),
                // An instance may answer early and stop listening: see what it says.
                Poll::Ready(Err(None)) => {
                    self.up_broken = true;
                    self.up_is_over(client);
                }
            }
        }
        if client.conn.take_late() && self.status == 0 {
            return Poll::Ready(Err(Fault::Late));
        }
        let down = self.poll_down(cx, client, scratch);
        if down.is_pending() && self.up_over && client.poll_broken(cx, scratch).is_ready() {
            return Poll::Ready(Err(Fault::Client));
        }
        down
    }

    /// From now on the instance is waited for.
    fn up_is_over(&mut self, client: &Client) {
        self.up_over = true;
        if client.conn.phase() == Phase::Upload {
            client.conn.enter(Phase::Answer);
        }
    }

    /// Once the answer's head is with the client, nothing else can be said.
    fn classed(&self, fault: Fault) -> Fault {
        match fault {
            Fault::BadBody(why) if self.status > 0 => Fault::Broken(why),
            Fault::TooLarge if self.status > 0 => Fault::Broken("the request's body is too large"),
            Fault::BadBody(_)
            | Fault::TooLarge
            | Fault::Lost
            | Fault::Nonsense(_)
            | Fault::Late
            | Fault::Client
            | Fault::Broken(_) => fault,
        }
    }

    fn poll_down(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        scratch: &mut [u8],
    ) -> Poll<Result<(), Fault>> {
        loop {
            if ready!(client.poll_flush(cx)).is_err() {
                return Poll::Ready(Err(Fault::Client));
            }
            if matches!(self.stage, Stage::Done) {
                if self.ends_with_connection() {
                    client.ends_by_break(false);
                }
                return Poll::Ready(Ok(()));
            }
            let n = match ready!(self.upstream.poll_read(cx, scratch)) {
                Ok(n) => n,
                Err(_reset) => return Poll::Ready(Err(self.lost())),
            };
            if n == 0 {
                self.end_of_connection(client)?;
                continue;
            }
            if matches!(self.stage, Stage::Head) {
                self.take_head(cx, client, &scratch[..n])?;
            } else {
                client.conn.moved(0);
                self.take_body(cx, client, &scratch[..n])?;
            }
        }
    }

    fn lost(&self) -> Fault {
        match self.stage {
            Stage::Head if self.upstream.seen => Fault::Nonsense("it broke off within its head"),
            Stage::Head => Fault::Lost,
            Stage::Body { .. } | Stage::Done => Fault::Broken("the instance was lost"),
        }
    }

    fn end_of_connection(&mut self, client: &mut Client) -> Result<(), Fault> {
        match &self.stage {
            Stage::Body { reader, outward } if reader.ends_with_connection() => {
                body::end(client.output(), *outward, &[]);
                self.stage = Stage::Done;
                Ok(())
            }
            Stage::Body { .. } => Err(Fault::Broken("the instance broke off its answer")),
            Stage::Head | Stage::Done => Err(self.lost()),
        }
    }

    fn take_head(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        if self.upstream.buffer.is_empty() {
            return self.take_head_of(cx, client, bytes);
        }
        let before = self.upstream.buffer.len();
        let mut buffer = std::mem::take(&mut self.upstream.buffer);
        buffer.extend_from_slice(bytes);
        let long = buffer.len() >= answer::HEAD_BYTES_MAX;
        if !long && !field::may_be_whole(&buffer, before) {
            self.upstream.buffer = buffer;
            return Ok(());
        }
        self.take_head_of(cx, client, &buffer)
    }

    fn take_head_of(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        let toward = Toward {
            method: self.request.method,
            old: self.request.old,
            keep: self.request.keep,
            upgrade: self.request.upgrade,
        };
        let mut at = 0;
        loop {
            let mark = client.output().len();
            let read = answer::read(&bytes[at..], toward, client.output());
            let answer = match read.map_err(|Nonsense(why)| Fault::Nonsense(why))? {
                answer::Read::Partial => {
                    self.upstream.buffer = bytes[at..].to_vec();
                    return Ok(());
                }
                answer::Read::Whole(answer) => answer,
            };
            let head = &bytes[at..at + answer.length];
            at += answer.length;
            if answer.is_interim() {
                self.interim += 1;
                if self.interim > INTERIM_MAX {
                    // Its head was begun and is not ended: our own answer must not follow it.
                    client.output().truncate(mark);
                    return Err(Fault::Nonsense("its interim answers do not end"));
                }
                // Leave to send was given already; who speaks HTTP/1.0 knows no interim answers.
                if answer.status == 100 || self.request.old {
                    client.output().truncate(mark);
                } else {
                    client.output().extend_from_slice(b"\r\n");
                }
                continue;
            }
            if answer.status == answer::SWITCHING && !self.up_over {
                client.output().truncate(mark);
                return Err(Fault::Nonsense("it switched protocols before it had the request"));
            }
            self.begin(client, toward, &answer, head);
            return self.take_body(cx, client, &bytes[at..]);
        }
    }

    /// The answer's head is there.
    fn begin(&mut self, client: &mut Client, toward: Toward, answer: &Answer, head: &[u8]) {
        if let Some((name, value)) = &answer.load {
            note_load(self.at, head, name, value);
        }
        // Answered before the request was read: what the client still sends is not a request.
        let wanted = toward.keep && self.up.has_ended() && !client.conn.is_stopping();
        let (outward, keep) = answer::outward(answer.framing, Toward { keep: wanted, ..toward });
        (self.additions)(answer, client.output());
        answer::finish(client.output(), answer.status, outward, toward.old, keep);
        self.at.answered(answer.status);
        client.status = answer.status;
        (self.status, self.keep, self.outward) = (answer.status, keep, outward);
        self.reusable = answer.keep;
        self.stage = Stage::Body { reader: Reader::new(answer.framing), outward };
        client.conn.enter(Phase::Stream);
        if outward == Framing::Close {
            client.ends_by_break(true);
        }
    }

    fn take_body(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        if self.has_switched() {
            self.upstream.buffer = bytes.to_vec();
            self.stage = Stage::Done;
            return Ok(());
        }
        let Stage::Body { reader, outward } = &mut self.stage else { return Ok(()) };
        let outward = *outward;
        let mut used = 0;
        loop {
            let (piece, n) =
                reader.step(&bytes[used..]).map_err(|Nonsense(why)| Fault::Broken(why))?;
            used += n;
            match piece {
                Piece::Data(data) => {
                    send(cx, client, outward, data).map_err(|_gone| Fault::Client)?;
                }
                Piece::Trailer(line) => {
                    let passes = self.request.trailers && outward == Framing::Chunked;
                    if take_trailer(self.at, &line) && passes {
                        self.trailers.extend_from_slice(&line);
                        self.trailers.extend_from_slice(b"\r\n");
                    }
                }
                Piece::More => return Ok(()),
                Piece::End => break,
            }
        }
        body::end(client.output(), outward, &self.trailers);
        // Bytes after the end belong to nobody: the connection is not used again.
        self.reusable &= used == bytes.len() && self.up_over && !self.up_broken;
        self.stage = Stage::Done;
        Ok(())
    }
}

/// Sends a piece of the answer's body.
fn send(
    cx: &mut Context<'_>,
    client: &mut Client,
    outward: Framing,
    data: &[u8],
) -> std::io::Result<()> {
    if outward != Framing::Chunked {
        return client.send(cx, data);
    }
    chunks::write_size(client.output(), data.len());
    client.send(cx, data)?;
    client.output().extend_from_slice(b"\r\n");
    Ok(())
}

fn note_load(at: &AtInstance, head: &[u8], name: &Range<usize>, value: &Range<usize>) {
    if let (Some(name), Some(value)) = (head.get(name.clone()), head.get(value.clone())) {
        orca::note(&at.instance, name, value);
    }
}

/// Reads a trailer; whether a client may have it. One that would say how a message is framed or
/// routed says it too late, and is dropped (RFC 9110, 6.5.1).
fn take_trailer(at: &AtInstance, line: &[u8]) -> bool {
    let Some(colon) = memchr::memchr(b':', line) else { return false };
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let field = field::classify(name);
    if field == Field::LoadMetrics {
        orca::note(&at.instance, name, value);
    }
    field == Field::Other
}
