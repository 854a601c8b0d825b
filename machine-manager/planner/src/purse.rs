//! The cap: what is spent, what is promised, and whether one thing more may be.
//!
//! Two sums are kept for this month and the next. *Soft* counts everything promised: admitted
//! units, orders in flight, and protected nodes and the carriers of the minimum to the month's
//! end; orders and renewals must leave it at or under cap - reserve. *Hard* counts carriers only
//! as far as they are admitted; the renewal of a carrier must leave it at or under the cap.
//! Protected nodes are always renewed: they were counted to the month's end from the start.

use crate::account::Account;
use crate::carry::Carriers;
use crate::month::{LONGEST, Month};
use crate::policy::Policy;
use crate::snapshot::Snapshot;
use domain::{Budget, Money, MonthlyCap, NodeId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// How long a node stays for sure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Protected: to the month's end and beyond, whatever it costs.
    Protected,
    /// It carries minimum instances: to the month's end as long as there is money.
    Carrier,
    /// To the end of its admitted units.
    Dynamic,
}

/// The sums of this month and the next, and what they may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purse {
    now: Timestamp,
    flight_until: Timestamp,
    months: [Month; 2],
    soft: [Money; 2],
    hard: [Money; 2],
    /// Price of everything that stands, for the longest month.
    standing: Money,
    /// cap - reserve; `None`: no bound.
    limit: Option<Money>,
    /// The cap; `None`: no bound.
    cap: Option<Money>,
    reserve_share: u32,
}

/// cap - reserve, the reserve rounded up.
fn limit_of(cap: Money, reserve_share: u32) -> Money {
    let reserve = (i128::from(cap.0) * i128::from(reserve_share) + 9_999).div_euclid(10_000);
    cap.minus(Money(i64::try_from(reserve).unwrap_or(i64::MAX)))
}

/// The smallest rise of `cap` whose limit reaches `needed`.
fn rise(cap: Money, reserve_share: u32, needed: Money) -> Money {
    if reserve_share >= 10_000 {
        return needed;
    }
    let free_share = i128::from(10_000 - reserve_share);
    let guess = (i128::from(needed.0) * 10_000).div_euclid(free_share);
    let mut wanted = Money(i64::try_from(guess).unwrap_or(i64::MAX - 8).min(i64::MAX - 8));
    // The division rounds down and the reserve up: at most two steps apart.
    while limit_of(wanted, reserve_share) < needed {
        wanted = wanted.plus(Money(1));
    }
    wanted.minus(cap)
}

impl Purse {
    /// Adds up `accounts` under `budget`.
    #[must_use]
    pub fn new(
        snapshot: &Snapshot,
        policy: &Policy,
        accounts: &BTreeMap<NodeId, Account>,
        protected: &BTreeSet<NodeId>,
        carriers: &Carriers,
    ) -> Purse {
        let (now, budget) = (snapshot.now, &snapshot.budget);
        let month = Month::of(now);
        let mut purse = Purse::empty(now, policy, budget);
        for (i, month) in [month, month.next()].into_iter().enumerate() {
            let charged = snapshot.charged.get(&month).copied().unwrap_or_default();
            purse.soft[i] = charged;
            purse.hard[i] = charged;
        }
        for account in accounts.values() {
            let written = snapshot.accounts.get(&account.node).filter(|a| a.started_at.is_some());
            purse.add(account, written, standing_of(&account.node, protected, carriers));
        }
        for price in &carriers.missing {
            let left = month.end().since(now);
            purse.soft[0] = purse.soft[0].plus(price.over(left));
            let whole = month.next().end().since(month.next().start());
            purse.soft[1] = purse.soft[1].plus(price.over(whole));
            purse.standing = purse.standing.plus(price.over(LONGEST));
        }
        purse
    }

    fn empty(now: Timestamp, policy: &Policy, budget: &Budget) -> Purse {
        let month = Month::of(now);
        let cap = match budget.cap {
            MonthlyCap::Unset => Some(Money::ZERO),
            MonthlyCap::Unlimited => None,
            MonthlyCap::Amount(cap) => Some(cap),
        };
        Purse {
            now,
            flight_until: now.plus(policy.flight_max()),
            months: [month, month.next()],
            soft: [Money::ZERO; 2],
            hard: [Money::ZERO; 2],
            standing: Money::ZERO,
            limit: cap.map(|cap| limit_of(cap, budget.reserve.0)),
            cap,
            reserve_share: budget.reserve.0,
        }
    }

