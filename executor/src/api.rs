//! The executor's HTTP interface: every call but the three unsigned paths bears the manager's
//! signature.

use crate::assignment;
use crate::core::Core;
use crate::events::Next;
use crate::metrics::Refusal;
use crate::reconcile::carry_out;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::middleware::{self, Next as Inner};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use chassis::problem::read_body;
use chassis::signature::{HEADER, SignatureError, Verifier};
use chassis::{ApiError, PeerAddr, Readiness};
use domain::InstanceId;
use futures_util::stream::{self, Stream};
use http::StatusCode;
use serde::Deserialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use wire::assignment::{Accepted, Assignment, ExecutorEvent, Inventory, Newer};
use wire::operation::{Logs, Operations};
use wire::problem::Kind;

/// Two thousand instances of a few kilobytes each.
const BODY_BYTES_MAX: usize = 8 << 20;
/// A listener hears something at least this often, so that silence means a broken line.
const BEAT: Duration = Duration::from_secs(1);
/// Lines of a log unless asked otherwise.
const LINES_DEFAULT: usize = 100;
/// Lines of a log at most.
const LINES_MAX: usize = 10_000;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) core: Arc<Core>,
    pub(crate) verifier: Arc<Verifier>,
    /// Held while an assignment is taken: the newest one, so that one follows the other.
    pub(crate) current: Arc<tokio::sync::Mutex<Option<Assignment>>>,
}

/// All paths.
pub(crate) fn router(api: Api, metrics: chassis::Metrics, readiness: Readiness) -> Router {
    Router::new()
        .route("/v1/assignment", post(assign))
        .route("/v1/inventory", get(inventory))
        .route("/v1/operations", get(operations))
        .route("/v1/logs", get(logs))
        .route("/v1/events", get(events))
        .fallback(|| async { ApiError::new(Kind::NotFound, "an executor has no such path") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(Kind::Method, "only an assignment is posted; all else is got")
        })
        .layer(middleware::from_fn_with_state(api.clone(), obey_the_manager_alone))
        .with_state(api)
        .merge(chassis::admin::router(metrics, readiness))
}

/// Lets a call through only with the manager's signature over exactly this call.
async fn obey_the_manager_alone(
    State(api): State<Api>,
    request: Request,
    inner: Inner,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let header = parts.headers.get(HEADER).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let method = parts.method.as_str();
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let refuse = |error: SignatureError| {
        let peer = parts.extensions.get::<PeerAddr>();
        tracing::warn!(%error, ?peer, method, path, "a call was refused");
        api.core.metrics.refuse(Refusal::Signature);
        ApiError::new(Kind::Unauthorized, error.to_string())
    };
    if header.is_none() {
        // Strangers may not even make us read a body.
        return Err(refuse(SignatureError::Missing));
    }
    let bytes = read_body(body, BODY_BYTES_MAX).await?;
    api.verifier.check(header.as_deref(), method, path, &bytes).map_err(refuse)?;
    Ok(inner.run(Request::from_parts(parts, Body::from(bytes))).await)
}

async fn assign(State(api): State<Api>, bytes: Bytes) -> Result<Response, ApiError> {
    let core = &api.core;
    let wanted = assignment::read(&bytes, &core.config.node, &core.config.cluster);
    let wanted = wanted.inspect_err(|error| {
        tracing::warn!(detail = %error.problem.detail, "an assignment was refused");
        core.metrics.refuse(Refusal::Invalid);
    })?;
    // A caller that goes away must not leave the assignment half taken.
    let taken = tokio::spawn(async move { take(&api, wanted, &bytes).await });
    taken.await.map_err(|error| ApiError::internal(&error))?
}

