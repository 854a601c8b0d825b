//! `/livez`, `/readyz` and `/metrics`, the same on every role.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A role's metrics.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// None yet.
    #[must_use]
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// Registers metrics; call once per role, before its loop begins.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The OpenMetrics text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if prometheus_client::encoding::text::encode(&mut text, &registry).is_err() {
            tracing::error!("the metrics cannot be written as text");
        }
        text
    }
}

/// What a role still misses before it can serve. Empty: ready.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Readiness {
    /// Ready from the start.
    #[must_use]
    pub fn new() -> Readiness {
        Readiness::default()
    }

    /// Something is missing.
    pub fn missing(&self, what: &'static str, why: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(what, why.into());
    }

    /// It is there.
    pub fn have(&self, what: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(what);
    }

    /// What is missing.
    #[must_use]
    pub fn all_missing(&self) -> BTreeMap<&'static str, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The three paths.
pub fn router(metrics: Metrics, readiness: Readiness) -> Router {
    let readyz = move || {
        let missing = readiness.all_missing();
        async move {
            if missing.is_empty() {
                return (StatusCode::OK, "ready\n".to_owned());
            }
            let lines: Vec<String> =
                missing.iter().map(|(what, why)| format!("{what}: {why}\n")).collect();
            (StatusCode::SERVICE_UNAVAILABLE, lines.concat())
        }
    };
    let text = move || {
        let text = metrics.render();
        async move {
            const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, TYPE)], text).into_response()
        }
    };
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(text))
}
