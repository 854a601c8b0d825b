//! The operators' API: routes, credentials, and what handlers share.

mod events;
mod instances;
mod pass;
mod plans;
mod routes;
mod services;
mod views;
mod writes;

use crate::executors::Executors;
use crate::placements::Placements;
use crate::status::Status;
use crate::world::Shared;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use chassis::{ApiError, Identity, PeerAddr, Shutdown};
use container_planner::Policy;
use domain::Clock;
use registry::{Registry, RegistryError};
use scoreboard::Board;
use std::sync::Arc;
use tokio::sync::Semaphore;
use wire::problem::Kind;

/// Event streams open at once: each holds a connection and reads the registry.
pub const FOLLOWERS_MAX: usize = 64;

/// What handlers share.
#[derive(Clone)]
pub struct Api {
    /// The world and its bells.
    pub shared: Shared,
    /// The durable record.
    pub registry: Arc<dyn Registry>,
    /// The live board.
    pub board: Arc<dyn Board>,
    /// The machine-manager.
    pub placements: Arc<dyn Placements>,
    /// Executors, for logs.
    pub executors: Arc<dyn Executors>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Secrets.
    pub identity: Identity,
    /// Constants, for what-if.
    pub policy: Policy,
    /// The loop's last words.
    pub status: Status,
    /// Slots of event streams.
    pub followers: Arc<Semaphore>,
    /// Ends event streams.
    pub shutdown: Shutdown,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

/// Whether a listener asks for credentials.
#[derive(Debug, Clone)]
struct Gate {
    identity: Identity,
    open: bool,
}

/// The API. `open`: only this host's users reach the listener, so no credentials are asked for.
pub fn router(api: Api, open: bool) -> Router {
    let gate = Gate { identity: api.identity.clone(), open };
    Router::new()
        .route("/v1/services", get(services::list))
        .route(
            "/v1/services/{name}",
            get(services::one).put(writes::put).patch(writes::patch).delete(writes::delete),
        )
        .route("/v1/services/{name}/instances", get(instances::of_service))
        .route("/v1/services/{name}/scale", post(writes::scale))
        .route("/v1/services/{name}/wake", post(writes::wake))
        .route("/v1/services/{name}/restart", post(writes::restart))
        .route("/v1/services/{name}/load", get(services::load))
        .route("/v1/services/{name}/decisions", get(services::decisions_of))
        .route("/v1/decisions", get(services::decisions))
        .route("/v1/instances", get(instances::all))
        .route("/v1/instances/{id}", get(instances::one))
        .route("/v1/instances/{id}/stop", post(instances::stop))
        .route("/v1/instances/{id}/logs", get(instances::logs))
        .route("/v1/plan", post(plans::plan))
        .route("/v1/events", get(events::follow))
        .route("/v1/nudge", post(nudge))
        .route("/v1/nodes", pass::any())
        .route("/v1/nodes/{*rest}", pass::any())
        .route("/v1/node-types", pass::any())
        .route("/v1/node-types/{*rest}", pass::any())
        .route("/v1/node-tokens", pass::any())
        .route("/v1/budget", pass::any())
        .route("/v1/ledger", pass::any())
        .route("/v1/usage", pass::any())
        .route("/v1/stats", pass::any())
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(gate, credentials))
        .with_state(api)
}

async fn nudge(State(api): State<Api>) -> axum::http::StatusCode {
    {
        api.shared.world().services_stale = true;
    }
    api.shared.nudge.nudge();
    axum::http::StatusCode::ACCEPTED
}

async fn no_path(request: Request) -> ApiError {
    let path: String = request.uri().path().chars().take(100).collect();
    ApiError::new(Kind::NotFound, format!("there is no path {path}; see /v1/services"))
}

async fn no_method(request: Request) -> ApiError {
    let method = request.method().clone();
    let path: String = request.uri().path().chars().take(100).collect();
    ApiError::new(Kind::Method, format!("{path} knows no {method}"))
}

/// Paths by which a node introduces itself and reports; they carry credentials of their own, which
/// the machine-manager checks.
fn carries_own_credentials(method: &Method, path: &str) -> bool {
    method == Method::POST && matches!(path, "/v1/nodes/join" | "/v1/stats")
}

async fn credentials(
    State(gate): State<Gate>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let peer = request.extensions().get::<PeerAddr>().copied();
    let unix = matches!(peer, Some(PeerAddr::Unix));
    if gate.open && !unix && is_foreign(request.headers()) {
        let detail = "a page of another site may not use the API of this host's user";
        return Err(ApiError::new(Kind::Forbidden, detail));
    }
    let trusted = unix || gate.open;
    let path = request.uri().path();
    if trusted || carries_own_credentials(request.method(), path) {
        return Ok(next.run(request).await);
    }
    let Some(token) = bearer(request.headers()) else {
        let detail = "send the admin token: --token, TALLY_TOKEN, or `Authorization: Bearer ...`";
        return Err(ApiError::new(Kind::Unauthorized, detail));
    };
    if gate.identity.knows_admin_token(token) {
        return Ok(next.run(request).await);
    }
    if gate.identity.knows_balancer_token(token) {
        let wakes = request.method() == Method::POST && path.ends_with("/wake");
        if wakes {
            return Ok(next.run(request).await);
        }
        return Err(ApiError::new(Kind::Forbidden, "a balancer's token may only wake services"));
    }
    Err(ApiError::new(Kind::Unauthorized, "the token is not this cluster's"))
}

/// Whether a browser speaks for another site: where no token is asked for, a page could otherwise
/// order nodes through its visitor's loopback, directly or by a name it points there.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|v| v.to_str().unwrap_or(""));
    let host = text(header::HOST).unwrap_or("");
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    let name = name.map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let here = name == "localhost" || name.parse::<std::net::IpAddr>().is_ok();
    let same = text(header::ORIGIN)
        .is_none_or(|origin| origin.split_once("://").is_some_and(|(_, from)| from == host));
    !here || !same
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

/// A registry's refusal as the caller may know it.
pub(crate) fn refused(error: RegistryError, by_header: bool) -> ApiError {
    match error {
        RegistryError::Unknown { what } => {
            ApiError::new(Kind::NotFound, format!("{what} does not exist"))
        }
        RegistryError::Conflict { what, found } => {
            let kind = if by_header { Kind::Precondition } else { Kind::Conflict };
            let detail = format!("{what} is at generation {found}; read it again and decide anew");
            ApiError::new(kind, detail)
        }
        error @ (RegistryError::Superseded { .. }
        | RegistryError::Store { .. }
        | RegistryError::Damaged { .. }) => ApiError::internal(&error),
    }
}

/// An id or a name from a path.
pub(crate) fn named<T: std::str::FromStr>(text: &str) -> Result<T, ApiError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| ApiError::new(Kind::NotFound, e.to_string()))
}
