//! The second reader: refuses a plan that spends over the cap, orders over a maximum, overfills a
//! node or stops what is protected. It shares no code with the planner.

use crate::plan::Plan;
use crate::snapshot::Snapshot;
use domain::{LedgerEntry, LedgerKind, MonthlyCap, NodeId, NodeState, Timestamp};
use std::collections::BTreeMap;

/// What a plan must never do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// More than the cap, in micro-units.
    #[error("the plan promises {promised} micro-units in a month with a cap of {cap}")]
    OverCap {
        /// Sum of the month after the plan.
        promised: i128,
        /// Its bound.
        cap: i128,
    },
    /// A priced order without any budget.
    #[error("a priced node of type {0} is ordered although no budget is set")]
    NoBudget(String),
    /// More nodes than a type may have.
    #[error("type {node_type} would have {count} nodes; {max} are allowed")]
    TypeMax {
        /// Which type.
        node_type: String,
        /// Nodes after the plan.
        count: usize,
        /// Most allowed.
        max: u32,
    },
    /// More on a node than it holds.
    #[error("node {0} is given more than it holds")]
    Overfull(NodeId),
    /// A start on a node that is not ready.
    #[error("a start is granted on node {0}, which takes none")]
    NotReady(NodeId),
    /// A protected node would end or drain.
    #[error("node {0} is protected and would be {1}")]
    Protected(NodeId, NodeState),
    /// An instance nobody offered would stop.
    #[error("instance {0} would stop although it was not offered")]
    Stop(String),
}

/// Reads `plan` against `snapshot`.
///
/// # Errors
/// The first thing found that must never be.
pub fn check(snapshot: &Snapshot, plan: &Plan) -> Result<(), Violation> {
    for change in &plan.transitions {
        let kept = snapshot.nodes.iter().any(|v| {
            v.node.id == change.node
                && !v.node.may_stop
                && v.node.ready_at.is_some()
                && v.node.state != NodeState::Stopping
        });
        if kept && matches!(change.to, NodeState::Stopping | NodeState::Draining) {
            let already =
                snapshot.nodes.iter().any(|v| v.node.id == change.node && v.node.drain.is_some());
            if change.to == NodeState::Stopping || !already {
                return Err(Violation::Protected(change.node.clone(), change.to));
            }
        }
    }
    counts(snapshot, plan)?;
    rooms(snapshot, plan)?;
    for stop in &plan.stops {
        if !snapshot.stops.iter().any(|s| s.candidates.contains(stop)) {
            return Err(Violation::Stop(stop.to_string()));
        }
    }
    money(snapshot, plan)
}

fn counts(snapshot: &Snapshot, plan: &Plan) -> Result<(), Violation> {
    for node_type in &snapshot.types {
        let ordered = plan.orders.iter().filter(|o| o.node_type == node_type.name).count();
        let there = snapshot
            .nodes
            .iter()
            .filter(|v| v.node.node_type == node_type.name && v.node.state != NodeState::Stopped)
            .count();
        if ordered > 0 && (ordered + there) as u64 > u64::from(node_type.max_count) {
            return Err(Violation::TypeMax {
                node_type: node_type.name.to_string(),
                count: ordered + there,
                max: node_type.max_count,
            });
        }
    }
    Ok(())
}

fn rooms(snapshot: &Snapshot, plan: &Plan) -> Result<(), Violation> {
    let mut load: BTreeMap<&str, (u64, u128)> = BTreeMap::new();
    let mut on: BTreeMap<&str, &str> = BTreeMap::new();
    for placed in snapshot.placed.iter().chain(&snapshot.reservations) {
        // A row outranks the reservation made for it.
        if on.contains_key(placed.instance.as_str()) {
            continue;
        }
        on.insert(placed.instance.as_str(), placed.node.as_str());
        let sum = load.entry(placed.node.as_str()).or_default();
        sum.0 += u64::from(placed.resources.cpu.0);
        sum.1 += u128::from(placed.resources.memory.0);
    }
    for grant in &plan.granted {
        if on.get(grant.instance.as_str()) == Some(&grant.node.as_str()) {
            continue;
        }
        let wanted = snapshot.wanted.iter().find(|w| w.instance == grant.instance);
        let view = snapshot.nodes.iter().find(|v| v.node.id == grant.node);
        let (Some(wanted), Some(view)) = (wanted, view) else {
            return Err(Violation::NotReady(grant.node.clone()));
        };
        let heard =
            matches!(view.node.state, NodeState::Ready | NodeState::Suspect | NodeState::Lost);
        if !heard || view.node.drain.is_some() {
            return Err(Violation::NotReady(grant.node.clone()));
        }
        let sum = load.entry(grant.node.as_str()).or_default();
        sum.0 += u64::from(wanted.resources.cpu.0);
        sum.1 += u128::from(wanted.resources.memory.0);
        let room = view.node.capacity.resources;
        if sum.0 > u64::from(room.cpu.0) || sum.1 > u128::from(room.memory.0) {
            return Err(Violation::Overfull(grant.node.clone()));
        }
    }
    Ok(())
}

