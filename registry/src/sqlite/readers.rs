//! A few connections that only read: they never wait for the writer.

use super::migrate;
use crate::columns::Done;
use crate::store::RegistryError;
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Reads at once: an API's lists beside a step's observation; each may hold a page cache of 2 MB.
const READERS: usize = 4;

/// The idle connections.
struct Idle {
    path: PathBuf,
    conns: Mutex<Vec<Connection>>,
}

impl Idle {
    fn take(&self) -> Result<Connection, RegistryError> {
        let idle = self.conns.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| migrate::open_reader(&self.path), Ok)
    }

    fn give(&self, conn: Connection) {
        self.conns.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
    }
}

/// The pool.
pub(super) struct Readers {
    idle: Arc<Idle>,
    turns: Arc<Semaphore>,
}

impl Readers {
    /// A pool on `path` with one connection open: the first read is as quick as the next.
    pub(super) fn start(path: PathBuf) -> Result<Readers, RegistryError> {
        let conns = Mutex::new(vec![migrate::open_reader(&path)?]);
        Ok(Readers {
            idle: Arc::new(Idle { path, conns }),
            turns: Arc::new(Semaphore::new(READERS)),
        })
    }

    /// Has `work` done on a snapshot of its own.
    pub(super) async fn call<T, F>(&self, doing: &'static str, work: F) -> Result<T, RegistryError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Done<T> + Send + 'static,
    {
        let failed = |source| RegistryError::Store { doing, source };
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|closed| failed(Box::new(closed)))?;
        let idle = Arc::clone(&self.idle);
        let read = tokio::task::spawn_blocking(move || {
            let conn = idle.take()?;
            let read = work(&conn).map_err(|fault| fault.while_trying_to(doing));
            idle.give(conn);
            drop(turn);
            read
        });
        read.await.map_err(|ended| failed(Box::new(ended)))?
    }
}
