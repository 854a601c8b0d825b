//! The budget, the ledger, and the admission of a service's minimum.

use super::{LIST_MAX, WriteQuery, expectation, leading, registry_error, tagged};
use crate::Manager;
use crate::status::{budget_view, ledger_view};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use chassis::{ApiError, ApiJson, ApiQuery};
use domain::{
    Budget, Bytes, Event, EventKind, MilliCpu, Money, MonthlyCap, Needs, Resources, ServiceGroup,
    Timestamp,
};
use machine_planner::{Minimum, Month, Snapshot, admit_cap, admit_minimum};
use registry::Expect;
use serde::Deserialize;
use std::sync::Arc;
use wire::manifest::BudgetManifest;
use wire::operator::{LedgerView, List};
use wire::placement::{AdmissionAnswer, AdmissionRequest};
use wire::problem::Kind;

pub(super) fn snapshot(manager: &Manager) -> Snapshot {
    let (now, mono) = (manager.clock.now(), manager.clock.monotonic());
    manager.world().snapshot(now, mono, Vec::new(), Vec::new())
}

/// `GET /v1/budget`.
pub(crate) async fn get(State(manager): State<Arc<Manager>>) -> Result<Response, ApiError> {
    leading(&manager)?;
    let world = manager.world();
    let budget = world.budget();
    Ok(tagged(StatusCode::OK, budget.generation, &budget_view(&world, &budget)))
}

/// `PUT /v1/budget`.
pub(crate) async fn put(
    State(manager): State<Arc<Manager>>,
    ApiQuery(query): ApiQuery<WriteQuery>,
    headers: HeaderMap,
    ApiJson(mut manifest): ApiJson<BudgetManifest>,
) -> Result<Response, ApiError> {
    leading(&manager)?;
    manifest.kind = Some("budget".to_owned());
    let mut budget = Budget::try_from(&manifest)?;
    check_currency(&manager, &mut budget)?;
    // No order may be decided under the old cap while the new one is being written.
    let writer = manager.writer.lock().await;
    let policy = &manager.config.policy;
    if let (Err(refusal), false) = (admit_cap(&snapshot(&manager), policy, &budget), query.force) {
        let error = ApiError::new(Kind::Cap, refusal.detail.clone());
        return Err(error.with_error("/monthly_cap", refusal.detail));
    }
    let expect = expectation(&headers)?;
    if query.dry_run {
        let world = manager.world();
        let view = budget_view(&world, &budget);
        return Ok(tagged(StatusCode::OK, world.budget().generation, &view));
    }
    let document = serde_json::to_string(&manifest).unwrap_or_default();
    let written = manager.registry.put_budget(budget, document, expect).await;
    let row = written.map_err(|e| registry_error(&e, expect != Expect::Any))?;
    let event = Event {
        at: manager.clock.now(),
        kind: EventKind::Budget,
        subject: "budget".to_owned(),
        what: "set".to_owned(),
        detail: format!("the monthly cap is {}", manifest.monthly_cap),
        values: String::new(),
    };
    if let Err(error) = manager.registry.add_events(vec![event]).await {
        tracing::warn!(%error, "an event could not be written");
    }
    manager.world().budget = Some(row);
    drop(writer);
    // The step tells what the new cap means; the answer shows it.
    let stepped = crate::reconcile::step(&manager, Vec::new()).await;
    if let Err(error) = stepped {
        tracing::warn!(%error, "the step after a budget change failed; the next one tries again");
    }
    crate::reconcile::nudge_container_manager(&manager);
    let world = manager.world();
    let budget = world.budget();
    Ok(tagged(StatusCode::OK, budget.generation, &budget_view(&world, &budget)))
}

