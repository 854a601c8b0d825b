//! Decisions and events: what was decided, what happened, and why.

use crate::id::ServiceName;
use crate::money::Money;
use crate::time::Timestamp;

/// One decision about a service's number of instances, changed or held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// About which service.
    pub service: ServiceName,
    /// Goal before.
    pub from: u32,
    /// Goal after.
    pub to: u32,
    /// Short and stable: `load`, `burst`, `wake`, `idle`, `minimum`, `lifespan`, `operator`, ...
    pub reason: String,
    /// The formula's inputs and values, as `name=value` words.
    pub inputs: String,
    /// Each bound that changed the number, with its reason.
    pub clamps: Vec<String>,
    /// What a start waits for: a node with its ETA, or a cap with the amount.
    pub waiting_for: Option<String>,
    /// Difference of the running cost.
    pub cost_delta_per_hour: Money,
    /// Who decided: `planner` or an operator.
    pub actor: String,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// A service was declared, changed or removed.
    Service,
    /// The number of instances was decided.
    Scale,
    /// An instance changed its state.
    Instance,
    /// A node changed its state.
    Node,
    /// Money: an order, a refusal, a cap.
    Budget,
    /// Something was refused.
    Refusal,
    /// A control process started, lost or won its lease.
    Control,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [EventKind; 7] = [
        EventKind::Service,
        EventKind::Scale,
        EventKind::Instance,
        EventKind::Node,
        EventKind::Budget,
        EventKind::Refusal,
        EventKind::Control,
    ];

    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Service => "service",
            EventKind::Scale => "scale",
            EventKind::Instance => "instance",
            EventKind::Node => "node",
            EventKind::Budget => "budget",
            EventKind::Refusal => "refusal",
            EventKind::Control => "control",
        }
    }
}

/// Something that happened, for people and machines to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What it is about.
    pub kind: EventKind,
    /// Which one: a name or an id.
    pub subject: String,
    /// One short stable word: `ordered`, `ready`, `held_back`, ...
    pub what: String,
    /// A sentence for people.
    pub detail: String,
    /// `name=value` words for machines; may be empty.
    pub values: String,
}
