//! Node types: declared before nodes of them can be had.

use super::{WriteQuery, expectation, leading, registry_error, tagged};
use crate::Manager;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use chassis::{ApiError, ApiJson, ApiPath, ApiQuery};
use domain::{Currency, NodeType};
use registry::{Expect, TypeRow};
use serde_json::{Map, Value};
use std::sync::Arc;
use wire::manifest::NodeTypeManifest;
use wire::operator::List;
use wire::problem::Kind;

/// Types one cluster may declare: a person keeps an overview of dozens.
const TYPES_MAX: usize = 500;

/// The type of that name, or a refusal that names the known ones.
pub(crate) fn known(manager: &Manager, name: &str) -> Result<NodeType, ApiError> {
    leading(manager)?;
    let world = manager.world();
    if let Some(row) = world.types.iter().find(|(n, _)| n.as_str() == name).map(|(_, row)| row) {
        return Ok(row.node_type.clone());
    }
    let names: Vec<&str> = world.types.keys().map(domain::NodeTypeName::as_str).collect();
    let shown: String = name.chars().take(63).collect();
    let detail = if names.is_empty() {
        format!("no node type is named {shown:?}; none is declared: `tally apply -f` one first")
    } else {
        format!("no node type is named {shown:?}; known are: {}", names.join(", "))
    };
    Err(ApiError::new(Kind::Invalid, detail).with_error("/type", "unknown node type"))
}

/// The currency of a type's price, from its declaration.
pub(crate) fn currency(row: &TypeRow) -> Option<Currency> {
    let manifest: NodeTypeManifest = serde_json::from_str(&row.document).ok()?;
    manifest.check().ok().map(|(_, currency)| currency)
}

fn view(row: &TypeRow) -> Value {
    let mut object: Map<String, Value> = serde_json::from_str(&row.document).unwrap_or_default();
    object.insert("kind".to_owned(), Value::from("node-type"));
    object.insert("name".to_owned(), Value::from(row.name.as_str()));
    object.insert("generation".to_owned(), Value::from(row.generation.0));
    Value::Object(object)
}

/// `GET /v1/node-types`.
pub(crate) async fn list(
    State(manager): State<Arc<Manager>>,
) -> Result<Json<List<Value>>, ApiError> {
    leading(&manager)?;
    let items = manager.world().types.values().map(view).collect();
    Ok(Json(List::whole(items)))
}

fn missing(name: &str) -> ApiError {
    let shown: String = name.chars().take(63).collect();
    ApiError::new(Kind::NotFound, format!("no node type is named {shown:?}"))
}

fn row(manager: &Manager, name: &str) -> Option<TypeRow> {
    let world = manager.world();
    world.types.values().find(|row| row.name.as_str() == name).cloned()
}

/// `GET /v1/node-types/{name}`.
pub(crate) async fn get(
    State(manager): State<Arc<Manager>>,
    ApiPath(name): ApiPath<String>,
) -> Result<Response, ApiError> {
    leading(&manager)?;
    let row = row(&manager, &name).ok_or_else(|| missing(&name))?;
    Ok(tagged(StatusCode::OK, row.generation, &view(&row)))
}

/// `PUT /v1/node-types/{name}`.
pub(crate) async fn put(
    State(manager): State<Arc<Manager>>,
    ApiPath(name): ApiPath<String>,
    ApiQuery(query): ApiQuery<WriteQuery>,
    headers: HeaderMap,
    ApiJson(mut manifest): ApiJson<NodeTypeManifest>,
) -> Result<Response, ApiError> {
    leading(&manager)?;
    if manifest.name.as_ref().is_some_and(|own| *own != name) {
        let detail = "must equal the name in the path";
        return Err(
            ApiError::new(Kind::Invalid, format!("/name: {detail}")).with_error("/name", detail)
        );
    }
    manifest.kind = Some("node-type".to_owned());
    manifest.name = Some(name);
    let (node_type, currency) = manifest.check()?;
    check_provider(&manager, &node_type)?;
    check_currency(&manager, &node_type, currency)?;
    let there = row(&manager, node_type.name.as_str());
    if there.is_none() && manager.world().types.len() >= TYPES_MAX {
        let detail = format!("{TYPES_MAX} node types are declared; remove one first");
        return Err(ApiError::new(Kind::Conflict, detail));
    }
    let expect = expectation(&headers)?;
    let status = if there.is_none() { StatusCode::CREATED } else { StatusCode::OK };
    if query.dry_run {
        let generation = there.map(|row| row.generation).unwrap_or_default();
        return Ok(tagged(StatusCode::OK, generation, &manifest));
    }
    let document = serde_json::to_string(&manifest).unwrap_or_default();
    let _writer = manager.writer.lock().await;
    let written = manager.registry.put_node_type(node_type, document, expect).await;
    let row = written.map_err(|e| registry_error(&e, expect != Expect::Any))?;
    manager.world().types.insert(row.name.clone(), row.clone());
    manager.nudge.nudge();
    Ok(tagged(status, row.generation, &view(&row)))
}

/// An unknown provider would only be found out when money is already reserved.
fn check_provider(manager: &Manager, node_type: &NodeType) -> Result<(), ApiError> {
    if manager.providers.contains_key(&node_type.provider)
        || node_type.provider == crate::providers::static_::NAME
    {
        return Ok(());
    }
    let known: Vec<&str> = manager.providers.keys().map(String::as_str).collect();
    let detail = format!(
        "no provider is named {:?} here; known are: {}",
        node_type.provider,
        known.join(", ")
    );
    Err(ApiError::new(Kind::Invalid, format!("/provider: {detail}"))
        .with_error("/provider", detail))
}

/// One cluster keeps one currency: amounts of two cannot be added.
fn check_currency(
    manager: &Manager,
    node_type: &NodeType,
    currency: Currency,
) -> Result<(), ApiError> {
    let world = manager.world();
    let budget = world.budget.as_ref().map(|row| row.budget.currency);
    let others = world.types.values().filter(|row| row.name != node_type.name);
    let kept = budget.or_else(|| others.filter_map(self::currency).next());
    match kept {
        Some(kept) if kept != currency => {
            let detail = format!("this cluster keeps its money in {kept}, not in {currency}");
            let error = ApiError::new(Kind::Invalid, format!("/price_per_hour: {detail}"));
            Err(error.with_error("/price_per_hour", detail))
        }
        Some(_) | None => Ok(()),
    }
}

/// `DELETE /v1/node-types/{name}`.
pub(crate) async fn remove(
    State(manager): State<Arc<Manager>>,
    ApiPath(name): ApiPath<String>,
    ApiQuery(query): ApiQuery<WriteQuery>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    leading(&manager)?;
    let row = row(&manager, &name).ok_or_else(|| missing(&name))?;
    let living = manager.world().nodes.values().filter(|n| n.node_type == row.name).count();
    if living > 0 {
        let detail = format!("{living} nodes of type {name} are there; drain and stop them first");
        return Err(ApiError::new(Kind::Conflict, detail));
    }
    if query.dry_run {
        return Ok(StatusCode::NO_CONTENT);
    }
    let expect = expectation(&headers)?;
    let removed = manager.registry.delete_node_type(&row.name, expect).await;
    removed.map_err(|e| registry_error(&e, expect != Expect::Any))?;
    manager.world().types.remove(&row.name);
    Ok(StatusCode::NO_CONTENT)
}
