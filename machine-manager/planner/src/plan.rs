//! What a plan says: everything to be done, nothing left to choose, and why what was not done.

use crate::account::Account;
use crate::snapshot::Memory;
use domain::{
    Event, InstanceId, LedgerEntry, Money, NodeId, NodeState, NodeTypeName, ServiceName, Timestamp,
};
use std::fmt;

/// The complete result of one plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Starts that have a node.
    pub granted: Vec<Grant>,
    /// Starts that wait, and for what.
    pub waiting: Vec<Waiting>,
    /// Instances to stop, of those offered.
    pub stops: Vec<InstanceId>,
    /// Nodes to order, each with the reservation to be written first.
    pub orders: Vec<Order>,
    /// Nodes an operator asked for and does not get, by index in `Snapshot::requested`.
    pub refused: Vec<(usize, Refusal)>,
    /// Nodes that change.
    pub transitions: Vec<Transition>,
    /// Lines for renewals and facts, to be written before anything is done. The lines of orders
    /// are in the orders.
    pub ledger: Vec<LedgerEntry>,
    /// What people should know.
    pub events: Vec<Event>,
    /// The figures behind it.
    pub report: Report,
    /// What the next plan must know.
    pub memory: Memory,
    /// When to plan again at the latest, if a deadline is nearer than the beat.
    pub plan_again_at: Option<Timestamp>,
}

/// A start and its node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// Which instance.
    pub instance: InstanceId,
    /// Where.
    pub node: NodeId,
}

/// Why a start waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// A node is coming, or about to be ordered.
    Node,
    /// The cost cap holds it back.
    Cap,
    /// Its types have all the nodes they may have.
    TypeMax,
    /// No node type that can be had would hold it.
    NoType,
    /// What it needs cannot be.
    Impossible,
}

impl Why {
    /// The text form of the protocol.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Node => "node",
            Why::Cap => "cap",
            Why::TypeMax => "type_max",
            Why::NoType => "no_type",
            Why::Impossible => "impossible",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A refusal with what would undo it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What stands in the way.
    pub why: Why,
    /// By how much the cap must rise; zero when money is not the reason.
    pub needs: Money,
    /// When it may go on by itself.
    pub until: Option<Timestamp>,
    /// A sentence for people.
    pub detail: String,
}

/// A start that has no node yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Which instance.
    pub instance: InstanceId,
    /// Of which service.
    pub service: ServiceName,
    /// The cheapest type that would hold it, if there is one.
    pub node_type: Option<NodeTypeName>,
    /// The node it will get, when it is known.
    pub node: Option<NodeId>,
    /// When that node should be ready.
    pub eta: Option<Timestamp>,
    /// What stands in the way.
    pub refusal: Refusal,
}

/// A node to order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its account, opened with this order.
    pub account: Account,
    /// The reservation, written before the provider is asked.
    pub reserve: LedgerEntry,
    /// Its type.
    pub node_type: NodeTypeName,
    /// Its unique name.
    pub name: String,
    /// False: protected.
    pub may_stop: bool,
    /// The provider must accept it by then.
    pub deadline: Timestamp,
    /// For whom.
    pub reason: String,
}

/// A node's next state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Which node.
    pub node: NodeId,
    /// What becomes of it.
    pub to: NodeState,
    /// Until when it may stay there.
    pub deadline: Option<Timestamp>,
    /// Why, in words; the first word is stable.
    pub reason: String,
}

/// The figures of one plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Billing units that have ended this month, and everything settled.
    pub spent: Money,
    /// Money already promised for this month: units begun, orders in flight, and protected nodes
    /// and those that carry the minimum to the month's end.
    pub obligations: Money,
    /// The cap; `None` when it is not an amount.
    pub cap: Option<Money>,
    /// What may still be promised: cap - reserve - spent - obligations. Negative when over.
    pub free: Option<Money>,
    /// What the month will cost when all running nodes stay.
    pub forecast: Money,
    /// When the free money ends at the present rate, if that is before the month does.
    pub exhausted_at: Option<Timestamp>,
    /// Price of all running dynamic nodes for an hour.
    pub burn_per_hour: Money,
    /// A fact from outside put spending over the cap.
    pub over_cap: bool,
    /// Too many nodes are silent; nothing moves.
    pub deaf: bool,
    /// Nodes that carry the minimum instances.
    pub carriers: Vec<NodeId>,
    /// Nodes that are hot, with the reason.
    pub hot: Vec<(NodeId, String)>,
}
