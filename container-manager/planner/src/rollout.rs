//! Which instances come and which go, so that the number and the revision become what is wanted.

use crate::lifecycle::{Returned, drain, stop};
use crate::memory::Memory;
use crate::policy::Policy;
use crate::report::HeldBack;
use crate::snapshot::{NodeHealth, ServiceView, Snapshot};
use domain::{
    IdSource, Instance, InstanceId, InstanceState, Replace, Resources, Revision, ServiceSpec,
    Timestamp,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// What is asked of the machine-manager before ready instances go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// How many go.
    pub count: u32,
    /// From these, our own preference first.
    pub candidates: Vec<InstanceId>,
}

/// The membership of one service, being changed.
pub struct Members<'a> {
    /// The service.
    pub service: &'a ServiceView,
    /// The world.
    pub snapshot: &'a Snapshot,
    /// The constants.
    pub policy: &'a Policy,
    /// Instances wanted.
    pub wanted: u32,
    /// Why, for new instances.
    pub why: &'static str,
    /// Came back from a silent node just now.
    pub returned: Returned,
    /// What was held back.
    pub held_back: Vec<HeldBack>,
}

impl Members<'_> {
    fn now(&self) -> Timestamp {
        self.snapshot.now
    }

    fn stop_first(&self) -> bool {
        self.service.spec.lifecycle.replace == Replace::StopFirst
    }

    /// The revision new instances get: the declared one, or its predecessor once it was given up.
    #[must_use]
    pub fn revision(&self, memory: &Memory) -> (Revision, &ServiceSpec) {
        match &self.service.fallback {
            Some((revision, spec)) if memory.guard.given_up => (*revision, spec),
            Some(_) | None => (self.service.revision, &self.service.spec),
        }
    }

    /// Why an active instance shall be replaced, if it shall.
    fn outdated(&self, row: &Instance, memory: &Memory) -> Option<&'static str> {
        let (revision, _) = self.revision(memory);
        let stopped = memory.guard.is_tripped(self.now(), self.policy) && !memory.guard.given_up;
        if row.revision != revision && !stopped {
            return Some("revision");
        }
        if row.expires_at.is_some_and(|at| at <= self.now()) {
            return Some("lifespan");
        }
        if row.node.as_ref().is_some_and(|node| self.snapshot.is_leaving(node)) {
            return Some("drain");
        }
        let slow = row.state == InstanceState::Starting
            && memory.start_ms(99).is_some_and(|p99| {
                let limit = Duration::from_millis(u64::from(p99) * 2);
                self.now().since(row.state_since) > limit.max(self.policy.warm_up)
            });
        slow.then_some("slow start")
    }

    /// Ready, and for new revisions well for the bake time.
    fn is_proven(&self, row: &Instance, rolling: bool) -> bool {
        let bake = self.service.spec.rollout.bake;
        row.state == InstanceState::Ready
            && (!rolling || row.ready_at.is_none_or(|at| self.now().since(at) >= bake))
    }

    /// Instances that must stay ready while others are replaced.
    fn floor(&self) -> u32 {
        if self.stop_first() {
            return self.wanted.saturating_sub(1);
        }
        let share = u64::from(self.service.spec.rollout.floor.0.min(10_000));
        let floor = (u64::from(self.wanted) * share).div_ceil(10_000);
        u32::try_from(floor).unwrap_or(self.wanted)
    }

    /// Takes away what is outdated and replaced, then what is too many. Returns the open choice.
    pub fn leave(&mut self, rows: &mut [Instance], memory: &Memory) -> Option<Choice> {
        self.force_off(rows);
        self.retire(rows, memory);
        self.shrink(rows, memory)
    }

    /// What is on a node whose drain deadline passed goes whatever the floor says.
    fn force_off(&self, rows: &mut [Instance]) {
        for row in rows.iter_mut().filter(|row| row.state == InstanceState::Ready) {
            let drain_order = row.node.as_ref().and_then(|n| self.snapshot.nodes.get(n));
            let over = drain_order.and_then(|n| n.drain.as_ref()).map(|d| d.deadline);
            if over.is_some_and(|deadline| deadline <= self.now()) {
                drain(row, self.service, self.now(), "its node must be empty by now");
            }
        }
    }

    fn retire(&mut self, rows: &mut [Instance], memory: &Memory) {
        let now = self.now();
        let reasons: Vec<Option<&'static str>> = rows
            .iter()
            .map(|r| r.state.is_coming_or_here().then(|| self.outdated(r, memory)).flatten())
            .collect();
        let rolling = reasons.contains(&Some("revision"));
        let mut proven = 0;
        let mut ready = 0;
        for (row, reason) in rows.iter().zip(&reasons) {
            let is_old = reason.is_some();
            proven += u32::from(!is_old && self.is_proven(row, rolling));
            ready += u32::from(is_old && row.state == InstanceState::Ready);
        }
        let busy = rows
            .iter()
            .any(|r| matches!(r.state, InstanceState::Draining | InstanceState::Stopping));
        let floor = self.floor();
        let mut spare = (proven + ready).saturating_sub(floor);
        if self.stop_first() {
            let unsettled = busy || rows.iter().any(|r| r.state == InstanceState::Starting);
            spare = if unsettled && self.wanted > 0 { 0 } else { spare.min(1) };
        }
        let mut blocked = false;
        for (row, reason) in rows.iter_mut().zip(&reasons) {
            let Some(reason) = *reason else { continue };
            match row.state {
                InstanceState::Wanted => stop(row, self.service, now, self.policy, reason),
                InstanceState::Starting if proven >= self.wanted => {
                    stop(row, self.service, now, self.policy, reason);
                }
                InstanceState::Ready if spare > 0 => {
                    spare -= 1;
                    drain(row, self.service, now, reason);
                }
                InstanceState::Ready => blocked = true,
                InstanceState::Starting
                | InstanceState::Paused
                | InstanceState::Draining
                | InstanceState::Stopping
                | InstanceState::Lost
                | InstanceState::Failed
                | InstanceState::Stopped => {}
            }
        }
        if blocked {
            self.held_back.push(HeldBack::Floor(floor));
        }
    }

    fn shrink(&mut self, rows: &mut [Instance], memory: &Memory) -> Option<Choice> {
        let now = self.now();
        let up_to_date = |m: &Self, row: &Instance| {
            row.state.is_coming_or_here() && m.outdated(row, memory).is_none()
        };
        let good = rows.iter().filter(|row| up_to_date(self, row)).count();
        let mut excess = good.saturating_sub(self.wanted as usize);
        for state in [InstanceState::Wanted, InstanceState::Starting] {
            let mut unready: Vec<usize> = (0..rows.len())
                .filter(|i| rows[*i].state == state && up_to_date(self, &rows[*i]))
                .collect();
            unready.sort_by_key(|i| std::cmp::Reverse((rows[*i].created_at, &rows[*i].id)));
            let going: Vec<usize> = unready.into_iter().take(excess).collect();
            excess -= going.len();
            for i in going {
                stop(&mut rows[i], self.service, now, self.policy, self.why_less());
            }
        }
        // The newer copy stays: what came back from a silent node has been replaced.
        for row in rows.iter_mut() {
            if excess > 0 && row.state == InstanceState::Ready && self.returned.contains(&row.id) {
                excess -= 1;
                drain(row, self.service, now, "its node came back after it was replaced");
            }
        }
        if excess == 0 {
            return None;
        }
        self.choose(rows, memory, excess)
    }

    /// Which ready ones go: asked of the machine-manager, who knows what their nodes cost.
    fn choose(&self, rows: &mut [Instance], memory: &Memory, excess: usize) -> Option<Choice> {
        let now = self.now();
        let mut ready: Vec<&Instance> = rows
            .iter()
            .filter(|row| row.state == InstanceState::Ready)
            .filter(|row| self.outdated(row, memory).is_none())
            .collect();
        ready.sort_by_key(|row| {
            let flying: u32 =
                self.service.demand.values().filter_map(|d| d.in_flight.get(&row.id)).sum();
            let alive = row.node.as_ref().map(|n| self.snapshot.health(n, self.policy));
            (alive == Some(NodeHealth::Alive), flying, row.created_at, row.id.clone())
        });
        let candidates: Vec<InstanceId> = ready.iter().map(|row| row.id.clone()).collect();
        let all_go = candidates.len() <= excess;
        if self.snapshot.awaiting_stops && !all_go {
            let count = u32::try_from(excess).unwrap_or(u32::MAX);
            return Some(Choice { count, candidates });
        }
        let answer = self.snapshot.stop_answers.get(&self.service.name);
        let known: BTreeSet<&InstanceId> = candidates.iter().collect();
        let chosen = answer.into_iter().flatten().filter(|id| known.contains(id));
        let mut going: BTreeSet<InstanceId> = BTreeSet::new();
        for id in chosen.chain(&candidates) {
            if going.len() < excess {
                going.insert(id.clone());
            }
        }
        let reason = self.why_less();
        for row in rows.iter_mut().filter(|row| going.contains(&row.id)) {
            drain(row, self.service, now, reason);
        }
        None
    }

    fn why_less(&self) -> &'static str {
        if self.why == "steady" { "more than wanted" } else { self.why }
    }

    /// Makes what is missing and the successors of what is outdated.
    pub fn come(
        &mut self,
        rows: &mut Vec<Instance>,
        memory: &Memory,
        ids: &mut dyn IdSource,
    ) -> Vec<InstanceId> {
        let (good, old, leaving, occupied) = self.census(rows, memory);
        let missing = if self.stop_first() {
            self.wanted.saturating_sub(good + old + occupied)
        } else {
            self.wanted.saturating_sub(good + old)
        };
        let surge = if self.stop_first() || old == 0 {
            0
        } else {
            self.service.spec.rollout.surge.max(u32::from(self.floor() >= self.wanted))
        };
        let used = (good + old + missing).saturating_sub(self.wanted) + leaving;
        let successors =
            self.wanted.saturating_sub(good + missing).min(old).min(surge.saturating_sub(used));
        let mut count = missing + successors;
        if count > 0
            && let Some(held) = self.guard(memory)
        {
            self.held_back.push(held);
            return Vec::new();
        }
        if memory.guard.is_tripped(self.now(), self.policy) && !memory.guard.given_up {
            // One at a time is tried, and judged before the next.
            let trying = rows
                .iter()
                .any(|row| matches!(row.state, InstanceState::Wanted | InstanceState::Starting));
            count = count.min(u32::from(!trying));
        }
        let old_ids: Vec<InstanceId> = rows
            .iter()
            .filter(|r| r.state == InstanceState::Ready && self.outdated(r, memory).is_some())
            .map(|r| r.id.clone())
            .collect();
        let (revision, spec) = self.revision(memory);
        let mut made = Vec::new();
        for n in 0..count {
            let replaces = n.checked_sub(missing).and_then(|i| old_ids.get(i as usize).cloned());
            let why = if replaces.is_some() { "replacement" } else { self.why_more() };
            let row = self.new_row(ids.instance(&self.service.name), revision, spec, replaces, why);
            made.push(row.id.clone());
            rows.push(row);
        }
        made
    }

    /// Up to date, outdated, on their way out with a successor, and occupying a stop-first place.
    fn census(&self, rows: &[Instance], memory: &Memory) -> (u32, u32, u32, u32) {
        let (mut good, mut old, mut leaving, mut occupied) = (0, 0, 0, 0);
        for row in rows {
            match row.state {
                InstanceState::Wanted | InstanceState::Starting | InstanceState::Ready => {
                    let outdated = self.outdated(row, memory).is_some();
                    good += u32::from(!outdated);
                    old += u32::from(outdated);
                }
                InstanceState::Draining => {
                    leaving += 1;
                    occupied += 1;
                }
                InstanceState::Stopping | InstanceState::Lost | InstanceState::Failed => {
                    occupied += 1;
                }
                InstanceState::Paused | InstanceState::Stopped => {}
            }
        }
        (good, old, leaving, occupied)
    }

    fn guard(&self, memory: &Memory) -> Option<HeldBack> {
        if memory.guard.given_up {
            return None;
        }
        let until = memory.guard.wait_until(self.now(), self.policy)?;
        let revision = memory.guard.revision;
        Some(if memory.guard.is_tripped(self.now(), self.policy) {
            HeldBack::CrashGuard { revision, until }
        } else {
            HeldBack::Retry(until)
        })
    }

    fn why_more(&self) -> &'static str {
        if self.why == "steady" { "fewer than wanted" } else { self.why }
    }

    fn new_row(
        &self,
        id: InstanceId,
        revision: Revision,
        spec: &ServiceSpec,
        replaces: Option<InstanceId>,
        why: &str,
    ) -> Instance {
        let now = self.now();
        Instance {
            id,
            service: self.service.name.clone(),
            revision,
            node: None,
            resources: Resources { cpu: spec.resources.cpu, memory: spec.resources.memory },
            state: InstanceState::Wanted,
            state_since: now,
            deadline: Some(now.plus(self.policy.wanted_deadline)),
            address: None,
            tier: domain::Tier::Started,
            created_at: now,
            ready_at: None,
            expires_at: None,
            restarts: 0,
            replaces,
            reason: why.to_owned(),
        }
    }
}
