//! How many instances a service shall have: the clamps, the rates and their order of precedence.

use crate::demand::Measure;
use crate::memory::Memory;
use crate::policy::Policy;
use crate::report::HeldBack;
use crate::snapshot::{ServiceView, Snapshot};
use domain::Timestamp;
use std::time::Duration;

/// The number and its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizing {
    /// Wanted before.
    pub from: u32,
    /// Wanted now.
    pub wanted: u32,
    /// Stable word for the reason.
    pub why: &'static str,
    /// Inputs and values.
    pub inputs: String,
    /// Load of the ready instances over the window, ten-thousandths.
    pub load: Option<u64>,
    /// What was held back.
    pub held_back: Vec<HeldBack>,
}

/// `ceil(demand/target + queued/(concurrency*target))`; demand and target in ten-thousandths.
#[must_use]
pub fn needed(demand: u64, queued: u32, concurrency: u32, target: u32) -> u32 {
    let concurrency = u64::from(concurrency.max(1));
    let target = u64::from(target.max(1));
    let work = demand.saturating_mul(concurrency).saturating_add(u64::from(queued) * 10_000);
    u32::try_from(work.div_ceil(target * concurrency)).unwrap_or(u32::MAX)
}

struct Sizer<'a> {
    service: &'a ServiceView,
    snapshot: &'a Snapshot,
    policy: &'a Policy,
    measure: Measure,
    now: Timestamp,
    n: u32,
    sizing: Sizing,
}

/// Decides the number; what must be remembered goes into `memory`.
pub fn size(
    service: &ServiceView,
    measure: Measure,
    memory: &mut Memory,
    snapshot: &Snapshot,
    policy: &Policy,
) -> Sizing {
    let spec = &service.spec;
    let first = memory.wanted.is_none();
    let from = memory.wanted.unwrap_or(0);
    let sizing = Sizing {
        from,
        wanted: from,
        why: "steady",
        inputs: String::new(),
        load: None,
        held_back: Vec::new(),
    };
    let now = snapshot.now;
    let n = from;
    let mut sizer = Sizer { service, snapshot, policy, measure, now, n, sizing };
    sizer.keep_watch(memory);
    if service.deleting {
        sizer.set(0, "delete");
        memory.goal = None;
    } else if let Some(held) = service.hold {
        let held = held.clamp(spec.min_instances, spec.max_instances);
        sizer.set(held, "operator");
        sizer.sizing.held_back.push(HeldBack::Operator(held));
        memory.goal = None;
    } else {
        let (min, max) = (spec.min_instances, spec.max_instances);
        if sizer.n > max {
            sizer.set(max, "maximum");
        } else if sizer.n < min {
            sizer.set(min, "minimum");
        }
        sizer.by_demand(memory);
        if sizer.n > max {
            sizer.sizing.held_back.push(HeldBack::Maximum(max));
            let why = sizer.sizing.why;
            sizer.set(max, why);
        }
        if !first {
            sizer.hold_failing(memory);
        }
    }
    let mut sizing = sizer.sizing;
    sizing.wanted = sizer.n;
    if sizing.wanted == from {
        sizing.why = "steady";
    }
    memory.wanted = Some(sizing.wanted);
    sizing
}

