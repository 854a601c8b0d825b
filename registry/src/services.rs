//! The tables of services, their revisions, and the last numbers of removed names.

use crate::columns::{Done, Fields, bits, limit, list, one, run};
use crate::limits::Limits;
use crate::rules::{self, Retired};
use crate::store::{Expect, RegistryError, ServicePut, ServiceRow};
use domain::{Generation, Revision, ServiceName, Timestamp};
use rusqlite::{Connection, params};

macro_rules! columns {
    () => {
        "name, document, generation, revision, deleting, scale_hold, memory, created_at, updated_at"
    };
}

fn decode(f: &mut Fields<'_, '_>) -> Result<ServiceRow, RegistryError> {
    Ok(ServiceRow {
        name: f.parsed()?,
        document: f.text()?,
        generation: Generation(f.u64()?),
        revision: Revision(f.u64()?),
        deleting: f.flag()?,
        scale_hold: f.optional_u32()?,
        memory: f.text()?,
        created_at: f.time()?,
        updated_at: f.time()?,
    })
}

pub(crate) fn all(conn: &Connection) -> Done<Vec<ServiceRow>> {
    let sql = concat!("SELECT ", columns!(), " FROM services ORDER BY name");
    list(conn, "services", sql, [], decode)
}

fn find(conn: &Connection, name: &ServiceName) -> Done<Option<ServiceRow>> {
    let sql = concat!("SELECT ", columns!(), " FROM services WHERE name = ?1");
    one(conn, "services", sql, [name.as_str()], decode)
}

fn store(conn: &Connection, row: &ServiceRow, now: Timestamp) -> Done<()> {
    let sql = concat!(
        "INSERT OR REPLACE INTO services (",
        columns!(),
        ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
    );
    let values = params![
        row.name.as_str(),
        row.document,
        bits(row.generation.0),
        bits(row.revision.0),
        row.deleting,
        row.scale_hold,
        row.memory,
        row.created_at.0,
        row.updated_at.0,
    ];
    run(conn, sql, values)?;
    let sql = "INSERT OR REPLACE INTO revisions (service, revision, document, written_at) \
               VALUES (?1, ?2, ?3, ?4)";
    run(conn, sql, params![row.name.as_str(), bits(row.revision.0), row.document, now.0])?;
    Ok(())
}

pub(crate) fn put(conn: &Connection, put: ServicePut, now: Timestamp) -> Done<ServiceRow> {
    let old = find(conn, &put.name)?;
    let retired = retired(conn, "service", put.name.as_str())?;
    let unchanged = old.clone();
    let row = rules::service_after_put(old, retired, put, now)?;
    if unchanged.as_ref() != Some(&row) {
        store(conn, &row, now)?;
    }
    Ok(row)
}

fn change(
    conn: &Connection,
    name: &ServiceName,
    now: Timestamp,
    rule: impl FnOnce(ServiceRow) -> Result<ServiceRow, RegistryError>,
) -> Done<ServiceRow> {
    let old = find(conn, name)?.ok_or_else(|| rules::unknown_service(name))?;
    let row = rule(old.clone())?;
    if row != old {
        store(conn, &row, now)?;
    }
    Ok(row)
}

pub(crate) fn delete(
    conn: &Connection,
    name: &ServiceName,
    expect: Expect,
    now: Timestamp,
) -> Done<ServiceRow> {
    change(conn, name, now, |row| rules::service_after_delete(row, expect, now))
}

pub(crate) fn hold(
    conn: &Connection,
    name: &ServiceName,
    instances: Option<u32>,
    now: Timestamp,
) -> Done<ServiceRow> {
    change(conn, name, now, |row| Ok(rules::service_after_hold(row, instances, now)))
}

pub(crate) fn bump(conn: &Connection, name: &ServiceName, now: Timestamp) -> Done<ServiceRow> {
    change(conn, name, now, |row| Ok(rules::service_after_bump(row, now)))
}

pub(crate) fn document(
    conn: &Connection,
    name: &ServiceName,
    revision: Revision,
) -> Done<Option<String>> {
    let sql = "SELECT document FROM revisions WHERE service = ?1 AND revision = ?2";
    one(conn, "revisions", sql, params![name.as_str(), bits(revision.0)], |f| f.text())
}

