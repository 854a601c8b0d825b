//! Which nodes stay: the renewals of billing units, the nodes that leave because they are empty or
//! because there is no money for them, and what the provider billed without being asked.

use crate::account::Account;
use crate::plan::Transition;
use crate::policy::Policy;
use crate::purse::{Purse, Standing};
use crate::room::Room;
use crate::snapshot::{Memory, NodeView, Snapshot};
use domain::{LedgerEntry, LedgerKind, NodeId, NodeState, Timestamp};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What this stage decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Renewals {
    /// Lines to be written.
    pub lines: Vec<LedgerEntry>,
    /// Nodes that are drained, undrained or stopped.
    pub transitions: Vec<Transition>,
}

/// Words that begin the reason of a drain for want of money; such a drain ends when money comes.
pub const CAP_REASON: &str = "cap:";

/// Units that began although nobody admitted them: the stop was late or refused, or no manager
/// ran. Facts are written down whatever they cost.
#[must_use]
pub fn facts(snapshot: &Snapshot, accounts: &mut BTreeMap<NodeId, Account>) -> Vec<LedgerEntry> {
    let mut lines = Vec::new();
    for account in accounts.values_mut().filter(|a| !a.price.is_free()) {
        let units = account.units_until(snapshot.now);
        if units > account.units {
            let note = "began without being admitted";
            lines.extend(account.extend_lines(units, snapshot.now, LedgerKind::External, note));
            account.units = units;
        }
    }
    lines
}

/// The order in which nodes get the money there is.
type Turn<'a> = (Standing, Reverse<i32>, Reverse<usize>, i64, &'a NodeId);

/// Renews, drains and stops.
#[must_use]
pub fn renew(
    snapshot: &Snapshot,
    policy: &Policy,
    rooms: &[Room<'_>],
    standing: &BTreeMap<NodeId, Standing>,
    accounts: &mut BTreeMap<NodeId, Account>,
    purse: &mut Purse,
    memory: &Memory,
) -> Renewals {
    let mut out = Renewals::default();
    let mut priorities: BTreeMap<&NodeId, i32> = BTreeMap::new();
    for placed in &snapshot.placed {
        let best = priorities.entry(&placed.node).or_insert(i32::MIN);
        *best = (*best).max(placed.priority);
    }
    let of = |id: &NodeId| standing.get(id).copied().unwrap_or(Standing::Dynamic);
    let mut turns: Vec<(Turn<'_>, &NodeView, &Room<'_>)> = snapshot
        .nodes
        .iter()
        .zip(rooms)
        .map(|(view, room)| {
            let id = &view.node.id;
            let priority = priorities.get(id).copied().unwrap_or(i32::MIN);
            let price = view.node.price.0;
            ((of(id), Reverse(priority), Reverse(room.instances), price, id), view, room)
        })
        .collect();
    turns.sort_by(|a, b| a.0.cmp(&b.0));
    for (turn, view, room) in turns {
        let node = Turning { snapshot, policy, view, room, memory, standing: turn.0 };
        let account = accounts.get_mut(&view.node.id);
        node.decide(account, purse, &mut out);
    }
    out
}

/// One node whose turn it is.
struct Turning<'a> {
    snapshot: &'a Snapshot,
    policy: &'a Policy,
    view: &'a NodeView,
    room: &'a Room<'a>,
    memory: &'a Memory,
    standing: Standing,
}

impl Turning<'_> {
    fn decide(&self, account: Option<&mut Account>, purse: &mut Purse, out: &mut Renewals) {
        let state = self.room.candidate.state;
        if matches!(state, NodeState::Stopping | NodeState::Stopped) {
            return;
        }
        let leaves = self.leaves(account.as_deref());
        if let Some(reason) = leaves {
            out.transitions.push(self.stop(reason));
            return;
        }
        let Some(account) = account else { return };
        if account.price.is_free() {
            return;
        }
        self.renew(account, purse, out);
    }

    /// Why the node goes whatever money there is: it is empty and paid no longer than needed, or
    /// its drain is over.
    fn leaves(&self, account: Option<&Account>) -> Option<String> {
        let (node, now) = (&self.view.node, self.snapshot.now);
        let ours = node.may_stop && node.provider != "static";
        if !ours || matches!(self.room.candidate.state, NodeState::Ordered | NodeState::Booting) {
            return None;
        }
        let empty = self.room.instances == 0;
        if let Some(drain) = &node.drain {
            let forced = now >= drain.deadline && self.standing == Standing::Dynamic;
            return (empty || forced).then(|| {
                if empty {
                    "drained".to_owned()
                } else {
                    format!("drain overdue: {}", drain.reason)
                }
            });
        }
        if !empty {
            return None;
        }
        let since = self.memory.empty_since.get(&node.id).copied().unwrap_or(now);
        let young = account.is_some_and(|a| now < a.start().plus(node.min_life));
        let kept = node.price.is_free() || node.billing_unit <= self.policy.short_unit;
        let due = if kept {
            now >= since.plus(self.policy.empty_after)
        } else {
            account.is_some_and(|a| a.paid_until() < self.admit_until(a))
        };
        (due && !young).then(|| "empty".to_owned())
    }

    /// What must be admitted now, or the node cannot be stopped in time.
    fn admit_until(&self, account: &Account) -> Timestamp {
        self.snapshot.now.plus(account.stop_lead).plus(self.policy.renew_ahead)
    }

    fn renew(&self, account: &mut Account, purse: &mut Purse, out: &mut Renewals) {
        let node = &self.view.node;
        let must = self.admit_until(account);
        let in_use = self.room.instances > 0;
        let should = if in_use { must.plus(self.policy.drain_lead) } else { must };
        if account.paid_until() >= should {
            return;
        }
        let written = account.clone();
        let well = purse.renew(account, account.units_until(should), self.standing);
        let admitted = well || purse.renew(account, account.units_until(must), self.standing);
        if admitted {
            let units = account.units_until(must);
            let note = "a further unit was admitted";
            out.lines.extend(written.extend_lines(
                units,
                self.snapshot.now,
                LedgerKind::Renew,
                note,
            ));
            account.units = if well { account.units_until(should) } else { units };
        }
        if !admitted && written.paid_until() < must {
            out.transitions.push(self.stop(format!("{CAP_REASON} no further unit is affordable")));
            return;
        }
        let drained_for_money =
            node.drain.as_ref().is_some_and(|d| d.reason.starts_with(CAP_REASON));
        if well && drained_for_money {
            out.transitions.push(self.to(NodeState::Ready, None, "affordable again".to_owned()));
        } else if !well && node.drain.is_none() && node.ready_at.is_some() {
            let deadline = account.paid_until().minus(account.stop_lead);
            let reason = format!("{CAP_REASON} the next unit would exceed it");
            out.transitions.push(self.to(NodeState::Draining, Some(deadline), reason));
        }
    }

    fn stop(&self, reason: String) -> Transition {
        let deadline = self.snapshot.now.plus(self.policy.stop_deadline);
        self.to(NodeState::Stopping, Some(deadline), reason)
    }

    fn to(&self, to: NodeState, deadline: Option<Timestamp>, reason: String) -> Transition {
        Transition { node: self.view.node.id.clone(), to, deadline, reason }
    }
}
