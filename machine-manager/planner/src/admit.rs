//! Admissions that are no orders: a service's minimum, a node's protection, a lower cap.

use crate::carry::carriers;
use crate::month::date;
use crate::plan::{Refusal, Why};
use crate::policy::Policy;
use crate::purse::Purse;
use crate::room::Candidate;
use crate::snapshot::{Minimum, Snapshot};
use domain::{Budget, Money, MonthlyCap, NodeId};
use std::collections::BTreeSet;

fn protected(snapshot: &Snapshot) -> BTreeSet<NodeId> {
    let nodes = snapshot.nodes.iter().filter(|v| !v.node.may_stop);
    nodes.map(|v| v.node.id.clone()).collect()
}

fn purse(snapshot: &Snapshot, policy: &Policy, protected: &BTreeSet<NodeId>) -> (Purse, u32) {
    let candidates: Vec<Candidate<'_>> = snapshot
        .nodes
        .iter()
        .map(|v| Candidate { may_stop: !protected.contains(&v.node.id), ..Candidate::of_node(v) })
        .collect();
    let carriers = carriers(snapshot, &candidates);
    (Purse::new(snapshot, policy, &snapshot.accounts, protected, &carriers), carriers.impossible)
}

fn by_cap(purse: &Purse, needs: Money, what: &str, snapshot: &Snapshot) -> Refusal {
    let until = purse.fits_next_month().then(|| purse.next_month());
    let currency = snapshot.budget.currency;
    let end = until.map_or("the cap is raised".to_owned(), date);
    let detail = match snapshot.budget.cap {
        MonthlyCap::Unset => format!(
            "{what} needs {needs} {currency} a month and no budget is set; set one with \
             `tally budget set --monthly-cap \"120 {currency}\"`"
        ),
        MonthlyCap::Unlimited | MonthlyCap::Amount(_) => {
            format!("{what} blocked by cost cap: needs {needs} {currency} more until {end}")
        }
    };
    Refusal { why: Why::Cap, needs, until, detail }
}

/// Whether `minimum` may be promised, replacing what its service was promised before.
///
/// # Errors
/// By how much the cap must rise. A minimum that asks for no more than before is never refused;
/// one that no node could carry is not about money, and waits for a node.
pub fn admit_minimum(
    snapshot: &Snapshot,
    policy: &Policy,
    minimum: &Minimum,
) -> Result<(), Refusal> {
    let protected = protected(snapshot);
    let (before, _) = purse(snapshot, policy, &protected);
    let mut with = snapshot.clone();
    with.minimums.retain(|m| m.service != minimum.service);
    with.minimums.push(minimum.clone());
    with.normalise();
    let (after, _) = purse(&with, policy, &protected);
    match after.missing() {
        Some(needs) if before.missing().is_none_or(|old| needs > old) => {
            let what = format!("the minimum of {} x {}", minimum.count, minimum.service);
            Err(by_cap(&after, needs, &what, snapshot))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether `node` may become protected: it then counts to the month's end, every month.
///
/// # Errors
/// By how much the cap must rise.
pub fn admit_protection(
    snapshot: &Snapshot,
    policy: &Policy,
    node: &NodeId,
) -> Result<(), Refusal> {
    let mut protected = protected(snapshot);
    protected.insert(node.clone());
    let (after, _) = purse(snapshot, policy, &protected);
    match after.missing() {
        Some(needs) => Err(by_cap(&after, needs, &format!("protecting {node}"), snapshot)),
        None => Ok(()),
    }
}

/// Whether `budget` leaves room for what is protected and for the minimum to the month's end.
///
/// # Errors
/// How much more the cap must be. An operator may force it: then protected nodes stay, nothing is
/// ordered, and all else leaves at its edge.
pub fn admit_cap(snapshot: &Snapshot, policy: &Policy, budget: &Budget) -> Result<(), Refusal> {
    let mut with = snapshot.clone();
    with.budget = budget.clone();
    let (after, _) = purse(&with, policy, &protected(snapshot));
    match after.beyond_cap() {
        Some(needs) => {
            let what = "protected nodes and minimum instances to the month's end:";
            let mut refusal = by_cap(&after, needs, what, &with);
            refusal.until = None;
            refusal.detail = format!(
                "spent, {what} {needs} {} more than this cap allows; set it with force to let them \
                 stay and order nothing",
                budget.currency
            );
            Err(refusal)
        }
        None => Ok(()),
    }
}
