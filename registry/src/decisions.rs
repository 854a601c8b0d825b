//! The tables of decisions and of events.

use crate::columns::{self, Done, Fields, limit, list, one, run};
use crate::limits::Limits;
use crate::store::{RegistryError, StoredEvent};
use domain::{Decision, Event, EventKind, Money, ServiceName, Timestamp};
use rusqlite::{Connection, params};

macro_rules! columns {
    () => {
        "at, service, from_count, to_count, reason, inputs, clamps, waiting_for, cost_delta, actor"
    };
}

fn decode(f: &mut Fields<'_, '_>) -> Result<Decision, RegistryError> {
    Ok(Decision {
        at: f.time()?,
        service: f.parsed()?,
        from: f.u32()?,
        to: f.u32()?,
        reason: f.text()?,
        inputs: f.text()?,
        clamps: f.words()?,
        waiting_for: f.optional_text()?,
        cost_delta_per_hour: Money(f.int()?),
        actor: f.text()?,
    })
}

pub(crate) fn newest(
    conn: &Connection,
    service: Option<&ServiceName>,
    rows: usize,
) -> Done<Vec<Decision>> {
    let all = concat!("SELECT ", columns!(), " FROM decisions ORDER BY at DESC, seq DESC LIMIT ?1");
    let of = concat!(
        "SELECT ",
        columns!(),
        " FROM decisions WHERE service = ?2 ORDER BY at DESC, seq DESC LIMIT ?1"
    );
    match service {
        None => list(conn, "decisions", all, [limit(rows)], decode),
        Some(name) => list(conn, "decisions", of, params![limit(rows), name.as_str()], decode),
    }
}

pub(crate) fn add(conn: &Connection, decision: &Decision, now: Timestamp) -> Done<()> {
    let sql = concat!(
        "INSERT INTO decisions (",
        columns!(),
        ", written_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    );
    let values = params![
        decision.at.0,
        decision.service.as_str(),
        decision.from,
        decision.to,
        decision.reason,
        decision.inputs,
        columns::words(&decision.clamps)?,
        decision.waiting_for,
        decision.cost_delta_per_hour.0,
        decision.actor,
        now.0,
    ];
    run(conn, sql, values)?;
    Ok(())
}

pub(crate) fn add_events(conn: &Connection, events: &[Event], now: Timestamp) -> Done<()> {
    let sql = "INSERT INTO events (at, kind, subject, what, detail, named, written_at) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    for event in events {
        let values = params![
            event.at.0,
            event.kind.as_str(),
            event.subject,
            event.what,
            event.detail,
            event.values,
            now.0,
        ];
        run(conn, sql, values)?;
    }
    Ok(())
}

fn decode_event(f: &mut Fields<'_, '_>) -> Result<StoredEvent, RegistryError> {
    Ok(StoredEvent {
        seq: f.u64()?,
        event: Event {
            at: f.time()?,
            kind: f.word(&EventKind::ALL, EventKind::as_str)?,
            subject: f.text()?,
            what: f.text()?,
            detail: f.text()?,
            values: f.text()?,
        },
    })
}

pub(crate) fn events_after(conn: &Connection, seq: u64, rows: usize) -> Done<Vec<StoredEvent>> {
    // Numbers are given from 1 upwards; one that does not fit is past every event.
    let Ok(seq) = i64::try_from(seq) else { return Ok(Vec::new()) };
    let sql = "SELECT seq, at, kind, subject, what, detail, named FROM events \
               WHERE seq > ?1 ORDER BY seq LIMIT ?2";
    list(conn, "events", sql, [seq, limit(rows)], decode_event)
}

pub(crate) fn last_event(conn: &Connection) -> Done<u64> {
    let sql = "SELECT seq FROM events ORDER BY seq DESC LIMIT 1";
    Ok(one(conn, "events", sql, [], |f| f.u64())?.unwrap_or(0))
}

/// Drops the oldest decisions and events beyond the bounds.
pub(crate) fn upkeep(conn: &Connection, limits: &Limits) -> Done<()> {
    let sql = "DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?1";
    run(conn, sql, [limit(limits.events)])?;
    let sql = "SELECT service FROM decisions GROUP BY service HAVING count(*) > ?1";
    let most = limit(limits.decisions_of_one);
    for service in list(conn, "decisions", sql, [most], |f| f.text())? {
        let sql = "DELETE FROM decisions WHERE seq IN (SELECT seq FROM decisions \
                   WHERE service = ?1 ORDER BY at DESC, seq DESC LIMIT -1 OFFSET ?2)";
        run(conn, sql, params![service, most])?;
    }
    let sql = "DELETE FROM decisions WHERE seq IN (SELECT seq FROM decisions \
               ORDER BY at DESC, seq DESC LIMIT -1 OFFSET ?1)";
    run(conn, sql, [limit(limits.decisions)])?;
    Ok(())
}
