//! What happened to each instance since the last plan: legal moves with deadlines and reasons.

use crate::memory::Memory;
use crate::policy::Policy;
use crate::snapshot::{
    Grant, InstanceView, NodeHealth, Observed, ObservedState, ServiceView, Snapshot,
};
use domain::{Instance, InstanceId, InstanceState, Timestamp};
use std::collections::BTreeSet;
use std::time::Duration;

/// Instances that came back from a silent node in this step.
pub type Returned = BTreeSet<InstanceId>;

struct Life<'a> {
    service: &'a ServiceView,
    snapshot: &'a Snapshot,
    policy: &'a Policy,
    now: Timestamp,
}

/// Moves every row on by what was observed; learns start times and failures.
pub fn follow(
    service: &ServiceView,
    rows: &mut [Instance],
    memory: &mut Memory,
    snapshot: &Snapshot,
    policy: &Policy,
) -> Returned {
    let life = Life { service, snapshot, policy, now: snapshot.now };
    let mut returned = Returned::new();
    for (row, view) in rows.iter_mut().zip(&service.instances) {
        let before = row.state;
        life.step(row, view, memory);
        if before == InstanceState::Lost
            && let Some(known) = memory.instances.get_mut(&row.id)
        {
            // What balancers saw of an earlier draining says nothing of the next one.
            known.drain_gen = None;
        }
        if before == InstanceState::Lost && row.state == InstanceState::Ready {
            returned.insert(row.id.clone());
        }
        if let Some(seen) = &view.observed
            && row.restarts != seen.restarts
        {
            row.restarts = seen.restarts;
        }
    }
    returned
}

/// Says that a row failed, and until when the executor's word about its end is awaited.
pub fn fail(row: &mut Instance, now: Timestamp, policy: &Policy, reason: &str) {
    row.become_state(InstanceState::Failed, now, Some(now.plus(policy.failed_keep)), reason);
}

/// Shows a row as draining.
pub fn drain(row: &mut Instance, service: &ServiceView, now: Timestamp, reason: &str) {
    let deadline = now.plus(service.spec.lifecycle.drain_deadline);
    row.become_state(InstanceState::Draining, now, Some(deadline), reason);
}

/// Takes a row out of the assignment.
pub fn stop(
    row: &mut Instance,
    service: &ServiceView,
    now: Timestamp,
    policy: &Policy,
    reason: &str,
) {
    // A place granted in this very step was never told to an executor.
    let untold = row.state == InstanceState::Starting && row.state_since == now;
    let (next, deadline) = if row.state == InstanceState::Wanted || untold {
        (InstanceState::Stopped, None)
    } else {
        let wait = service.spec.lifecycle.drain_deadline + policy.stop_grace;
        (InstanceState::Stopping, Some(now.plus(wait)))
    };
    row.become_state(next, now, deadline, reason);
}

