//! Answers the balancer gives itself: problem documents, with `Retry-After` where waiting helps.

use crate::http::field;
use wire::problem::{Kind, MEDIA_TYPE, Problem};

/// Seconds after which a refused client should come again: an instance is often there by then,
/// and a thousand refused clients do not come at once.
const RETRY_AFTER_SECONDS: &[u8] = b"2";

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of problem it is.
    pub kind: Kind,
    /// What happened, and what to do next.
    pub detail: String,
}

/// A refusal of this kind.
#[must_use]
pub fn problem(kind: Kind, detail: impl Into<String>) -> Refusal {
    Refusal { kind, detail: detail.into() }
}

/// What the client must be told besides.
#[derive(Debug, Clone, Copy)]
pub struct Manner<'a> {
    /// The request's id.
    pub id: &'a [u8],
    /// Its connection stays open.
    pub keep: bool,
    /// It speaks HTTP/1.0.
    pub old: bool,
    /// It wants no body.
    pub head_only: bool,
}

impl Refusal {
    /// Writes the whole answer.
    pub fn write(&self, out: &mut Vec<u8>, manner: Manner<'_>) {
        let mut problem = Problem::new(self.kind, self.detail.as_str());
        problem.instance =
            std::str::from_utf8(manner.id).ok().filter(|id| !id.is_empty()).map(str::to_owned);
        // Plain strings and numbers: writing them as JSON cannot fail.
        let text = serde_json::to_vec(&problem).unwrap_or_default();
        let status = self.kind.status();
        out.extend_from_slice(b"HTTP/1.1 ");
        field::decimal(out, u64::from(status));
        out.push(b' ');
        let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
        out.extend_from_slice(reason.unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\r\ncontent-type: ");
        out.extend_from_slice(MEDIA_TYPE.as_bytes());
        out.extend_from_slice(b"\r\ncontent-length: ");
        field::decimal(out, text.len() as u64);
        out.extend_from_slice(b"\r\n");
        if matches!(self.kind, Kind::Unavailable | Kind::Contended) {
            field::line(out, b"retry-after", RETRY_AFTER_SECONDS);
        }
        if !manner.id.is_empty() {
            field::line(out, b"x-request-id", manner.id);
        }
        if !manner.keep {
            out.extend_from_slice(b"connection: close\r\n");
        } else if manner.old {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !manner.head_only {
            out.extend_from_slice(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let mut out = Vec::new();
        let manner = Manner { id: b"abc", keep: false, old: false, head_only: false };
        problem(Kind::Contended, "all busy").write(&mut out, manner);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{head}");
        assert!(head.contains("retry-after: 2") && head.contains("connection: close"));
        let problem: Problem = serde_json::from_str(body).unwrap();
        assert_eq!((problem.status, problem.instance.as_deref()), (429, Some("abc")));
    }
}
