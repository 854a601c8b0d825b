//! Sends the newest of what there is to one peer; what cannot be sent is dropped, for the next
//! measurement is worth more.

use chassis::backoff::Backoff;
use chassis::telemetry::Chain;
use chassis::{Client, PeerError, Shutdown};
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// A peer that has not answered by then gets the next measurement instead.
const SEND_DEADLINE: Duration = Duration::from_millis(900);
/// Pauses after failures.
const RETRY_MIN: Duration = Duration::from_millis(250);
/// A manager that comes back hears of the node within two seconds.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// The newest message, until it is sent.
#[derive(Debug)]
pub struct Slot<T> {
    newest: Arc<Mutex<Option<T>>>,
    filled: Arc<Notify>,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Slot<T> {
        Slot { newest: Arc::clone(&self.newest), filled: Arc::clone(&self.filled) }
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot { newest: Arc::default(), filled: Arc::default() }
    }
}

impl<T> Slot<T> {
    /// Puts a message in place of the one before; `merge` makes one of an unsent one and this.
    pub fn put(&self, message: T, merge: impl FnOnce(T, T) -> T) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = Some(match newest.take() {
            Some(before) => merge(before, message),
            None => message,
        });
        drop(newest);
        self.filled.notify_one();
    }

    fn take(&self) -> Option<T> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// One peer and path.
pub struct Sender<T> {
    /// Whom to.
    pub client: Client,
    /// Where to.
    pub path: &'static str,
    /// In words, for the log.
    pub what: &'static str,
    /// What is to be sent.
    pub slot: Slot<T>,
    /// Counts messages that were taken.
    pub sent: Counter,
    /// Counts messages that were dropped.
    pub dropped: Counter,
}

impl<T: Serialize + Send + Sync> Sender<T> {
    /// Sends until the shutdown starts.
    pub async fn run(self, shutdown: Shutdown) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        let mut failing = false;
        loop {
            tokio::select! {
                () = shutdown.started() => return,
                () = self.slot.filled.notified() => {}
            }
            let Some(message) = self.slot.take() else { continue };
            let outcome: Result<serde_json::Value, PeerError> = tokio::select! {
                () = shutdown.started() => return,
                outcome = self.client.post(self.path, &message, SEND_DEADLINE) => outcome,
            };
            let (what, peer) = (self.what, self.client.peer());
            match outcome {
                Ok(answer) => {
                    self.sent.inc();
                    if std::mem::take(&mut failing) {
                        tracing::info!(%peer, "{what} are taken again");
                    }
                    if answer["rejected"].as_array().is_some_and(|list| !list.is_empty()) {
                        tracing::debug!(%peer, rejected = %answer["rejected"], "some {what} were refused");
                    }
                    backoff.reset();
                }
                Err(why) => {
                    self.dropped.inc();
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(why = %Chain(&why), "{what} cannot be sent; dropped until they can");
                    }
                    tokio::select! {
                        () = shutdown.started() => return,
                        () = tokio::time::sleep(backoff.wait()) => {}
                    }
                    // Measured before the pause: old.
                    drop(self.slot.take());
                }
            }
        }
    }
}
