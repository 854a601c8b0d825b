//! One link per node: hands its executor the newest assignment, follows what it sees.

use crate::executors::{Assigned, Events, ExecutorAt, ExecutorError, Executors};
use crate::world::{LinkView, Shared};
use chassis::Shutdown;
use chassis::backoff::Backoff;
use chassis::telemetry::Chain;
use domain::{Clock, Generation, InstanceState, NodeId};
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use wire::assignment::{Assignment, ExecutorEvent, Inventory, RunState};

/// An executor beats every second; without a line for this long the stream is taken for dead.
const SILENCE: Duration = Duration::from_secs(3);
/// First wait before an executor is called again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// Longest wait: a node that returns is noticed within a beat.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// What all links share.
#[derive(Clone)]
pub struct Links {
    /// The world and its bells.
    pub shared: Shared,
    /// The seam.
    pub executors: Arc<dyn Executors>,
    /// For ages.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

/// The links that run, by address.
#[derive(Debug, Default)]
pub struct Running(BTreeMap<ExecutorAt, Shutdown>);

impl Running {
    /// Starts links to new executors and ends those to gone ones.
    pub fn follow(&mut self, links: &Links, wanted: Vec<ExecutorAt>, shutdown: &Shutdown) {
        self.0.retain(|at, end| {
            let stays = wanted.contains(at);
            if !stays {
                end.start();
                links.shared.world().links.remove(&at.node);
            }
            stays
        });
        for at in wanted {
            if self.0.contains_key(&at) {
                continue;
            }
            let end = shutdown.branch();
            let view = LinkView { since: links.clock.monotonic(), ..LinkView::default() };
            links.shared.world().links.insert(at.node.clone(), view);
            let (events, hands) = (links.clone(), links.clone());
            let (ending, ending_too) = (end.clone(), end.clone());
            let (from, to) = (at.clone(), at.clone());
            // One task hears while the other hands over: a slow disk there deafens nobody.
            shutdown.spawn(async move { events.hear(from, ending).await });
            shutdown.spawn(async move { hands.hand_over(to, ending_too).await });
            self.0.insert(at, end);
        }
    }

    /// Ends all.
    pub fn end(&mut self) {
        for end in self.0.values() {
            end.start();
        }
        self.0.clear();
    }
}

impl Links {
    /// Sends the newest assignment until it is accepted; waits for the next one.
    async fn hand_over(&self, at: ExecutorAt, end: Shutdown) {
        let mut assignments = self.shared.assignments.subscribe();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let mut accepted: Option<Arc<Assignment>> = None;
        loop {
            let wanted = assignments.borrow_and_update().get(&at.node).cloned();
            let next = wanted.filter(|w| accepted.as_ref() != Some(w) || self.was_lost(&at.node));
            let mut wait = None;
            if let Some(next) = next {
                if self.assign(&at, &next).await {
                    accepted = Some(next);
                    backoff.reset();
                } else {
                    wait = Some(backoff.wait());
                }
            }
            // Every arm only waits; what changed meanwhile stays marked as changed.
            tokio::select! {
                () = end.started() => return,
                changed = assignments.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait.unwrap_or(RETRY_MAX)) => {}
            }
        }
    }

    /// The executor's inventory speaks of another assignment than it accepted: its disk was lost.
    fn was_lost(&self, node: &NodeId) -> bool {
        self.shared.world().links.get(node).is_some_and(|l| l.complete && l.accepted.is_none())
    }

    async fn assign(&self, at: &ExecutorAt, assignment: &Assignment) -> bool {
        match self.executors.assign(at, assignment).await {
            Ok(Assigned::Accepted) => {
                if let Some(link) = self.shared.world().links.get_mut(&at.node) {
                    link.accepted = Some(assignment.generation);
                }
                true
            }
            Ok(Assigned::Newer(newer)) => {
                let ours = newer.epoch == assignment.epoch;
                if ours {
                    // Numbers of this term were lost with our memory: go on above the executor's.
                    let mut world = self.shared.world();
                    let number = world.generations.entry(at.node.clone()).or_default();
                    *number = (*number).max(newer.generation);
                    drop(world);
                    self.shared.nudge.nudge();
                } else {
                    tracing::warn!(node.id = %at.node, theirs = %newer.epoch, ours = %assignment.epoch,
                        "the executor obeys another manager");
                }
                // A higher number comes with the next step; this one will never be taken.
                false
            }
            Err(error) => {
                tracing::debug!(node.id = %at.node, error = %Chain(&error), "an assignment was not taken");
                false
            }
        }
    }

    /// Follows the executor's events; every new stream begins with its inventory.
    async fn hear(&self, at: ExecutorAt, end: Shutdown) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        while !end.has_started() {
            tokio::select! {
                () = end.started() => return,
                ended = self.hear_once(&at, &mut backoff) => {
                    if let Err(error) = ended {
                        tracing::debug!(node.id = %at.node, error = %Chain(&error), "a node is not heard");
                    }
                }
            }
            tokio::select! {
                () = end.started() => return,
                () = tokio::time::sleep(backoff.wait()) => {}
            }
        }
    }

    async fn hear_once(&self, at: &ExecutorAt, backoff: &mut Backoff) -> Result<(), ExecutorError> {
        let inventory = self.executors.inventory(at).await?;
        let mut last = inventory.seq;
        self.take_inventory(at, inventory);
        let mut events: Events = self.executors.events(at, last).await?;
        backoff.reset();
        loop {
            let Ok(next) = tokio::time::timeout(SILENCE, events.next()).await else {
                return Ok(());
            };
            let Some(event) = next.transpose()? else { return Ok(()) };
            // A number passed over means something was missed, whatever the line says.
            let step = u64::from(event.seen.is_some());
            if event.seq > last.saturating_add(step) {
                let inventory = self.executors.inventory(at).await?;
                last = inventory.seq.max(event.seq);
                self.take_inventory(at, inventory);
            } else if event.seen.is_some() && event.seq <= last {
                // Older than the inventory that was read meanwhile.
                self.take_event(at, ExecutorEvent { seen: None, ..event });
            } else {
                last = last.max(event.seq);
                self.take_event(at, event);
            }
        }
    }

    fn take_inventory(&self, at: &ExecutorAt, inventory: Inventory) {
        let now = self.clock.monotonic();
        let mut world = self.shared.world();
        let epoch = world.lease.as_ref().map(|lease| lease.epoch);
        if let Some(link) = world.links.get_mut(&at.node) {
            link.heard = Some(now);
            link.complete = true;
            let same = Some(inventory.epoch) == epoch;
            let known = link.accepted.unwrap_or(Generation(0));
            link.accepted = (same && inventory.generation >= known).then_some(inventory.generation);
            link.seen = inventory.instances.into_iter().map(|i| (i.instance.clone(), i)).collect();
        }
        drop(world);
        self.shared.nudge.nudge();
    }

    fn take_event(&self, at: &ExecutorAt, event: ExecutorEvent) {
        let now = self.clock.monotonic();
        let mut world = self.shared.world();
        let Some(link) = world.links.get_mut(&at.node) else { return };
        link.heard = Some(now);
        let Some(seen) = event.seen else { return };
        let id = seen.instance.clone();
        if seen.state == RunState::Stopped {
            link.seen.remove(&id);
        } else {
            link.seen.insert(id.clone(), seen);
        }
        let matters = world.rows.get(&id).is_some_and(|row| row.state != InstanceState::Stopped);
        drop(world);
        if matters {
            self.shared.nudge.nudge();
        }
    }
}
