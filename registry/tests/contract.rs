//! Both registries keep the contract.
#![expect(clippy::unwrap_used, reason = "a test: what fails shall fail loudly")]

use registry::contract::{HandClock, Subject};
use registry::{Limits, MemoryRegistry, SqliteRegistry};
use std::sync::Arc;

fn in_memory(clock: Arc<HandClock>, limits: Limits) -> Subject {
    let registry = Arc::new(MemoryRegistry::with_limits(clock.clone(), limits));
    Subject { registry, clock, keep: Box::new(()) }
}

fn in_a_file(clock: Arc<HandClock>, limits: Limits) -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.sqlite");
    let registry = Arc::new(SqliteRegistry::open_with(&path, clock.clone(), limits).unwrap());
    Subject { registry, clock, keep: Box::new(directory) }
}

mod memory {
    registry::registry_contract!(super::in_memory);
}

mod sqlite {
    registry::registry_contract!(super::in_a_file);
}