/// Stores what the planner remembers of a service; one that is gone needs no memory.
pub(crate) fn remember(conn: &Connection, name: &ServiceName, memory: &str) -> Done<()> {
    run(conn, "UPDATE services SET memory = ?2 WHERE name = ?1", [name.as_str(), memory])?;
    Ok(())
}

/// Removes a deleting service without instances; one that was revived since stays.
pub(crate) fn purge(
    conn: &Connection,
    name: &ServiceName,
    limits: &Limits,
    now: Timestamp,
) -> Done<()> {
    let Some(row) = find(conn, name)?.filter(|row| row.deleting) else { return Ok(()) };
    let sql = "SELECT 1 FROM instances WHERE service = ?1 AND state <> 'stopped' LIMIT 1";
    if one(conn, "instances", sql, [name.as_str()], |f| f.int())?.is_some() {
        return Ok(());
    }
    run(conn, "DELETE FROM services WHERE name = ?1", [name.as_str()])?;
    run(conn, "DELETE FROM revisions WHERE service = ?1", [name.as_str()])?;
    let last = Retired { generation: row.generation, revision: row.revision };
    bury(conn, ("service", name.as_str()), last, limits, now)
}

fn decode_retired(f: &mut Fields<'_, '_>) -> Result<Retired, RegistryError> {
    Ok(Retired { generation: Generation(f.u64()?), revision: Revision(f.u64()?) })
}

/// The last numbers an object of this kind and name had; of a forgotten name the highest of all
/// forgotten ones.
pub(crate) fn retired(conn: &Connection, kind: &str, name: &str) -> Done<Retired> {
    let sql = "SELECT generation, revision FROM retired WHERE kind = ?1 AND name = ?2";
    match one(conn, "retired", sql, [kind, name], decode_retired)? {
        Some(last) => Ok(last),
        None => Ok(one(conn, "retired", sql, [kind, ""], decode_retired)?.unwrap_or_default()),
    }
}

/// Notes the last numbers of a removed object.
pub(crate) fn bury(
    conn: &Connection,
    (kind, name): (&str, &str),
    last: Retired,
    limits: &Limits,
    now: Timestamp,
) -> Done<()> {
    write_retired(conn, (kind, name), last, now)?;
    let sql = "SELECT name, generation, revision FROM retired WHERE kind = ?1 AND name <> '' \
               ORDER BY written_at DESC, name DESC LIMIT -1 OFFSET ?2";
    let forgotten = list(conn, "retired", sql, params![kind, limit(limits.retired)], |f| {
        Ok((f.text()?, decode_retired(f)?))
    })?;
    for (name, last) in forgotten {
        let floor = retired(conn, kind, "")?.or_higher(last);
        write_retired(conn, (kind, ""), floor, now)?;
        run(conn, "DELETE FROM retired WHERE kind = ?1 AND name = ?2", [kind, &name])?;
    }
    Ok(())
}

fn write_retired(
    conn: &Connection,
    (kind, name): (&str, &str),
    last: Retired,
    now: Timestamp,
) -> Done<()> {
    let sql = "INSERT OR REPLACE INTO retired (kind, name, generation, revision, written_at) \
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let (generation, revision) = (bits(last.generation.0), bits(last.revision.0));
    run(conn, sql, params![kind, name, generation, revision, now.0])?;
    Ok(())
}

/// Drops documents of revisions that are neither among the newest nor lived by an instance.
pub(crate) fn upkeep(conn: &Connection, limits: &Limits) -> Done<()> {
    let sql = "DELETE FROM revisions WHERE NOT EXISTS (SELECT 1 FROM services \
                 WHERE name = revisions.service \
                   AND revisions.revision > services.revision - ?1) \
               AND NOT EXISTS (SELECT 1 FROM instances WHERE state <> 'stopped' \
                 AND instances.service = revisions.service \
                 AND instances.revision = revisions.revision)";
    run(conn, sql, [bits(limits.revisions)])?;
    Ok(())
}
