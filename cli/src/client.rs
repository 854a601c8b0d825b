//! The operator's client: where the API is, which token opens it, and what an answer means for a
//! person: words with the next step, and an exit code.

use bytes::Bytes;
use chassis::config;
use chassis::peer::{Answer, Client, PeerError, PeerUrl};
use clap::{Args, ValueEnum};
use http::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use wire::problem::Problem;

/// Where the API is when nothing else is said.
pub const API_DEFAULT: &str = "http://127.0.0.1:7400";
/// One call to the API: it answers from memory and its registry, so more means that it hangs.
pub const CALL_DEADLINE: Duration = Duration::from_secs(15);
/// Pages of one list at most: with pages of a hundred, ten times the instances of a whole cell.
const PAGES_MAX: usize = 15_000;
/// A token is one short line; a larger file is not a token.
const TOKEN_BYTES_MAX: usize = 4096;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// The columns people look at first.
    #[default]
    Table,
    /// All columns.
    Wide,
    /// The API's body.
    Json,
    /// The API's body as YAML.
    Yaml,
    /// Names or ids, one a line.
    Name,
}

/// What every command takes.
#[derive(Debug, Clone, Default, Args)]
pub struct GlobalArgs {
    /// Address of the API [default: TALLY_API, else http://127.0.0.1:7400].
    #[arg(long, global = true, value_name = "ADDR", help_heading = "Global options")]
    pub api: Option<String>,
    /// Token for the API [default: TALLY_TOKEN, else the content of the file TALLY_TOKEN_FILE].
    #[arg(long, global = true, value_name = "TOKEN", help_heading = "Global options")]
    pub token: Option<String>,
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, help_heading = "Global options")]
    pub output: Option<Output>,
    /// The same as `-o json`.
    #[arg(long, global = true, conflicts_with = "output", help_heading = "Global options")]
    pub json: bool,
}

impl GlobalArgs {
    /// How results are printed.
    #[must_use]
    pub fn output(&self) -> Output {
        if self.json { Output::Json } else { self.output.unwrap_or_default() }
    }

    /// The API's address: flag, environment, default.
    ///
    /// # Errors
    /// `Usage` when it is no address.
    pub fn api_url(&self) -> Result<PeerUrl, Failure> {
        let text = self.api.clone().or_else(|| config::env("TALLY_API"));
        text.as_deref().unwrap_or(API_DEFAULT).parse().map_err(Failure::usage)
    }

    /// The token: flag, environment, file named by the environment.
    ///
    /// # Errors
    /// `Usage` when the file cannot be read or is no token.
    pub fn token(&self) -> Result<Option<String>, Failure> {
        if let Some(token) = self.token.clone().or_else(|| config::env("TALLY_TOKEN")) {
            return Ok(Some(token));
        }
        let Some(path) = config::env("TALLY_TOKEN_FILE") else { return Ok(None) };
        read_token(Path::new(&path)).map(Some)
    }

    /// A client of the API.
    ///
    /// # Errors
    /// `Usage` when address or token are not of the right form.
    pub fn connect(&self) -> Result<Api, Failure> {
        let client = Client::new(self.api_url()?);
        Ok(Api {
            client: match self.token()? {
                Some(token) => client.with_token(&token),
                None => client,
            },
        })
    }
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::usage(format!("the token file {shown} cannot be read: {e}")))?;
    let token = text.trim();
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || token.contains(char::is_whitespace) {
        return Err(Failure::usage(format!("the file {shown} does not hold one token")));
    }
    Ok(token.to_owned())
}

/// How a command failed: the exit code, and a sentence with the next step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Exit code 2: the command line or a manifest is wrong; nothing was sent or nothing changed.
    #[error("{0}")]
    Usage(String),
    /// Exit code 3: accepted, but not satisfied in time.
    #[error("{0}")]
    Unsatisfied(String),
    /// Exit code 4: another version, or a state that does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// Exit code 5: the control plane does not answer.
    #[error("{0}")]
    Unreachable(String),
}

impl Failure {
    /// Exit code 1.
    pub fn failed(text: impl Into<String>) -> Failure {
        Failure::Failed(text.into())
    }

    /// Exit code 2.
    pub fn usage(text: impl Into<String>) -> Failure {
        Failure::Usage(text.into())
    }

    /// The number.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unsatisfied(_) => 3,
            Failure::Conflict(_) => 4,
            Failure::Unreachable(_) => 5,
        }
    }

    /// For `main`.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

impl From<PeerError> for Failure {
    fn from(error: PeerError) -> Failure {
        match error {
            PeerError::Unreachable { peer, .. } => Failure::Unreachable(format!(
                "nothing answers at {peer}; start it with `tally up`, or say --api"
            )),
            PeerError::Deadline { peer, limit } => Failure::Unreachable(format!(
                "{peer} did not answer within {} s; see `tally health`",
                limit.as_secs()
            )),
            PeerError::Refused { status, problem, .. } => refused(status, &problem),
            PeerError::Unreadable { peer, detail } => Failure::Failed(format!(
                "{peer} answered something unreadable ({detail}); is it the API of Tally?"
            )),
        }
    }
}

