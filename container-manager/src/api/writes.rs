//! Writing services: each write goes to the registry first and only then wakes the loop.

use super::routes::{servable, unclaimed};
use super::services::{row, tagged, view};
use super::{Api, named, refused, views};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chassis::problem::{BODY_BYTES_MAX, parse_json, read_body};
use chassis::{ApiError, ApiJson, ApiPath, ApiQuery};
use domain::{Event, EventKind, Generation, Revision, ServiceName, ServiceSpec};
use registry::{Expect, ServicePut, ServiceRow};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use wire::manifest::ServiceManifest;
use wire::operator::{ScaleRequest, WakeRequest};
use wire::placement::AdmissionRequest;
use wire::problem::Kind;

/// `?dry_run=true`
#[derive(Debug, Deserialize)]
pub struct DryRun {
    #[serde(default)]
    dry_run: bool,
}

/// What `If-Match` and `If-None-Match` expect, and whether one was sent.
fn expected(headers: &HeaderMap) -> Result<(Expect, bool), ApiError> {
    let text = |name: header::HeaderName| {
        headers.get(name).map(|v| v.to_str().unwrap_or("").trim().to_owned())
    };
    let bad = |detail: &str| Err(ApiError::new(Kind::BadRequest, detail.to_owned()));
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok((Expect::Any, false)),
        (None, Some(none)) if none == "*" => Ok((Expect::Absent, true)),
        (None, Some(_)) => bad("If-None-Match takes only * on writes"),
        (Some(_), Some(_)) => bad("send If-Match or If-None-Match, not both"),
        (Some(any), None) if any == "*" => Ok((Expect::Present, true)),
        (Some(tag), None) => {
            let inner = tag.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
            match inner.and_then(|t| t.parse().ok()) {
                Some(n) => Ok((Expect::At(Generation(n)), true)),
                None => {
                    let detail = "If-Match must be an ETag of this service, such as \"3\"";
                    Err(ApiError::new(Kind::Precondition, detail))
                }
            }
        }
    }
}

fn holds(expect: Expect, present: Option<&ServiceRow>) -> Result<(), ApiError> {
    let found = present.map(|row| row.generation);
    let right = match expect {
        Expect::Any => true,
        Expect::Absent => found.is_none(),
        Expect::Present => found.is_some(),
        Expect::At(generation) => found == Some(generation),
    };
    let shown = found.map_or_else(|| "nothing".to_owned(), |g| format!("generation {g}"));
    right.then_some(()).ok_or_else(|| {
        let detail = format!("there is {shown}; read it again and decide anew");
        ApiError::new(Kind::Precondition, detail)
    })
}

/// A new route is known within milliseconds; a balancer that has not shown it after this is slow
/// or gone, and no reason to hold back the answer.
const ROUTED_MAX: Duration = Duration::from_secs(1);
/// Between two looks at what balancers show.
const ROUTED_LOOK: Duration = Duration::from_millis(3);

/// A manifest from a body, named as its path.
fn declared(name: &str, bytes: &[u8]) -> Result<(ServiceManifest, ServiceSpec), ApiError> {
    let name: ServiceName = name.parse().map_err(|e: domain::IdError| {
        ApiError::new(Kind::Invalid, e.to_string()).with_error("/name", e.to_string())
    })?;
    let mut manifest: ServiceManifest = parse_json(bytes)?;
    let own = manifest.name.get_or_insert_with(|| name.to_string());
    if own != name.as_str() {
        let detail = format!("must be {name}, as in the path");
        return Err(
            ApiError::new(Kind::Invalid, format!("/name: {detail}")).with_error("/name", detail)
        );
    }
    manifest.kind = Some("service".to_owned());
    let spec = ServiceSpec::try_from(&manifest)?;
    Ok((manifest, spec))
}

/// Whether instances must be replaced: what they are, not how many, changed.
pub fn needs_new_revision(old: &ServiceSpec, new: &ServiceSpec) -> bool {
    old.run != new.run
        || old.resources != new.resources
        || old.needs != new.needs
        || old.group != new.group
        || old.health != new.health
        || old.load.source != new.load.source
}

/// A minimum is admitted by the cost cap before it is accepted.
pub async fn admit(
    api: &Api,
    old: Option<&ServiceSpec>,
    new: &ServiceSpec,
) -> Result<(), ApiError> {
    let was = old.map(|spec| (spec.min_instances, spec.resources));
    let grows = match was {
        None => new.min_instances > 0,
        Some((min, room)) => {
            new.min_instances > min || (new.min_instances > 0 && !room.holds(new.resources))
        }
    };
    if !grows {
        return Ok(());
    }
    let request = AdmissionRequest {
        service: new.name.clone(),
        min_instances: new.min_instances,
        cpu_millis: new.resources.cpu.0,
        memory_bytes: new.resources.memory.0,
        needs: (&new.needs).into(),
    };
    match api.placements.admit(&request).await {
        Ok(Some(answer)) if !answer.admitted => {
            Err(ApiError::new(Kind::Cap, answer.detail.clone())
                .with_error("/min_instances", answer.detail))
        }
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(error = %chassis::telemetry::Chain(&error), "an admission was not answered");
            let detail = "the machine-manager cannot say whether the cost cap admits this \
                          min_instances; try again in a moment, or register with min_instances 0";
            Err(ApiError::new(Kind::Unavailable, detail).retry_after(2))
        }
    }
}

