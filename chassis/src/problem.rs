//! API errors as problem documents, and a JSON body that is bounded and says where it is wrong.

use crate::ids;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::time::Duration;
use wire::manifest::{ManifestError, from_value};
use wire::problem::{Kind, MEDIA_TYPE, Problem};

/// Largest JSON body unless a handler says otherwise.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// A body must be there within this.
pub const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// An error on its way out: what the caller may know. Internals go to the log before.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// The document.
    pub problem: Box<Problem>,
    /// `Retry-After`, seconds.
    pub retry_after: Option<u32>,
}

impl ApiError {
    /// An error of `kind`.
    pub fn new(kind: Kind, detail: impl Into<String>) -> ApiError {
        ApiError { problem: Box::new(Problem::new(kind, detail)), retry_after: None }
    }

    /// Our own failure: the cause goes to the log under an id, the caller gets the id.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> ApiError {
        let id = ids::secret()[..16].to_owned();
        tracing::error!(request.id = %id, error = %crate::telemetry::Chain(error), "a request failed");
        let mut problem = Problem::new(
            Kind::Internal,
            format!("Tally could not do this; the log says why, under request id {id}"),
        );
        problem.instance = Some(id);
        ApiError { problem: Box::new(problem), retry_after: None }
    }

    /// The same with `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> ApiError {
        self.retry_after = Some(seconds);
        self
    }

    /// The same with a fault at a field.
    #[must_use]
    pub fn with_error(mut self, pointer: &str, detail: impl Into<String>) -> ApiError {
        *self.problem = self.problem.with_error(pointer, detail);
        self
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> ApiError {
        ApiError { problem: Box::new(problem), retry_after: None }
    }
}

impl From<ManifestError> for ApiError {
    fn from(error: ManifestError) -> ApiError {
        error.problem().into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A bounded JSON body; errors are problem documents with a pointer to the field.
#[derive(Debug, Clone, Copy)]
pub struct ApiJson<T>(pub T);

/// Reads a body of at most `max` bytes.
///
/// # Errors
/// 413 when it is larger, 400 when it breaks off or takes longer than [`BODY_DEADLINE`].
pub async fn read_body(body: Body, max: usize) -> Result<Bytes, ApiError> {
    let read = tokio::time::timeout(BODY_DEADLINE, Limited::new(body, max).collect());
    let broke = || ApiError::new(Kind::BadRequest, "the body broke off or came too slowly");
    let collected = read.await.map_err(|_elapsed| broke())?;
    collected.map(http_body_util::Collected::to_bytes).map_err(|e| {
        if e.downcast_ref::<LengthLimitError>().is_some() {
            ApiError::new(Kind::TooLarge, format!("the body may have {max} bytes at most"))
        } else {
            broke()
        }
    })
}

/// Parses a JSON body; 400 when it is no JSON, 422 with a pointer when it is another document.
///
/// # Errors
/// As said.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let value = serde_json::from_slice(bytes)
        .map_err(|e| ApiError::new(Kind::BadRequest, format!("the body is not JSON: {e}")))?;
    from_value(value).map_err(ApiError::from)
}

impl<T, S> FromRequest<S> for ApiJson<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<ApiJson<T>, ApiError> {
        let bytes = read_body(request.into_body(), BODY_BYTES_MAX).await?;
        parse_json(&bytes).map(ApiJson)
    }
}

/// Parts of the path; what cannot be read is a problem document with status 404.
#[derive(Debug, Clone, Copy)]
pub struct ApiPath<T>(pub T);

impl<T, S> FromRequestParts<S> for ApiPath<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<ApiPath<T>, ApiError> {
        let read = Path::<T>::from_request_parts(parts, state).await;
        read.map(|Path(value)| ApiPath(value))
            .map_err(|e| ApiError::new(Kind::NotFound, format!("no such path: {}", e.body_text())))
    }
}

/// The query; what cannot be read is a problem document with status 400.
#[derive(Debug, Clone, Copy)]
pub struct ApiQuery<T>(pub T);

impl<T, S> FromRequestParts<S> for ApiQuery<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<ApiQuery<T>, ApiError> {
        let read = Query::<T>::from_request_parts(parts, state).await;
        read.map(|Query(value)| ApiQuery(value))
            .map_err(|e| ApiError::new(Kind::BadRequest, e.body_text()))
    }
}
