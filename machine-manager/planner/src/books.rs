//! The ledger read back: from its lines to the account of each node and the sum of each month.

use crate::account::Account;
use crate::month::Month;
use domain::{LedgerEntry, LedgerKind, Money, Node, NodeId, Timestamp};
use std::collections::BTreeMap;

/// Sums of ledger lines. Lines may come in any order but for those of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Books {
    charged: BTreeMap<Month, Money>,
    open: BTreeMap<NodeId, Open>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    started_at: Option<Timestamp>,
    paid_until: Timestamp,
}

impl Books {
    /// Months kept: this one, the last and the next suffice; two more for a clock set back.
    pub const MONTHS_MAX: usize = 5;

    /// Takes in one line.
    pub fn apply(&mut self, line: &LedgerEntry) {
        let open = self.open.get(&line.node).cloned();
        match line.kind {
            LedgerKind::Reserve => {
                let mut open = open.unwrap_or(Open { started_at: None, paid_until: line.until });
                open.paid_until = open.paid_until.max(line.until);
                self.open.insert(line.node.clone(), open);
                return;
            }
            LedgerKind::Release => {
                self.open.remove(&line.node);
                return;
            }
            LedgerKind::Start => {
                let mut next = Open { started_at: Some(line.from), paid_until: line.until };
                if let Some(Open { started_at: Some(first), paid_until }) = open {
                    next = Open {
                        started_at: Some(first.min(line.from)),
                        paid_until: paid_until.max(line.until),
                    };
                }
                self.open.insert(line.node.clone(), next);
            }
            LedgerKind::Renew | LedgerKind::External => {
                if let Some(open) = self.open.get_mut(&line.node) {
                    open.paid_until = open.paid_until.max(line.until);
                }
            }
            LedgerKind::Stop => {
                self.open.remove(&line.node);
            }
        }
        let sum = self.charged.entry(Month::of(line.from)).or_default();
        *sum = sum.plus(line.amount);
        while self.charged.len() > Self::MONTHS_MAX {
            self.charged.pop_first();
        }
    }

    /// The sum of each month: started, renewed, stopped and external lines.
    #[must_use]
    pub fn charged(&self) -> &BTreeMap<Month, Money> {
        &self.charged
    }

    /// The account of a node that is not stopped. A node without lines (it joined by itself before
    /// its price was known) is billed from its order on.
    #[must_use]
    pub fn account(&self, node: &Node) -> Account {
        match self.open.get(&node.id) {
            Some(open) => Account::restore(node, open.started_at, open.paid_until),
            None => Account::restore(node, None, node.ordered_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::PricePerHour;
    use std::time::Duration;

    #[test]
    fn an_account_comes_back_from_its_lines() {
        let mut books = Books::default();
        let node_type = crate::tell::tests::node_type("small", 3_600_000, 2);
        let now = Timestamp(1_767_225_600_000);
        let id: NodeId = "n-0000000001".parse().unwrap();
        let leave = Duration::from_secs(70);
        let mut account = Account::order(id.clone(), &node_type, now, leave);
        books.apply(&account.reserve_line(now, ""));
        let (begun, lines) = account.begin(now.plus(Duration::from_secs(5)), now.plus(leave));
        lines.iter().for_each(|l| books.apply(l));
        let more = begun.extend_lines(3, now, LedgerKind::Renew, "");
        more.iter().for_each(|l| books.apply(l));
        account = Account { units: 3, ..begun };
        let node = crate::tell::tests::node("n-0000000001", &node_type, now);
        assert_eq!(books.account(&node), account);
        assert_eq!(
            books.charged()[&Month::of(now)],
            PricePerHour(3_600_000).over(3 * node_type.billing_unit)
        );
        account.settle(now.plus(Duration::from_secs(60)), now).iter().for_each(|l| books.apply(l));
        assert_eq!(books.charged()[&Month::of(now)], Money(3_600_000));
    }
}
