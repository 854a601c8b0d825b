//! The two ways in: `POST /v1/load`, and datagrams on the same port ([`crate::datagrams`]).

use crate::admit::Sender;
use crate::decode::{self, BODY_BYTES_MAX, Body as Decoded, BodyFault};
use crate::receive::Receiver;
use crate::refusal::Refusal;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use chassis::{ApiError, Listen, Listener, PeerAddr};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use wire::problem::{Kind, MEDIA_TYPE, Problem};
use wire::report::{RejectedReport, ReportsAnswer};

/// A body of at most this needs no slot: with the most connections there are, 64 MiB in all.
const SMALL_BODY_BYTES: u64 = 16 << 10;
/// Large bodies in hand at once: 64 MiB more.
const LARGE_BODIES_MAX: usize = 64;
/// A body must be there within this; senders are near and bodies small.
const BODY_DEADLINE: Duration = Duration::from_secs(3);
/// Faults told in one problem document; the rest is in `rejected`.
const FAULTS_TOLD_MAX: usize = 20;
/// Attempts to find a port that is free for both TCP and UDP.
const PORT_ATTEMPTS: usize = 20;

/// Binds both ways in, on one port where the address is TCP.
///
/// # Errors
/// With the address and what to do about it.
pub async fn bind(listen: &Listen) -> Result<(Listener, Option<UdpSocket>), String> {
    let mut last = String::new();
    for _attempt in 0..PORT_ATTEMPTS {
        let listener = Listener::bind(listen).await?;
        let Listen::Tcp(address) = listener.local() else { return Ok((listener, None)) };
        match UdpSocket::bind(address).await {
            Ok(socket) => return Ok((listener, Some(socket))),
            Err(why) => last = format!("cannot listen for datagrams on {address}: {why}"),
        }
        // Only a port the system chose can be another one next time.
        if !matches!(listen, Listen::Tcp(wanted) if wanted.port() == 0) {
            break;
        }
    }
    Err(last)
}

#[derive(Clone)]
struct Front {
    receiver: Receiver,
    large: Arc<Semaphore>,
}

/// `POST /v1/load`.
pub(crate) fn router(receiver: Receiver) -> Router {
    let large = Arc::new(Semaphore::new(LARGE_BODIES_MAX));
    Router::new().route("/v1/load", post(load)).with_state(Front { receiver, large })
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
    match token {
        Some(token) => Ok(Some(token.trim())),
        None => Err(ApiError::new(
            Kind::Unauthorized,
            "write the header as Authorization: Bearer TOKEN (TALLY_LOAD_TOKEN)",
        )),
    }
}

async fn read(front: &Front, request: Request) -> Result<axum::body::Bytes, ApiError> {
    let counts = &front.receiver.counts;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|l| l.to_str().ok()).and_then(|l| l.parse::<u64>().ok());
    let busy = || {
        counts.limit("large_bodies");
        ApiError::new(Kind::Unavailable, "too many large bodies at once; try again").retry_after(1)
    };
    let _slot = match length {
        Some(length) if length <= SMALL_BODY_BYTES => None,
        _ => Some(front.large.try_acquire().map_err(|_none_left| busy())?),
    };
    let body = chassis::problem::read_body(request.into_body(), BODY_BYTES_MAX);
    match tokio::time::timeout(BODY_DEADLINE, body).await {
        Ok(read) => read.inspect_err(|why| {
            if why.problem.status == Kind::TooLarge.status() {
                counts.limit("body_bytes");
            }
        }),
        Err(_elapsed) => {
            counts.limit("body_deadline");
            Err(ApiError::new(Kind::BadRequest, "the body came too slowly"))
        }
    }
}

async fn load(State(front): State<Front>, request: Request) -> Result<Response, ApiError> {
    // A listener that does not say who asks is treated as a stranger's.
    let local = request.extensions().get::<PeerAddr>().is_some_and(PeerAddr::is_local);
    let headers = request.headers().clone();
    let token = bearer(&headers)?;
    let bytes = read(&front, request).await?;
    let decoded = decode::body(&bytes).map_err(|fault| match fault {
        BodyFault::Unreadable(why) => {
            front.receiver.counts.add("unreadable", 1);
            ApiError::new(Kind::BadRequest, format!("the body is no load report: {why}"))
        }
        BodyFault::TooMany => {
            front.receiver.counts.limit("batch_reports");
            let max = decode::BATCH_REPORTS_MAX;
            ApiError::new(Kind::TooLarge, format!("one body may hold {max} reports"))
        }
    })?;
    let (list, single) = match decoded {
        Decoded::One(one) => (vec![one], true),
        Decoded::List(list) => (list, false),
    };
    let count = list.len();
    let refused = front.receiver.take(list, Sender { local, token });
    Ok(answer(count, &refused, single))
}

fn answer(count: usize, refused: &[(usize, Refusal)], single: bool) -> Response {
    let told =
        |(index, why): &(usize, Refusal)| RejectedReport { index: *index, reason: why.reason() };
    let answer = ReportsAnswer {
        accepted: count - refused.len(),
        rejected: refused.iter().map(told).collect(),
    };
    if refused.is_empty() || refused.len() < count {
        return (StatusCode::ACCEPTED, axum::Json(answer)).into_response();
    }
    let overloaded = refused.iter().all(|(_, why)| *why == Refusal::Overloaded);
    let kind = if overloaded { Kind::Unavailable } else { Kind::Invalid };
    let mut problem = Problem::new(kind, "no report was taken; see `rejected` for each reason");
    if let (true, Some((_, why))) = (single, refused.first()) {
        problem.detail = why.reason();
    }
    for (index, why) in refused.iter().take(FAULTS_TOLD_MAX) {
        let pointer = if single { String::new() } else { format!("/reports/{index}") };
        problem = problem.with_error(pointer, why.reason());
    }
    let status = StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
    let mut document = json!(problem);
    document["accepted"] = json!(answer.accepted);
    document["rejected"] = json!(answer.rejected);
    let mut response = (status, axum::Json(document)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    if overloaded {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
