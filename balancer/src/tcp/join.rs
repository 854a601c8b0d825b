//! A client's connection and an instance's, joined: both directions until both have ended, one
//! breaks, or nothing moved for too long.

use super::flow::{Flow, Tools};
use domain::Mono;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::net::TcpStream;

/// What the sweep knows of a joined pair: no timer is set for it, and no clock asked.
#[derive(Debug)]
pub struct Pulse {
    moved: Cell<bool>,
    quiet_since: Cell<Mono>,
    over: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl Pulse {
    /// A pair that begins now.
    #[must_use]
    pub fn new(now: Mono) -> Pulse {
        Pulse {
            moved: Cell::new(true),
            quiet_since: Cell::new(now),
            over: Cell::new(false),
            task: RefCell::default(),
        }
    }

    /// The sweep's look: ends the pair when nothing moved for `idle_max`.
    pub fn check(&self, now: Mono, idle_max: Duration) {
        if self.moved.replace(false) {
            self.quiet_since.set(now);
        } else if now.since(self.quiet_since.get()) >= idle_max {
            self.over.set(true);
            if let Some(task) = self.task.borrow_mut().take() {
                task.wake();
            }
        }
    }
}

/// How a pair ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides said all they had.
    Whole,
    /// One side broke off; so is the other, that a part never passes for the whole.
    Broken,
    /// Nothing moved for too long.
    Idle,
}

/// The joined pair.
#[derive(Debug)]
pub struct Pair {
    client: TcpStream,
    instance: TcpStream,
    up: Flow,
    down: Flow,
    tools: Rc<Tools>,
    pulse: Rc<Pulse>,
    instance_first: bool,
}

impl Pair {
    /// Joins two connections.
    #[must_use]
    pub fn new(client: TcpStream, instance: TcpStream, tools: Rc<Tools>, pulse: Rc<Pulse>) -> Pair {
        let (up, down) = (Flow::default(), Flow::default());
        Pair { client, instance, up, down, tools, pulse, instance_first: false }
    }

    /// Bytes from the client and from the instance so far.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.up.bytes(), self.down.bytes())
    }

    /// Whether the instance ended or broke off before it said a single byte, while the client was
    /// still there: what a dead program behind a living port does.
    #[must_use]
    pub fn instance_said_nothing(&self) -> bool {
        self.instance_first && self.down.bytes() == 0
    }

    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Pair { client, instance, up, down, tools, instance_first, .. } = self;
        let downward = down.poll(cx, instance, client, tools);
        *instance_first |=
            (down.source_ended() || matches!(downward, Poll::Ready(Err(_)))) && !up.source_ended();
        let upward = up.poll(cx, client, instance, tools);
        match (upward, downward) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }
}

impl Future for Pair {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let before = self.bytes();
        let polled = self.poll_both(cx);
        if self.bytes() != before {
            self.pulse.moved.set(true);
        }
        let end = match polled {
            Poll::Ready(Ok(())) => End::Whole,
            Poll::Ready(Err(_)) => End::Broken,
            Poll::Pending if self.pulse.over.get() => End::Idle,
            Poll::Pending => {
                let mut task = self.pulse.task.borrow_mut();
                if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                    *task = Some(cx.waker().clone());
                }
                return Poll::Pending;
            }
        };
        if end != End::Whole {
            reset(&self.client);
            reset(&self.instance);
        }
        Poll::Ready(end)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let Pair { up, down, tools, .. } = self;
        up.abandon(tools);
        down.abandon(tools);
    }
}

/// Makes the close of this connection a break, not an end.
pub fn reset(stream: &TcpStream) {
    let _closed_already = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
