//! Which nodes are ordered for what fits nowhere, inside the cap, and what the rest is told.

use crate::account::Account;
use crate::carry::carriers;
use crate::fit::{Fresh, Set, Supply, fit, would_hold};
use crate::plan::{Order, Refusal, Waiting, Why};
use crate::policy::Policy;
use crate::purse::Purse;
use crate::room::{Candidate, orderable};
use crate::snapshot::{Requested, Snapshot, Wanted};
use crate::words;
use domain::{IdSource, Money, MonthlyCap, NodeId, NodeType, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Starts whose missing amount is worked out one by one; more share the last answer.
const AMOUNTS_MAX: usize = 8;
const HOUR: Duration = Duration::from_secs(3600);

/// The state of buying within one plan.
pub struct Buyer<'a, 'i> {
    /// The world.
    pub snapshot: &'a Snapshot,
    /// The constants.
    pub policy: &'a Policy,
    /// Accounts with everything decided so far in this plan.
    pub accounts: &'a BTreeMap<NodeId, Account>,
    /// Protected nodes.
    pub protected: &'a BTreeSet<NodeId>,
    /// Nodes that end in this plan; they carry nothing more.
    pub ending: &'a BTreeSet<NodeId>,
    /// Makes node ids.
    pub ids: &'i mut dyn IdSource,
    /// Ids made so far: every trial uses the same ones.
    pub fresh_ids: Vec<NodeId>,
}

/// One node to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial<'a> {
    /// Its type.
    pub node_type: &'a NodeType,
    /// False: it counts to the month's end.
    pub may_stop: bool,
}

/// Why a set is not ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// Too much money: the cap must rise by so much, or the month must turn.
    Cap(Money, Option<Timestamp>),
    /// No budget was ever set.
    NoBudget,
    /// Too many orders lately.
    Guard(Timestamp, String),
}

