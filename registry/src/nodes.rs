//! The tables of nodes, of the one-time tokens with which they join, and of named texts.

use crate::columns::{self, Done, Fields, bits, limit, list, nanos, one, run};
use crate::limits::Limits;
use crate::store::{NodeToken, RegistryError};
use domain::{
    Bytes, Capacity, DrainOrder, MilliCpu, Node, NodeId, NodeState, PricePerHour, Resources,
    Timestamp,
};
use rusqlite::{Connection, params};

macro_rules! columns {
    () => {
        "id, name, node_type, provider, provider_ref, state, state_since, deadline, address, \
         executor_url, cpu_millis, memory_bytes, disk_bytes, cpu_class, disk_type, labels, price, \
         billing_unit, billing_minimum, min_life, stop_lead, may_stop, drain_reason, \
         drain_deadline, ordered_at, ready_at, seen_at, stopped_at, secret_hash, reason"
    };
}

/// Processors, memory and disk, in this order.
pub(crate) fn capacity(f: &mut Fields<'_, '_>) -> Result<Capacity, RegistryError> {
    Ok(Capacity {
        resources: Resources { cpu: MilliCpu(f.u32()?), memory: Bytes(f.u64()?) },
        disk: Bytes(f.u64()?),
    })
}

fn drain(f: &mut Fields<'_, '_>) -> Result<Option<DrainOrder>, RegistryError> {
    match (f.optional_text()?, f.optional_time()?) {
        (Some(reason), Some(deadline)) => Ok(Some(DrainOrder { reason, deadline })),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => {
            let detail = "a drain order has a reason and a deadline, or there is none".to_owned();
            Err(RegistryError::Damaged { table: "nodes", detail })
        }
    }
}

fn decode(f: &mut Fields<'_, '_>) -> Result<Node, RegistryError> {
    Ok(Node {
        id: f.parsed()?,
        name: f.text()?,
        node_type: f.parsed()?,
        provider: f.text()?,
        provider_ref: f.optional_text()?,
        state: f.word(&NodeState::ALL, NodeState::as_str)?,
        state_since: f.time()?,
        deadline: f.optional_time()?,
        address: f.optional_parsed()?,
        executor_url: f.optional_text()?,
        capacity: capacity(f)?,
        cpu_class: f.text()?,
        disk_type: f.text()?,
        labels: f.labels()?,
        price: PricePerHour(f.int()?),
        billing_unit: f.span()?,
        billing_minimum: f.span()?,
        min_life: f.span()?,
        stop_lead: f.span()?,
        may_stop: f.flag()?,
        drain: drain(f)?,
        ordered_at: f.time()?,
        ready_at: f.optional_time()?,
        seen_at: f.optional_time()?,
        stopped_at: f.optional_time()?,
        secret_hash: f.optional_text()?,
        reason: f.text()?,
    })
}

pub(crate) fn living(conn: &Connection) -> Done<Vec<Node>> {
    let sql = concat!("SELECT ", columns!(), " FROM nodes WHERE state <> 'stopped' ORDER BY id");
    list(conn, "nodes", sql, [], decode)
}

pub(crate) fn find(conn: &Connection, id: &NodeId) -> Done<Option<Node>> {
    let sql = concat!("SELECT ", columns!(), " FROM nodes WHERE id = ?1");
    one(conn, "nodes", sql, [id.as_str()], decode)
}

