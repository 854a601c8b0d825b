//! A client's connection from its first byte to its last: requests one after the other, each passed
//! to an instance or refused.

use super::answer::Answer;
use super::client::Client;
use super::exchange::Exchange;
use super::field::{self, Framing};
use super::judge::Refused;
use super::next::{limit_of, next_request};
use super::request::{Method, Request};
use super::up::{Fault, Up};
use crate::choose::Wish;
use crate::conn::{Conn, Ending, Phase};
use crate::forward::{Passage, Saying, Served};
use crate::http::access::Seen;
use crate::limited::Limit;
use crate::refuse::{Manner, Refusal, problem};
use crate::report_out;
use crate::tunnel::Tunnel;
use crate::upstream::Upstream;
use crate::view::Service;
use crate::worker::Worker;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, ready};
use tokio::net::TcpStream;
use wire::problem::Kind;

/// What a lingering client may still send before it is cut off.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// Logged for a request that the sweep cut off before it was answered.
const TOO_SLOW: u16 = 408;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing more is said in either direction.
    Close,
    /// The client may still be sending: it is heard out, so that it sees the answer.
    Linger,
    /// The answer so far must not look complete.
    Abort,
}

/// What follows a request.
enum Next {
    /// Another request.
    Request,
    /// The end.
    End(End),
    /// Bytes of another protocol, which this connection to the instance carries.
    Tunnel(Box<Switched>),
}

/// An instance that switched protocols.
struct Switched {
    upstream: Upstream,
    at: crate::outcome::AtInstance,
}

/// Drives one client connection to its end.
pub async fn drive(worker: Rc<Worker>, stream: TcpStream, conn: Rc<Conn>) {
    let mut client = Client::new(stream, Rc::clone(&conn));
    let mut known = false;
    let ended = {
        let mut serving = pin!(serve_all(&worker, &mut client));
        poll_fn(|cx| {
            if !known {
                known = true;
                conn.driven_by(cx);
            }
            if let Some(ending) = conn.ending() {
                return Poll::Ready(Err(ending));
            }
            serving.as_mut().poll(cx).map(Ok)
        })
        .await
    };
    match ended {
        // Who lingers has its answer.
        Err(_over) if conn.phase() == Phase::Linger => {}
        Err(ending) => {
            worker.ended(&conn, ending);
            // Who never said anything asked nothing: browsers open connections ahead of need.
            let asked = conn.phase() != Phase::Head || !client.input().is_empty();
            if ending == Ending::Slow && asked && conn.phase() != Phase::Idle {
                let status = if client.status > 0 { client.status } else { TOO_SLOW };
                worker.log(|| Seen::unread(&client, status, worker.now()));
            }
            if ending == Ending::Slow && asked && matches!(conn.phase(), Phase::Head | Phase::Body)
            {
                say_too_slow(&mut client).await;
            }
        }
        Ok(Next::Tunnel(switched)) => tunnel(&worker, client, *switched).await,
        Ok(Next::End(End::Abort)) => client.abort(),
        Ok(Next::Request | Next::End(End::Close | End::Linger)) => {}
    }
    worker.closed();
}

/// Tells a client that it was too slow, if it can be told at once.
async fn say_too_slow(client: &mut Client) {
    let refusal = problem(Kind::RequestTimeout, "the request did not come in time");
    refusal.write(client.output(), Manner { id: b"", keep: false, old: false, head_only: false });
    poll_fn(|cx| {
        let _at_once_or_never = client.poll_flush(cx);
        Poll::Ready(())
    })
    .await;
}

async fn serve_all(worker: &Rc<Worker>, client: &mut Client) -> Next {
    loop {
        let request = match next_request(worker, client).await {
            Ok(Some(request)) => request,
            Ok(None) => return Next::End(End::Close),
            Err(refused) => {
                worker.shared.doors.refused.fetch_add(1, Relaxed);
                if let Some(limit) = limit_of(&refused) {
                    worker.limited(limit);
                }
                client.begin();
                say(client, &refusal_of(refused), Manner::closing()).await;
                worker.log(|| Seen::unread(client, refused.status, worker.now()));
                return linger(worker, client).await;
            }
        };
        client.begin();
        client.conn.begin();
        client.lend(worker.buffers.borrow_mut().take());
        let next = serve_one(worker, client, request).await;
        if let Some(memory) = client.rest() {
            worker.buffers.borrow_mut().give(memory);
        }
        match next {
            Next::Request => client.conn.enter(Phase::Idle),
            Next::End(End::Linger) => return linger(worker, client).await,
            Next::End(End::Close | End::Abort) | Next::Tunnel(_) => return next,
        }
    }
}

