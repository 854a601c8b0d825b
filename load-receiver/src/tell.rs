//! Tells a service's load as a whole: `GET /v1/load?service=`, and to `HAProxy` as its agent.

use crate::total::Totals;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chassis::{ApiError, Shutdown};
use domain::ServiceName;
use serde::Deserialize;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use wire::orca::{HEADER_FORMAT, OrcaFormat};
use wire::problem::Kind;

/// Connections at once to the agent's port: a check is over in milliseconds.
const CHECKS_MAX: usize = 256;
/// For a whole check.
const CHECK_DEADLINE: Duration = Duration::from_secs(2);
/// Who has sent no service's name by then sends none.
const NAME_DEADLINE: Duration = Duration::from_millis(100);
/// Longest name with its line's end, and room for a stray blank.
const NAME_BYTES_MAX: usize = 128;
/// After an error of the listener.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    #[serde(default)]
    service: String,
}

/// `GET /v1/load?service=NAME`.
pub(crate) fn router(totals: Arc<Totals>) -> Router {
    Router::new().route("/v1/load", get(load)).with_state(totals)
}

async fn load(
    State(totals): State<Arc<Totals>>,
    question: Result<Query<Question>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let usage = "name a service: GET /v1/load?service=NAME";
    let Ok(Query(Question { service })) = question else {
        return Err(ApiError::new(Kind::BadRequest, usage));
    };
    let service: ServiceName = service
        .parse()
        .map_err(|why| ApiError::new(Kind::BadRequest, format!("{usage} ({why})")))?;
    let total = totals.of(&service).await.map_err(|why| {
        let why = chassis::telemetry::Chain(&why);
        tracing::debug!(%why, "a service's load cannot be read");
        ApiError::new(Kind::Unavailable, "the scoreboard does not answer").retry_after(1)
    })?;
    let Some(total) = total else {
        return Err(ApiError::new(Kind::NotFound, format!("there is no service {service}")));
    };
    Ok(match form(&headers)? {
        Some(format) => {
            let text = format!("{}\n", total.orca().write(format));
            ([(header::CONTENT_TYPE, "text/plain")], text).into_response()
        }
        None => axum::Json(total.document(service.as_str())).into_response(),
    })
}

/// The form asked for: that of an outer balancer's header, or TEXT for who wants text; else JSON as a
/// document.
fn form(headers: &HeaderMap) -> Result<Option<OrcaFormat>, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(format) = text(HEADER_FORMAT) {
        let format = format
            .trim()
            .parse()
            .map_err(|why| ApiError::new(Kind::BadRequest, format!("{HEADER_FORMAT} {why}")))?;
        return Ok(Some(format));
    }
    Ok(text("accept")
        .is_some_and(|kind| kind.starts_with("text/plain"))
        .then_some(OrcaFormat::Text))
}

/// A port at which `HAProxy` finds our agent.
#[derive(Debug)]
pub struct AgentDoor {
    /// Where it connects.
    pub listener: TcpListener,
    /// The service it means when it sends no name; `None`: the only one there is.
    pub service: Option<ServiceName>,
}

/// Answers checks until the shutdown starts.
pub(crate) async fn answer(door: AgentDoor, totals: Arc<Totals>, shutdown: Shutdown) {
    let room = Arc::new(Semaphore::new(CHECKS_MAX));
    let default = Arc::new(door.service);
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = tokio::select! {
            () = shutdown.started() => return,
            accepted = door.listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(why) => {
                    tracing::debug!(%why, "a check could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (totals, default) = (Arc::clone(&totals), Arc::clone(&default));
        tokio::spawn(async move {
            let check = check(stream, &totals, default.as_ref().as_ref());
            match tokio::time::timeout(CHECK_DEADLINE, check).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => tracing::debug!(%why, "a check broke off"),
                Err(_elapsed) => tracing::debug!("a check took too long"),
            }
            drop(place);
        });
    }
}

/// One check: a name or none in, a line out. What is not known is said by silence: the asker keeps
/// what it was told before.
async fn check(
    mut stream: TcpStream,
    totals: &Totals,
    default: Option<&ServiceName>,
) -> io::Result<()> {
    let named = match tokio::time::timeout(NAME_DEADLINE, read_name(&mut stream)).await {
        Ok(read) => read?,
        Err(_elapsed) => String::new(),
    };
    let service = match (named.trim(), default) {
        ("", Some(service)) => Some(service.clone()),
        ("", None) => totals.only().await.map_err(io::Error::other)?,
        (name, _) => name.parse::<ServiceName>().ok(),
    };
    let Some(service) = service else {
        tracing::debug!(named, "a check names no service; send its name with agent-send");
        return Ok(());
    };
    let Some(total) = totals.of(&service).await.map_err(io::Error::other)? else {
        tracing::debug!(%service, "a check names a service that is not known");
        return Ok(());
    };
    stream.write_all(format!("{}\n", total.line()).as_bytes()).await?;
    stream.shutdown().await
}

async fn read_name(stream: &mut TcpStream) -> io::Result<String> {
    let mut sent = [0_u8; NAME_BYTES_MAX];
    let mut have = 0;
    while have < sent.len() && !sent[..have].contains(&b'\n') {
        match stream.read(&mut sent[have..]).await? {
            0 => break,
            n => have += n,
        }
    }
    Ok(String::from_utf8_lossy(&sent[..have]).into_owned())
}