/// `PUT /v1/services/{name}`
pub async fn put(
    State(api): State<Api>,
    ApiPath(name): ApiPath<String>,
    ApiQuery(dry): ApiQuery<DryRun>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let expected = expected(&headers)?;
    let body = read_body(request.into_body(), BODY_BYTES_MAX).await?;
    let (manifest, spec) = declared(&name, &body)?;
    let rows = api.registry.services().await.map_err(|e| refused(e, false))?;
    let present = rows.into_iter().find(|row| row.name == spec.name);
    store(&api, present, (manifest, spec), expected, dry.dry_run).await
}

/// `PATCH /v1/services/{name}`: the declaration with a merge patch applied (RFC 7396).
pub async fn patch(
    State(api): State<Api>,
    ApiPath(name): ApiPath<String>,
    ApiQuery(dry): ApiQuery<DryRun>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut expect, by_header) = expected(&headers)?;
    let body = read_body(request.into_body(), BODY_BYTES_MAX).await?;
    let patch: Value = parse_json(&body)?;
    let present = row(&api, &name).await?;
    let mut document: Value =
        serde_json::from_str(&present.document).map_err(|e| ApiError::internal(&e))?;
    merge_patch(&mut document, patch);
    let (manifest, spec) = declared(&name, document.to_string().as_bytes())?;
    if expect == Expect::Any {
        // What was read is what is patched: a write in between is a conflict.
        expect = Expect::At(present.generation);
    }
    store(&api, Some(present), (manifest, spec), (expect, by_header), dry.dry_run).await
}

/// RFC 7396: objects merge, `null` removes, all else replaces.
fn merge_patch(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(&key);
            } else {
                merge_patch(target.entry(key).or_insert(Value::Null), value);
            }
        }
    }
}

/// Admits and stores a declaration, or says what storing it would give.
async fn store(
    api: &Api,
    present: Option<ServiceRow>,
    (manifest, spec): (ServiceManifest, ServiceSpec),
    (expect, by_header): (Expect, bool),
    dry_run: bool,
) -> Result<Response, ApiError> {
    holds(expect, present.as_ref())?;
    let old = present.as_ref().and_then(|row| crate::observe::parse_document(&row.document).ok());
    let old = old.as_ref();
    unclaimed(api, &spec)?;
    servable(api, &spec).await?;
    admit(api, old, &spec).await?;
    let document = serde_json::to_string(&manifest).map_err(|e| ApiError::internal(&e))?;
    let new_revision = old.is_none_or(|old| needs_new_revision(old, &spec));
    if dry_run {
        let row = dry_row(api, present, &spec, document, new_revision);
        let view = views::service(&row, &[], &api.shared.world());
        return Ok(Json(view).into_response());
    }
    let created = present.is_none();
    let put = ServicePut { name: spec.name.clone(), document, new_revision, expect };
    let row = api.registry.put_service(put).await.map_err(|e| refused(e, by_header))?;
    let what = if created { "declared" } else { "changed" };
    note(api, &row, what, &format!("generation {}, revision {}", row.generation, row.revision))
        .await;
    if created && spec.load_balanced {
        routed(api, &spec.name).await;
    }
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, tagged(&view(api, &row).await?)).into_response())
}

/// Waits until every live balancer shows that it knows the service, so that whoever declared it
/// may use it at once. No balancer, or a slow one, delays nobody for longer than [`ROUTED_MAX`].
async fn routed(api: &Api, service: &ServiceName) {
    let until = api.clock.monotonic().plus(ROUTED_MAX);
    loop {
        let known = {
            let world = api.shared.world();
            let board = &world.board;
            let fresh = |age: &Duration| *age < scoreboard::board::BALANCER_LIVE;
            let mut live = board.view.balancers.iter().filter(|b| fresh(&b.age)).peekable();
            let told = board.demand.get(service).map_or(&[][..], Vec::as_slice);
            // None seen: right after a start the first heartbeat is still to come.
            live.peek().is_some()
                && live.all(|b| told.iter().any(|(balancer, _, _)| *balancer == b.balancer))
        };
        if known || api.clock.monotonic() >= until {
            return;
        }
        tokio::time::sleep(ROUTED_LOOK).await;
    }
}

fn dry_row(
    api: &Api,
    present: Option<ServiceRow>,
    spec: &ServiceSpec,
    document: String,
    new_revision: bool,
) -> ServiceRow {
    let now = api.clock.now();
    let mut row = present.unwrap_or_else(|| ServiceRow {
        name: spec.name.clone(),
        document: String::new(),
        generation: Generation(0),
        revision: Revision(0),
        deleting: false,
        scale_hold: None,
        memory: String::new(),
        created_at: now,
        updated_at: now,
    });
    row.document = document;
    row.generation = row.generation.next();
    row.revision = Revision(row.revision.0 + u64::from(new_revision));
    row
}

