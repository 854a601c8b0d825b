//! The service on the scoreboard: published, kept there, and changed when names get other addresses.

use super::targets::{Found, Target, Targets, Wanted};
use anyhow::Context;
use chassis::Shutdown;
use domain::{
    BalancerId, Clock, Epoch, Generation, PolicyName, RouteEntry, RouteGen, RouteMode, RouteState,
    RouteTable, ServiceFront,
};
use scoreboard::{Board, BoardError};
use std::sync::Arc;
use std::time::Duration;

/// Names are looked up again, and the board is looked at, this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// While waiting for the balancer.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What stands on the board.
pub struct Published {
    front: ServiceFront,
    found: Found,
    generation: RouteGen,
}

impl Published {
    /// A service that is not published yet, under a term that begins now.
    #[must_use]
    pub fn new(front: ServiceFront, found: Found, clock: &dyn Clock) -> Published {
        let seconds = u64::try_from(clock.now().0 / 1000).unwrap_or(0);
        let generation = RouteGen { epoch: Epoch(seconds), generation: Generation(1) };
        Published { front, found, generation }
    }

    /// What the balancer serves before it has read a board.
    #[must_use]
    pub fn known(&self) -> (ServiceFront, RouteTable) {
        (self.front.clone(), self.table())
    }

    /// Publishes it for the first time; false when the board is away, and it is tried again later.
    ///
    /// # Errors
    /// When the board is there and does not take it.
    pub async fn first(&mut self, board: &dyn Board) -> anyhow::Result<bool> {
        match self.publish(board).await {
            Ok(()) => Ok(true),
            Err(error @ (BoardError::Unreachable { .. } | BoardError::Deadline { .. })) => {
                let error = chassis::telemetry::Chain(&error).to_string();
                tracing::debug!(error, "the scoreboard is away");
                Ok(false)
            }
            Err(error) => {
                Err(error).context("the scoreboard takes no routes; start it, or leave --redis out")
            }
        }
    }

    /// How requests are passed on.
    #[must_use]
    pub fn mode(&self) -> RouteMode {
        self.front.mode
    }

    /// How an instance is chosen.
    #[must_use]
    pub fn policy(&self) -> &'static str {
        PolicyName::as_str(self.front.policy)
    }

    /// The instances.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.found
    }

    fn table(&self) -> RouteTable {
        let entry = |target: &Target| RouteEntry {
            instance: target.instance.clone(),
            address: target.address,
            state: RouteState::Ready,
            weight: 100,
            max_in_flight: self.front.max_in_flight,
            revision: self.front.revision,
        };
        RouteTable { generation: self.generation, entries: self.found.iter().map(entry).collect() }
    }

    /// Publishes front and routes; above what another proxy published meanwhile.
    async fn publish(&mut self, board: &dyn Board) -> Result<(), BoardError> {
        board.publish_front(&self.front).await?;
        let service = &self.front.service;
        let stands = board.publish_routes(service, &self.table()).await?;
        if stands > self.generation {
            let next = Generation(stands.generation.0 + 1);
            self.generation = RouteGen { epoch: stands.epoch, generation: next };
            board.publish_routes(service, &self.table()).await?;
        }
        Ok(())
    }

    /// Waits until our balancer acts on the routes.
    ///
    /// # Errors
    /// When it says why it cannot.
    pub async fn in_use(&self, board: &dyn Board, id: &BalancerId) -> anyhow::Result<()> {
        loop {
            let said = board.abilities().await.unwrap_or_default().remove(id);
            if let Some(ability) = said {
                if let Some(why) = ability.troubles.get(&self.front.service) {
                    anyhow::bail!("{why}");
                }
                if let (RouteMode::Nat, Some(why)) = (self.front.mode, ability.nat_lacks) {
                    anyhow::bail!("--mode nat: {why}");
                }
            }
            let demand = board.demand().await.unwrap_or_default();
            let ours = demand.get(&self.front.service).into_iter().flatten();
            if ours.clone().any(|(name, said, _)| name == id && said.routes_gen >= self.generation)
            {
                return Ok(());
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Keeps the service on the board, and its addresses those of the names.
    pub async fn keep(mut self, wanted: Vec<Wanted>, board: Arc<dyn Board>, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.started() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            match Targets::look_up(&wanted).await {
                Ok(found) if found != self.found => {
                    tracing::info!(instances = found.len(), "names have other addresses now");
                    self.found = found;
                    self.generation.generation.0 += 1;
                }
                Ok(_same) => {}
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "the addresses stay as they were");
                }
            }
            let Ok(view) = board.service(&self.front.service).await else { continue };
            let stands = view.routes.map(|table| table.generation);
            let ours = stands.is_some_and(|stands| stands >= self.generation);
            if (!ours || view.front.is_none())
                && let Err(error) = self.publish(&*board).await
            {
                tracing::debug!(%error, "the service could not be published");
            }
        }
    }
}
