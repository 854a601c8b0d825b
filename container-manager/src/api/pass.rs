//! What belongs to the machine-manager is passed on as it came, and its answer back.

use super::Api;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use chassis::problem::{BODY_BYTES_MAX, read_body};
use chassis::{ApiError, PeerError};
use wire::problem::Kind;

/// Headers of a request that mean something to the machine-manager.
const PASSED: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::ACCEPT,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::AUTHORIZATION,
    HeaderName::from_static("idempotency-key"),
];
/// Headers of its answer that mean something to the caller.
const RETURNED: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::ETAG, header::LOCATION, header::RETRY_AFTER];

/// Any method.
pub fn any() -> MethodRouter<Api> {
    axum::routing::any(pass)
}

fn only(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in names {
        if let Some(value) = headers.get(name) {
            kept.insert(name.clone(), value.clone());
        }
    }
    kept
}

async fn pass(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let body = read_body(body, BODY_BYTES_MAX).await?;
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let headers = only(&parts.headers, &PASSED);
    match api.placements.pass(parts.method, path, headers, body).await {
        Ok(answer) => {
            let headers = only(&answer.headers, &RETURNED);
            Ok((answer.status, headers, answer.body).into_response())
        }
        Err(error @ PeerError::Deadline { .. }) => {
            tracing::warn!(error = %chassis::telemetry::Chain(&error), "a request was not passed on");
            Err(ApiError::new(Kind::Timeout, "the machine-manager did not answer in time"))
        }
        Err(error) => {
            tracing::warn!(error = %chassis::telemetry::Chain(&error), "a request was not passed on");
            let detail = "the machine-manager cannot be reached; see its /readyz";
            Err(ApiError::new(Kind::Unavailable, detail).retry_after(2))
        }
    }
}
