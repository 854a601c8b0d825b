//! The table of node types.

use crate::columns::{self, Done, Fields, bits, list, nanos, one, run};
use crate::limits::Limits;
use crate::nodes::capacity;
use crate::rules::{self, Retired};
use crate::services;
use crate::store::{Expect, RegistryError, TypeRow};
use domain::{
    Generation, NodeType, NodeTypeName, Pool, PoolState, PricePerHour, Revision, Timestamp,
};
use rusqlite::{Connection, params};

macro_rules! columns {
    () => {
        "name, provider, cpu_millis, memory_bytes, disk_bytes, cpu_class, disk_type, price, \
         billing_unit, billing_minimum, min_life, stop_lead, max_count, labels, pool_min, \
         pool_state, start_command, stop_command, list_command, generation, document, updated_at"
    };
}

const POOL_STATES: [PoolState; 3] = [PoolState::Running, PoolState::Stopped, PoolState::Suspended];

fn pool_state(state: PoolState) -> &'static str {
    match state {
        PoolState::Running => "running",
        PoolState::Stopped => "stopped",
        PoolState::Suspended => "suspended",
    }
}

fn decode(f: &mut Fields<'_, '_>) -> Result<TypeRow, RegistryError> {
    let name: NodeTypeName = f.parsed()?;
    let node_type = NodeType {
        name: name.clone(),
        provider: f.text()?,
        capacity: capacity(f)?,
        cpu_class: f.text()?,
        disk_type: f.text()?,
        price: PricePerHour(f.int()?),
        billing_unit: f.span()?,
        billing_minimum: f.span()?,
        min_life: f.span()?,
        stop_lead: f.span()?,
        max_count: f.u32()?,
        labels: f.labels()?,
        pool: Pool { min: f.u32()?, state: f.word(&POOL_STATES, pool_state)? },
        start_command: f.words()?,
        stop_command: f.words()?,
        list_command: f.words()?,
        generation: Generation(f.u64()?),
    };
    let generation = node_type.generation;
    Ok(TypeRow { name, node_type, generation, document: f.text()?, updated_at: f.time()? })
}

pub(crate) fn all(conn: &Connection) -> Done<Vec<TypeRow>> {
    let sql = concat!("SELECT ", columns!(), " FROM node_types ORDER BY name");
    list(conn, "node_types", sql, [], decode)
}

fn find(conn: &Connection, name: &NodeTypeName) -> Done<Option<TypeRow>> {
    let sql = concat!("SELECT ", columns!(), " FROM node_types WHERE name = ?1");
    one(conn, "node_types", sql, [name.as_str()], decode)
}

pub(crate) fn put(
    conn: &Connection,
    declaration: (NodeType, String),
    expect: Expect,
    now: Timestamp,
) -> Done<TypeRow> {
    let old = find(conn, &declaration.0.name)?;
    let retired = services::retired(conn, "type", declaration.0.name.as_str())?;
    let row = rules::type_after_put(old, retired, declaration, expect, now)?;
    store(conn, &row)?;
    Ok(row)
}

fn store(conn: &Connection, row: &TypeRow) -> Done<()> {
    let sql = concat!(
        "INSERT OR REPLACE INTO node_types (",
        columns!(),
        ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, \
         ?18, ?19, ?20, ?21, ?22)"
    );
    let node_type = &row.node_type;
    let values = params![
        row.name.as_str(),
        node_type.provider,
        node_type.capacity.resources.cpu.0,
        bits(node_type.capacity.resources.memory.0),
        bits(node_type.capacity.disk.0),
        node_type.cpu_class,
        node_type.disk_type,
        node_type.price.0,
        nanos(node_type.billing_unit),
        nanos(node_type.billing_minimum),
        nanos(node_type.min_life),
        nanos(node_type.stop_lead),
        node_type.max_count,
        columns::labels(&node_type.labels)?,
        node_type.pool.min,
        pool_state(node_type.pool.state),
        columns::words(&node_type.start_command)?,
        columns::words(&node_type.stop_command)?,
        columns::words(&node_type.list_command)?,
        bits(row.generation.0),
        row.document,
        row.updated_at.0,
    ];
    run(conn, sql, values)?;
    Ok(())
}

pub(crate) fn delete(
    conn: &Connection,
    name: &NodeTypeName,
    expect: Expect,
    limits: &Limits,
    now: Timestamp,
) -> Done<()> {
    let row = find(conn, name)?.ok_or_else(|| rules::unknown_type(name))?;
    rules::check_expect(&format!("node type {name}"), Some(row.generation), expect)?;
    run(conn, "DELETE FROM node_types WHERE name = ?1", [name.as_str()])?;
    let last = Retired { generation: row.generation, revision: Revision(0) };
    services::bury(conn, ("type", name.as_str()), last, limits, now)
}
