//! Events as they happen, over a server-sent stream that resumes where it broke off.

use super::{Api, refused};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use chassis::{ApiError, ApiQuery};
use futures_util::stream;
use registry::StoredEvent;
use serde::Deserialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use wire::operator::EventView;
use wire::problem::Kind;
use wire::stamp::Stamp;

/// Events read at once.
const BATCH: usize = 256;
/// The machine-manager appends events too, and rings no bell here.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A comment is sent after this much silence, so that middle boxes keep the connection.
const QUIET_LOOKS_MAX: u32 = 15;

/// `?after=SEQ`, for those who cannot send `Last-Event-ID`.
#[derive(Debug, Deserialize)]
pub struct After {
    after: Option<u64>,
}

struct Follower {
    api: Api,
    seq: u64,
    bell: watch::Receiver<u64>,
    pending: VecDeque<StoredEvent>,
    _slot: OwnedSemaphorePermit,
}

/// `GET /v1/events`
pub async fn follow(
    State(api): State<Api>,
    ApiQuery(after): ApiQuery<After>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let slot = api.followers.clone().try_acquire_owned().map_err(|_none_free| {
        ApiError::new(Kind::Contended, "too many follow the events; try again later")
            .retry_after(10)
    })?;
    let header = headers.get("last-event-id").and_then(|v| v.to_str().ok());
    let seq = match header.and_then(|text| text.trim().parse().ok()).or(after.after) {
        Some(seq) => seq,
        None => api.registry.last_event().await.map_err(|e| refused(e, false))?,
    };
    let bell = api.shared.events.subscribe();
    let follower = Follower { api, seq, bell, pending: VecDeque::new(), _slot: slot };
    let lines = stream::unfold(follower, |mut follower| async move {
        let line = follower.next().await?;
        Some((Ok::<_, Infallible>(line), follower))
    });
    let head = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((head, Body::from_stream(lines)).into_response())
}

impl Follower {
    /// The next event as its lines; `None` ends the stream, and the client comes again.
    async fn next(&mut self) -> Option<Bytes> {
        let mut quiet = 0;
        loop {
            if let Some(event) = self.pending.pop_front() {
                self.seq = event.seq;
                return Some(lines(event));
            }
            self.bell.mark_unchanged();
            let read = self.api.registry.events_after(self.seq, BATCH).await.ok()?;
            self.pending = read.into();
            if !self.pending.is_empty() {
                continue;
            }
            quiet += 1;
            if quiet > QUIET_LOOKS_MAX {
                return Some(Bytes::from_static(b": still here\n\n"));
            }
            // Every arm only waits; what happened is read again whichever wins.
            tokio::select! {
                () = self.api.shutdown.started() => return None,
                rung = self.bell.changed() => rung.ok()?,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

fn lines(stored: StoredEvent) -> Bytes {
    let event = stored.event;
    let view = EventView {
        seq: stored.seq,
        at: Stamp(event.at),
        kind: event.kind.as_str().to_owned(),
        subject: event.subject,
        what: event.what,
        detail: event.detail,
        values: event.values,
    };
    let data = serde_json::to_string(&view).unwrap_or_default();
    Bytes::from(format!("id: {}\nevent: {}\ndata: {data}\n\n", view.seq, view.kind))
}