impl<'a> Buyer<'a, '_> {
    /// Living nodes and `trials`, as the carriers see them.
    fn purse(&mut self, trials: &[Trial<'a>]) -> Purse {
        let snapshot = self.snapshot;
        let mut accounts = self.accounts.clone();
        let mut protected = self.protected.clone();
        let mut candidates: Vec<Candidate<'_>> = snapshot
            .nodes
            .iter()
            .filter(|v| !self.ending.contains(&v.node.id))
            .map(Candidate::of_node)
            .collect();
        for (trial, id) in trials.iter().zip(&self.fresh_ids) {
            let leave = self.policy.renew_ahead.saturating_add(self.policy.drain_lead);
            let account = Account::order(id.clone(), trial.node_type, snapshot.now, leave);
            accounts.insert(id.clone(), account);
            if !trial.may_stop {
                protected.insert(id.clone());
            }
            candidates.push(Candidate {
                id: Some(id),
                may_stop: trial.may_stop,
                ..Candidate::of_type(trial.node_type)
            });
        }
        let carriers = carriers(snapshot, &candidates);
        Purse::new(snapshot, self.policy, &accounts, &protected, &carriers)
    }

    /// Whether `trials` may be ordered, all of them.
    pub fn admit(&mut self, trials: &[Trial<'a>]) -> Result<(), Hold> {
        if trials.is_empty() {
            return Ok(());
        }
        while self.fresh_ids.len() < trials.len() {
            let id = self.ids.node();
            self.fresh_ids.push(id);
        }
        self.guard(trials)?;
        if trials.iter().all(|t| t.node_type.price.is_free()) {
            return Ok(());
        }
        if self.snapshot.budget.cap == MonthlyCap::Unset {
            return Err(Hold::NoBudget);
        }
        let purse = self.purse(trials);
        if let Some(needs) = purse.missing() {
            let until = purse.fits_next_month().then(|| purse.next_month());
            return Err(Hold::Cap(needs, until));
        }
        if self.snapshot.budget.strict_pacing {
            self.pace(&purse, trials)?;
        }
        self.hourly(trials)
    }

    /// Strict pacing: what runs must last to the month's end.
    fn pace(&self, purse: &Purse, trials: &[Trial<'a>]) -> Result<(), Hold> {
        let Some(free) = purse.free() else { return Ok(()) };
        let left = purse.next_month().since(purse.now());
        let burn = trials.iter().fold(burn(self.accounts, self.protected), |sum, t| {
            sum.plus(Money(t.node_type.price.0))
        });
        let needed = domain::PricePerHour(burn.0).over(left);
        let missing = needed.minus(free);
        if missing.0 > 0 { Err(Hold::Cap(missing, Some(purse.next_month()))) } else { Ok(()) }
    }

    fn guard(&self, trials: &[Trial<'a>]) -> Result<(), Hold> {
        let minute = Duration::from_secs(60);
        let now = self.snapshot.now;
        let mut recent: Vec<Timestamp> = self
            .snapshot
            .nodes
            .iter()
            .map(|v| v.node.ordered_at)
            .filter(|at| now.since(*at) < minute)
            .collect();
        recent.sort();
        if recent.len() + trials.len() <= self.policy.orders_per_minute {
            return Ok(());
        }
        let most = self.policy.orders_per_minute;
        let until = recent.first().map_or(now.plus(minute), |at| at.plus(minute));
        let text = format!("{most} nodes were ordered within a minute; more wait");
        Err(Hold::Guard(until, text))
    }

    /// Orders of one hour promise at most `hourly_share` of the cap an hour; the first may.
    fn hourly(&self, trials: &[Trial<'a>]) -> Result<(), Hold> {
        let (Some(share), MonthlyCap::Amount(cap)) =
            (self.policy.hourly_share, self.snapshot.budget.cap)
        else {
            return Ok(());
        };
        let now = self.snapshot.now;
        let recent: Vec<&Account> = self
            .accounts
            .values()
            .filter(|a| now.since(a.ordered_at) < HOUR && !a.price.is_free())
            .collect();
        let sum = recent.iter().map(|a| a.price.0).sum::<i64>()
            + trials.iter().map(|t| t.node_type.price.0).sum::<i64>();
        let bound = i128::from(cap.0) * i128::from(share.0) / 10_000;
        if i128::from(sum) <= bound || recent.len() + trials.len() <= 1 {
            return Ok(());
        }
        let oldest = recent.iter().map(|a| a.ordered_at).min().unwrap_or(now);
        let text = format!("orders of one hour promise {share} of the cap at most");
        Err(Hold::Guard(oldest.plus(HOUR), text))
    }

    /// Types that may be ordered now.
    fn supply(&self, trials: &[Trial<'a>]) -> Supply<'a> {
        let mut supply = Supply::new();
        for node_type in self.snapshot.types.iter().filter(|t| orderable(t)) {
            let resting = self.snapshot.backoff.get(&node_type.name);
            let living = words::living(self.snapshot, node_type)
                + trials.iter().filter(|t| t.node_type.name == node_type.name).count();
            let most = usize::try_from(node_type.max_count).unwrap_or(usize::MAX);
            let more = most.saturating_sub(living);
            if more > 0 && resting.is_none_or(|until| *until <= self.snapshot.now) {
                supply.push((node_type, u32::try_from(more).unwrap_or(u32::MAX)));
            }
        }
        supply
    }

    /// Orders what `wanted` needs, as much of it as may be, greatest priority first.
    pub fn buy(&mut self, wanted: &[&'a Wanted], bought: &mut Bought<'a>) {
        let supply = self.supply(&bought.trials);
        let mut open: Vec<&'a Wanted> = Vec::new();
        for w in wanted {
            if supply.iter().any(|(t, _)| would_hold(t, &[w])) {
                open.push(w);
            } else {
                bought.waiting.push(words::waiting(
                    self.snapshot,
                    w,
                    words::why_not(self.snapshot, w),
                ));
            }
        }
        open.sort_by_key(|w| (Reverse(w.priority), !w.wake, w.instance.clone()));
        let base = bought.trials.clone();
        let mut hold = None;
        let try_first = |buyer: &mut Self, n: usize| {
            let set = fit(&open[..n], &supply);
            let mut trials = base.clone();
            trials
                .extend(set.nodes.iter().map(|f| Trial { node_type: f.node_type, may_stop: true }));
            buyer.admit(&trials).map(|()| (set, trials))
        };
        // The most that is admitted: all, or by halving. Money grows with the number of starts.
        let (mut low, mut high) = (0, open.len());
        let mut best = match try_first(self, high) {
            Ok(done) => {
                low = high;
                Some(done)
            }
            Err(why) => {
                hold = Some(why);
                None
            }
        };
        while low + 1 < high {
            let middle = usize::midpoint(low, high);
            match try_first(self, middle) {
                Ok(done) => (low, best) = (middle, Some(done)),
                Err(why) => (high, hold) = (middle, Some(why)),
            }
        }
        for (i, w) in open[low..].iter().enumerate() {
            if i > 0 && i < AMOUNTS_MAX {
                let mut some = open[..low].to_vec();
                some.push(w);
                let set = fit(&some, &supply);
                let mut trials = base.clone();
                trials.extend(
                    set.nodes.iter().map(|f| Trial { node_type: f.node_type, may_stop: true }),
                );
                hold = self.admit(&trials).err().or(hold);
            }
            if let Some(hold) = &hold {
                bought.waiting.push(words::waiting(
                    self.snapshot,
                    w,
                    words::told(self.snapshot, hold),
                ));
            }
        }
        if let Some((set, trials)) = best {
            for w in &set.left_out {
                bought.waiting.push(words::waiting(
                    self.snapshot,
                    w,
                    words::why_not(self.snapshot, w),
                ));
            }
            bought.keep(set, trials);
        }
    }

    /// A node an operator asked for.
    pub fn request(&mut self, asked: &Requested, bought: &mut Bought<'a>) -> Result<(), Refusal> {
        let Some(node_type) = self.snapshot.node_type(&asked.node_type) else {
            let known: Vec<&str> = self.snapshot.types.iter().map(|t| t.name.as_str()).collect();
            let detail = format!(
                "no node type is named {}; known are: {}",
                asked.node_type,
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            );
            return Err(words::plain(Why::NoType, detail));
        };
        if !orderable(node_type) {
            let detail = format!(
                "nodes of type {} join by themselves; make a token with `tally node token`",
                node_type.name
            );
            return Err(words::plain(Why::Impossible, detail));
        }
        let free = self.supply(&bought.trials).iter().any(|(t, _)| t.name == node_type.name);
        if !free {
            return Err(words::full(self.snapshot, &[node_type]));
        }
        let mut trials = bought.trials.clone();
        trials.push(Trial { node_type, may_stop: asked.may_stop });
        self.admit(&trials).map_err(|hold| words::told(self.snapshot, &hold))?;
        bought.names.insert(bought.trials.len(), asked.name.clone());
        bought.content.push(Fresh { node_type, content: Vec::new() });
        bought.trials = trials;
        Ok(())
    }
}

/// Price of all dynamic nodes for an hour.
#[must_use]
pub fn burn(accounts: &BTreeMap<NodeId, Account>, protected: &BTreeSet<NodeId>) -> Money {
    let dynamic = accounts.values().filter(|a| !protected.contains(&a.node));
    dynamic.fold(Money::ZERO, |sum, a| sum.plus(Money(a.price.0.max(0))))
}

/// What was decided to be bought.
#[derive(Debug, Default)]
pub struct Bought<'a> {
    /// In the order of the ids.
    pub trials: Vec<Trial<'a>>,
    /// What goes on each.
    pub content: Vec<Fresh<'a>>,
    /// Names asked for, by position.
    pub names: BTreeMap<usize, Option<String>>,
    /// Starts that get none.
    pub waiting: Vec<Waiting>,
}

impl<'a> Bought<'a> {
    fn keep(&mut self, set: Set<'a>, trials: Vec<Trial<'a>>) {
        self.content.extend(set.nodes);
        self.trials = trials;
    }

    /// The orders, each with its reservation.
    #[must_use]
    pub fn orders(&self, snapshot: &Snapshot, policy: &Policy, ids: &[NodeId]) -> Vec<Order> {
        let mut orders = Vec::new();
        for (at, ((trial, fresh), id)) in self.trials.iter().zip(&self.content).zip(ids).enumerate()
        {
            let leave = policy.renew_ahead.saturating_add(policy.drain_lead);
            let account = Account::order(id.clone(), trial.node_type, snapshot.now, leave);
            let mut services: Vec<&str> =
                fresh.content.iter().map(|w| w.service.as_str()).collect();
            services.sort_unstable();
            services.dedup();
            let reason = if services.is_empty() {
                "ordered by an operator".to_owned()
            } else {
                format!("{} starts of {} fit nowhere", fresh.content.len(), services.join(", "))
            };
            let name = self.names.get(&at).cloned().flatten();
            orders.push(Order {
                reserve: account.reserve_line(snapshot.now, &reason),
                node_type: trial.node_type.name.clone(),
                name: name.unwrap_or_else(|| id.to_string()),
                may_stop: trial.may_stop,
                deadline: snapshot.now.plus(policy.order_deadline),
                reason,
                account,
            });
        }
        orders
    }
}
