//! Answers the balancer gives itself: problem documents, with `Retry-After` where waiting helps.

use crate::body::AnswerBody;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use wire::problem::{Kind, MEDIA_TYPE, Problem};

/// Seconds after which a refused client should come again: an instance is often there by then,
/// and a thousand refused clients do not come at once.
const RETRY_AFTER_SECONDS: &str = "2";

/// A problem document as an answer.
#[must_use]
pub fn problem(kind: Kind, detail: &str) -> Response<AnswerBody> {
    let problem = Problem::new(kind, detail);
    // Plain strings and numbers: writing them as JSON cannot fail.
    let text = serde_json::to_vec(&problem).unwrap_or_default();
    let mut response = Response::new(AnswerBody::Whole(Bytes::from(text)));
    *response.status_mut() =
        StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    if matches!(kind, Kind::Unavailable | Kind::Contended) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    response
}
