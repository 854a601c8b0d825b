//! The account of one node: which billing units were admitted, in which month each one counts, and
//! the ledger lines that say so.
//!
//! A unit belongs to the month it starts in. Per node and month the price is rounded up once: every
//! line carries the difference of two rounded totals, so the lines of a month add up to its total.

use crate::month::Month;
use domain::{
    LedgerEntry, LedgerKind, Money, Node, NodeId, NodeType, NodeTypeName, PricePerHour, Timestamp,
};
use std::time::Duration;

/// Lines one change may span, in months: a unit or a minimum longer than two years is refused.
const MONTHS_MAX: usize = 25;

/// What was promised to the provider of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Whose account.
    pub node: NodeId,
    /// Its type.
    pub node_type: NodeTypeName,
    /// Price at the time of the order.
    pub price: PricePerHour,
    /// What is billed at once.
    pub unit: Duration,
    /// Units billed however short it ran, at least one.
    pub minimum_units: u64,
    /// How long a stop takes to stop the bill.
    pub stop_lead: Duration,
    /// When the order was written down: billing cannot have begun before.
    pub ordered_at: Timestamp,
    /// When billing began; `None` while the order is in flight.
    pub started_at: Option<Timestamp>,
    /// Units admitted so far, from the first.
    pub units: u64,
}

