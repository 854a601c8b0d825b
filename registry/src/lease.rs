//! The table of leases, and the fence every commit passes.

use crate::columns::{Done, bits, one, run};
use crate::rules::{self, LeaseRow};
use crate::store::{Lease, Role};
use domain::{Epoch, Timestamp};
use rusqlite::{Connection, params};
use std::time::Duration;

fn stored(conn: &Connection, role: Role) -> Done<Option<LeaseRow>> {
    let sql = "SELECT epoch, holder, until_at FROM leases WHERE role = ?1";
    one(conn, "leases", sql, [role.as_str()], |f| {
        Ok(LeaseRow { epoch: Epoch(f.u64()?), holder: f.optional_text()?, until: f.time()? })
    })
}

fn store(conn: &Connection, role: Role, row: &LeaseRow, now: Timestamp) -> Done<()> {
    let sql = "INSERT OR REPLACE INTO leases (role, epoch, holder, until_at, written_at) \
               VALUES (?1, ?2, ?3, ?4, ?5)";
    run(conn, sql, params![role.as_str(), bits(row.epoch.0), row.holder, row.until.0, now.0])?;
    Ok(())
}

pub(crate) fn take(
    conn: &Connection,
    role: Role,
    holder: &str,
    ttl: Duration,
    now: Timestamp,
) -> Done<Option<Lease>> {
    let Some(row) = rules::lease_after_take(stored(conn, role)?.as_ref(), holder, ttl, now) else {
        return Ok(None);
    };
    store(conn, role, &row, now)?;
    Ok(Some(Lease { role, epoch: row.epoch, holder: holder.to_owned(), until: row.until }))
}

pub(crate) fn renew(conn: &Connection, lease: &Lease, ttl: Duration, now: Timestamp) -> Done<bool> {
    match stored(conn, lease.role)? {
        Some(row) if rules::lease_is_held(Some(&row), lease) => {
            store(conn, lease.role, &LeaseRow { until: now.plus(ttl), ..row }, now)?;
            Ok(true)
        }
        Some(_) | None => Ok(false),
    }
}

pub(crate) fn give_back(conn: &Connection, lease: &Lease, now: Timestamp) -> Done<()> {
    match stored(conn, lease.role)? {
        Some(row) if rules::lease_is_held(Some(&row), lease) => {
            store(conn, lease.role, &LeaseRow { holder: None, until: now, ..row }, now)
        }
        Some(_) | None => Ok(()),
    }
}

/// Refuses what is not under the present term of `role`; read in the transaction it guards.
pub(crate) fn fence(conn: &Connection, role: Role, lease: &Lease) -> Done<()> {
    Ok(rules::check_fence(stored(conn, role)?.as_ref(), role, lease)?)
}
