//! What the demo sees while it runs, read through the API as any client would.

use super::summary::Moment;
use anyhow::Context;
use chassis::{Client, Shutdown, SystemClock};
use domain::{Clock, Mono};
use registry::Registry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wire::operator::{BudgetView, InstanceView, List, NodeView, ServiceView};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(200);
/// One answer must be there within this.
const LIMIT: Duration = Duration::from_secs(5);
/// Events read at once.
const EVENTS_MAX: usize = 500;

/// The newest look and what was ever seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The service, once declared.
    pub service: Option<ServiceView>,
    /// Its instances that have not stopped.
    pub instances: Vec<InstanceView>,
    /// Nodes that have not stopped.
    pub nodes: Vec<NodeView>,
    /// The money.
    pub budget: Option<BudgetView>,
    /// Most instances ready at once.
    pub instances_max: u32,
    /// Most nodes at once.
    pub nodes_max: u32,
    /// The story so far.
    pub timeline: Vec<Moment>,
    /// Number of the last event read.
    last_event: u64,
}

/// Looks again and again.
pub struct Watch {
    /// The API.
    pub api: Client,
    /// For events.
    pub registry: Arc<dyn Registry>,
    /// Time.
    pub clock: SystemClock,
    /// When the demo began.
    pub began: Mono,
    /// What was seen.
    pub seen: Arc<Mutex<Seen>>,
}

impl Watch {
    /// Looks until the shutdown starts.
    pub async fn run(self, shutdown: Shutdown) {
        while !shutdown.has_started() {
            if let Err(error) = self.look().await {
                tracing::debug!(error = %format!("{error:#}"), "a look failed");
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// One look.
    pub async fn look(&self) -> anyhow::Result<()> {
        let name = super::script::SERVICE;
        let service: ServiceView =
            self.api.get(&format!("/v1/services/{name}"), LIMIT).await.context("service")?;
        let instances: List<InstanceView> = self
            .api
            .get(&format!("/v1/services/{name}/instances"), LIMIT)
            .await
            .context("instances")?;
        let nodes: List<NodeView> = self.api.get("/v1/nodes", LIMIT).await.context("nodes")?;
        let budget: BudgetView = self.api.get("/v1/budget", LIMIT).await.context("budget")?;
        let from = self.seen.lock().unwrap_or_else(PoisonError::into_inner).last_event;
        let events = self.registry.events_after(from, EVENTS_MAX).await.context("events")?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.instances = instances.items;
        seen.nodes = nodes.items.into_iter().filter(|n| n.state != "stopped").collect();
        let ready = seen.instances.iter().filter(|i| i.state == "ready").count();
        seen.instances_max = seen.instances_max.max(u32::try_from(ready).unwrap_or(u32::MAX));
        let nodes = u32::try_from(seen.nodes.len()).unwrap_or(u32::MAX);
        seen.nodes_max = seen.nodes_max.max(nodes);
        seen.service = Some(service);
        seen.budget = Some(budget);
        let at_seconds = self.clock.monotonic().since(self.began).as_secs_f64();
        for stored in events {
            seen.last_event = stored.seq;
            let event = stored.event;
            seen.timeline.push(Moment {
                at_seconds,
                event: format!("{}.{}", event.kind.as_str(), event.what),
                detail: format!("{}: {}", event.subject, event.detail),
            });
        }
        Ok(())
    }
}

impl Seen {
    /// Adds a line of the demo's own.
    pub fn tell(&mut self, at_seconds: f64, event: &str, detail: impl Into<String>) {
        self.timeline.push(Moment { at_seconds, event: event.to_owned(), detail: detail.into() });
    }

    /// Instances that have not stopped or failed for good.
    pub fn instances_now(&self) -> u32 {
        let here = self.instances.iter().filter(|i| i.state != "stopped");
        u32::try_from(here.count()).unwrap_or(u32::MAX)
    }
}
