//! Opens the file as every connection needs it and brings its tables to the present version.

use crate::store::RegistryError;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior};
use std::path::Path;
use std::time::Duration;

/// The numbered changes, in order; the first makes version 1. A released one is never edited.
const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/0001_first.sql")];

/// How long one call waits for another process's transaction. Ours take milliseconds; five seconds
/// outlast any pause of a sane disk, and a control step that waits longer is better told.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Attempts to switch a new file to its log: two processes may open it at the same moment, and
/// SQLite answers *busy* to one of them without waiting.
const OPEN_ATTEMPTS: u32 = 50;
/// Pause between them.
const OPEN_PAUSE: Duration = Duration::from_millis(20);
/// The log is cut back to this after a checkpoint: what a burst made is not kept for ever.
const LOG_BYTES: i64 = 64 << 20;
/// Statements kept prepared per connection: more than the registry has.
const STATEMENTS: usize = 128;

fn failed(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> RegistryError {
    move |error| RegistryError::Store { doing, source: Box::new(error) }
}

/// A connection that may write. Every commit is on the disk before it is answered.
pub(super) fn open_writer(path: &Path) -> Result<Connection, RegistryError> {
    const DOING: &str = "open its file for writing";
    let mut conn = Connection::open(path).map_err(failed(DOING))?;
    conn.busy_timeout(BUSY_TIMEOUT).map_err(failed(DOING))?;
    use_log(&conn)?;
    let setup = |conn: &Connection| {
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        // The writer checkpoints by itself, after it has answered: see `writer`.
        conn.pragma_update(None, "wal_autocheckpoint", 0)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(())
    };
    setup(&conn).map_err(failed(DOING))?;
    migrate(&mut conn, &MIGRATIONS)?;
    Ok(conn)
}

/// A connection that cannot write.
pub(super) fn open_reader(path: &Path) -> Result<Connection, RegistryError> {
    let open = || {
        let conn = Connection::open(path)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        conn.pragma_update(None, "query_only", true)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(conn)
    };
    open().map_err(failed("open its file for reading"))
}

/// Switches to write-ahead logging: readers and the writer never wait for each other.
fn use_log(conn: &Connection) -> Result<(), RegistryError> {
    const DOING: &str = "switch its file to write-ahead logging";
    for _attempt in 1..OPEN_ATTEMPTS {
        match log_mode(conn) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                std::thread::sleep(OPEN_PAUSE);
            }
            other => return check_mode(other.map_err(failed(DOING))?),
        }
    }
    check_mode(log_mode(conn).map_err(failed(DOING))?)
}

fn log_mode(conn: &Connection) -> rusqlite::Result<String> {
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
}

fn check_mode(mode: String) -> Result<(), RegistryError> {
    if mode == "wal" {
        return Ok(());
    }
    let source = format!(
        "the file stays in mode {mode:?}; keep it on a local disk, not on a network file system"
    );
    Err(RegistryError::Store {
        doing: "switch its file to write-ahead logging",
        source: source.into(),
    })
}

/// Brings the tables to the newest version, all in one transaction; refuses a newer file.
fn migrate(conn: &mut Connection, migrations: &[&str]) -> Result<(), RegistryError> {
    const DOING: &str = "bring its file to the present version";
    let newest = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    let mut version = || {
        // Immediate: two processes may start together, and one must see what the other did.
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")?;
        let sql = "SELECT version FROM schema_version";
        let found: Option<u32> = tx.query_row(sql, [], |row| row.get(0)).optional()?;
        let found = found.unwrap_or(0);
        if found < newest {
            for (_, sql) in (0..newest).zip(migrations).filter(|(before, _)| *before >= found) {
                tx.execute_batch(sql)?;
            }
            tx.execute("DELETE FROM schema_version", [])?;
            tx.execute("INSERT INTO schema_version (version) VALUES (?1)", [newest])?;
        }
        tx.commit()?;
        Ok(found)
    };
    let found = version().map_err(failed(DOING))?;
    if found <= newest {
        return Ok(());
    }
    let source = format!(
        "the file is of version {found}, this program knows versions up to {newest}; start the \
         newer program that wrote it, or give this one another data directory"
    );
    Err(RegistryError::Store { doing: DOING, source: source.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(conn: &Connection) -> u32 {
        conn.query_row("SELECT version FROM schema_version", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn migrations_run_once_and_in_order() {
        let mut conn = Connection::open_in_memory().unwrap();
        let first = "CREATE TABLE a (x INTEGER) STRICT;";
        let second = "INSERT INTO a (x) VALUES (7);";
        migrate(&mut conn, &[first]).unwrap();
        assert_eq!(version(&conn), 1);
        for _again in 0..2 {
            migrate(&mut conn, &[first, second]).unwrap();
        }
        let rows: Vec<i64> = conn
            .prepare("SELECT x FROM a")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!((version(&conn), rows), (2, vec![7]));
    }

    #[test]
    fn a_broken_migration_leaves_the_former_version() {
        let mut conn = Connection::open_in_memory().unwrap();
        let first = "CREATE TABLE a (x INTEGER) STRICT;";
        migrate(&mut conn, &[first]).unwrap();
        let broken = "INSERT INTO a (x) VALUES (7); INSERT INTO nowhere (x) VALUES (1);";
        assert!(migrate(&mut conn, &[first, broken]).is_err());
        let rows: u32 = conn.query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!((version(&conn), rows), (1, 0));
    }
}
