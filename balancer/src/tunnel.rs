//! After a switch of protocols: bytes in both directions until one side ends.

use crate::body::AnswerBody;
use crate::conn::{Conn, Phase};
use crate::head::Answer;
use crate::outcome::AtInstance;
use crate::upstream::Upstream;
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use tokio::io::AsyncWriteExt;

/// Passes the 101 back and joins the two connections once it is out.
pub fn open(
    at: AtInstance,
    answer: Answer,
    upstream: Upstream,
    upgrade: OnUpgrade,
    conn: Arc<Conn>,
) -> Response<AnswerBody> {
    conn.enter(Phase::Tunnel);
    let mut response = Response::new(AnswerBody::Whole(Bytes::new()));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = answer.upgrade {
        headers.insert(header::UPGRADE, protocol);
    }
    tokio::task::spawn_local(async move {
        let service = Arc::clone(&at.local.service);
        service.tunnels.fetch_add(1, Relaxed);
        let worker = std::rc::Rc::clone(at.worker());
        worker.held_open();
        let mut joined = pin!(join(upgrade, upstream));
        let ended = poll_fn(|cx| {
            conn.driven_by(cx);
            if conn.is_closing() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            joined.as_mut().poll(cx)
        })
        .await;
        if let Err(error) = ended {
            tracing::trace!(instance = %at.instance.id, %error, "a tunnel ended badly");
        }
        service.tunnels.fetch_sub(1, Relaxed);
        worker.closed();
    });
    response
}

async fn join(upgrade: OnUpgrade, upstream: Upstream) -> io::Result<()> {
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    let mut client = TokioIo::new(upgraded);
    let (mut instance, read_ahead) = upstream.into_parts();
    client.write_all(&read_ahead).await?;
    tokio::io::copy_bidirectional(&mut client, &mut instance).await?;
    Ok(())
}
