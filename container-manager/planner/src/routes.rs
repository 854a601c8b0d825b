//! Which instances balancers may know, and the version of that knowledge.

use crate::memory::Memory;
use crate::snapshot::{ServiceView, Snapshot};
use domain::route::{RouteEntry, RouteGen, RouteState, RouteTable};
use domain::{Generation, Instance, InstanceState};
use std::fmt::Write as _;

/// An equal share of requests, in percent.
const WEIGHT_NORMAL: u32 = 100;

/// FNV-1a, 64 bit: equal contents are equal values, across processes and versions.
#[must_use]
pub fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The service's routes; their version is raised when their content or the term changed. Notes the
/// version at which each draining instance was first shown so.
pub fn table(
    service: &ServiceView,
    rows: &[Instance],
    memory: &mut Memory,
    snapshot: &Snapshot,
) -> (RouteTable, bool) {
    let entries = entries(service, rows);
    let mut text = String::new();
    for e in &entries {
        let written = write!(
            text,
            "{} {} {:?} {} {} {};",
            e.instance, e.address, e.state, e.weight, e.max_in_flight, e.revision
        );
        debug_assert!(written.is_ok(), "writing to a string");
    }
    let now = digest(&text);
    let ours = memory.routes_gen.epoch == snapshot.epoch;
    let changed = !ours || memory.routes_digest != now;
    if changed {
        // A service that was removed and is declared again is remembered by nobody here, but maybe
        // by a balancer: time makes its first version newer than its last one.
        let first = Generation(u64::try_from(snapshot.now.0).unwrap_or(0));
        let generation = if ours { memory.routes_gen.generation } else { first };
        memory.routes_gen = RouteGen { epoch: snapshot.epoch, generation: generation.next() };
        memory.routes_digest = now;
    }
    let generation = memory.routes_gen;
    for row in rows.iter().filter(|row| row.state == InstanceState::Draining) {
        let known = memory.instances.entry(row.id.clone()).or_default();
        known.drain_gen.get_or_insert(generation);
    }
    (RouteTable { generation, entries }, changed)
}

fn entries(service: &ServiceView, rows: &[Instance]) -> Vec<RouteEntry> {
    if !service.spec.load_balanced {
        return Vec::new();
    }
    let any_ready = rows.iter().any(|row| row.state == InstanceState::Ready);
    let mut entries: Vec<RouteEntry> = rows
        .iter()
        .filter_map(|row| {
            let state = match row.state {
                InstanceState::Ready => RouteState::Ready,
                InstanceState::Draining => RouteState::Draining,
                // The managers may be the ones who are cut off: better than nothing at all.
                InstanceState::Lost if !any_ready => RouteState::Ready,
                InstanceState::Lost
                | InstanceState::Wanted
                | InstanceState::Starting
                | InstanceState::Paused
                | InstanceState::Stopping
                | InstanceState::Failed
                | InstanceState::Stopped => return None,
            };
            Some(RouteEntry {
                instance: row.id.clone(),
                address: row.address?,
                state,
                weight: WEIGHT_NORMAL,
                max_in_flight: service.spec.load.max_in_flight,
                revision: row.revision,
            })
        })
        .collect();
    entries.sort_by(|a, b| a.instance.cmp(&b.instance));
    entries
}
