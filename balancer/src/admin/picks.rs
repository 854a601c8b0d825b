//! `GET /v1/picks?service=NAME[&limit=N]`.

use crate::{Shared, picks};
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use chassis::problem::{ApiError, ApiQuery};
use serde::Deserialize;
use std::sync::Arc;
use wire::picks::PicksView;
use wire::problem::Kind;

/// Picks answered unless more are asked for.
const LIMIT_DEFAULT: usize = 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    service: String,
    limit: Option<usize>,
}

/// The path's router.
pub fn router(shared: &Arc<Shared>) -> Router {
    Router::new().route("/v1/picks", get(last)).with_state(Arc::clone(shared))
}

async fn last(
    State(shared): State<Arc<Shared>>,
    ApiQuery(asked): ApiQuery<Asked>,
) -> Result<Json<PicksView>, ApiError> {
    let table = shared.table.load();
    let service = table.services().iter().find(|s| s.name.as_str() == asked.service);
    let Some(service) = service else {
        let name: String = asked.service.chars().take(63).collect();
        let detail =
            format!("this balancer knows no service {name:?}; `tally service ls` names them");
        return Err(ApiError::new(Kind::NotFound, detail));
    };
    let limit = asked.limit.unwrap_or(LIMIT_DEFAULT).min(picks::KEPT);
    Ok(Json(picks::view(service, limit)))
}