pub(crate) fn put(conn: &Connection, node: &Node, now: Timestamp) -> Done<()> {
    let sql = concat!(
        "INSERT OR REPLACE INTO nodes (",
        columns!(),
        ", written_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, \
         ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31)"
    );
    let values = params![
        node.id.as_str(),
        node.name,
        node.node_type.as_str(),
        node.provider,
        node.provider_ref,
        node.state.as_str(),
        node.state_since.0,
        node.deadline.map(|at| at.0),
        node.address.map(|address| address.to_string()),
        node.executor_url,
        node.capacity.resources.cpu.0,
        bits(node.capacity.resources.memory.0),
        bits(node.capacity.disk.0),
        node.cpu_class,
        node.disk_type,
        columns::labels(&node.labels)?,
        node.price.0,
        nanos(node.billing_unit),
        nanos(node.billing_minimum),
        nanos(node.min_life),
        nanos(node.stop_lead),
        node.may_stop,
        node.drain.as_ref().map(|order| &order.reason),
        node.drain.as_ref().map(|order| order.deadline.0),
        node.ordered_at.0,
        node.ready_at.map(|at| at.0),
        node.seen_at.map(|at| at.0),
        node.stopped_at.map(|at| at.0),
        node.secret_hash,
        node.reason,
        now.0,
    ];
    run(conn, sql, values)?;
    Ok(())
}

pub(crate) fn memory(conn: &Connection) -> Done<String> {
    let sql = "SELECT content FROM machine_memory WHERE one = 1";
    Ok(one(conn, "machine_memory", sql, [], |f| f.text())?.unwrap_or_default())
}

pub(crate) fn remember(conn: &Connection, memory: &str, now: Timestamp) -> Done<()> {
    let sql = "INSERT OR REPLACE INTO machine_memory (one, content, written_at) VALUES (1, ?1, ?2)";
    run(conn, sql, params![memory, now.0])?;
    Ok(())
}

pub(crate) fn setting(conn: &Connection, name: &str) -> Done<Option<String>> {
    let sql = "SELECT content FROM settings WHERE name = ?1";
    one(conn, "settings", sql, [name], |f| f.text())
}

pub(crate) fn put_setting(conn: &Connection, name: &str, value: &str, now: Timestamp) -> Done<()> {
    let sql = "INSERT OR REPLACE INTO settings (name, content, written_at) VALUES (?1, ?2, ?3)";
    run(conn, sql, params![name, value, now.0])?;
    Ok(())
}

pub(crate) fn put_token(conn: &Connection, token: &NodeToken, now: Timestamp) -> Done<()> {
    let sql = "INSERT OR REPLACE INTO node_tokens \
               (hash, node_type, node, name, expires_at, written_at) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![
        token.hash,
        token.node_type.as_str(),
        token.node.as_ref().map(AsRef::as_ref),
        token.name,
        token.expires_at.0,
        now.0,
    ];
    run(conn, sql, values)?;
    Ok(())
}

pub(crate) fn take_token(conn: &Connection, hash: &str, now: Timestamp) -> Done<Option<NodeToken>> {
    let sql = "DELETE FROM node_tokens WHERE hash = ?1 \
               RETURNING hash, node_type, node, name, expires_at";
    let taken = list(conn, "node_tokens", sql, [hash], |f| {
        Ok(NodeToken {
            hash: f.text()?,
            node_type: f.parsed()?,
            node: f.optional_parsed()?,
            name: f.optional_text()?,
            expires_at: f.time()?,
        })
    })?;
    Ok(taken.into_iter().next().filter(|token| token.expires_at > now))
}

/// Drops nodes that ended long ago, the oldest ended beyond the bound, and expired tokens.
pub(crate) fn upkeep(conn: &Connection, limits: &Limits, now: Timestamp) -> Done<()> {
    let sql = "DELETE FROM nodes WHERE state = 'stopped' AND state_since < ?1";
    run(conn, sql, [now.minus(limits.ended_for).0])?;
    let sql = "DELETE FROM nodes WHERE id IN (SELECT id FROM nodes \
                 WHERE state = 'stopped' ORDER BY state_since DESC, id DESC LIMIT -1 OFFSET ?1)";
    run(conn, sql, [limit(limits.ended_rows)])?;
    run(conn, "DELETE FROM node_tokens WHERE expires_at <= ?1", [now.0])?;
    Ok(())
}
