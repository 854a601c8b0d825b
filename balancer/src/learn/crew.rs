//! What becomes of instances together: who is set aside, who is unwell, what other balancers have.

use super::{Known, World};
use crate::Shared;
use crate::feedback::Picks;
use domain::{BalancerId, Demand, InstanceId, Mono, ServiceName};
use picker::outlier::{self, Standing};
use picker::{Others, Rng};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A failure counts so many times where another balancer set the instance aside: three in a row
/// are enough then. The word of another alone is not, for its way there may be what is broken.
const HINT_FACTOR: u32 = 2;

/// What was last heard of the other balancers.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// How many of them told of the service.
    pub balancers: u32,
    /// When they did, on average, by this process's clock.
    pub at: Mono,
}

/// The demand of one service, by balancer, with its age.
type Demands = Vec<(BalancerId, Demand, Duration)>;

impl World {
    /// Balancers believed to be alive, this one included.
    pub fn balancers(&self, now: Mono) -> u32 {
        self.crowd.size(now)
    }

    /// Takes what the other balancers have in flight.
    pub fn take_demand(
        &mut self,
        shared: &Shared,
        demand: &BTreeMap<ServiceName, Demands>,
        now: Mono,
    ) {
        let nobody = Demands::new();
        for (name, known) in &mut self.services {
            known.take_demand(shared, demand.get(name).unwrap_or(&nobody), now);
        }
        self.refresh(now);
    }
}

impl Known {
    fn take_demand(&mut self, shared: &Shared, demands: &Demands, now: Mono) {
        let others: Vec<_> = demands.iter().filter(|(id, ..)| *id != shared.id).collect();
        let count = u32::try_from(others.len()).unwrap_or(u32::MAX);
        let ages: Duration = others.iter().map(|(_, _, age)| *age).sum();
        let age = ages.checked_div(count).unwrap_or_default();
        self.others = Told { balancers: count, at: Mono(now.0.saturating_sub(age)) };
        let mut in_flight: BTreeMap<&InstanceId, u32> = BTreeMap::new();
        for (_, demand, _) in &others {
            for (instance, n) in &demand.in_flight {
                let sum = in_flight.entry(instance).or_default();
                *sum = sum.saturating_add(*n);
            }
        }
        for (id, member) in &mut self.members {
            member.others = Others {
                in_flight: in_flight.get(id).copied().unwrap_or(0),
                own_in_flight: member.instance.in_flight(),
            };
            member.hinted = others.iter().any(|(_, demand, _)| demand.set_aside.contains(id));
        }
    }
}

impl Known {
    /// Measures how the picks of an interval were spread over those who stood all the while.
    fn spread(&mut self, now: Mono) {
        let snapshot = self.service.snapshot.load();
        let mut picks = Vec::with_capacity(self.members.len());
        for (member, entry) in self.members.values_mut().zip(&snapshot.entries) {
            let picked = member.instance.picked();
            let count = picked.saturating_sub(std::mem::replace(&mut member.picked, picked));
            let settled = now.since(member.ready_since) >= outlier::INTERVAL;
            if settled && entry.stands() && Arc::ptr_eq(&entry.instance, &member.instance) {
                picks.push(Picks { count, weight: entry.weight });
            }
        }
        self.service.feedback.spread(&picks);
    }

    /// True when somebody was set aside or came back.
    pub(super) fn judge(&mut self, interval_over: bool, now: Mono, rng: &mut Rng) -> bool {
        let mut standings: Vec<Standing> = self
            .members
            .values()
            .map(|m| {
                let (failures_in_row, ok, total) = m.instance.window();
                // The unwell get nothing as it is, and do not count among those who must stay.
                let ready = m.is_ready() && !m.check.unwell;
                let failures_in_row = if m.hinted {
                    failures_in_row.saturating_mul(HINT_FACTOR)
                } else {
                    failures_in_row
                };
                Standing { ready, failures_in_row, ok, total, ejection: m.ejection }
            })
            .collect();
        outlier::judge(&mut standings, interval_over, now, rng);
        if interval_over {
            self.spread(now);
            self.interval_began = now;
        }
        let mut changed = false;
        for (member, standing) in self.members.values_mut().zip(standings) {
            let was_out = member.ejection.until.is_some();
            let is_out = standing.ejection.until.is_some();
            member.ejection = standing.ejection;
            if was_out && !is_out {
                member.ready_since = now;
                member.instance.new_window(true);
                tracing::info!(instance = %member.instance.id, "the instance gets requests again");
            } else if interval_over {
                member.instance.new_window(false);
            }
            if is_out && !was_out {
                self.service.feedback.ejected();
                tracing::info!(
                    instance = %member.instance.id,
                    failures_in_row = standing.failures_in_row,
                    "the instance is set aside for failing"
                );
            }
            changed |= was_out != is_out;
        }
        changed
    }
}
