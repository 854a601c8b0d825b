//! Calls to other parts: over TCP or a unix socket, bounded in time and size, errors sorted.

use crate::signature::Signer;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use wire::problem::{Kind, Problem};

/// Largest answer read: a whole fleet's inventory.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A connection must stand within this.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Where a part answers: `http://host:port` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerUrl {
    /// Scheme and authority, without a path.
    Http(String),
    /// A unix socket.
    Unix(PathBuf),
}

impl FromStr for PeerUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<PeerUrl, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(PeerUrl::Unix(PathBuf::from(path)));
        }
        let trimmed = text.trim_end_matches('/');
        let with_scheme =
            if trimmed.contains("://") { trimmed.to_owned() } else { format!("http://{trimmed}") };
        let right = with_scheme
            .parse::<http::Uri>()
            .ok()
            .filter(|u| u.host().is_some() && matches!(u.scheme_str(), Some("http" | "https")))
            .is_some_and(|u| matches!(u.path(), "" | "/"));
        if right {
            Ok(PeerUrl::Http(with_scheme))
        } else {
            Err(format!("{text:?} is no address; write it like http://127.0.0.1:7400"))
        }
    }
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerUrl::Http(url) => f.write_str(url),
            PeerUrl::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a call failed. The text names the peer; trying again is worthwhile unless `Refused`.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// No connection, or it broke.
    #[error("{peer} cannot be reached")]
    Unreachable {
        /// Whom we called.
        peer: String,
        /// What the client said.
        #[source]
        source: reqwest::Error,
    },
    /// No answer in time.
    #[error("{peer} did not answer within {limit:?}")]
    Deadline {
        /// Whom we called.
        peer: String,
        /// How long was waited.
        limit: Duration,
    },
    /// It answered with an error.
    #[error("{peer} answered {status}: {}", problem.detail)]
    Refused {
        /// Whom we called.
        peer: String,
        /// HTTP status.
        status: StatusCode,
        /// The problem document; made up from the status when it sent none.
        problem: Box<Problem>,
        /// The body as it came.
        body: Bytes,
    },
    /// It answered something unreadable.
    #[error("{peer} answered something unreadable: {detail}")]
    Unreadable {
        /// Whom we called.
        peer: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A client of one peer. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    peer: PeerUrl,
    base: String,
    token: Option<Arc<str>>,
    signer: Option<Arc<Signer>>,
}

impl Client {
    /// A client of `peer`; connects at the first call.
    #[must_use]
    pub fn new(peer: PeerUrl) -> Client {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_DEADLINE)
            .tcp_nodelay(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let (builder, base) = match &peer {
            PeerUrl::Http(url) => (builder, url.clone()),
            PeerUrl::Unix(path) => (builder.unix_socket(path.clone()), "http://tally".to_owned()),
        };
        // Without TLS there is nothing in the builder that can fail; a default client is the same.
        let http = builder.build().unwrap_or_default();
        Client { http, peer, base, token: None, signer: None }
    }

