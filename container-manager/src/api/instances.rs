//! Instances: reading them, ending one, the end of what one wrote.

use super::services::Page;
use super::{Api, named, refused, views};
use crate::executors::ExecutorAt;
use crate::world::EXPIRE_MAX;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chassis::{ApiError, ApiPath, ApiQuery};
use domain::{Instance, InstanceId, InstanceState, ServiceName, Timestamp};
use serde::Deserialize;
use wire::operation::Logs;
use wire::operator::{InstanceView, List};
use wire::problem::Kind;

/// Lines of a log answered, unless fewer are asked for.
const LINES: usize = 200;
/// Most of them.
const LINES_MAX: usize = 10_000;

async fn views_of(
    api: &Api,
    service: Option<&ServiceName>,
    page: &Page,
) -> Result<Json<List<InstanceView>>, ApiError> {
    let rows = api.registry.instances().await.map_err(|e| refused(e, false))?;
    let rows: Vec<Instance> =
        rows.into_iter().filter(|row| service.is_none_or(|name| row.service == *name)).collect();
    let (rows, next) = page.of(rows, |row| row.id.as_str());
    let mut items = Vec::with_capacity(rows.len());
    for row in &rows {
        items.push(view(api, row).await?);
    }
    Ok(Json(List { items, next }))
}

async fn view(api: &Api, row: &Instance) -> Result<InstanceView, ApiError> {
    let stats = api.registry.instance_stats(&row.id, Timestamp(0), 1).await;
    let stats = stats.map_err(|e| refused(e, false))?;
    Ok(views::instance(row, stats.last(), &api.shared.world()))
}

/// `GET /v1/instances`
pub async fn all(
    State(api): State<Api>,
    ApiQuery(page): ApiQuery<Page>,
) -> Result<Json<List<InstanceView>>, ApiError> {
    views_of(&api, None, &page).await
}

/// `GET /v1/services/{name}/instances`
pub async fn of_service(
    State(api): State<Api>,
    ApiPath(name): ApiPath<String>,
    ApiQuery(page): ApiQuery<Page>,
) -> Result<Json<List<InstanceView>>, ApiError> {
    let row = super::services::row(&api, &name).await?;
    views_of(&api, Some(&row.name), &page).await
}

async fn row(api: &Api, id: &str) -> Result<Instance, ApiError> {
    let id: InstanceId = named(id)?;
    let row = api.registry.instance(&id).await.map_err(|e| refused(e, false))?;
    row.ok_or_else(|| ApiError::new(Kind::NotFound, format!("there is no instance {id}")))
}

/// `GET /v1/instances/{id}`
pub async fn one(
    State(api): State<Api>,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<InstanceView>, ApiError> {
    let row = row(&api, &id).await?;
    Ok(Json(view(&api, &row).await?))
}

/// `POST /v1/instances/{id}/stop`: it is replaced if it is still wanted, drained and ended.
pub async fn stop(
    State(api): State<Api>,
    ApiPath(id): ApiPath<String>,
) -> Result<(StatusCode, Json<InstanceView>), ApiError> {
    let row = row(&api, &id).await?;
    if row.state == InstanceState::Stopped {
        return Err(ApiError::new(Kind::Conflict, format!("{} has ended already", row.id)));
    }
    {
        let mut world = api.shared.world();
        if world.lease.is_none() {
            let detail = "this container-manager does not lead; ask the other one";
            return Err(ApiError::new(Kind::Unavailable, detail).retry_after(1));
        }
        if world.expire.len() >= EXPIRE_MAX {
            let detail = "too many instances wait for their end; try again in a moment";
            return Err(ApiError::new(Kind::Contended, detail).retry_after(5));
        }
        world.expire.insert(row.id.clone());
    }
    api.shared.nudge.nudge();
    Ok((StatusCode::ACCEPTED, Json(view(&api, &row).await?)))
}

/// `?lines=`
#[derive(Debug, Deserialize)]
pub struct Lines {
    lines: Option<usize>,
}

/// `GET /v1/instances/{id}/logs`
pub async fn logs(
    State(api): State<Api>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(lines): ApiQuery<Lines>,
) -> Result<Json<Logs>, ApiError> {
    let row = row(&api, &id).await?;
    let Some(node) = &row.node else {
        let detail = format!("{} has no node yet, so it wrote nothing", row.id);
        return Err(ApiError::new(Kind::Conflict, detail));
    };
    let node = api.registry.node(node).await.map_err(|e| refused(e, false))?;
    let url = node.as_ref().and_then(|node| node.executor_url.clone());
    let Some((node, url)) = node.zip(url) else {
        return Err(ApiError::new(Kind::NotFound, "its node is gone, and its log with it"));
    };
    let at = ExecutorAt { node: node.id, url };
    let lines = lines.lines.unwrap_or(LINES).clamp(1, LINES_MAX);
    match api.executors.logs(&at, &row.id, lines).await {
        Ok(logs) => Ok(Json(logs)),
        Err(error) => {
            tracing::debug!(error = %chassis::telemetry::Chain(&error), "a log was not read");
            let detail = format!("the executor of {} cannot read the log now", at.node);
            Err(ApiError::new(Kind::BadGateway, detail))
        }
    }
}
