//! The last view on disk: a balancer that starts while the board is away serves what it knew.

mod first;

use crate::Shared;
use crate::control::SharedWorld;
use crate::learn::World;
use chassis::Shutdown;
use domain::{RouteTable, ServiceFront};
use scoreboard::{codec, keys};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a changed view is written: a restart loses at most this much news.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Version of the file. The first one is read too; others are not.
const VERSION: u32 = 2;

/// The file: fronts and routes in the forms in which they stand on the board.
#[derive(Serialize, Deserialize, PartialEq, Clone)]
struct Saved {
    version: u32,
    services: Vec<SavedService>,
}

#[derive(Serialize, Deserialize, PartialEq, Clone)]
struct SavedService {
    service: String,
    front: serde_json::Value,
    /// As the board's hash of routes; absent while unknown.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    routes: BTreeMap<String, String>,
}

impl SavedService {
    /// `None` where a front has no form on the board, which does not happen.
    fn of(front: &ServiceFront, table: Option<&RouteTable>) -> Option<SavedService> {
        let mut routes = BTreeMap::new();
        if let Some(table) = table {
            let entries = table.entries.iter();
            routes.extend(entries.map(|e| (e.instance.to_string(), codec::route(e))));
            routes.insert(keys::ROUTES_GEN.to_owned(), table.generation.to_string());
        }
        let front_text = codec::front(front).ok()?;
        let text = serde_json::from_str(&front_text).ok()?;
        Some(SavedService { service: front.service.to_string(), front: text, routes })
    }

    fn read(&self) -> Result<(ServiceFront, Option<RouteTable>), String> {
        let service = self.service.parse().map_err(|e: domain::IdError| e.to_string())?;
        let front = codec::read_front(&service, &self.front.to_string())?;
        let fields: Vec<(String, String)> =
            self.routes.iter().map(|(field, value)| (field.clone(), value.clone())).collect();
        Ok((front, codec::read_routes(&fields)?))
    }
}

/// What a file says; `Err` says what is wrong with it.
fn read(bytes: &[u8]) -> Result<Vec<SavedService>, String> {
    #[derive(Deserialize)]
    struct Peek {
        version: u32,
    }
    let bad = |e: serde_json::Error| e.to_string();
    match serde_json::from_slice::<Peek>(bytes).map_err(bad)?.version {
        VERSION => Ok(serde_json::from_slice::<Saved>(bytes).map_err(bad)?.services),
        1 => first::read(bytes).map_err(bad),
        other => Err(format!("its version {other} is unknown")),
    }
}

/// How many services of a file can be read.
#[cfg(feature = "testing")]
pub fn readable(bytes: &[u8]) -> usize {
    let services = read(bytes).unwrap_or_default();
    services.iter().filter(|service| service.read().is_ok()).count()
}

/// Fills a fresh world from disk; true when a view was found. A broken file is as none, and said;
/// a broken service is as none, and the others are used.
pub fn restore(path: &Path, shared: &Shared, world: &mut World) -> bool {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return false,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the saved view cannot be read");
            return false;
        }
    };
    let saved = match read(&bytes) {
        Ok(saved) => saved,
        Err(error) => {
            tracing::warn!(path = %path.display(), error, "the saved view is not used");
            return false;
        }
    };
    let now = shared.clock.monotonic();
    let mut any = false;
    for service in &saved {
        match service.read() {
            Ok((front, table)) => {
                any = true;
                world.take_front(shared, &front, now);
                if let Some(table) = table {
                    world.take_routes(&front.service, &table, now);
                }
            }
            Err(error) => {
                tracing::warn!(service = service.service, error, "a saved service is not used");
            }
        }
    }
    world.refresh(now);
    any
}

/// Writes the view whenever it changed.
pub async fn keep(path: PathBuf, world: SharedWorld, shutdown: Shutdown) {
    let mut last: Option<Vec<(ServiceFront, Option<RouteTable>)>> = None;
    let mut ending = false;
    while !ending {
        tokio::select! {
            () = shutdown.started() => ending = true,
            () = tokio::time::sleep(SAVE_EVERY) => {}
        }
        let known = world.lock().saved();
        if known.is_empty() || last.as_ref() == Some(&known) {
            continue;
        }
        let services =
            known.iter().filter_map(|(front, table)| SavedService::of(front, table.as_ref()));
        let saved = Saved { version: VERSION, services: services.collect() };
        match write(&path, &saved).await {
            Ok(()) => last = Some(known),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the view cannot be saved");
            }
        }
    }
}

/// Whole or not at all: a new file takes the old one's place.
async fn write(path: &Path, saved: &Saved) -> io::Result<()> {
    let text = serde_json::to_vec(saved).map_err(io::Error::other)?;
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    tokio::fs::write(&fresh, &text).await?;
    let file = tokio::fs::File::open(&fresh).await?;
    file.sync_all().await?;
    tokio::fs::rename(&fresh, path).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{front, shared};
    use domain::{RouteEntry, RouteState};

    #[test]
    fn a_view_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("view.json");
        let entry = RouteEntry {
            instance: "shop-0000000001".parse().unwrap(),
            address: "[::1]:80".parse().unwrap(),
            state: RouteState::Draining,
            weight: 50,
            max_in_flight: 7,
            revision: domain::Revision(3),
        };
        let table = RouteTable { generation: "5.9".parse().unwrap(), entries: vec![entry] };
        let mut known = front("shop");
        known.health.path = Some("/up".to_owned());
        let saved = |front, table| SavedService::of(front, table).unwrap();
        let services = vec![saved(&known, Some(&table)), saved(&front("web"), None)];
        let text = serde_json::to_vec(&Saved { version: VERSION, services }).unwrap();
        std::fs::write(&path, text).unwrap();
        let (shared, mut world) = (shared(), World::new(1));
        assert!(restore(&path, &shared, &mut world));
        assert_eq!(world.saved(), [(known, Some(table)), (front("web"), None)]);
    }

    #[test]
    fn a_view_of_the_first_version_is_read() {
        let text = br#"{"version":1,"services":[{"service":"shop","hosts":["a"],"paths":["/"],
            "mode":"http","port":null,"policy":"p2c","hold_requests":5,"hold_bytes":6,
            "hold_deadline_ms":7000,"concurrency":4,"max_in_flight":8,"slow_start_ms":9000,
            "source":null,"load_balanced":true,"revision":2,"startable":true,
            "routes":{"epoch":1,"generation":2,"entries":[{"instance":"shop-0000000001",
            "address":"127.0.0.1:80","draining":false,"weight":100,"max_in_flight":8,
            "revision":2}]}}]}"#;
        let (front, table) = read(text).unwrap()[0].read().unwrap();
        assert_eq!((front.policy, front.hold.requests), (domain::PolicyName::P2c, 5));
        assert_eq!(front.hold.deadline, Duration::from_secs(7));
        let table = table.unwrap();
        assert_eq!(table.generation.to_string(), "1.2");
        assert_eq!(table.entries[0].state, RouteState::Ready);
    }

    #[test]
    fn what_is_broken_is_not_used() {
        for bad in ["", "{}", r#"{"version":9}"#, r#"{"version":2}"#, r#"{"version":1}"#] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("view.json");
        let text = r#"{"version":2,"services":[{"service":"shop","front":{"hosts":7}}]}"#;
        std::fs::write(&path, text).unwrap();
        let (shared, mut world) = (shared(), World::new(1));
        assert!(!restore(&path, &shared, &mut world));
        assert!(world.saved().is_empty());
    }
}
