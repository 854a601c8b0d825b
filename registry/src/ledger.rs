//! The tables of money: the ledger's lines and the budget.

use crate::columns::{Done, Fields, bits, list, one, run};
use crate::limits::Limits;
use crate::rules;
use crate::store::{BudgetRow, Expect, RegistryError};
use domain::{Budget, Generation, LedgerEntry, LedgerKind, Money, MonthlyCap, Share, Timestamp};
use rusqlite::{Connection, params};

fn decode(f: &mut Fields<'_, '_>) -> Result<LedgerEntry, RegistryError> {
    Ok(LedgerEntry {
        at: f.time()?,
        node: f.parsed()?,
        node_type: f.parsed()?,
        kind: f.word(&LedgerKind::ALL, LedgerKind::as_str)?,
        amount: Money(f.int()?),
        from: f.time()?,
        until: f.time()?,
        note: f.text()?,
    })
}

pub(crate) fn within(
    conn: &Connection,
    from: Timestamp,
    until: Timestamp,
) -> Done<Vec<LedgerEntry>> {
    let sql = "SELECT at, node, node_type, kind, amount, from_at, until_at, note FROM ledger \
               WHERE from_at >= ?1 AND from_at < ?2 ORDER BY from_at, seq";
    list(conn, "ledger", sql, [from.0, until.0], decode)
}

pub(crate) fn add(conn: &Connection, line: &LedgerEntry, now: Timestamp) -> Done<()> {
    let sql = "INSERT INTO ledger \
               (at, node, node_type, kind, amount, from_at, until_at, note, written_at) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let values = params![
        line.at.0,
        line.node.as_str(),
        line.node_type.as_str(),
        line.kind.as_str(),
        line.amount.0,
        line.from.0,
        line.until.0,
        line.note,
        now.0,
    ];
    run(conn, sql, values)?;
    Ok(())
}

/// Drops lines whose paid period ended long ago.
pub(crate) fn upkeep(conn: &Connection, limits: &Limits, now: Timestamp) -> Done<()> {
    let since = now.minus(limits.ledger_for).0;
    // The first condition is what the index serves; no period begins after it ends.
    run(conn, "DELETE FROM ledger WHERE from_at < ?1 AND until_at < ?1", [since])?;
    Ok(())
}

fn decode_cap(f: &mut Fields<'_, '_>) -> Result<MonthlyCap, RegistryError> {
    let kind = f.text()?;
    match (kind.as_str(), f.optional_int()?) {
        ("unset", None) => Ok(MonthlyCap::Unset),
        ("unlimited", None) => Ok(MonthlyCap::Unlimited),
        ("amount", Some(micros)) => Ok(MonthlyCap::Amount(Money(micros))),
        (_, amount) => {
            let detail = format!("a cap of kind {kind:?} with amount {amount:?}");
            Err(RegistryError::Damaged { table: "budget", detail })
        }
    }
}

fn decode_budget(f: &mut Fields<'_, '_>) -> Result<BudgetRow, RegistryError> {
    let budget = Budget {
        currency: f.parsed()?,
        cap: decode_cap(f)?,
        reserve: Share(f.u32()?),
        strict_pacing: f.flag()?,
        generation: Generation(f.u64()?),
    };
    Ok(BudgetRow { budget, document: f.text()?, updated_at: f.time()? })
}

pub(crate) fn budget(conn: &Connection) -> Done<Option<BudgetRow>> {
    let sql = "SELECT currency, cap_kind, cap_amount, reserve, strict_pacing, generation, \
               document, updated_at FROM budget WHERE one = 1";
    one(conn, "budget", sql, [], decode_budget)
}

pub(crate) fn put_budget(
    conn: &Connection,
    declaration: Budget,
    document: String,
    expect: Expect,
    now: Timestamp,
) -> Done<BudgetRow> {
    let old = budget(conn)?;
    let row = rules::budget_after_put(old.as_ref(), declaration, document, expect, now)?;
    let (kind, amount) = match row.budget.cap {
        MonthlyCap::Unset => ("unset", None),
        MonthlyCap::Unlimited => ("unlimited", None),
        MonthlyCap::Amount(Money(micros)) => ("amount", Some(micros)),
    };
    let sql = "INSERT OR REPLACE INTO budget (one, currency, cap_kind, cap_amount, reserve, \
               strict_pacing, generation, document, updated_at) \
               VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let values = params![
        row.budget.currency.to_string(),
        kind,
        amount,
        row.budget.reserve.0,
        row.budget.strict_pacing,
        bits(row.budget.generation.0),
        row.document,
        row.updated_at.0,
    ];
    run(conn, sql, values)?;
    Ok(row)
}
