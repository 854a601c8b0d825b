//! The table of instances.

use crate::columns::{Done, Fields, bits, limit, list, one, run};
use crate::limits::Limits;
use crate::store::RegistryError;
use domain::{
    Bytes, Instance, InstanceId, InstanceState, MilliCpu, Resources, Revision, ServiceName,
    Timestamp,
};
use rusqlite::{Connection, params};

macro_rules! columns {
    () => {
        "id, service, revision, node, cpu_millis, memory_bytes, state, state_since, deadline, \
         address, tier, created_at, ready_at, expires_at, restarts, replaces, reason"
    };
}

fn decode(f: &mut Fields<'_, '_>) -> Result<Instance, RegistryError> {
    Ok(Instance {
        id: f.parsed()?,
        service: f.parsed()?,
        revision: Revision(f.u64()?),
        node: f.optional_parsed()?,
        resources: Resources { cpu: MilliCpu(f.u32()?), memory: Bytes(f.u64()?) },
        state: f.word(&InstanceState::ALL, InstanceState::as_str)?,
        state_since: f.time()?,
        deadline: f.optional_time()?,
        address: f.optional_parsed()?,
        tier: f.parsed()?,
        created_at: f.time()?,
        ready_at: f.optional_time()?,
        expires_at: f.optional_time()?,
        restarts: f.u32()?,
        replaces: f.optional_parsed()?,
        reason: f.text()?,
    })
}

pub(crate) fn living(conn: &Connection) -> Done<Vec<Instance>> {
    let sql =
        concat!("SELECT ", columns!(), " FROM instances WHERE state <> 'stopped' ORDER BY id");
    list(conn, "instances", sql, [], decode)
}

pub(crate) fn find(conn: &Connection, id: &InstanceId) -> Done<Option<Instance>> {
    let sql = concat!("SELECT ", columns!(), " FROM instances WHERE id = ?1");
    one(conn, "instances", sql, [id.as_str()], decode)
}

pub(crate) fn ended(conn: &Connection, service: &ServiceName, rows: usize) -> Done<Vec<Instance>> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM instances WHERE state = 'stopped' AND service = ?1 \
         ORDER BY state_since DESC, id DESC LIMIT ?2"
    );
    list(conn, "instances", sql, params![service.as_str(), limit(rows)], decode)
}

pub(crate) fn put(conn: &Connection, instance: &Instance, now: Timestamp) -> Done<()> {
    let sql = concat!(
        "INSERT OR REPLACE INTO instances (",
        columns!(),
        ", written_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, \
         ?16, ?17, ?18)"
    );
    let values = params![
        instance.id.as_str(),
        instance.service.as_str(),
        bits(instance.revision.0),
        instance.node.as_ref().map(AsRef::as_ref),
        instance.resources.cpu.0,
        bits(instance.resources.memory.0),
        instance.state.as_str(),
        instance.state_since.0,
        instance.deadline.map(|at| at.0),
        instance.address.map(|address| address.to_string()),
        instance.tier.as_str(),
        instance.created_at.0,
        instance.ready_at.map(|at| at.0),
        instance.expires_at.map(|at| at.0),
        instance.restarts,
        instance.replaces.as_ref().map(AsRef::as_ref),
        instance.reason,
        now.0,
    ];
    run(conn, sql, values)?;
    Ok(())
}

/// Drops instances that ended long ago, and the oldest ended beyond the bound.
pub(crate) fn upkeep(conn: &Connection, limits: &Limits, now: Timestamp) -> Done<()> {
    let sql = "DELETE FROM instances WHERE state = 'stopped' AND state_since < ?1";
    run(conn, sql, [now.minus(limits.ended_for).0])?;
    let sql = "DELETE FROM instances WHERE id IN (SELECT id FROM instances \
                 WHERE state = 'stopped' ORDER BY state_since DESC, id DESC LIMIT -1 OFFSET ?1)";
    run(conn, sql, [limit(limits.ended_rows)])?;
    Ok(())
}