async fn take(api: &Api, wanted: Assignment, bytes: &Bytes) -> Result<Response, ApiError> {
    let core = &api.core;
    let mut current = api.current.lock().await;
    let order = Newer { epoch: wanted.epoch, generation: wanted.generation };
    let accepted = core.accepted();
    if order < accepted {
        tracing::warn!(
            epoch = order.epoch.0,
            generation = order.generation.0,
            newest.epoch = accepted.epoch.0,
            newest.generation = accepted.generation.0,
            "an older assignment was refused"
        );
        core.metrics.refuse(Refusal::Older);
        return Ok((StatusCode::CONFLICT, Json(accepted)).into_response());
    }
    if current.as_ref() != Some(&wanted) {
        // Starts begin while the disk writes: after a crash in between, what was started is
        // unassigned and is stopped, and the manager, unanswered, sends again.
        carry_out(core, &wanted);
        let (store, kept) = (core.store.clone(), bytes.clone());
        let written = tokio::task::spawn_blocking(move || store.keep_assignment(&kept)).await;
        let failed = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(ApiError::internal(&error)),
            Err(error) => Some(ApiError::internal(&error)),
        };
        if let Some(error) = failed {
            // Back to what is on disk; on a new node that is nothing.
            let empty = || Assignment { instances: Vec::new(), ..wanted };
            carry_out(core, &current.clone().unwrap_or_else(empty));
            return Err(error);
        }
        *current = Some(wanted);
    }
    *core.accepted.lock().unwrap_or_else(PoisonError::into_inner) = order;
    Ok(Json(Accepted { accepted: true }).into_response())
}

async fn inventory(State(api): State<Api>) -> Json<Inventory> {
    let Newer { epoch, generation } = api.core.accepted();
    let (seq, instances) = api.core.board.inventory();
    Json(Inventory { node: api.core.config.node.clone(), epoch, generation, seq, instances })
}

async fn operations(State(api): State<Api>) -> Json<Operations> {
    Json(Operations { items: api.core.operations.all() })
}

#[derive(Debug, Deserialize)]
struct LogsQuery {
    instance: InstanceId,
    lines: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct EventsQuery {
    after: Option<u64>,
}

fn query<T>(given: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    given.map(|Query(value)| value).map_err(|e| ApiError::new(Kind::BadRequest, e.body_text()))
}

async fn logs(
    State(api): State<Api>,
    given: Result<Query<LogsQuery>, QueryRejection>,
) -> Result<Json<Logs>, ApiError> {
    let LogsQuery { instance, lines } = query(given)?;
    let engine = match api.core.instances().get(&instance) {
        Some(handle) => {
            let kind = handle.orders.borrow().instance.engine;
            Arc::clone(api.core.engines.of(kind))
        }
        None => {
            let text = format!("no instance {instance} is on this node; its log went with it");
            return Err(ApiError::new(Kind::NotFound, text));
        }
    };
    let lines = engine.logs(&instance, lines.unwrap_or(LINES_DEFAULT).min(LINES_MAX)).await;
    let lines = lines.map_err(|e| ApiError::new(Kind::Unavailable, e.text))?;
    Ok(Json(Logs { instance, lines }))
}

async fn events(
    State(api): State<Api>,
    given: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let core = Arc::clone(&api.core);
    let after = query(given)?.after.unwrap_or_else(|| core.board.newest());
    let newest = core.board.watch();
    let listener = Listener { core, after, newest, ready: VecDeque::new(), greeted: false };
    Ok(Sse::new(stream::unfold(listener, Listener::next)))
}

/// One manager that listens.
struct Listener {
    core: Arc<Core>,
    after: u64,
    newest: tokio::sync::watch::Receiver<u64>,
    ready: VecDeque<Event>,
    greeted: bool,
}

impl Listener {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Listener)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            self.newest.borrow_and_update();
            match self.core.board.after(self.after) {
                Next::Events(events) if events.is_empty() => {
                    if !self.greeted {
                        // At once, so that the caller knows that it is heard.
                        self.greeted = true;
                        let beat = self.beat("beat");
                        return Some((Ok(beat), self));
                    }
                    tokio::select! {
                        () = self.core.shutdown.started() => return None,
                        _ = self.newest.changed() => {}
                        () = tokio::time::sleep(BEAT) => {
                            let beat = self.beat("beat");
                            return Some((Ok(beat), self));
                        }
                    }
                }
                Next::Events(events) => {
                    self.after = events.last().map_or(self.after, |e| e.seq);
                    self.ready = events.iter().map(|event| line("seen", event)).collect();
                }
                Next::Gap(newest) => {
                    self.after = newest;
                    let gap = self.beat("gap");
                    return Some((Ok(gap), self));
                }
            }
        }
    }

    fn beat(&self, name: &str) -> Event {
        line(name, &ExecutorEvent { seq: self.after, seen: None })
    }
}

fn line(name: &str, event: &ExecutorEvent) -> Event {
    // Only text and numbers are in it: nothing that JSON cannot say.
    let data = serde_json::to_string(event).unwrap_or_default();
    Event::default().event(name).id(event.seq.to_string()).data(data)
}