/// `ceil(span / unit)`.
fn units_of(span: i64, unit: i64) -> u64 {
    u64::try_from(span.max(0).saturating_add(unit - 1) / unit).unwrap_or(0)
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

impl Account {
    /// The account an order of `node_type` opens, with what must be paid in any case admitted:
    /// the billing minimum, the minimum life, and `leave` (the time to drain and stop it again).
    #[must_use]
    pub fn order(node: NodeId, node_type: &NodeType, now: Timestamp, leave: Duration) -> Account {
        let unit = node_type.billing_unit.max(Duration::from_millis(1));
        let minimum_units = units_of(millis(node_type.billing_minimum), millis(unit)).max(1);
        let kept = node_type.min_life.max(node_type.stop_lead.saturating_add(leave));
        Account {
            node,
            node_type: node_type.name.clone(),
            price: node_type.price,
            unit,
            minimum_units,
            stop_lead: node_type.stop_lead,
            ordered_at: now,
            started_at: None,
            units: units_of(millis(kept), millis(unit)).max(minimum_units),
        }
    }

    /// The account of a node whose ledger lines end at `paid_until`; `started_at` is `None` while
    /// only reservations were written.
    #[must_use]
    pub fn restore(node: &Node, started_at: Option<Timestamp>, paid_until: Timestamp) -> Account {
        let unit = node.billing_unit.max(Duration::from_millis(1));
        let minimum_units = units_of(millis(node.billing_minimum), millis(unit)).max(1);
        let start = started_at.unwrap_or(node.ordered_at);
        Account {
            node: node.id.clone(),
            node_type: node.node_type.clone(),
            price: node.price,
            unit,
            minimum_units,
            stop_lead: node.stop_lead,
            ordered_at: node.ordered_at,
            started_at,
            units: units_of(paid_until.0.saturating_sub(start.0), millis(unit)).max(minimum_units),
        }
    }

    /// Where the first unit began, or may have begun at the earliest.
    #[must_use]
    pub fn start(&self) -> Timestamp {
        self.started_at.unwrap_or(self.ordered_at)
    }

    /// The end of the last admitted unit; a stop must be asked for `stop_lead` earlier.
    #[must_use]
    pub fn paid_until(&self) -> Timestamp {
        self.edge(self.units)
    }

    fn edge(&self, units: u64) -> Timestamp {
        let span = millis(self.unit).saturating_mul(i64::try_from(units).unwrap_or(i64::MAX));
        Timestamp(self.start().0.saturating_add(span))
    }

    /// Units needed so that the account is paid until `at`; never fewer than admitted.
    #[must_use]
    pub fn units_until(&self, at: Timestamp) -> u64 {
        units_of(at.0.saturating_sub(self.start().0), millis(self.unit)).max(self.units)
    }

    /// How many of the first `units` begin in `month`, when the first begins at `start`.
    fn units_in(&self, month: Month, start: Timestamp, units: u64) -> u64 {
        let unit = millis(self.unit);
        let before = units_of(month.start().0.saturating_sub(start.0), unit);
        let until = units_of(month.end().0.saturating_sub(start.0), unit).min(units);
        until.saturating_sub(before)
    }

    fn price_of(&self, units: u64) -> Money {
        let unit_ms = u64::try_from(self.unit.as_millis()).unwrap_or(u64::MAX);
        self.price.over(Duration::from_millis(unit_ms.saturating_mul(units)))
    }

    /// The most the first `units` may cost in `month`. An order in flight may begin at any moment
    /// up to `flight_until`, so it counts whole in each month it may begin in.
    #[must_use]
    pub fn cost(&self, month: Month, units: u64, flight_until: Timestamp) -> Money {
        match self.started_at {
            Some(start) => self.price_of(self.units_in(month, start, units)),
            None if month.start() > flight_until => Money::ZERO,
            None => {
                let start = self.ordered_at.max(month.start());
                self.price_of(self.units_in(month, start, units))
            }
        }
    }

    /// What it costs in `month` when it stays to the month's end.
    #[must_use]
    pub fn cost_to_end(&self, month: Month) -> Money {
        let start = match self.started_at {
            Some(start) => start,
            None => self.ordered_at.max(month.start()),
        };
        self.price_of(self.units_in(month, start, u64::MAX))
    }

    /// What the units that have ended by `now` cost in `month`.
    #[must_use]
    pub fn ended(&self, month: Month, now: Timestamp) -> Money {
        let Some(start) = self.started_at else { return Money::ZERO };
        let ended = u64::try_from(now.0.saturating_sub(start.0).max(0) / millis(self.unit));
        self.price_of(self.units_in(month, start, ended.unwrap_or(0).min(self.units)))
    }

    /// The line an order is written down with, before the provider is asked.
    #[must_use]
    pub fn reserve_line(&self, now: Timestamp, note: &str) -> LedgerEntry {
        let amount = self.price_of(self.units);
        self.line(now, LedgerKind::Reserve, amount, (self.ordered_at, self.paid_until()), note)
    }

    /// The lines that admit the units up to `units`, one for each month they begin in.
    #[must_use]
    pub fn extend_lines(
        &self,
        units: u64,
        now: Timestamp,
        kind: LedgerKind,
        note: &str,
    ) -> Vec<LedgerEntry> {
        if units <= self.units {
            return Vec::new();
        }
        if self.started_at.is_none() {
            let amount = self.price_of(units).minus(self.price_of(self.units));
            let span = (self.paid_until(), self.edge(units));
            return vec![self.line(now, LedgerKind::Reserve, amount, span, note)];
        }
        self.month_lines(self.units, units, now, kind, note)
    }

    /// The lines that say billing began at `started_at`, replacing the reservation, and the
    /// account from then on. A start before the order or after `now` is taken as the nearer of
    /// the two: neither can be.
    #[must_use]
    pub fn begin(&self, started_at: Timestamp, now: Timestamp) -> (Account, Vec<LedgerEntry>) {
        let start = started_at.max(self.ordered_at).min(now.max(self.ordered_at));
        let account = Account { started_at: Some(start), ..self.clone() };
        let lines = account.month_lines(0, account.units, now, LedgerKind::Start, "billing began");
        (account, lines)
    }

    /// The lines that settle an account when billing ended at `stopped_at`: what was admitted and
    /// never began is taken back, what began without being admitted is added.
    #[must_use]
    pub fn settle(&self, stopped_at: Timestamp, now: Timestamp) -> Vec<LedgerEntry> {
        let Some(start) = self.started_at else {
            let amount = Money::ZERO.minus(self.price_of(self.units));
            let span = (self.ordered_at, self.ordered_at);
            return vec![self.line(now, LedgerKind::Release, amount, span, "never began")];
        };
        let ran = units_of(stopped_at.0.saturating_sub(start.0), millis(self.unit));
        let actual = ran.max(self.minimum_units);
        let mut lines = Vec::new();
        if actual > self.units {
            let note = "ended later than asked for";
            lines = self.month_lines(self.units, actual, now, LedgerKind::External, note);
        }
        let mut given_back = Vec::new();
        if actual < self.units {
            let longer = self.month_lines(actual, self.units, now, LedgerKind::Stop, "ended");
            given_back.extend(longer.into_iter().map(|mut line| {
                line.amount = Money::ZERO.minus(line.amount);
                line
            }));
        }
        if given_back.is_empty() {
            let span = (stopped_at, stopped_at);
            given_back.push(self.line(now, LedgerKind::Stop, Money::ZERO, span, "ended"));
        }
        lines.extend(given_back);
        lines
    }

    /// One line for each month in which units `from..to` begin, with the difference of totals.
    fn month_lines(
        &self,
        from: u64,
        to: u64,
        now: Timestamp,
        kind: LedgerKind,
        note: &str,
    ) -> Vec<LedgerEntry> {
        let mut lines = Vec::new();
        let mut month = Month::of(self.edge(from));
        for _ in 0..MONTHS_MAX {
            if month.start() >= self.edge(to) {
                break;
            }
            let start = self.start();
            let (less, more) = (self.units_in(month, start, from), self.units_in(month, start, to));
            if more > less {
                let amount = self.price_of(more).minus(self.price_of(less));
                let first = self.edge(from).max(
                    self.edge(units_of(month.start().0.saturating_sub(start.0), millis(self.unit))),
                );
                let span = (first, self.edge(units_to(self, first, more - less)));
                lines.push(self.line(now, kind, amount, span, note));
            }
            month = month.next();
        }
        lines
    }

    fn line(
        &self,
        at: Timestamp,
        kind: LedgerKind,
        amount: Money,
        (from, until): (Timestamp, Timestamp),
        note: &str,
    ) -> LedgerEntry {
        LedgerEntry {
            at,
            node: self.node.clone(),
            node_type: self.node_type.clone(),
            kind,
            amount,
            from,
            until,
            note: note.to_owned(),
        }
    }
}

/// Number of the unit that ends `count` units after `first`.
fn units_to(account: &Account, first: Timestamp, count: u64) -> u64 {
    units_of(first.0.saturating_sub(account.start().0), millis(account.unit)).saturating_add(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn account(price: i64, unit_ms: u64, start: i64, units: u64) -> Account {
        Account {
            node: "n-0000000001".parse().unwrap(),
            node_type: "small".parse().unwrap(),
            price: PricePerHour(price),
            unit: Duration::from_millis(unit_ms),
            minimum_units: 1,
            stop_lead: Duration::ZERO,
            ordered_at: Timestamp(start),
            started_at: Some(Timestamp(start)),
            units,
        }
    }

    proptest! {
        /// Units one by one, asked of the calendar: the same number as the closed form.
        #[test]
        fn units_count_in_the_month_they_start_in(
            unit_h in 1i64..300, start_h in 0i64..20_000, units in 1u64..60, ahead in 0i64..4
        ) {
            let hour = 3_600_000;
            let a = account(1_000_000, u64::try_from(unit_h * hour).unwrap(), start_h * hour, units);
            let mut month = Month::of(a.start());
            for _ in 0..ahead { month = month.next(); }
            let slow = (0..i64::try_from(units).unwrap())
                .filter(|i| Month::of(Timestamp((start_h + i * unit_h) * hour)) == month)
                .count();
            prop_assert_eq!(a.units_in(month, a.start(), units), slow as u64);
        }

        /// However a span is admitted piece by piece, the lines of a month add up to its total.
        #[test]
        fn lines_add_up(price in 1i64..9_999_999, unit_s in 1u64..400_000, start_h in 0i64..9_000, steps in prop::collection::vec(1u64..20, 1..8)) {
            let mut a = account(price, unit_s * 1000, start_h * 3_600_000, 0);
            let mut lines = Vec::new();
            for step in steps {
                let until = a.units + step;
                lines.extend(a.extend_lines(until, a.start(), LedgerKind::Renew, ""));
                a.units = until;
            }
            let mut month = Month::of(a.start());
            while month.start() < a.paid_until() {
                let sum = lines.iter().filter(|l| Month::of(l.from) == month).fold(Money::ZERO, |s, l| s.plus(l.amount));
                prop_assert_eq!(sum, a.cost(month, a.units, a.paid_until()));
                month = month.next();
            }
            prop_assert_eq!(lines.iter().map(|l| l.until).max(), Some(a.paid_until()));
        }
    }

    #[test]
    fn an_order_in_flight_counts_in_both_months() {
        let turn = Month::of(Timestamp(1_767_225_600_000));
        let mut a = account(3_600_000, 3_600_000, turn.start().0 - 60_000, 1);
        a.started_at = None;
        let now = turn.start();
        assert_eq!(a.cost(Month::of(a.ordered_at), 1, now), Money(3_600_000));
        assert_eq!(a.cost(turn, 1, now), Money(3_600_000));
        assert_eq!(a.cost(turn, 1, turn.start().minus(Duration::from_millis(1))), Money::ZERO);
        let (begun, lines) = a.begin(turn.start(), now);
        assert_eq!(begun.cost(turn, 1, now), Money(3_600_000));
        assert_eq!(begun.cost(Month::of(a.ordered_at), 1, now), Money::ZERO);
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn an_early_stop_gives_back_what_never_began() {
        let a = account(3_600_000, 1000, 0, 10);
        let lines = a.settle(Timestamp(3500), Timestamp(3500));
        assert_eq!(lines.iter().map(|l| l.amount.0).sum::<i64>(), -6000);
        let late = a.settle(Timestamp(12_001), Timestamp(12_001));
        assert_eq!(late.iter().map(|l| l.amount.0).sum::<i64>(), 3000);
    }
}