impl Manner<'static> {
    /// Nothing is known of the request.
    fn closing() -> Manner<'static> {
        Manner { id: b"", keep: false, old: false, head_only: false }
    }
}

fn refusal_of(refused: Refused) -> Refusal {
    let kind = match refused.status {
        405 => Kind::Method,
        414 => Kind::UriTooLong,
        417 => Kind::Expectation,
        431 => Kind::HeadTooLarge,
        501 => Kind::NotImplemented,
        505 => Kind::Version,
        _ => Kind::BadRequest,
    };
    problem(kind, refused.detail)
}

/// Serves one request.
async fn serve_one(worker: &Rc<Worker>, client: &mut Client, mut request: Request) -> Next {
    let arrived = worker.now();
    let Some(local) = worker.find(request.host(), request.path()) else {
        worker.shared.doors.unrouted.fetch_add(1, Relaxed);
        let detail = "no service has this host and path; `tally service ls` shows the routes";
        let up = Up::new(&request, 0);
        let next = refuse(client, &request, &up, &problem(Kind::NotFound, detail)).await;
        worker.log(|| Seen::of(&request, client, None, arrived));
        return next;
    };
    local.service.touch(arrived);
    local.budget.borrow_mut().request();
    let own = local.service.front.load().body_max.map_or(u64::MAX, |max| max.0);
    let bytes_max = worker.limits.body.0.0.min(own);
    let mut up = Up::new(&request, bytes_max);
    let body = match request.framing {
        Framing::Length(n) if n > bytes_max => Err(Fault::TooLarge),
        Framing::None | Framing::Length(_) | Framing::Chunked | Framing::Close => {
            buffer(worker, client, &mut request, &mut up).await
        }
    };
    let conn = client.conn.clone();
    let wish = Wish::of(&local, &Saying { request: &request, conn: &conn });
    let passage = Passage { worker, conn: &conn, local: &local, arrived, wish };
    let served = match body {
        Ok(()) => passage.run(client, &request, &mut up).await,
        Err(fault) => passage.broken(fault),
    };
    let next = after(client, &request, &up, served).await;
    worker.log(|| Seen::of(&request, client, Some(&local.service), arrived));
    worker.buffers.borrow_mut().give(std::mem::take(&mut request.head));
    next
}

/// Keeps what of the body is there; waits for the rest if it is small.
async fn buffer(
    worker: &Worker,
    client: &mut Client,
    request: &mut Request,
    up: &mut Up,
) -> Result<(), Fault> {
    if up.has_ended() {
        return Ok(());
    }
    let length = match request.framing {
        Framing::Length(n) if n <= worker.limits.buffer.0.0 => n,
        Framing::Length(_) => {
            worker.limited(Limit::Buffer);
            return up.take_ahead(client, request);
        }
        Framing::None | Framing::Chunked | Framing::Close => {
            return up.take_ahead(client, request);
        }
    };
    let Some(_room) = worker.keep(length) else { return up.take_ahead(client, request) };
    client.conn.enter(Phase::Body);
    poll_fn(|cx| up.poll_buffer(cx, client, request, &mut worker.scratch.borrow_mut())).await
}

/// What becomes of the connection after a request was served.
async fn after(client: &mut Client, request: &Request, up: &Up, served: Served) -> Next {
    match served {
        Served::Whole { keep: true } => Next::Request,
        // Whatever else the client sends is not heard.
        Served::Whole { keep: false } if up.has_ended() => {
            poll_fn(|cx| client.poll_shutdown(cx)).await.ok();
            Next::End(End::Close)
        }
        Served::Whole { keep: false } => Next::End(End::Linger),
        Served::Refused(refusal) => refuse(client, request, up, &refusal).await,
        Served::Gone => Next::End(End::Close),
        Served::Broken => Next::End(End::Abort),
        Served::Switched(upstream, at) => Next::Tunnel(Box::new(Switched { upstream, at })),
    }
}