    /// Adds an account on top of the ledger's sum, which holds the units `written` so far.
    fn add(&mut self, account: &Account, written: Option<&Account>, standing: Standing) {
        for i in 0..2 {
            let month = self.months[i];
            let admitted = account.cost(month, account.units, self.flight_until);
            let charged = written.map_or(Money::ZERO, |w| w.cost(month, w.units, self.now));
            let to_end = account.cost_to_end(month).max(admitted);
            let (soft, hard) = match standing {
                Standing::Protected => (to_end, to_end),
                Standing::Carrier => (to_end, admitted),
                Standing::Dynamic => (admitted, admitted),
            };
            self.soft[i] = self.soft[i].plus(soft).minus(charged);
            self.hard[i] = self.hard[i].plus(hard).minus(charged);
        }
        if standing != Standing::Dynamic {
            let longest = LONGEST.saturating_add(account.unit);
            self.standing = self.standing.plus(account.price.over(longest));
        }
    }

    /// What is promised this month beyond the limit; `None` when it is within.
    #[must_use]
    pub fn missing(&self) -> Option<Money> {
        let (limit, cap) = (self.limit?, self.cap?);
        let most = self.soft[0].max(self.soft[1]).max(self.standing);
        (most > limit).then(|| rise(cap, self.reserve_share, most))
    }

    /// What is promised beyond the cap itself, the reserve aside.
    #[must_use]
    pub fn beyond_cap(&self) -> Option<Money> {
        let most = self.soft[0].max(self.soft[1]).max(self.standing);
        self.cap.and_then(|cap| (most > cap).then(|| most.minus(cap)))
    }

    /// Whether the next month would bear what this one does not: then waiting helps.
    #[must_use]
    pub fn fits_next_month(&self) -> bool {
        self.limit.is_none_or(|limit| self.soft[1] <= limit && self.standing <= limit)
    }

    /// Admits units up to `units` of a node that runs, or says no and changes nothing.
    pub fn renew(&mut self, account: &Account, units: u64, standing: Standing) -> bool {
        let mut next = self.clone();
        for i in 0..2 {
            let month = self.months[i];
            let before = account.cost(month, account.units, self.flight_until);
            let after = account.cost(month, units, self.flight_until);
            let more = after.minus(before);
            match standing {
                Standing::Dynamic => {
                    next.soft[i] = next.soft[i].plus(more);
                    next.hard[i] = next.hard[i].plus(more);
                }
                // Counted to the end already, in soft; in hard it moves forward unit by unit.
                Standing::Carrier => {
                    let to_end = account.cost_to_end(month);
                    next.soft[i] = next.soft[i].plus(after.max(to_end).minus(before.max(to_end)));
                    next.hard[i] = next.hard[i].plus(more);
                }
                Standing::Protected => {
                    let to_end = account.cost_to_end(month);
                    let more = after.max(to_end).minus(before.max(to_end));
                    next.soft[i] = next.soft[i].plus(more);
                    next.hard[i] = next.hard[i].plus(more);
                }
            }
        }
        let within = |sums: [Money; 2], bound: Option<Money>, old: [Money; 2]| {
            bound.is_none_or(|bound| (0..2).all(|i| sums[i] <= bound || sums[i] <= old[i]))
        };
        let admitted = account.price.is_free()
            || match standing {
                Standing::Protected => true,
                Standing::Carrier => within(next.hard, self.cap, self.hard),
                Standing::Dynamic => within(next.soft, self.limit, self.soft),
            };
        if admitted {
            *self = next;
        }
        admitted
    }

    /// Spent and promised this month, together.
    #[must_use]
    pub fn promised(&self) -> Money {
        self.soft[0]
    }

    /// Spent and promised beyond what even the minimum could be denied, this month.
    #[must_use]
    pub fn unavoidable(&self) -> Money {
        self.hard[0]
    }

    /// What may still be promised this month; `None`: no bound.
    #[must_use]
    pub fn free(&self) -> Option<Money> {
        self.limit.map(|limit| limit.minus(self.soft[0]))
    }

    /// The cap; `None`: no bound.
    #[must_use]
    pub fn cap(&self) -> Option<Money> {
        self.cap
    }

    /// When the money of the next month becomes available.
    #[must_use]
    pub fn next_month(&self) -> Timestamp {
        self.months[1].start()
    }

    /// The moment of the sums.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }
}

/// How long the node stays for sure.
#[must_use]
pub fn standing_of(node: &NodeId, protected: &BTreeSet<NodeId>, carriers: &Carriers) -> Standing {
    if protected.contains(node) {
        Standing::Protected
    } else if carriers.nodes.contains(node) {
        Standing::Carrier
    } else {
        Standing::Dynamic
    }
}