fn check_currency(manager: &Manager, budget: &mut Budget) -> Result<(), ApiError> {
    let world = manager.world();
    let types = world.types.values().filter_map(super::types::currency).next();
    let kept = types.or_else(|| world.budget.as_ref().map(|row| row.budget.currency));
    let Some(kept) = kept else { return Ok(()) };
    if budget.cap == MonthlyCap::Unlimited {
        // `none` names no currency.
        budget.currency = kept;
    }
    if budget.currency == kept {
        return Ok(());
    }
    let detail = format!("this cluster keeps its money in {kept}, not in {}", budget.currency);
    let error = ApiError::new(Kind::Invalid, format!("/monthly_cap: {detail}"));
    Err(error.with_error("/monthly_cap", detail))
}

/// Which lines are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LedgerQuery {
    since: Option<String>,
    until: Option<String>,
    limit: Option<usize>,
}

/// A moment in a query: RFC 3339.
pub(super) fn moment(text: Option<&str>, field: &str) -> Result<Option<Timestamp>, ApiError> {
    let parsed = text.map(wire::stamp::parse).transpose();
    parsed.map_err(|detail| ApiError::new(Kind::BadRequest, format!("{field}: {detail}")))
}

/// `GET /v1/ledger?since=&until=&limit=`: this month's lines unless said otherwise, oldest first.
pub(crate) async fn ledger(
    State(manager): State<Arc<Manager>>,
    ApiQuery(query): ApiQuery<LedgerQuery>,
) -> Result<Json<List<LedgerView>>, ApiError> {
    leading(&manager)?;
    let month = Month::of(manager.clock.now());
    let since = moment(query.since.as_deref(), "since")?.unwrap_or_else(|| month.start());
    let until = moment(query.until.as_deref(), "until")?.unwrap_or_else(|| month.end());
    let lines = manager.registry.ledger(since, until).await;
    let lines = lines.map_err(|e| registry_error(&e, false))?;
    let limit = query.limit.unwrap_or(LIST_MAX).min(LIST_MAX);
    let currency = manager.world().budget().currency;
    // The newest lines are the ones asked about.
    let skip = lines.len().saturating_sub(limit);
    Ok(Json(List::whole(lines[skip..].iter().map(|l| ledger_view(l, currency)).collect())))
}

/// `POST /v1/admission`: whether a service's minimum fits the cap to the month's end.
pub(crate) async fn admission(
    State(manager): State<Arc<Manager>>,
    ApiJson(request): ApiJson<AdmissionRequest>,
) -> Result<Json<AdmissionAnswer>, ApiError> {
    leading(&manager)?;
    let needs = Needs::try_from(&request.needs).map_err(ApiError::from)?;
    let minimum = Minimum {
        service: request.service,
        count: request.min_instances.min(domain::ServiceSpec::INSTANCES_MAX),
        resources: Resources {
            cpu: MilliCpu(request.cpu_millis),
            memory: Bytes(request.memory_bytes),
        },
        needs,
        group: ServiceGroup::SelfContained,
    };
    let admitted = admit_minimum(&snapshot(&manager), &manager.config.policy, &minimum);
    Ok(Json(match admitted {
        Ok(()) => {
            // Until the declaration is in the registry nothing else may take this money.
            let until = manager.clock.monotonic().plus(crate::world::RESERVED_FOR);
            let service = minimum.service.clone();
            let mut world = manager.world();
            world.expire(manager.clock.monotonic());
            if world.admitted.len() >= crate::world::ADMITTED_MAX
                && !world.admitted.contains_key(&service)
            {
                let detail = "too many minimums are being declared at once; try again in a moment";
                return Err(ApiError::new(Kind::Contended, detail).retry_after(1));
            }
            world.admitted.insert(service, (minimum, until));
            drop(world);
            AdmissionAnswer {
                admitted: true,
                needs_micros: None,
                detail: "fits the cost cap to the month's end".to_owned(),
            }
        }
        Err(refusal) => AdmissionAnswer {
            admitted: false,
            needs_micros: (refusal.needs > Money::ZERO).then_some(refusal.needs.0),
            detail: refusal.detail,
        },
    }))
}
