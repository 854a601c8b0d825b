//! The HTTP API of this role: who may call it, and where each path leads.

mod budget;
mod nodes;
pub(crate) mod types;

use crate::{Manager, join, placements, stats};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chassis::ApiError;
use domain::Generation;
use registry::{Expect, RegistryError};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use wire::problem::Kind;

/// Objects in one answer at most; one cell holds 5,000 nodes.
const LIST_MAX: usize = 10_000;

/// Query parameters of writes.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WriteQuery {
    /// Check everything, change nothing.
    pub(crate) dry_run: bool,
    /// Do it although it contradicts what stands.
    pub(crate) force: bool,
}

/// All paths but the three every role has.
pub(crate) fn router(manager: Arc<Manager>) -> Router {
    let open = Router::new()
        .route("/v1/nodes/join", post(join::join))
        .route("/v1/stats", post(stats::post));
    let guarded = Router::new()
        .route("/v1/placements", post(placements::post))
        .route("/v1/admission", post(budget::admission))
        .route("/v1/nodes", get(nodes::list).post(nodes::order))
        .route("/v1/nodes/{id}", get(nodes::get).patch(nodes::patch).delete(nodes::remove))
        .route("/v1/nodes/{id}/drain", post(nodes::drain))
        .route("/v1/nodes/{id}/stats", get(nodes::stats))
        .route("/v1/node-tokens", post(join::token))
        .route("/v1/node-types", get(types::list))
        .route("/v1/node-types/{name}", get(types::get).put(types::put).delete(types::remove))
        .route("/v1/budget", get(budget::get).put(budget::put))
        .route("/v1/ledger", get(budget::ledger))
        .route("/v1/nudge", post(nudge))
        .route("/v1/status", get(status))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&manager), guard));
    open.merge(guarded)
        .fallback(|| async { ApiError::new(Kind::NotFound, "there is no such path here") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(Kind::Method, "this path knows no such method")
        })
        .with_state(manager)
}

/// Beyond loopback every caller but nodes needs the admin token; nodes have their own secrets.
async fn guard(State(manager): State<Arc<Manager>>, request: Request, next: Next) -> Response {
    let known = |token: &str| manager.identity.knows_admin_token(token);
    if manager.guarded && !stats::bearer(request.headers()).is_some_and(known) {
        let path = request.uri().path();
        tracing::warn!(%path, "a call without the admin token was refused");
        let detail = "send the admin token as a bearer token (`tally --token`, TALLY_TOKEN)";
        return ApiError::new(Kind::Unauthorized, detail).into_response();
    }
    next.run(request).await
}

async fn nudge(State(manager): State<Arc<Manager>>) -> StatusCode {
    manager.nudge.nudge();
    StatusCode::NO_CONTENT
}

/// What the loop did last and how much it knows.
#[derive(Debug, Serialize)]
struct StatusView {
    leads: bool,
    steps: u64,
    last_result: String,
    nodes: usize,
    wanted: usize,
    reserved: usize,
    waiting: usize,
    calls_in_hand: usize,
}

async fn status(State(manager): State<Arc<Manager>>) -> axum::Json<serde_json::Value> {
    let world = manager.world();
    let view = StatusView {
        leads: world.loaded,
        steps: world.steps,
        last_result: world.last_result.clone(),
        nodes: world.nodes.len(),
        wanted: world.wanted.len(),
        reserved: world.reserved.len(),
        waiting: world.waiting.len(),
        calls_in_hand: world.busy.len(),
    };
    axum::Json(serde_json::to_value(view).unwrap_or_default())
}

/// Refuses while another machine-manager leads or nothing was read yet.
pub(crate) fn leading(manager: &Manager) -> Result<(), ApiError> {
    if manager.world().loaded {
        return Ok(());
    }
    let detail = "this machine-manager does not lead, or has not read the registry yet; try again";
    Err(ApiError::new(Kind::Unavailable, detail).retry_after(1))
}

/// A body with its version as `ETag`.
pub(crate) fn tagged<T: Serialize>(
    status: StatusCode,
    generation: Generation,
    body: &T,
) -> Response {
    let mut response = (status, axum::Json(body)).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{generation}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// What the caller expects to find, from `If-Match` and `If-None-Match`.
pub(crate) fn expectation(headers: &HeaderMap) -> Result<Expect, ApiError> {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::trim);
    if let Some(none) = text(header::IF_NONE_MATCH) {
        if none == "*" {
            return Ok(Expect::Absent);
        }
        let detail = "If-None-Match is understood as * alone";
        return Err(ApiError::new(Kind::BadRequest, detail));
    }
    match text(header::IF_MATCH) {
        None => Ok(Expect::Any),
        Some("*") => Ok(Expect::Present),
        Some(tag) => {
            let number = tag.trim_matches('"').parse();
            number.map(|n| Expect::At(Generation(n))).map_err(|_no_number| {
                ApiError::new(Kind::Precondition, format!("{tag} is no ETag of this object"))
            })
        }
    }
}

/// A failure of the registry as the caller may know it.
pub(crate) fn registry_error(error: &RegistryError, conditional: bool) -> ApiError {
    match error {
        RegistryError::Conflict { .. } if conditional => {
            ApiError::new(Kind::Precondition, error.to_string())
        }
        RegistryError::Conflict { .. } => ApiError::new(Kind::Conflict, error.to_string()),
        RegistryError::Unknown { .. } => ApiError::new(Kind::NotFound, error.to_string()),
        RegistryError::Superseded { .. } => {
            let detail = "another machine-manager leads now; ask it";
            ApiError::new(Kind::Unavailable, detail).retry_after(1)
        }
        RegistryError::Store { .. } | RegistryError::Damaged { .. } => ApiError::internal(error),
    }
}
