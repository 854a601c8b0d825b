//! A point of every service's history each few seconds, beside the loop.

use crate::world::Shared;
use chassis::Shutdown;
use chassis::telemetry::Chain;
use domain::Clock;
use registry::{Registry, ServiceStat};
use std::sync::Arc;
use std::time::Duration;

/// Writes points until the shutdown; the registry bounds how many are kept.
pub async fn write(
    shared: Shared,
    registry: Arc<dyn Registry>,
    clock: Arc<dyn Clock>,
    every: Duration,
    shutdown: Shutdown,
) {
    loop {
        tokio::select! {
            () = shutdown.started() => return,
            () = tokio::time::sleep(every) => {}
        }
        let points = points(&shared, clock.now());
        if points.is_empty() {
            continue;
        }
        if let Err(error) = registry.add_service_stats(points).await {
            tracing::warn!(error = %Chain(&error), "the history was not written");
        }
    }
}

fn points(shared: &Shared, now: domain::Timestamp) -> Vec<ServiceStat> {
    let world = shared.world();
    if world.lease.is_none() {
        return Vec::new();
    }
    let point = |(name, report): (&domain::ServiceName, &container_planner::ServiceReport)| {
        let demand = world.board.demand.get(name);
        let rps = demand.map_or(0, |all| all.iter().map(|(_, d, _)| d.rps_milli).sum());
        ServiceStat {
            service: name.clone(),
            at: now,
            load: report.load.map(|load| u32::try_from(load).unwrap_or(u32::MAX)),
            desired: report.wanted,
            ready: report.ready,
            starting: report.starting,
            draining: report.draining,
            queued: report.queued,
            rps_milli: rps,
        }
    };
    world.reports.iter().map(point).collect()
}