/// Records an operator's act and wakes the loop.
async fn note(api: &Api, row: &ServiceRow, what: &str, detail: &str) {
    let event = Event {
        at: api.clock.now(),
        kind: EventKind::Service,
        subject: row.name.to_string(),
        what: what.to_owned(),
        detail: format!("{} was {what}: {detail}", row.name),
        values: format!("generation={} revision={}", row.generation, row.revision),
    };
    if let Err(error) = api.registry.add_events(vec![event]).await {
        tracing::warn!(error = %chassis::telemetry::Chain(&error), "an event was not recorded");
    }
    {
        api.shared.world().services_stale = true;
    }
    api.shared.nudge.nudge();
    api.shared.ring_events();
}

/// `DELETE /v1/services/{name}`
pub async fn delete(
    State(api): State<Api>,
    ApiPath(name): ApiPath<String>,
    ApiQuery(dry): ApiQuery<DryRun>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let present = row(&api, &name).await?;
    let (expect, by_header) = expected(&headers)?;
    holds(expect, Some(&present))?;
    if dry.dry_run {
        return Ok(tagged(&view(&api, &present).await?));
    }
    let row = api
        .registry
        .delete_service(&present.name, expect)
        .await
        .map_err(|e| refused(e, by_header))?;
    note(&api, &row, "removed", "its instances drain and stop").await;
    Ok((StatusCode::ACCEPTED, tagged(&view(&api, &row).await?)).into_response())
}

/// `POST /v1/services/{name}/scale`
pub async fn scale(
    State(api): State<Api>,
    ApiPath(name): ApiPath<String>,
    ApiQuery(dry): ApiQuery<DryRun>,
    ApiJson(wanted): ApiJson<ScaleRequest>,
) -> Result<Response, ApiError> {
    let present = row(&api, &name).await?;
    let spec = crate::observe::parse_document(&present.document)?;
    if let Some(n) = wanted.instances
        && !(spec.min_instances..=spec.max_instances).contains(&n)
    {
        let detail = format!("must be {} to {}", spec.min_instances, spec.max_instances);
        return Err(ApiError::new(Kind::Invalid, format!("/instances: {detail}"))
            .with_error("/instances", detail));
    }
    if dry.dry_run {
        return Ok(tagged(&view(&api, &present).await?));
    }
    let row = api
        .registry
        .hold_scale(&present.name, wanted.instances)
        .await
        .map_err(|e| refused(e, false))?;
    let detail =
        wanted.instances.map_or_else(|| "decided by load again".to_owned(), |n| format!("at {n}"));
    note(&api, &row, if wanted.instances.is_some() { "held" } else { "released" }, &detail).await;
    Ok(tagged(&view(&api, &row).await?))
}

/// `POST /v1/services/{name}/wake`: on the path of a waiting request, so nothing is read or
/// written here; a name nobody declared wakes nothing.
pub async fn wake(
    State(api): State<Api>,
    ApiPath(name): ApiPath<String>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let body = read_body(request.into_body(), BODY_BYTES_MAX).await?;
    let wake: WakeRequest =
        if body.is_empty() { WakeRequest::default() } else { parse_json(&body)? };
    let name: ServiceName = named(&name)?;
    let (known, leads) = {
        let world = api.shared.world();
        (world.services.contains_key(&name), world.lease.is_some())
    };
    if !leads {
        let detail = "this container-manager does not lead; ask the other one";
        return Err(ApiError::new(Kind::Unavailable, detail).retry_after(1));
    }
    if !known {
        row(&api, name.as_str()).await?;
        api.shared.world().services_stale = true;
    }
    api.shared.wake(name, wake.queued, api.clock.monotonic());
    Ok(StatusCode::ACCEPTED)
}

/// `POST /v1/services/{name}/restart`: a new revision of the same declaration, rolled out like any.
pub async fn restart(
    State(api): State<Api>,
    ApiPath(name): ApiPath<String>,
    ApiQuery(dry): ApiQuery<DryRun>,
) -> Result<Response, ApiError> {
    let present = row(&api, &name).await?;
    if dry.dry_run {
        return Ok(tagged(&view(&api, &present).await?));
    }
    let row = api.registry.bump_revision(&present.name).await.map_err(|e| refused(e, false))?;
    note(&api, &row, "restarted", "its instances are replaced one by one").await;
    Ok((StatusCode::ACCEPTED, tagged(&view(&api, &row).await?)).into_response())
}

#[cfg(test)]
mod tests {
    use super::merge_patch;
    use serde_json::json;

    #[test]
    fn a_merge_patch_merges_removes_and_replaces() {
        let mut document = json!({"a": {"b": 1, "c": 2}, "d": [1, 2], "e": 5});
        merge_patch(
            &mut document,
            json!({"a": {"b": null, "x": {"y": 1}}, "d": [3], "e": {"f": 1}}),
        );
        assert_eq!(document, json!({"a": {"c": 2, "x": {"y": 1}}, "d": [3], "e": {"f": 1}}));
    }
}
