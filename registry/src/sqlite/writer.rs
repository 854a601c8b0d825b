//! The one connection that writes, on a thread of its own: calls that wait together share one
//! transaction and one sync of the disk, and each stays whole by a savepoint of its own.

use crate::columns::Done;
use crate::limits::{Limits, UPKEEP_EVERY};
use crate::store::RegistryError;
use crate::{decisions, instances, ledger, nodes, services, stats};
use domain::{Clock, Timestamp};
use rusqlite::{Connection, TransactionBehavior};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Calls that may wait for the writer; more wait in their callers. A control process has tens.
const QUEUE: usize = 256;
/// Calls in one transaction: enough to share a sync under load, few enough that the first of them
/// is answered within milliseconds.
const BATCH: usize = 64;
/// Rows changed between two checkpoints: about 4 MB of log, which readers still search quickly.
const CHECKPOINT_ROWS: u64 = 4_000;

/// Drops one kind of old history; `true`: there is more of it.
type Kind<'a> = dyn Fn(&Connection) -> Done<bool> + 'a;

/// One call, waiting to be done.
trait Call: Send {
    /// Does the work inside a savepoint. `false`: it was refused and must leave nothing.
    fn run(&mut self, conn: &Connection, now: Timestamp) -> bool;
    /// Tells the caller; `lost` says why the transaction as a whole came to nothing.
    fn answer(self: Box<Self>, lost: Option<&str>);
}

struct Pending<T, F> {
    doing: &'static str,
    work: Option<F>,
    outcome: Option<Result<T, RegistryError>>,
    reply: oneshot::Sender<Result<T, RegistryError>>,
}

impl<T, F> Call for Pending<T, F>
where
    T: Send,
    F: FnOnce(&Connection, Timestamp) -> Done<T> + Send,
{
    fn run(&mut self, conn: &Connection, now: Timestamp) -> bool {
        let Some(work) = self.work.take() else { return false };
        let outcome = work(conn, now).map_err(|fault| fault.while_trying_to(self.doing));
        let done = outcome.is_ok();
        self.outcome = Some(outcome);
        done
    }

    fn answer(self: Box<Self>, lost: Option<&str>) {
        let why = lost.unwrap_or("the call was not reached");
        let failed = || RegistryError::Store { doing: self.doing, source: why.to_owned().into() };
        let outcome = match (self.outcome, lost) {
            // A refusal stays true; success is void when the transaction was lost.
            (Some(Err(refused)), _) => Err(refused),
            (Some(Ok(value)), None) => Ok(value),
            (Some(Ok(_)), Some(_)) | (None, _) => Err(failed()),
        };
        // A caller that went away no longer wants to know.
        drop(self.reply.send(outcome));
    }
}

/// The way to the writing thread. Dropped, it waits until all accepted calls are done.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Call>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Gives `conn` to a new thread.
    pub(super) fn start(
        conn: Connection,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<Writer, RegistryError> {
        let (queue, calls) = mpsc::channel(QUEUE);
        let desk = Desk { conn, clock, limits, upkept_at: None, checkpointed: 0 };
        let thread = std::thread::Builder::new()
            .name("registry-writer".to_owned())
            .spawn(move || desk.serve(calls))
            .map_err(|error| RegistryError::Store {
                doing: "start its writing thread",
                source: Box::new(error),
            })?;
        Ok(Writer { queue: Some(queue), thread: Some(thread) })
    }

    /// Has `work` done in a transaction; answers once it is on the disk.
    pub(super) async fn call<T, F>(&self, doing: &'static str, work: F) -> Result<T, RegistryError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, Timestamp) -> Done<T> + Send + 'static,
    {
        let ended = || RegistryError::Store { doing, source: "its writing thread ended".into() };
        let (reply, answer) = oneshot::channel();
        let call = Box::new(Pending { doing, work: Some(work), outcome: None, reply });
        let queue = self.queue.as_ref().ok_or_else(ended)?;
        queue.send(call).await.map_err(|_closed| ended())?;
        answer.await.map_err(|_closed| ended())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the registry's writing thread panicked");
        }
    }
}

/// The writing thread's own.
struct Desk {
    conn: Connection,
    clock: Arc<dyn Clock>,
    limits: Limits,
    upkept_at: Option<Timestamp>,
    /// `total_changes` at the last checkpoint.
    checkpointed: u64,
}

impl Desk {
    fn serve(mut self, mut calls: mpsc::Receiver<Box<dyn Call>>) {
        while let Some(first) = calls.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH
                && let Ok(next) = calls.try_recv()
            {
                batch.push(next);
            }
            let now = self.clock.now();
            let lost = self.transaction(&mut batch, now).err().map(|error| error.to_string());
            for call in batch {
                call.answer(lost.as_deref());
            }
            // After the answers: nobody waits for these but who comes next.
            self.upkeep(now);
            self.checkpoint();
        }
    }

    fn transaction(&mut self, batch: &mut [Box<dyn Call>], now: Timestamp) -> rusqlite::Result<()> {
        // Immediate: a transaction that upgraded later would fail at once with BUSY_SNAPSHOT.
        let mut tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for call in batch {
            let savepoint = tx.savepoint()?;
            if call.run(&savepoint, now) {
                savepoint.commit()?;
            } else if savepoint.is_autocommit() {
                // A full disk or a failed read may undo the whole transaction by itself.
                return Err(undone());
            } else {
                savepoint.finish()?;
            }
        }
        tx.commit()
    }

    /// Drops what was kept long enough, each kind in a transaction of its own.
    fn upkeep(&mut self, now: Timestamp) {
        if self.upkept_at.is_some_and(|at| now.since(at) < UPKEEP_EVERY && now >= at) {
            return;
        }
        let limits = self.limits;
        let kinds: [&Kind<'_>; 6] = [
            &|conn| instances::upkeep(conn, &limits, now).map(|()| false),
            &|conn| nodes::upkeep(conn, &limits, now).map(|()| false),
            &|conn| services::upkeep(conn, &limits).map(|()| false),
            &|conn| decisions::upkeep(conn, &limits).map(|()| false),
            &|conn| ledger::upkeep(conn, &limits, now).map(|()| false),
            &|conn| stats::upkeep(conn, &limits, now),
        ];
        let mut more = false;
        for kind in kinds {
            match self.upkeep_kind(kind) {
                Ok(rest) => more |= rest,
                Err(fault) => {
                    let error = fault.while_trying_to("drop old history");
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, ?source, "old history stays for another minute");
                }
            }
        }
        // With more to drop, the next batch is followed by the next slice.
        self.upkept_at = (!more).then_some(now);
    }

    fn upkeep_kind(&mut self, kind: &Kind<'_>) -> Done<bool> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let more = kind(&tx)?;
        tx.commit()?;
        Ok(more)
    }

    /// Moves the log into the file now and then; a reader in the way only postpones it.
    fn checkpoint(&mut self) {
        let changes = self.conn.total_changes();
        if changes.saturating_sub(self.checkpointed) < CHECKPOINT_ROWS {
            return;
        }
        self.checkpointed = changes;
        if let Err(error) = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_row| Ok(()))
        {
            tracing::warn!(%error, "the registry's log was not moved into its file");
        }
    }
}

/// The whole transaction was undone by SQLite in the middle of it.
fn undone() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT_ROLLBACK);
    rusqlite::Error::SqliteFailure(code, Some("the disk failed within the transaction".to_owned()))
}
