//! The body of an answer on its way to the client: small ones whole, others as they come.

use crate::chunk::{Chunks, Step};
use crate::conn::{Conn, Phase};
use crate::head::{Framing, Nonsense};
use crate::outcome::AtInstance;
use crate::upstream::{Fault, Sending, Upstream};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

/// The body of an answer.
pub enum AnswerBody {
    /// All of it.
    Whole(Bytes),
    /// More to come.
    Stream(Box<Streaming>),
}

/// The answer broke off. The client's connection is closed, so that it never looks complete.
#[derive(Debug)]
pub struct Broken(pub &'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Broken {}

/// How far a streamed body is read.
enum Reader {
    Length(u64),
    Chunked(Chunks),
    Close,
}

/// A body that comes from an instance.
pub struct Streaming {
    upstream: Option<Upstream>,
    reader: Reader,
    keep: bool,
    sending: Option<Sending>,
    at: AtInstance,
    conn: Arc<Conn>,
    ended: bool,
}

impl Streaming {
    /// The rest of an answer with this framing. `sending` is a request that is not all out yet.
    #[must_use]
    pub fn new(
        upstream: Upstream,
        framing: Framing,
        keep: bool,
        sending: Option<Sending>,
        at: AtInstance,
        conn: Arc<Conn>,
    ) -> Streaming {
        let reader = match framing {
            Framing::None => Reader::Length(0),
            Framing::Length(n) => Reader::Length(n),
            Framing::Chunked => Reader::Chunked(Chunks::default()),
            Framing::Close => Reader::Close,
        };
        Streaming { upstream: Some(upstream), reader, keep, sending, at, conn, ended: false }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        let Some(upstream) = &mut self.upstream else { return Poll::Ready(Ok(None)) };
        if let Some(sending) = &mut self.sending {
            match sending.poll(cx, upstream) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.sending = None,
                // An instance may answer and stop listening; its answer still counts.
                Poll::Ready(Err(Fault::Io)) => {
                    self.sending = None;
                    self.keep = false;
                }
                Poll::Ready(Err(_)) => {
                    return Poll::Ready(Err(Broken("the client broke off its request")));
                }
            }
        }
        loop {
            match step(&mut self.reader, upstream) {
                Err(Nonsense(why)) => return Poll::Ready(Err(Broken(why))),
                Ok(Step::Data(data)) => return Poll::Ready(Ok(Some(data))),
                Ok(Step::End) => return Poll::Ready(Ok(None)),
                Ok(Step::More) => {}
            }
            match ready!(upstream.poll_fill(cx)) {
                Ok(0) if matches!(self.reader, Reader::Close) => return Poll::Ready(Ok(None)),
                Ok(0) => return Poll::Ready(Err(Broken("the instance broke off its answer"))),
                Ok(_) => self.conn.moved(false),
                Err(_reset) => return Poll::Ready(Err(Broken("the instance was lost"))),
            }
        }
    }

    /// The body is complete: its connection may serve again, if the request is out as well.
    fn end(&mut self) {
        self.ended = true;
        let Some(upstream) = self.upstream.take() else { return };
        if self.keep && self.sending.is_none() && upstream.buffer.is_empty() {
            let tick = self.at.worker().tick.0.load(Relaxed);
            self.at.local.pool.borrow_mut().give(self.at.instance.serial, upstream, tick);
        }
    }
}

fn step(reader: &mut Reader, upstream: &mut Upstream) -> Result<Step, Nonsense> {
    let buffer = &mut upstream.buffer;
    match reader {
        Reader::Chunked(chunks) => chunks.step(buffer),
        Reader::Length(0) => Ok(Step::End),
        _ if buffer.is_empty() => Ok(Step::More),
        Reader::Length(left) => {
            let here = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
            *left -= here as u64;
            Ok(Step::Data(buffer.split_to(here).freeze()))
        }
        Reader::Close => Ok(Step::Data(buffer.split().freeze())),
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.conn.enter(Phase::Idle);
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            AnswerBody::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            AnswerBody::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            AnswerBody::Stream(streaming) => {
                if streaming.ended {
                    return Poll::Ready(None);
                }
                match ready!(streaming.poll_data(cx)) {
                    Ok(Some(data)) => {
                        if matches!(streaming.reader, Reader::Length(0)) {
                            streaming.end();
                        }
                        Poll::Ready(Some(Ok(Frame::data(data))))
                    }
                    Ok(None) => {
                        streaming.end();
                        Poll::Ready(None)
                    }
                    Err(broken) => {
                        streaming.ended = true;
                        streaming.upstream = None;
                        let worker = streaming.at.worker();
                        streaming.at.local.service.stats[worker.index].broke();
                        tracing::debug!(
                            instance = %streaming.at.instance.id, %broken, "an answer broke off"
                        );
                        Poll::Ready(Some(Err(broken)))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Whole(bytes) => bytes.is_empty(),
            AnswerBody::Stream(streaming) => streaming.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            AnswerBody::Stream(streaming) => match streaming.reader {
                Reader::Length(left) => SizeHint::with_exact(left),
                Reader::Chunked(_) | Reader::Close => SizeHint::new(),
            },
        }
    }
}
