//! The first version of the saved view, which had a shape of its own.

use super::SavedService;
use scoreboard::keys;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct First {
    services: Vec<FirstService>,
}

#[derive(Deserialize)]
struct FirstService {
    service: String,
    hold_requests: u32,
    hold_bytes: u64,
    hold_deadline_ms: u64,
    routes: Option<FirstRoutes>,
    /// The rest has the names it has on the board.
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
struct FirstRoutes {
    epoch: u64,
    generation: u64,
    entries: Vec<FirstEntry>,
}

#[derive(Deserialize)]
struct FirstEntry {
    instance: String,
    address: String,
    draining: bool,
    weight: u32,
    max_in_flight: u32,
    revision: u64,
}

/// Reads it into the present shape.
///
/// # Errors
/// What is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Vec<SavedService>, serde_json::Error> {
    let first: First = serde_json::from_slice(bytes)?;
    Ok(first.services.into_iter().map(FirstService::now).collect())
}

impl FirstService {
    fn now(self) -> SavedService {
        let mut front = self.rest;
        let hold = json!({
            "requests": self.hold_requests,
            "bytes": self.hold_bytes,
            "deadline_ms": self.hold_deadline_ms,
        });
        front.insert("hold".to_owned(), hold);
        let mut routes = BTreeMap::new();
        if let Some(table) = self.routes {
            routes.extend(table.entries.iter().map(|e| (e.instance.clone(), e.line())));
            let generation = format!("{}.{}", table.epoch, table.generation);
            routes.insert(keys::ROUTES_GEN.to_owned(), generation);
        }
        SavedService { service: self.service, front: Value::Object(front), routes }
    }
}

impl FirstEntry {
    fn line(&self) -> String {
        let FirstEntry { address, weight, max_in_flight, revision, .. } = self;
        let state = if self.draining { "draining" } else { "ready" };
        format!("{address} {state} {weight} {max_in_flight} {revision}")
    }
}
