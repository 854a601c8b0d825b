//! The tables of measurements: nodes, instances, services.

use crate::columns::{Done, Fields, bits, limit, list, run};
use crate::limits::Limits;
use crate::store::{InstanceStat, NodeStat, RegistryError, ServiceStat};
use domain::{InstanceId, NodeId, ServiceName, Timestamp};
use rusqlite::{Connection, params};

pub(crate) fn add_node(conn: &Connection, stat: &NodeStat) -> Done<()> {
    let sql = "INSERT INTO node_stats (node, at, cpu_millis, memory_bytes, disk_bytes, rx, tx) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let values = params![
        stat.node.as_str(),
        stat.at.0,
        stat.cpu_millis,
        bits(stat.memory_bytes),
        bits(stat.disk_bytes),
        bits(stat.rx_bytes_per_second),
        bits(stat.tx_bytes_per_second),
    ];
    run(conn, sql, values)?;
    Ok(())
}

pub(crate) fn of_node(
    conn: &Connection,
    node: &NodeId,
    since: Timestamp,
    rows: usize,
) -> Done<Vec<NodeStat>> {
    let sql = "SELECT node, at, cpu_millis, memory_bytes, disk_bytes, rx, tx FROM node_stats \
               WHERE node = ?1 AND at >= ?2 ORDER BY at DESC, seq DESC LIMIT ?3";
    let decode = |f: &mut Fields<'_, '_>| -> Result<NodeStat, RegistryError> {
        Ok(NodeStat {
            node: f.parsed()?,
            at: f.time()?,
            cpu_millis: f.u32()?,
            memory_bytes: f.u64()?,
            disk_bytes: f.u64()?,
            rx_bytes_per_second: f.u64()?,
            tx_bytes_per_second: f.u64()?,
        })
    };
    let mut found =
        list(conn, "node_stats", sql, params![node.as_str(), since.0, limit(rows)], decode)?;
    found.reverse();
    Ok(found)
}

pub(crate) fn add_instance(conn: &Connection, stat: &InstanceStat) -> Done<()> {
    let sql = "INSERT INTO instance_stats (instance, at, cpu_millis, memory_bytes, throttled) \
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let values = params![
        stat.instance.as_str(),
        stat.at.0,
        stat.cpu_millis,
        bits(stat.memory_bytes),
        stat.throttled_share,
    ];
    run(conn, sql, values)?;
    Ok(())
}

pub(crate) fn of_instance(
    conn: &Connection,
    instance: &InstanceId,
    since: Timestamp,
    rows: usize,
) -> Done<Vec<InstanceStat>> {
    let sql = "SELECT instance, at, cpu_millis, memory_bytes, throttled FROM instance_stats \
               WHERE instance = ?1 AND at >= ?2 ORDER BY at DESC, seq DESC LIMIT ?3";
    let decode = |f: &mut Fields<'_, '_>| -> Result<InstanceStat, RegistryError> {
        Ok(InstanceStat {
            instance: f.parsed()?,
            at: f.time()?,
            cpu_millis: f.u32()?,
            memory_bytes: f.u64()?,
            throttled_share: f.u32()?,
        })
    };
    let values = params![instance.as_str(), since.0, limit(rows)];
    let mut found = list(conn, "instance_stats", sql, values, decode)?;
    found.reverse();
    Ok(found)
}

pub(crate) fn add_service(conn: &Connection, stat: &ServiceStat) -> Done<()> {
    let sql = "INSERT INTO service_stats \
               (service, at, load, desired, ready, starting, draining, queued, rps) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let values = params![
        stat.service.as_str(),
        stat.at.0,
        stat.load,
        stat.desired,
        stat.ready,
        stat.starting,
        stat.draining,
        stat.queued,
        bits(stat.rps_milli),
    ];
    run(conn, sql, values)?;
    Ok(())
}

pub(crate) fn of_service(
    conn: &Connection,
    service: &ServiceName,
    (since, until): (Timestamp, Timestamp),
    rows: usize,
) -> Done<Vec<ServiceStat>> {
    let sql = "SELECT service, at, load, desired, ready, starting, draining, queued, rps \
               FROM service_stats WHERE service = ?1 AND at >= ?2 AND at < ?3 \
               ORDER BY at DESC, seq DESC LIMIT ?4";
    let decode = |f: &mut Fields<'_, '_>| -> Result<ServiceStat, RegistryError> {
        Ok(ServiceStat {
            service: f.parsed()?,
            at: f.time()?,
            load: f.optional_u32()?,
            desired: f.u32()?,
            ready: f.u32()?,
            starting: f.u32()?,
            draining: f.u32()?,
            queued: f.u32()?,
            rps_milli: f.u64()?,
        })
    };
    let values = params![service.as_str(), since.0, until.0, limit(rows)];
    let mut found = list(conn, "service_stats", sql, values, decode)?;
    found.reverse();
    Ok(found)
}

/// Rows dropped from one table at once: some tens of milliseconds, which a call that comes in the
/// meantime can bear; a day's absence leaves millions.
const SLICE: usize = 20_000;

/// Drops a slice of what is older than the retention and of the oldest rows beyond the bound.
/// `true`: there is more to drop.
pub(crate) fn upkeep(conn: &Connection, limits: &Limits, now: Timestamp) -> Done<bool> {
    let since = now.minus(limits.stats_for).0;
    let mut more = false;
    for table in ["node_stats", "instance_stats", "service_stats"] {
        let old = format!(
            "DELETE FROM {table} WHERE seq IN \
             (SELECT seq FROM {table} WHERE at < ?1 ORDER BY at LIMIT ?2)"
        );
        more |= run(conn, &old, params![since, limit(SLICE)])? >= SLICE;
        // Numbers grow by one, so that the highest says where the rows to keep begin.
        let many = format!(
            "DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} \
             WHERE seq <= (SELECT max(seq) FROM {table}) - ?1 ORDER BY seq LIMIT ?2)"
        );
        more |= run(conn, &many, params![limit(limits.stats_rows), limit(SLICE)])? >= SLICE;
    }
    Ok(more)
}