    /// Sends a bearer token with each call.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Client {
        self.token = Some(Arc::from(token));
        self
    }

    /// Signs each call (container-manager to executor).
    #[must_use]
    pub fn with_signer(mut self, signer: Signer) -> Client {
        self.signer = Some(Arc::new(signer));
        self
    }

    /// Whom it calls.
    #[must_use]
    pub fn peer(&self) -> &PeerUrl {
        &self.peer
    }

    fn builder(&self, method: Method, path: &str, body: Bytes) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(signer) = &self.signer {
            let value = signer.sign(method.as_str(), path, &body);
            request = request.header(crate::signature::HEADER, value);
        }
        if !body.is_empty() {
            request = request.body(body);
        }
        request
    }

    fn unreachable(&self, source: reqwest::Error) -> PeerError {
        PeerError::Unreachable { peer: self.peer.to_string(), source }
    }

    /// One call, its answer read whole whatever its status.
    ///
    /// # Errors
    /// [`PeerError`], never `Refused`.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
        limit: Duration,
    ) -> Result<Answer, PeerError> {
        let work = async {
            let request = self.builder(method, path, body).headers(headers);
            let response = request.send().await.map_err(|e| self.unreachable(e))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let mut stream = response.bytes_stream();
            let mut bytes = Vec::new();
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(|e| self.unreachable(e))?;
                if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                    let detail = format!("more than {ANSWER_BYTES_MAX} bytes");
                    return Err(PeerError::Unreadable { peer: self.peer.to_string(), detail });
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(Answer { status, headers, body: Bytes::from(bytes) })
        };
        match tokio::time::timeout(limit, work).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(PeerError::Deadline { peer: self.peer.to_string(), limit }),
        }
    }

    /// One call with a JSON body; the answer must be a success and is read as JSON.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn json<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        limit: Duration,
    ) -> Result<T, PeerError> {
        let mut headers = HeaderMap::new();
        let bytes = match body {
            Some(body) => {
                let json = http::HeaderValue::from_static("application/json");
                headers.insert(http::header::CONTENT_TYPE, json);
                Bytes::from(serde_json::to_vec(body).map_err(|e| self.unreadable(e.to_string()))?)
            }
            None => Bytes::new(),
        };
        let answer = self.call(method, path, headers, bytes, limit).await?;
        let answer = self.success(answer)?;
        let body: &[u8] = if answer.body.is_empty() { b"null" } else { &answer.body };
        serde_json::from_slice(body).map_err(|e| self.unreadable(e.to_string()))
    }

    /// `GET path` read as JSON.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        limit: Duration,
    ) -> Result<T, PeerError> {
        self.json::<(), T>(Method::GET, path, None, limit).await
    }

    /// `POST path` with a JSON body, the answer read as JSON.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn post<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        limit: Duration,
    ) -> Result<T, PeerError> {
        self.json(Method::POST, path, Some(body), limit).await
    }

    /// Opens a stream (`text/event-stream`); only the head is bounded by `limit`.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn stream(
        &self,
        path: &str,
        limit: Duration,
    ) -> Result<reqwest::Response, PeerError> {
        self.stream_with(path, HeaderMap::new(), limit).await
    }

    /// Opens a stream with further headers, such as `Last-Event-ID`.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn stream_with(
        &self,
        path: &str,
        headers: HeaderMap,
        limit: Duration,
    ) -> Result<reqwest::Response, PeerError> {
        let request = self
            .builder(Method::GET, path, Bytes::new())
            .headers(headers)
            .header(http::header::ACCEPT, "text/event-stream");
        let response = match tokio::time::timeout(limit, request.send()).await {
            Ok(sent) => sent.map_err(|e| self.unreachable(e))?,
            Err(_elapsed) => {
                return Err(PeerError::Deadline { peer: self.peer.to_string(), limit });
            }
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let body = tokio::time::timeout(limit, response.bytes()).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        match self.success(Answer { status, headers, body }) {
            Err(error) => Err(error),
            Ok(_) => Err(self.unreadable("a success that is none".to_owned())),
        }
    }

    fn unreadable(&self, detail: String) -> PeerError {
        PeerError::Unreadable { peer: self.peer.to_string(), detail }
    }

    /// The answer if it is a success, else [`PeerError::Refused`].
    ///
    /// # Errors
    /// As said.
    pub fn success(&self, answer: Answer) -> Result<Answer, PeerError> {
        if answer.status.is_success() {
            return Ok(answer);
        }
        let problem = serde_json::from_slice::<Problem>(&answer.body).unwrap_or_else(|_none| {
            let text: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
            let mut problem = Problem::new(Kind::BadGateway, text);
            problem.status = answer.status.as_u16();
            problem
        });
        Err(PeerError::Refused {
            peer: self.peer.to_string(),
            status: answer.status,
            problem: Box::new(problem),
            body: answer.body,
        })
    }
}
