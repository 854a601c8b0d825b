//! The last view on disk: a balancer that starts while the board is away serves what it knew.

use crate::Shared;
use crate::control::SharedWorld;
use crate::learn::World;
use chassis::Shutdown;
use domain::service::Hold;
use domain::{
    Bytes, Epoch, Generation, LoadSource, Revision, RouteEntry, RouteGen, RouteMode, RouteState,
    RouteTable, ServiceFront,
};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a changed view is written: a restart loses at most this much news.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Version of the file; another one is not read.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize, PartialEq, Clone)]
struct Saved {
    version: u32,
    services: Vec<SavedService>,
}

#[derive(Serialize, Deserialize, PartialEq, Clone)]
struct SavedService {
    service: String,
    hosts: Vec<String>,
    paths: Vec<String>,
    mode: String,
    port: Option<u16>,
    policy: String,
    hold_requests: u32,
    hold_bytes: u64,
    hold_deadline_ms: u64,
    concurrency: Option<u32>,
    max_in_flight: u32,
    slow_start_ms: u64,
    source: Option<String>,
    load_balanced: bool,
    revision: u64,
    startable: bool,
    routes: Option<SavedRoutes>,
}

#[derive(Serialize, Deserialize, PartialEq, Clone)]
struct SavedRoutes {
    epoch: u64,
    generation: u64,
    entries: Vec<SavedEntry>,
}

#[derive(Serialize, Deserialize, PartialEq, Clone)]
struct SavedEntry {
    instance: String,
    address: String,
    draining: bool,
    weight: u32,
    max_in_flight: u32,
    revision: u64,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl SavedService {
    fn of(front: &ServiceFront, table: Option<&RouteTable>) -> SavedService {
        SavedService {
            service: front.service.as_str().to_owned(),
            hosts: front.hosts.clone(),
            paths: front.paths.clone(),
            mode: front.mode.as_str().to_owned(),
            port: front.port,
            policy: front.policy.as_str().to_owned(),
            hold_requests: front.hold.requests,
            hold_bytes: front.hold.bytes.0,
            hold_deadline_ms: millis(front.hold.deadline),
            concurrency: front.concurrency,
            max_in_flight: front.max_in_flight,
            slow_start_ms: millis(front.slow_start),
            source: front.source.map(|s| s.as_str().to_owned()),
            load_balanced: front.load_balanced,
            revision: front.revision.0,
            startable: front.startable,
            routes: table.map(|table| SavedRoutes {
                epoch: table.generation.epoch.0,
                generation: table.generation.generation.0,
                entries: table.entries.iter().map(SavedEntry::of).collect(),
            }),
        }
    }

    fn front(&self) -> Option<ServiceFront> {
        let modes = [RouteMode::Http, RouteMode::Tcp, RouteMode::Nat];
        Some(ServiceFront {
            service: self.service.parse().ok()?,
            hosts: self.hosts.clone(),
            paths: self.paths.clone(),
            mode: modes.into_iter().find(|m| m.as_str() == self.mode)?,
            port: self.port,
            policy: self.policy.parse().ok()?,
            hold: Hold {
                requests: self.hold_requests,
                bytes: Bytes(self.hold_bytes),
                deadline: Duration::from_millis(self.hold_deadline_ms),
            },
            concurrency: self.concurrency,
            max_in_flight: self.max_in_flight,
            slow_start: Duration::from_millis(self.slow_start_ms),
            source: self.source.as_deref().and_then(|s| s.parse::<LoadSource>().ok()),
            load_balanced: self.load_balanced,
            revision: Revision(self.revision),
            startable: self.startable,
        })
    }

    fn table(&self) -> Option<RouteTable> {
        let routes = self.routes.as_ref()?;
        let generation =
            RouteGen { epoch: Epoch(routes.epoch), generation: Generation(routes.generation) };
        let entries = routes.entries.iter().map(SavedEntry::entry).collect::<Option<_>>()?;
        Some(RouteTable { generation, entries })
    }
}

impl SavedEntry {
    fn of(entry: &RouteEntry) -> SavedEntry {
        SavedEntry {
            instance: entry.instance.as_str().to_owned(),
            address: entry.address.to_string(),
            draining: entry.state == RouteState::Draining,
            weight: entry.weight,
            max_in_flight: entry.max_in_flight,
            revision: entry.revision.0,
        }
    }

    fn entry(&self) -> Option<RouteEntry> {
        Some(RouteEntry {
            instance: self.instance.parse().ok()?,
            address: self.address.parse().ok()?,
            state: if self.draining { RouteState::Draining } else { RouteState::Ready },
            weight: self.weight,
            max_in_flight: self.max_in_flight,
            revision: Revision(self.revision),
        })
    }
}

/// Fills a fresh world from disk; true when a view was found. A broken file is as none, and said.
pub fn restore(path: &Path, shared: &Shared, world: &mut World) -> bool {
    let saved = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice::<Saved>(&bytes).ok().filter(|s| s.version == VERSION),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return false,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the saved view cannot be read");
            return false;
        }
    };
    let Some(saved) = saved else {
        tracing::warn!(path = %path.display(), "the saved view is unreadable and not used");
        return false;
    };
    let now = shared.clock.monotonic();
    for service in &saved.services {
        let Some(front) = service.front() else { continue };
        world.take_front(shared, &front, now);
        if let Some(table) = service.table() {
            world.take_routes(&front.service, &table, now);
        }
    }
    world.refresh(now);
    !saved.services.is_empty()
}

/// Writes the view whenever it changed.
pub async fn keep(path: PathBuf, world: SharedWorld, shutdown: Shutdown) {
    let mut last: Option<Saved> = None;
    let mut ending = false;
    while !ending {
        tokio::select! {
            () = shutdown.started() => ending = true,
            () = tokio::time::sleep(SAVE_EVERY) => {}
        }
        let services = world.lock().saved();
        let services: Vec<_> =
            services.iter().map(|(front, table)| SavedService::of(front, table.as_ref())).collect();
        let saved = Saved { version: VERSION, services };
        if saved.services.is_empty() || last.as_ref() == Some(&saved) {
            continue;
        }
        match write(&path, &saved).await {
            Ok(()) => last = Some(saved),
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