/// A problem document as words and a code.
fn refused(status: StatusCode, problem: &Problem) -> Failure {
    let mut text =
        if problem.detail.is_empty() { problem.title.clone() } else { problem.detail.clone() };
    for error in &problem.errors {
        if !text.contains(&error.detail) {
            // A String takes whatever is written to it.
            write!(text, "; {}: {}", error.pointer, error.detail).unwrap_or_default();
        }
    }
    if let Some(id) = problem.instance.as_ref().filter(|_| status.is_server_error()) {
        write!(text, " (request {id}; the log of the API says more)").unwrap_or_default();
    }
    match status {
        StatusCode::UNAUTHORIZED if !text.contains("TALLY_TOKEN") => {
            Failure::Failed(format!("{text}; say --token, or set TALLY_TOKEN or TALLY_TOKEN_FILE"))
        }
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Failure::Conflict(text),
        StatusCode::BAD_REQUEST => Failure::Usage(text),
        StatusCode::UNPROCESSABLE_ENTITY if !problem.kind.ends_with("/cap") => Failure::Usage(text),
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Failure::Unreachable(text)
        }
        _ => Failure::Failed(text),
    }
}

/// Which version of an object a write expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Any, or none.
    Any,
    /// That there is none yet.
    Absent,
    /// Exactly this generation.
    Version(u64),
}

impl Expect {
    /// From `--if-version`: 0 stands for "does not exist".
    #[must_use]
    pub fn of(version: Option<u64>) -> Expect {
        match version {
            None => Expect::Any,
            Some(0) => Expect::Absent,
            Some(n) => Expect::Version(n),
        }
    }
}

/// One write.
#[derive(Debug)]
pub struct Write<'a> {
    /// PUT, POST, PATCH or DELETE.
    pub method: Method,
    /// Path, without a query.
    pub path: String,
    /// JSON; absent for none.
    pub body: Option<&'a Value>,
    /// Asks the server what would happen.
    pub dry_run: bool,
    /// Over a refusal that guards what runs or is promised.
    pub force: bool,
    /// Which version it expects.
    pub expect: Expect,
}

impl<'a> Write<'a> {
    /// A write for real, whatever the version.
    pub fn new(method: Method, path: impl Into<String>, body: Option<&'a Value>) -> Write<'a> {
        Write { method, path: path.into(), body, dry_run: false, force: false, expect: Expect::Any }
    }

    /// The same, perhaps as a dry run.
    #[must_use]
    pub fn dry(self, dry_run: bool) -> Write<'a> {
        Write { dry_run, ..self }
    }

    /// The same, perhaps over a refusal.
    #[must_use]
    pub fn forced(self, force: bool) -> Write<'a> {
        Write { force, ..self }
    }

    /// The same, on a version.
    #[must_use]
    pub fn expecting(self, expect: Expect) -> Write<'a> {
        Write { expect, ..self }
    }
}

/// The API.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
}

impl Api {
    /// The client below, for streams.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        self.client.peer().to_string()
    }

    /// Reads one object.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.client.get(path, CALL_DEADLINE).await?)
    }

    /// Reads one object that may be absent.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn find(&self, path: &str) -> Result<Option<Value>, Failure> {
        match self.client.get(path, CALL_DEADLINE).await {
            Ok(value) => Ok(Some(value)),
            Err(PeerError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads a whole list, page after page, as `{"items": [...]}`.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn list(&self, path: &str) -> Result<Value, Failure> {
        let mut page = self.get(path).await?;
        let mut items = take_items(&mut page);
        for _page in 0..PAGES_MAX {
            let Some(cursor) = page.get("next").and_then(Value::as_str) else { break };
            let mark = if path.contains('?') { '&' } else { '?' };
            page = self.get(&format!("{path}{mark}cursor={}", encode(cursor))).await?;
            items.append(&mut take_items(&mut page));
        }
        Ok(serde_json::json!({ "items": items }))
    }

    /// Writes; the answer's body is read as JSON, `null` when it has none.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn write(&self, write: Write<'_>) -> Result<Value, Failure> {
        let mut headers = HeaderMap::new();
        match write.expect {
            Expect::Any => {}
            Expect::Absent => {
                headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
            }
            Expect::Version(n) => {
                let tag = HeaderValue::from_str(&format!("\"{n}\""));
                headers.insert(IF_MATCH, tag.map_err(|e| Failure::usage(e.to_string()))?);
            }
        }
        let body = match write.body {
            Some(body) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let query = match (write.dry_run, write.force) {
            (false, false) => "",
            (true, false) => "?dry_run=true",
            (false, true) => "?force=true",
            (true, true) => "?dry_run=true&force=true",
        };
        let path = format!("{}{query}", write.path);
        let answer = self.call(write.method, &path, headers, body).await?;
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer.body).map_err(|e| {
            Failure::failed(format!("{} answered something unreadable ({e})", self.url()))
        })
    }

    /// One call, its answer a success.
    ///
    /// # Errors
    /// As [`Failure`] says.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let answer = self.client.call(method, path, headers, body, CALL_DEADLINE).await?;
        Ok(self.client.success(answer)?)
    }
}

fn take_items(page: &mut Value) -> Vec<Value> {
    match page.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// One segment of a path or value of a query, percent-encoded.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").unwrap_or_default();
        }
    }
    encoded
}
