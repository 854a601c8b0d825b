//! Errors as the outside sees them: `application/problem+json` (RFC 9457) with JSON pointers.

use serde::{Deserialize, Serialize};

/// Media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// The kinds of problem; the `type` of a problem is `/problems/` and the kind's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 400: not readable as what it should be.
    BadRequest,
    /// 401: no credentials, or wrong ones.
    Unauthorized,
    /// 403: right credentials, wrong act.
    Forbidden,
    /// 404: no such object or path.
    NotFound,
    /// 405: the path knows no such method.
    Method,
    /// 408: the request did not come in time.
    RequestTimeout,
    /// 409: the object's state does not allow it.
    Conflict,
    /// 412: `If-Match` or `If-None-Match` failed.
    Precondition,
    /// 413: larger than the bound.
    TooLarge,
    /// 414: the target is longer than the bound.
    UriTooLong,
    /// 417: an expectation that is not met.
    Expectation,
    /// 422: well formed, but it cannot be.
    Invalid,
    /// 422: it would break the cost cap.
    Cap,
    /// 429: capacity exists but is contended.
    Contended,
    /// 431: the head is larger than the bound.
    HeadTooLarge,
    /// 500: our fault; details are in the log under the request id.
    Internal,
    /// 501: a part of the protocol that is not served.
    NotImplemented,
    /// 502: a part behind answered nonsense or broke off.
    BadGateway,
    /// 503: nothing there to answer now.
    Unavailable,
    /// 504: a part behind did not answer in time.
    Timeout,
    /// 505: another version of the protocol.
    Version,
}

impl Kind {
    /// HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Kind::BadRequest => 400,
            Kind::Unauthorized => 401,
            Kind::Forbidden => 403,
            Kind::NotFound => 404,
            Kind::Method => 405,
            Kind::RequestTimeout => 408,
            Kind::Conflict => 409,
            Kind::Precondition => 412,
            Kind::TooLarge => 413,
            Kind::UriTooLong => 414,
            Kind::Expectation => 417,
            Kind::Invalid | Kind::Cap => 422,
            Kind::Contended => 429,
            Kind::HeadTooLarge => 431,
            Kind::Internal => 500,
            Kind::NotImplemented => 501,
            Kind::BadGateway => 502,
            Kind::Unavailable => 503,
            Kind::Timeout => 504,
            Kind::Version => 505,
        }
    }

    /// Name in the `type` URI.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::BadRequest => "bad-request",
            Kind::Unauthorized => "unauthorized",
            Kind::Forbidden => "forbidden",
            Kind::NotFound => "not-found",
            Kind::Method => "method-not-allowed",
            Kind::RequestTimeout => "request-timeout",
            Kind::Conflict => "conflict",
            Kind::Precondition => "precondition-failed",
            Kind::TooLarge => "too-large",
            Kind::UriTooLong => "uri-too-long",
            Kind::Expectation => "expectation-failed",
            Kind::Invalid => "invalid",
            Kind::Cap => "cap",
            Kind::Contended => "contended",
            Kind::HeadTooLarge => "head-too-large",
            Kind::Internal => "internal",
            Kind::NotImplemented => "not-implemented",
            Kind::BadGateway => "bad-gateway",
            Kind::Unavailable => "unavailable",
            Kind::Timeout => "timeout",
            Kind::Version => "http-version",
        }
    }

    /// Title for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Kind::BadRequest => "The request cannot be read",
            Kind::Unauthorized => "Credentials are missing or wrong",
            Kind::Forbidden => "These credentials do not allow this",
            Kind::NotFound => "There is no such thing",
            Kind::Method => "This path knows no such method",
            Kind::RequestTimeout => "The request came too slowly",
            Kind::Conflict => "The present state does not allow this",
            Kind::Precondition => "The object is not at the expected version",
            Kind::TooLarge => "The request is too large",
            Kind::UriTooLong => "The request's target is too long",
            Kind::Expectation => "The expectation cannot be met",
            Kind::Invalid => "The document cannot be accepted",
            Kind::Cap => "The cost cap does not allow this",
            Kind::Contended => "All capacity is busy",
            Kind::HeadTooLarge => "The request's head is too large",
            Kind::Internal => "Tally failed",
            Kind::NotImplemented => "This part of the protocol is not served",
            Kind::BadGateway => "A part behind failed",
            Kind::Unavailable => "Nothing can answer now",
            Kind::Timeout => "A part behind did not answer in time",
            Kind::Version => "This version of HTTP is not served",
        }
    }
}

/// One fault of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// JSON pointer to the field, such as `/load/up`; empty: the whole document.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

/// A problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `/problems/NAME`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For people.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened here, and what to do next.
    pub detail: String,
    /// The request's id, to find it in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Faults by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// A problem of `kind`.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Problem {
        Problem {
            kind: format!("/problems/{}", kind.name()),
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            instance: None,
            errors: Vec::new(),
        }
    }

    /// The same with a fault at `pointer`.
    #[must_use]
    pub fn with_error(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Problem {
        self.errors.push(FieldError { pointer: pointer.into(), detail: detail.into() });
        self
    }
}