impl Life<'_> {
    fn step(&self, row: &mut Instance, view: &InstanceView, memory: &mut Memory) {
        if let Some(node) = &row.node {
            match self.snapshot.health(node, self.policy) {
                NodeHealth::Gone if row.state != InstanceState::Stopped => {
                    row.become_state(InstanceState::Stopped, self.now, None, "its node is gone");
                    return;
                }
                NodeHealth::Lost if may_be_lost(row.state) => {
                    let keep = self.now.plus(self.policy.lost_keep);
                    let reason = "its node is silent";
                    row.become_state(InstanceState::Lost, self.now, Some(keep), reason);
                    return;
                }
                NodeHealth::Suspect | NodeHealth::Lost => return self.without_word(row),
                NodeHealth::Alive | NodeHealth::Gone => {}
            }
        }
        let observed = view.observed.as_ref();
        match row.state {
            InstanceState::Wanted => self.wanted(row),
            InstanceState::Starting => self.starting(row, observed, memory),
            InstanceState::Ready => self.ready(row, observed, memory),
            InstanceState::Paused => {
                stop(row, self.service, self.now, self.policy, "pausing is not used here");
            }
            InstanceState::Draining => self.draining(row, observed, memory),
            InstanceState::Stopping => self.ending(row, observed, "it ended"),
            InstanceState::Failed => self.ending(row, observed, "it failed and is gone"),
            InstanceState::Lost => self.lost(row, observed),
            InstanceState::Stopped => {}
        }
    }

    /// While its node is silent, only what waits for its end moves on.
    fn without_word(&self, row: &mut Instance) {
        let over = row.deadline.is_some_and(|at| at <= self.now);
        let stop_first = self.service.spec.lifecycle.replace == domain::Replace::StopFirst;
        if over && row.state == InstanceState::Lost && !stop_first {
            let reason = "its node stayed silent";
            row.become_state(InstanceState::Stopped, self.now, None, reason);
        }
    }

    fn wanted(&self, row: &mut Instance) {
        if let Some(Grant::On(node)) = self.snapshot.grants.get(&row.id)
            && self.snapshot.health(node, self.policy) == NodeHealth::Alive
            && !self.snapshot.is_leaving(node)
        {
            row.node = Some(node.clone());
            let deadline = self.now.plus(self.service.spec.lifecycle.start_deadline);
            let reason = row.reason.clone();
            row.become_state(InstanceState::Starting, self.now, Some(deadline), reason);
        } else if row.deadline.is_some_and(|at| at <= self.now) {
            let reason = "no place was found in time";
            row.become_state(InstanceState::Stopped, self.now, None, reason);
        }
    }

    fn starting(&self, row: &mut Instance, observed: Option<&Observed>, memory: &mut Memory) {
        match observed.map(|seen| seen.state) {
            Some(ObservedState::Ready) => {
                let fresh = row.ready_at.is_none();
                row.address = observed.and_then(|seen| seen.address);
                if fresh {
                    let took = self.now.since(row.state_since).as_millis();
                    memory.learn_start(u32::try_from(took).unwrap_or(u32::MAX));
                    row.ready_at = Some(self.now);
                    row.expires_at = self.expiry(row);
                }
                memory.guard.record(row.revision, self.now, true);
                row.become_state(InstanceState::Ready, self.now, None, row.reason.clone());
            }
            Some(ObservedState::Failed) => {
                memory.guard.record(row.revision, self.now, false);
                let detail = observed.map_or("", |seen| seen.detail.as_str());
                fail(row, self.now, self.policy, &format!("it failed to start: {detail}"));
            }
            Some(
                ObservedState::Starting
                | ObservedState::Paused
                | ObservedState::Stopping
                | ObservedState::Gone,
            )
            | None => {
                if row.deadline.is_some_and(|at| at <= self.now) {
                    memory.guard.record(row.revision, self.now, false);
                    fail(row, self.now, self.policy, "it was not ready before its deadline");
                }
            }
        }
    }

    fn ready(&self, row: &mut Instance, observed: Option<&Observed>, memory: &mut Memory) {
        let Some(seen) = observed else { return };
        match seen.state {
            ObservedState::Failed => {
                memory.guard.record(row.revision, self.now, false);
                let reason = format!("its executor gave it up: {}", seen.detail);
                fail(row, self.now, self.policy, &reason);
            }
            ObservedState::Starting => {
                let deadline = self.now.plus(self.service.spec.lifecycle.start_deadline);
                let reason = "its executor restarts it";
                row.become_state(InstanceState::Starting, self.now, Some(deadline), reason);
            }
            ObservedState::Ready => {
                if seen.address.is_some() && row.address != seen.address {
                    row.address = seen.address;
                }
            }
            ObservedState::Paused | ObservedState::Stopping | ObservedState::Gone => {}
        }
    }

    fn draining(&self, row: &mut Instance, observed: Option<&Observed>, memory: &Memory) {
        let ended = observed
            .is_some_and(|seen| matches!(seen.state, ObservedState::Gone | ObservedState::Failed));
        if ended {
            row.become_state(InstanceState::Stopped, self.now, None, "it ended while draining");
        } else if row.deadline.is_some_and(|at| at <= self.now) {
            stop(row, self.service, self.now, self.policy, "its drain deadline passed");
        } else if self.is_drained(row, memory) {
            stop(row, self.service, self.now, self.policy, "it is drained");
        }
    }

    /// Every live balancer has seen that it drains, and none has anything in flight there.
    fn is_drained(&self, row: &Instance, memory: &Memory) -> bool {
        if !self.service.spec.load_balanced {
            return true;
        }
        let Some(shown) = memory.instances.get(&row.id).and_then(|i| i.drain_gen) else {
            return false;
        };
        let Some(live) = &self.snapshot.balancers else { return false };
        if live.is_empty() {
            return self.now.since(row.state_since) >= self.policy.unheard_drain;
        }
        live.iter().all(|balancer| {
            self.service.demand.get(balancer).is_some_and(|demand| {
                demand.routes_gen >= shown
                    && demand.in_flight.get(&row.id).copied().unwrap_or(0) == 0
            })
        })
    }

    fn ending(&self, row: &mut Instance, observed: Option<&Observed>, reason: &str) {
        let gone = observed.is_some_and(|seen| seen.state == ObservedState::Gone);
        if gone {
            row.become_state(InstanceState::Stopped, self.now, None, reason);
        } else if row.deadline.is_some_and(|at| at <= self.now) {
            let reason = "its executor never said that it ended";
            row.become_state(InstanceState::Stopped, self.now, None, reason);
        }
    }

    /// Its node is back.
    fn lost(&self, row: &mut Instance, observed: Option<&Observed>) {
        let reason = "its node is back";
        match observed.map(|seen| seen.state) {
            Some(ObservedState::Ready) => {
                if let Some(address) = observed.and_then(|seen| seen.address) {
                    row.address = Some(address);
                }
                row.become_state(InstanceState::Ready, self.now, None, reason);
            }
            Some(ObservedState::Starting) => {
                let deadline = self.now.plus(self.service.spec.lifecycle.start_deadline);
                row.become_state(InstanceState::Starting, self.now, Some(deadline), reason);
            }
            Some(ObservedState::Failed | ObservedState::Gone) => {
                row.become_state(InstanceState::Stopped, self.now, None, "it did not survive");
            }
            Some(ObservedState::Paused | ObservedState::Stopping) | None => {}
        }
    }

    /// The end of its lifespan, shortened by a share drawn from its id.
    fn expiry(&self, row: &Instance) -> Option<Timestamp> {
        let lifespan = self.service.spec.lifecycle.lifespan?;
        let draw = crate::routes::digest(row.id.as_str()) % 1000;
        let jitter = u64::from(self.policy.lifespan_jitter.0) * draw / 1000;
        let kept = u128::from(10_000 - jitter.min(10_000));
        let ms = lifespan.as_millis() * kept / 10_000;
        Some(self.now.plus(Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))))
    }
}

fn may_be_lost(state: InstanceState) -> bool {
    matches!(
        state,
        InstanceState::Starting
            | InstanceState::Ready
            | InstanceState::Paused
            | InstanceState::Draining
    )
}