/// Civil month number of a moment, worked out day by day from a known year's start: slow, plain,
/// and unlike the planner's.
fn month_number(at: Timestamp) -> i64 {
    let mut day = at.0.div_euclid(86_400_000);
    let mut year = 1970;
    let leap = |y: i64| (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    while day >= 365 + i64::from(leap(year)) {
        day -= 365 + i64::from(leap(year));
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    for (i, length) in (0..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
        if day < length {
            return year * 12 + i;
        }
        day -= length;
    }
    year * 12
}

/// Lines that decide something (orders, further units of nodes that may stop) must leave each
/// month they touch at or under the cap. Facts and protected nodes are as they are.
fn money(snapshot: &Snapshot, plan: &Plan) -> Result<(), Violation> {
    let cap = match snapshot.budget.cap {
        MonthlyCap::Unlimited => return Ok(()),
        MonthlyCap::Unset => 0,
        MonthlyCap::Amount(cap) => i128::from(cap.0),
    };
    let priced = plan.orders.iter().find(|o| o.account.price.0 > 0);
    if let (MonthlyCap::Unset, Some(order)) = (snapshot.budget.cap, priced) {
        return Err(Violation::NoBudget(order.node_type.to_string()));
    }
    let protected =
        |id: &NodeId| snapshot.nodes.iter().any(|v| v.node.id == *id && !v.node.may_stop);
    let decides = |l: &&LedgerEntry| {
        let ahead = l.from >= snapshot.now;
        matches!(l.kind, LedgerKind::Renew | LedgerKind::Reserve) && ahead && !protected(&l.node)
    };
    let orders = plan.orders.iter().map(|o| &o.reserve);
    let mut months: Vec<i64> = plan
        .ledger
        .iter()
        .filter(decides)
        .filter(|l| l.amount.0 > 0)
        .chain(orders.clone().filter(|l| l.amount.0 > 0))
        .map(|l| month_number(l.from))
        .collect();
    months.sort_unstable();
    months.dedup();
    for month in months {
        let charged = snapshot.charged.iter().find(|(m, _)| month_number(m.start()) == month);
        let mut sum = charged.map_or(0, |(_, m)| i128::from(m.0));
        let ordered = plan.orders.iter().map(|o| &o.account);
        let flights = snapshot.accounts.values().filter(|a| a.started_at.is_none());
        for account in flights.chain(ordered) {
            let unit_ms = i64::try_from(account.unit.as_millis()).unwrap_or(i64::MAX).max(1);
            let more = plan.ledger.iter().filter(|l| l.node == account.node);
            let more = more.map(|l| (l.until.0 - l.from.0) / unit_ms).sum::<i64>();
            let units = account.units.saturating_add(u64::try_from(more).unwrap_or(0));
            let account = &crate::Account { units, ..account.clone() };
            let unit = i128::try_from(account.unit.as_millis()).unwrap_or(i128::MAX).max(1);
            let units = first_unit_from(account, month + 1) - first_unit_from(account, month);
            sum += (i128::from(account.price.0) * unit * i128::from(units) + 3_599_999) / 3_600_000;
        }
        let lines = plan.ledger.iter().filter(|l| month_number(l.from) == month);
        sum += lines
            .filter(|l| l.kind != LedgerKind::Reserve)
            .map(|l| i128::from(l.amount.0))
            .sum::<i128>();
        if sum > cap {
            return Err(Violation::OverCap { promised: sum, cap });
        }
    }
    Ok(())
}

/// The number of the first admitted unit that begins in `month` or later, by halving.
fn first_unit_from(account: &crate::Account, month: i64) -> u64 {
    let unit = i64::try_from(account.unit.as_millis()).unwrap_or(i64::MAX);
    let begins = |i: u64| {
        let i = i64::try_from(i).unwrap_or(i64::MAX);
        month_number(Timestamp(account.ordered_at.0.saturating_add(i.saturating_mul(unit))))
    };
    let (mut low, mut high) = (0, account.units);
    while low < high {
        let middle = u64::midpoint(low, high);
        if begins(middle) >= month { high = middle } else { low = middle + 1 }
    }
    low
}
