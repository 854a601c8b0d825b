//! Budget and ledger: what may be spent in a month and what was.

use crate::id::{NodeId, NodeTypeName};
use crate::money::{Currency, Money};
use crate::time::{Generation, Timestamp};
use crate::units::Share;

/// What may be spent in one calendar month (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonthlyCap {
    /// Not set: priced orders are refused.
    Unset,
    /// `monthly_cap: none`, said explicitly.
    Unlimited,
    /// Never exceeded.
    Amount(Money),
}

/// The operator's limits on money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// The one currency of the cluster.
    pub currency: Currency,
    /// What may be spent in a month.
    pub cap: MonthlyCap,
    /// Share of the cap that stays free (3 %).
    pub reserve: Share,
    /// Whether what is left is spread over the days left.
    pub strict_pacing: bool,
    /// Version of the declaration.
    pub generation: Generation,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            currency: Currency::EUR,
            cap: MonthlyCap::Unset,
            reserve: Share::percent(3),
            strict_pacing: false,
            generation: Generation(0),
        }
    }
}

/// What a ledger line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LedgerKind {
    /// Money promised before the provider is asked.
    Reserve,
    /// The provider said no, or the order was given up: the promise is void.
    Release,
    /// Billing began.
    Start,
    /// A further billing unit was admitted.
    Renew,
    /// Billing ended.
    Stop,
    /// A fact from outside: an invoice, a stranger, a correction.
    External,
}

impl LedgerKind {
    /// Every kind.
    pub const ALL: [LedgerKind; 6] = [
        LedgerKind::Reserve,
        LedgerKind::Release,
        LedgerKind::Start,
        LedgerKind::Renew,
        LedgerKind::Stop,
        LedgerKind::External,
    ];

    /// The text form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            LedgerKind::Reserve => "reserve",
            LedgerKind::Release => "release",
            LedgerKind::Start => "start",
            LedgerKind::Renew => "renew",
            LedgerKind::Stop => "stop",
            LedgerKind::External => "external",
        }
    }
}

/// One line of the ledger; lines are only added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// When.
    pub at: Timestamp,
    /// For which node.
    pub node: NodeId,
    /// Of which type.
    pub node_type: NodeTypeName,
    /// What happened.
    pub kind: LedgerKind,
    /// How much is promised or charged by this line.
    pub amount: Money,
    /// The period it pays for: from.
    pub from: Timestamp,
    /// The period it pays for: until.
    pub until: Timestamp,
    /// In words.
    pub note: String,
}
