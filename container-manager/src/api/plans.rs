//! What manifests would change, without changing it: the same parser, the same planner.

use super::writes::{admit, needs_new_revision};
use super::{Api, refused};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::header;
use chassis::ApiError;
use chassis::problem::read_body;
use container_planner::{Snapshot, plan as decide};
use domain::{Epoch, Generation, IdSource, Revision, ServiceSpec};
use serde_json::Value;
use wire::manifest::{Format, Manifest, parse_text};
use wire::operator::{PlanAnswer, PlannedChange, PlannedField};
use wire::problem::Kind;

/// Largest set of manifests.
const MANIFESTS_BYTES_MAX: usize = 1 << 20;
/// Fields shown of one change.
const FIELDS_MAX: usize = 500;

/// `POST /v1/plan`: YAML, TOML or JSON manifests.
pub async fn plan(State(api): State<Api>, request: Request) -> Result<Json<PlanAnswer>, ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let format = match kind.unwrap_or("") {
        kind if kind.contains("json") => Format::Json,
        kind if kind.contains("toml") => Format::Toml,
        _ => Format::Yaml,
    };
    let body = read_body(request.into_body(), MANIFESTS_BYTES_MAX).await?;
    let text = std::str::from_utf8(&body)
        .map_err(|e| ApiError::new(Kind::BadRequest, format!("the body is not UTF-8: {e}")))?;
    let mut changes = Vec::new();
    for manifest in parse_text(text, format)? {
        changes.push(change(&api, manifest).await?);
    }
    Ok(Json(PlanAnswer { changes }))
}

async fn change(api: &Api, manifest: Manifest) -> Result<PlannedChange, ApiError> {
    let to = manifest.to_value();
    match &manifest {
        Manifest::Service(service) => {
            let spec = ServiceSpec::try_from(&**service)?;
            service_change(api, spec, to).await
        }
        Manifest::NodeType(node_type) => {
            let name = node_type.check()?.0.name.to_string();
            let types = api.registry.node_types().await.map_err(|e| refused(e, false))?;
            let row = types.into_iter().find(|row| row.name.as_str() == name);
            let (from, at) =
                row.map_or((None, Generation(0)), |r| (Some(r.document), r.generation));
            Ok(compared("node-type", name, from.as_deref(), to, at))
        }
        Manifest::Budget(budget) => {
            domain::Budget::try_from(budget)?;
            let row = api.registry.budget().await.map_err(|e| refused(e, false))?;
            let (from, at) =
                row.map_or((None, Generation(0)), |r| (Some(r.document), r.budget.generation));
            Ok(compared("budget", String::new(), from.as_deref(), to, at))
        }
    }
}

async fn service_change(
    api: &Api,
    spec: ServiceSpec,
    to: Value,
) -> Result<PlannedChange, ApiError> {
    let rows = api.registry.services().await.map_err(|e| refused(e, false))?;
    let row = rows.into_iter().find(|row| row.name == spec.name);
    let old = row.as_ref().and_then(|row| crate::observe::parse_document(&row.document).ok());
    let at = row.as_ref().map_or(Generation(0), |row| row.generation);
    let document = row.as_ref().map(|row| row.document.as_str());
    let mut change = compared("service", spec.name.to_string(), document, to, at);
    if change.action == "none" {
        return Ok(change);
    }
    if let Err(refusal) = admit(api, old.as_ref(), &spec).await {
        change.effects.push(format!("would be refused: {}", refusal.problem.detail));
    }
    let anew = old.as_ref().is_some_and(|old| needs_new_revision(old, &spec));
    change.effects.extend(effects(api, spec, anew));
    Ok(change)
}

/// What the planner would do next with this declaration, in its own words.
fn effects(api: &Api, spec: ServiceSpec, new_revision: bool) -> Vec<String> {
    let mut snapshot: Snapshot = {
        let world = api.shared.world();
        let epoch = world.lease.as_ref().map_or(Epoch(0), |lease| lease.epoch);
        crate::observe::snapshot(&world, &*api.clock, epoch)
    };
    let name = spec.name.clone();
    let mut effects = Vec::new();
    match snapshot.services.iter_mut().find(|s| s.name == name) {
        Some(service) => {
            service.spec = spec;
            if new_revision {
                service.revision = Revision(service.revision.0 + 1);
                let n = service.instances.len();
                effects.push(format!("{n} instances would be replaced, one by one"));
            }
        }
        None => snapshot.services.push(container_planner::ServiceView {
            name: name.clone(),
            spec,
            revision: Revision(1),
            fallback: None,
            deleting: false,
            hold: None,
            wake: None,
            memory: container_planner::Memory::default(),
            demand: std::collections::BTreeMap::new(),
            instances: Vec::new(),
            cost_per_hour: domain::Money::ZERO,
        }),
    }
    snapshot.services.retain(|service| service.name == name);
    let made = decide(&snapshot, &api.policy, &mut Imagined(0));
    effects.extend(made.services.iter().map(|service| service.report.to_string()));
    effects
}

/// Ids of instances that will never be.
struct Imagined(u64);

impl IdSource for Imagined {
    fn random_part(&mut self) -> String {
        self.0 += 1;
        format!("{:010}", self.0 % 10_000_000_000)
    }
}

fn compared(
    kind: &str,
    name: String,
    from: Option<&str>,
    to: Value,
    generation: Generation,
) -> PlannedChange {
    let old = from.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
    let mut fields = Vec::new();
    differ(String::new(), &old, &to, &mut fields);
    fields.truncate(FIELDS_MAX);
    let action = match (from.is_some(), fields.is_empty()) {
        (false, _) => "create",
        (true, true) => "none",
        (true, false) => "change",
    };
    PlannedChange {
        kind: kind.to_owned(),
        name,
        action: action.to_owned(),
        fields,
        effects: Vec::new(),
        generation,
    }
}

fn differ(pointer: String, from: &Value, to: &Value, out: &mut Vec<PlannedField>) {
    let (Value::Object(a), Value::Object(b)) = (from, to) else {
        if from != to {
            out.push(PlannedField { pointer, from: from.clone(), to: to.clone() });
        }
        return;
    };
    let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let deeper = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
        let null = Value::Null;
        differ(deeper, a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null), out);
    }
}