/// Refuses a request. If its body was not read, nothing else is on this connection.
async fn refuse(client: &mut Client, request: &Request, up: &Up, refusal: &Refusal) -> Next {
    let keep = request.keep && up.has_ended() && !client.conn.is_stopping();
    let head_only = request.method == Method::Head;
    let manner = Manner { id: request.id(), keep, old: request.old, head_only };
    if !say(client, refusal, manner).await {
        return Next::End(End::Close);
    }
    if keep { Next::Request } else { Next::End(End::Linger) }
}

/// Sends a refusal; false when the client is gone.
async fn say(client: &mut Client, refusal: &Refusal, manner: Manner<'_>) -> bool {
    client.conn.enter(Phase::Stream);
    client.status = refusal.kind.status();
    refusal.write(client.output(), manner);
    poll_fn(|cx| client.poll_flush(cx)).await.is_ok()
}

/// Ends our side and hears the client out: closing with its bytes unread would take back an answer
/// that it has not read yet.
async fn linger(worker: &Worker, client: &mut Client) -> Next {
    client.conn.enter(Phase::Linger);
    let mut left = LINGER_BYTES_MAX;
    poll_fn(|cx| {
        let _ended = ready!(client.poll_shutdown(cx));
        let mut scratch = worker.scratch.borrow_mut();
        loop {
            match ready!(client.poll_read(cx, &mut scratch)) {
                Ok(n) if n > 0 && n <= left => left -= n,
                Ok(_) | Err(_) => return Poll::Ready(()),
            }
        }
    })
    .await;
    Next::End(End::Close)
}

/// Passes another protocol's bytes on until both sides ended.
async fn tunnel(worker: &Rc<Worker>, client: Client, switched: Switched) {
    let conn = Rc::clone(&client.conn);
    conn.enter(Phase::Tunnel);
    let service = std::sync::Arc::clone(&switched.at.local.service);
    service.tunnels.fetch_add(1, Relaxed);
    let (tools, upstream) = (Rc::clone(&worker.tools), switched.upstream.into_parts());
    let mut joined = Tunnel::new(client.into_parts(), upstream, tools);
    let ended = poll_fn(|cx| {
        if let Some(why) = conn.ending() {
            worker.ended(&conn, why);
            return Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()));
        }
        joined.poll(cx, &conn)
    })
    .await;
    if let Err(error) = ended {
        tracing::trace!(instance = %switched.at.instance.id, %error, "a tunnel ended badly");
    }
    service.tunnels.fetch_sub(1, Relaxed);
}

/// Lines that answers get besides what the instance said.
pub fn additions<'a>(
    worker: &'a Worker,
    service: &'a Service,
    request: &'a Request,
) -> impl Fn(&Answer, &mut Vec<u8>) + 'a {
    move |answer, out| {
        if let Some(format) = request.load_format() {
            report_out::add(service, format, worker.now(), out);
        }
        if !answer.has_id {
            field::line(out, b"x-request-id", request.id());
        }
    }
}

/// Runs an exchange to its end.
pub async fn exchange(
    worker: &Worker,
    client: &mut Client,
    going: &mut Exchange<'_>,
) -> Result<(), Fault> {
    poll_fn(|cx| going.poll(cx, client, &mut worker.scratch.borrow_mut())).await
}

/// Waits for something while watching that the client is still there; `None`: it went away.
pub async fn while_there<F: Future>(
    worker: &Worker,
    client: &mut Client,
    waiting: F,
) -> Option<F::Output> {
    let mut waiting = pin!(waiting);
    poll_fn(|cx| {
        if let Poll::Ready(output) = waiting.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        client.poll_gone(cx, &mut worker.scratch.borrow_mut()).map(|()| None)
    })
    .await
}
