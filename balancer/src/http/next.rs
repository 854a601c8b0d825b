//! The next request's head off a client's connection, whole and within its bounds.

use super::client::Client;
use super::field;
use super::judge::Refused;
use super::request::{self, Origin, Request};
use crate::conn::{Conn, Phase};
use crate::limited::Limit;
use crate::limits::{Limits, size};
use crate::worker::{Room, Worker};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

const NO_ROOM: &str = "too many long heads are being read at once; come again with a shorter one";
const TOO_LONG: &str = "the request's head is too long";
const TARGET_TOO_LONG: &str = "the request's target is too long";

/// The bound for which a head was refused, if it was one.
pub fn limit_of(refused: &Refused) -> Option<Limit> {
    match refused.status {
        414 => Some(Limit::Target),
        431 if refused.detail == NO_ROOM => Some(Limit::HeadMemory),
        431 => Some(Limit::Head),
        _ => None,
    }
}

/// The next request's head. `None`: the client is gone, or the balancer is ending.
pub async fn next_request(
    worker: &Rc<Worker>,
    client: &mut Client,
) -> Result<Option<Request>, Refused> {
    // Bytes that were looked at without finding a whole head.
    let mut looked = 0;
    let mut room = worker.head_room();
    poll_fn(|cx| poll_request(cx, worker, client, &mut looked, &mut room)).await
}

fn poll_request(
    cx: &mut Context<'_>,
    worker: &Worker,
    client: &mut Client,
    looked: &mut usize,
    room: &mut Room<'_>,
) -> Poll<Result<Option<Request>, Refused>> {
    let mut scratch = worker.scratch.borrow_mut();
    loop {
        let have = client.input().len();
        if have > *looked {
            let long = have > size(worker.limits.head);
            let worth = long || field::may_be_whole(client.input(), *looked);
            if worth && let Some((request, used)) = parse(worker, &client.conn, client.input())? {
                client.take(used);
                return Poll::Ready(Ok(Some(request)));
            }
            if long {
                // A first line that alone is too long is so by its target.
                let bounded = client.input().iter().take(size(worker.limits.head));
                let has_first_line = bounded.copied().any(|byte| byte == b'\n');
                let (status, detail) =
                    if has_first_line { (431, TOO_LONG) } else { (414, TARGET_TOO_LONG) };
                return Poll::Ready(Err(Refused { status, detail }));
            }
            *looked = have;
        }
        if have == 0 && client.conn.is_stopping() {
            return Poll::Ready(Ok(None));
        }
        let n = match ready!(client.poll_read(cx, &mut scratch)) {
            Ok(n) if n > 0 => n,
            Ok(_) | Err(_) => return Poll::Ready(Ok(None)),
        };
        if client.conn.phase() == Phase::Idle {
            client.conn.enter(Phase::Head);
        }
        if have > 0 {
            keep(client, &scratch[..n], room)?;
            continue;
        }
        // Nearly always the whole head is there at once, and is read where it lies.
        match parse(worker, &client.conn, &scratch[..n])? {
            Some((request, used)) => {
                if used < n {
                    client.keep(&scratch[used..n]);
                }
                return Poll::Ready(Ok(Some(request)));
            }
            None => {
                keep(client, &scratch[..n], room)?;
                if n <= size(worker.limits.head) {
                    *looked = n;
                }
            }
        }
    }
}

/// Keeps a part of a head that did not come whole.
fn keep(client: &mut Client, bytes: &[u8], room: &mut Room<'_>) -> Result<(), Refused> {
    let all = (client.input().len() + bytes.len()) as u64;
    if !room.grow(bytes.len() as u64, Limits::HEAD_MEMORY) && all > Limits::HEAD_SMALL {
        return Err(Refused { status: 431, detail: NO_ROOM });
    }
    client.keep(bytes);
    Ok(())
}

fn parse(worker: &Worker, conn: &Conn, bytes: &[u8]) -> Result<Option<(Request, usize)>, Refused> {
    let origin = Origin {
        peer: conn.peer.as_bytes(),
        fresh_id: worker.fresh_id(),
        target_bytes_max: size(worker.limits.target),
    };
    let out = worker.buffers.borrow_mut().take();
    let head = &bytes[..bytes.len().min(size(worker.limits.head))];
    match request::read(head, &origin, out) {
        Ok(read) => Ok(read),
        Err((refused, out)) => {
            worker.buffers.borrow_mut().give(out);
            Err(refused)
        }
    }
}
