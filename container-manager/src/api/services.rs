//! Reading services, their history and the decisions about them.

use super::{Api, named, refused, views};
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use chassis::{ApiError, ApiPath, ApiQuery};
use domain::{Generation, ServiceName, Timestamp};
use registry::ServiceRow;
use serde::Deserialize;
use wire::operator::{DecisionView, List, ServiceStatView, ServiceView};
use wire::problem::Kind;

/// Decisions answered at once, unless fewer are asked for.
const DECISIONS_LIMIT: usize = 100;
/// Most of them.
const DECISIONS_MAX: usize = 1000;
/// Points of a history answered at once.
const POINTS_MAX: usize = 20_000;

/// A strong `ETag` of a version.
pub fn etag(generation: Generation) -> String {
    format!("\"{generation}\"")
}

/// An object with its version.
pub fn tagged(view: &ServiceView) -> Response {
    ([(header::ETAG, etag(view.generation))], Json(view)).into_response()
}

/// One service's row.
pub async fn row(api: &Api, name: &str) -> Result<ServiceRow, ApiError> {
    let name: ServiceName = named(name)?;
    let rows = api.registry.services().await.map_err(|e| refused(e, false))?;
    rows.into_iter().find(|row| row.name == name).ok_or_else(|| {
        ApiError::new(Kind::NotFound, format!("there is no service {name}; see `tally service ls`"))
    })
}

/// A row with its state.
pub async fn view(api: &Api, row: &ServiceRow) -> Result<ServiceView, ApiError> {
    let instances = api.registry.instances().await.map_err(|e| refused(e, false))?;
    Ok(views::service(row, &instances, &api.shared.world()))
}

/// Objects answered at once, unless fewer are asked for; `next` leads on.
const PAGE_MAX: usize = 1000;

/// `?limit=&cursor=`
#[derive(Debug, Deserialize)]
pub struct Page {
    limit: Option<usize>,
    cursor: Option<String>,
}

impl Page {
    /// One page of `rows`, which are sorted by `key`, and the cursor of the next one.
    pub fn of<T>(&self, rows: Vec<T>, key: impl Fn(&T) -> &str) -> (Vec<T>, Option<String>) {
        let limit = self.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        let after = self.cursor.as_deref().unwrap_or("");
        let mut rest = rows.into_iter().filter(|row| key(row) > after);
        let page: Vec<T> = rest.by_ref().take(limit).collect();
        let more = rest.next().is_some();
        let next = page.last().filter(|_| more).map(|last| key(last).to_owned());
        (page, next)
    }
}

/// `GET /v1/services`
pub async fn list(
    State(api): State<Api>,
    ApiQuery(page): ApiQuery<Page>,
) -> Result<Json<List<ServiceView>>, ApiError> {
    let rows = api.registry.services().await.map_err(|e| refused(e, false))?;
    let (rows, next) = page.of(rows, |row| row.name.as_str());
    let instances = api.registry.instances().await.map_err(|e| refused(e, false))?;
    let world = api.shared.world();
    let items = rows.iter().map(|row| views::service(row, &instances, &world)).collect();
    Ok(Json(List { items, next }))
}

/// `GET /v1/services/{name}`
pub async fn one(
    State(api): State<Api>,
    ApiPath(name): ApiPath<String>,
) -> Result<Response, ApiError> {
    let row = row(&api, &name).await?;
    Ok(tagged(&view(&api, &row).await?))
}

/// `?since=&until=`
#[derive(Debug, Deserialize)]
pub struct Span {
    since: Option<String>,
    until: Option<String>,
}

fn moment(pointer: &str, text: Option<String>) -> Result<Option<Timestamp>, ApiError> {
    let parsed = text.map(|text| wire::stamp::parse(&text)).transpose();
    parsed.map_err(|detail| {
        ApiError::new(Kind::BadRequest, format!("{pointer}: {detail}")).with_error(pointer, detail)
    })
}

/// `GET /v1/services/{name}/load`
pub async fn load(
    State(api): State<Api>,
    ApiPath(name): ApiPath<String>,
    ApiQuery(span): ApiQuery<Span>,
) -> Result<Json<List<ServiceStatView>>, ApiError> {
    let row = row(&api, &name).await?;
    let since = moment("since", span.since)?.unwrap_or(Timestamp(0));
    let until = moment("until", span.until)?.unwrap_or(Timestamp(i64::MAX));
    let stats = api.registry.service_stats(&row.name, since, until, POINTS_MAX).await;
    let stats = stats.map_err(|e| refused(e, false))?;
    Ok(Json(List::whole(stats.iter().map(views::stat).collect())))
}

/// `?limit=`
#[derive(Debug, Deserialize)]
pub struct Limit {
    limit: Option<usize>,
}

async fn decided(
    api: &Api,
    service: Option<&ServiceName>,
    limit: &Limit,
) -> Result<Json<List<DecisionView>>, ApiError> {
    let limit = limit.limit.unwrap_or(DECISIONS_LIMIT).min(DECISIONS_MAX);
    let decisions = api.registry.decisions(service, limit).await.map_err(|e| refused(e, false))?;
    let budget = api.registry.budget().await.map_err(|e| refused(e, false))?;
    let currency = budget.map_or_else(|| "EUR".to_owned(), |row| row.budget.currency.to_string());
    let items = decisions.into_iter().map(|d| views::decision(d, &currency)).collect();
    Ok(Json(List::whole(items)))
}

/// `GET /v1/decisions`
pub async fn decisions(
    State(api): State<Api>,
    ApiQuery(limit): ApiQuery<Limit>,
) -> Result<Json<List<DecisionView>>, ApiError> {
    decided(&api, None, &limit).await
}

/// `GET /v1/services/{name}/decisions`
pub async fn decisions_of(
    State(api): State<Api>,
    ApiPath(name): ApiPath<String>,
    ApiQuery(limit): ApiQuery<Limit>,
) -> Result<Json<List<DecisionView>>, ApiError> {
    let name: ServiceName = named(&name)?;
    decided(&api, Some(&name), &limit).await
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn pages_lead_through_everything_once() {
        let all: Vec<String> = (0..25).map(|n| format!("s{n:02}")).collect();
        let (mut cursor, mut seen) = (None, Vec::new());
        loop {
            let page = Page { limit: Some(10), cursor };
            let (items, next) = page.of(all.clone(), |name| name);
            seen.extend(items);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, all);
    }
}
