//! An API that answers what a test tells it to, and remembers what it was asked.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

/// One request as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// `PUT /v1/services/shop?dry_run=true`
    pub line: String,
    /// `Authorization`, `If-Match`, `If-None-Match`, `Last-Event-ID`, in lower case.
    pub headers: BTreeMap<String, String>,
    /// JSON, or null.
    pub body: Value,
}

#[derive(Debug, Default)]
struct Script {
    answers: BTreeMap<String, VecDeque<(u16, &'static str, String)>>,
    seen: Vec<Seen>,
}

/// The API.
#[derive(Debug, Clone)]
pub struct Fake {
    /// Where it answers.
    pub url: String,
    script: Arc<Mutex<Script>>,
}

impl Fake {
    /// An API that knows nothing yet: everything is 404.
    pub async fn start() -> Fake {
        let script = Arc::new(Mutex::new(Script::default()));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Fake { url, script }
    }

    /// Adds an answer to `METHOD /path?query`; the last one is repeated.
    pub fn on(&self, line: &str, status: u16, body: &Value) -> &Fake {
        self.on_text(line, status, "application/json", &body.to_string())
    }

    /// The same with any body.
    pub fn on_text(&self, line: &str, status: u16, kind: &'static str, body: &str) -> &Fake {
        let mut script = self.script.lock().unwrap();
        script.answers.entry(line.to_owned()).or_default().push_back((
            status,
            kind,
            body.to_owned(),
        ));
        self
    }

    /// A refusal as a problem document.
    pub fn refuse(&self, line: &str, kind: wire::problem::Kind, detail: &str) -> &Fake {
        let problem = wire::problem::Problem::new(kind, detail);
        self.on(line, kind.status(), &serde_json::to_value(problem).unwrap())
    }

    /// Everything asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.script.lock().unwrap().seen.clone()
    }

    /// The request lines of writes so far.
    pub fn writes(&self) -> Vec<String> {
        let lines = self.seen().into_iter().map(|s| s.line);
        lines.filter(|l| !l.starts_with("GET ")).collect()
    }
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    let kept = ["authorization", "if-match", "if-none-match", "last-event-id"];
    let headers = kept
        .iter()
        .filter_map(|name| Some((name, request.headers().get(*name)?.to_str().ok()?)))
        .map(|(name, value)| ((*name).to_owned(), value.to_owned()))
        .collect();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let mut script = script.lock().unwrap();
    script.seen.push(Seen { line: line.clone(), headers, body });
    let none = || {
        (404, "application/problem+json", r#"{"type":"/problems/not-found","title":"There is no such thing","status":404,"detail":"there is no such thing"}"#.to_owned())
    };
    // A query that holds the present moment cannot be told beforehand: the path decides then.
    let path = line.split("?since=").next().unwrap_or_default().to_owned();
    let known = if script.answers.contains_key(&line) { line } else { path };
    let (status, kind, text) = match script.answers.get_mut(&known) {
        None => none(),
        Some(answers) if answers.len() > 1 => answers.pop_front().unwrap_or_else(none),
        Some(answers) => answers.front().cloned().unwrap_or_else(none),
    };
    Response::builder()
        .status(StatusCode::from_u16(status).unwrap())
        .header("content-type", kind)
        .body(Body::from(text))
        .unwrap()
}