impl Sizer<'_> {
    fn set(&mut self, n: u32, why: &'static str) {
        if n != self.n {
            self.n = n;
            self.sizing.why = why;
        }
    }

    fn hold_back(&mut self, held: HeldBack) {
        self.sizing.held_back.push(held);
    }

    fn burst_window(&self) -> Duration {
        let part = self.service.spec.load.window / self.policy.burst_window_part.max(1);
        part.max(self.policy.burst_window_min)
    }

    fn look_back(&self, memory: &Memory) -> Duration {
        let start = Duration::from_millis(u64::from(memory.start_ms(95).unwrap_or(0)));
        (start * self.policy.stabilize_starts)
            .clamp(self.policy.stabilize_min, self.policy.stabilize_max)
    }

    /// Keeps averages and the last use up to date, whoever decides the number.
    fn keep_watch(&mut self, memory: &mut Memory) {
        let window = self.service.spec.load.window;
        if self.measure.ready == 0 {
            memory.ready_since = None;
            memory.window.clear();
            memory.peaks = crate::windows::Peaks::default();
        } else {
            memory.ready_since.get_or_insert(self.now);
            let keep = window.max(self.burst_window());
            memory.window.add(self.now, window, keep, self.measure.up, self.measure.down);
        }
        let unknown = self.service.spec.load_balanced && !self.measure.known;
        let heard = self.measure.last_request_ago.map(|ago| self.now.minus(ago));
        let active = if self.measure.in_use || unknown { Some(self.now) } else { heard };
        let known = *memory.active_at.get_or_insert(self.now);
        // A clock set back must not keep a service up for ever.
        memory.active_at = Some(active.map_or(known, |at| at.max(known)).min(self.now));
    }

    fn by_demand(&mut self, memory: &mut Memory) {
        self.wake();
        if self.measure.ready > 0 && self.n > 0 {
            self.by_load(memory);
        }
        self.idle(memory);
    }

    fn needed(&self, demand: u64) -> u32 {
        let load = &self.service.spec.load;
        needed(demand, self.measure.queued, load.concurrency_or_default(), load.target.0)
    }

    /// Held requests and nothing that could take them: start what they need, at once.
    fn wake(&mut self) {
        let max = self.service.spec.max_instances;
        if self.measure.ready > 0 || self.measure.queued == 0 {
            return;
        }
        let k = self.needed(0).clamp(1, max.max(1));
        if k > self.n {
            self.set(k, "wake");
            self.sizing.inputs = format!("queued={}", self.measure.queued);
        }
    }

    fn by_load(&mut self, memory: &mut Memory) {
        let load = &self.service.spec.load;
        let Some(mean) = memory.window.mean(self.now, load.window) else { return };
        let burst_mean = memory.window.mean(self.now, self.burst_window()).unwrap_or(mean);
        let weight = self.measure.weight.max(1);
        let (u_up, u_down) = (mean.up * 10_000 / weight, mean.down * 10_000 / weight);
        let u_burst = burst_mean.up * 10_000 / weight;
        self.sizing.load = Some(u_up);
        let floor = self.service.spec.min_instances.max(1);
        let n_up = self.needed(mean.up).max(floor);
        let n_down = self.needed(mean.down).max(floor);
        memory.peaks.add(self.now, self.look_back(memory), n_down);
        let inputs = format!(
            "demand={:.2} load={:.2} burst_load={:.2} target={} ready={} queued={} missing={} needed={n_up}",
            ratio(mean.up),
            ratio(u_up),
            ratio(u_burst),
            load.target,
            self.measure.ready,
            self.measure.queued,
            self.measure.missing,
        );
        if self.sizing.inputs.is_empty() {
            self.sizing.inputs = inputs;
        }
        if self.too_many_missing(self.policy.missing_hold.0) {
            let (missing, of) = (self.measure.missing, self.measure.ready);
            self.hold_back(HeldBack::Blind { missing, of });
            return;
        }
        if self.burst(memory, u_burst, burst_mean.up.max(mean.up), burst_mean.covered) {
            return;
        }
        if u_up > u64::from(load.up.0) && n_up > self.n {
            self.up(memory, n_up);
        } else {
            self.down(memory, u_down, n_down, mean.covered);
        }
    }

    fn too_many_missing(&self, share: u32) -> bool {
        u64::from(self.measure.missing) * 10_000 > u64::from(self.measure.ready) * u64::from(share)
    }

    /// Entered far above target or when requests wait too long; straight to what is needed.
    fn burst(&mut self, memory: &mut Memory, u: u64, demand: u64, covered: Duration) -> bool {
        let load = &self.service.spec.load;
        let limit = (u64::from(load.target.0) * 2).min(u64::from(self.policy.burst_load.0));
        let hot = u >= limit && covered >= self.burst_window();
        // What waited for the first instance to start waited for no capacity: that was the wake.
        let since = memory.ready_since.map_or(Duration::ZERO, |at| self.now.since(at));
        let waits = self.measure.oldest_wait.min(since) > load.wait_limit;
        if !hot && !waits {
            return false;
        }
        memory.burst_at = Some(self.now);
        let n = self.needed(demand);
        if n > self.n {
            self.set(n, "burst");
            memory.goal = None;
        }
        true
    }

    fn up(&mut self, memory: &mut Memory, wanted: u32) {
        let since = memory.ready_since.map_or(Duration::ZERO, |at| self.now.since(at));
        let needed = self.policy.up_coverage.min(self.service.spec.load.window);
        if since < needed {
            self.hold_back(HeldBack::Coverage { covered: since, needed });
            return;
        }
        let (_, base) = match memory.up_base {
            Some((at, base)) if self.now.since(at) < self.policy.up_every => (at, base),
            _ => *memory.up_base.insert((self.now, self.n)),
        };
        let allowed = (base * self.policy.up_factor).max(base + self.policy.up_plus);
        if wanted > allowed {
            self.hold_back(HeldBack::UpRate { wanted, allowed });
        }
        if wanted.min(allowed) > self.n {
            self.set(wanted.min(allowed), "load");
            memory.goal = None;
        }
    }

    fn down(&mut self, memory: &mut Memory, u: u64, n_down: u32, covered: Duration) {
        let load = &self.service.spec.load;
        if u < u64::from(load.down.0) && n_down < self.n {
            let highest = memory.peaks.highest().unwrap_or(n_down);
            if highest < self.n {
                memory.goal = Some(memory.goal.map_or(highest, |goal| goal.min(highest)));
            } else {
                self.hold_back(HeldBack::Recent(highest));
            }
        }
        let Some(goal) = memory.goal.filter(|goal| *goal < self.n) else {
            memory.goal = None;
            return;
        };
        if let Some(held) = self.guards_against_down(memory, covered) {
            self.hold_back(held);
            return;
        }
        let due = memory.down_at.map(|at| at.plus(self.policy.down_every));
        if let Some(until) = due.filter(|due| *due > self.now) {
            self.hold_back(HeldBack::DownRate { goal, until });
            return;
        }
        let share = u64::from(self.n) * u64::from(self.policy.down_share.0) / 10_000;
        let step = u32::try_from(share).unwrap_or(u32::MAX).max(1);
        let recent = memory.peaks.highest().unwrap_or(goal);
        let next = goal.max(recent).max(self.n.saturating_sub(step));
        if next < self.n {
            self.set(next, "load");
            memory.down_at = Some(self.now);
        } else {
            self.hold_back(HeldBack::Recent(recent));
        }
    }

    /// A scale-in needs every guard silent.
    fn guards_against_down(&self, memory: &Memory, covered: Duration) -> Option<HeldBack> {
        let window = self.service.spec.load.window;
        if self.too_many_missing(self.policy.missing_no_down.0) {
            let (missing, of) = (self.measure.missing, self.measure.ready);
            return Some(HeldBack::Missing { missing, of });
        }
        let since = memory.ready_since.map_or(Duration::ZERO, |at| self.now.since(at));
        let measured = since.min(covered);
        if measured < window {
            return Some(HeldBack::Coverage { covered: measured, needed: window });
        }
        if let Some(at) = memory.burst_at.filter(|at| self.now.since(*at) < window) {
            return Some(HeldBack::Burst(at.plus(window)));
        }
        let leads = self.snapshot.leader_since;
        if self.now.since(leads) < window {
            return Some(HeldBack::NewLeader(leads.plus(window)));
        }
        None
    }

    /// With a minimum of 0, and unused for the whole idle time-out: nothing is needed.
    fn idle(&mut self, memory: &mut Memory) {
        if self.service.spec.min_instances > 0 || self.n == 0 {
            return;
        }
        let unknown = self.service.spec.load_balanced && !self.measure.known;
        if unknown {
            self.hold_back(HeldBack::UnknownDemand);
        }
        let active = memory.active_at.unwrap_or(self.now);
        let timeout = self.service.spec.lifecycle.idle_timeout;
        if !unknown && !self.measure.in_use && self.now.since(active) >= timeout {
            self.set(0, "idle");
            memory.goal = None;
        }
    }

    /// A revision whose starts fail is not scaled further.
    fn hold_failing(&mut self, memory: &Memory) {
        let tripped = memory.guard.is_tripped(self.now, self.policy) && !memory.guard.given_up;
        let floor = self.sizing.from.max(self.service.spec.min_instances);
        if tripped && self.n > floor && self.measure.ready > 0 {
            let until = memory.guard.wait_until(self.now, self.policy).unwrap_or(self.now);
            let revision = memory.guard.revision;
            self.hold_back(HeldBack::CrashGuard { revision, until });
            self.set(floor, "steady");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
fn ratio(ten_thousandths: u64) -> f64 {
    ten_thousandths as f64 / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::needed;

    #[test]
    fn need_is_rounded_up_exactly() {
        // demand, queued, concurrency, target -> instances
        let table = [
            (36_000, 0, 10, 5500, 7),
            (38_500, 0, 10, 5500, 7),
            (9_000, 0, 10, 5500, 2),
            (0, 1, 10, 5500, 1),
            (0, 11, 10, 5500, 2),
            (0, 12, 10, 5500, 3),
            (5_500, 5, 10, 5500, 2),
            (0, 0, 10, 5500, 0),
        ];
        for (demand, queued, concurrency, target, expected) in table {
            assert_eq!(needed(demand, queued, concurrency, target), expected, "{demand} {queued}");
        }
    }
}
