//! Mode `nat`: the kernel passes packets on. A table of nftables sends each new connection to an
//! instance by weights that follow the loads; established connections stay where they are. A
//! service without a ready instance has no rule, and its port's user-space listener holds.

mod able;
mod bury;
mod conntrack;
mod keep;
mod kernel;
mod nft;
mod rules;
mod tell;

pub use keep::keep;
pub use kernel::Kernel;
pub use tell::Scrape;

use chassis::Nudge;
use domain::{BalancerId, ServiceName};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the keeper of the kernel's table shares with metrics and the board's ability.
#[derive(Debug, Default)]
pub struct State {
    /// Routes changed.
    pub nudge: Nudge,
    /// The board, or a saved view of it, was read: what is missing there is missing.
    pub known: AtomicBool,
    /// The board itself was read: who is missing there was not only added after the view was saved.
    pub read: AtomicBool,
    lacks: Mutex<Option<String>>,
    troubles: Mutex<BTreeMap<ServiceName, String>>,
    /// Transactions the kernel took.
    writes: AtomicU64,
    /// Transactions it did not take.
    write_failures: AtomicU64,
    /// Connections of dead instances forgotten.
    flushed: AtomicU64,
}

/// Takes a balancer's table out of the kernel, with the connections that went by it: for the end of
/// everything it served. Where there is none, or no nftables, nothing is done.
pub async fn remove(id: &BalancerId) {
    let table = keep::table_of(id);
    if nft::chains(&table).await.is_empty() {
        return;
    }
    let none = rules::Wanted { table, listen: Vec::new(), fronts: Vec::new() };
    if let Err(error) = nft::apply(&none.transaction(&[])).await {
        let error = chassis::telemetry::Chain(&error).to_string();
        tracing::warn!(error, table = none.table, "a table of nftables is left in the kernel");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every value behind these locks is replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// What this host lacks for the mode, and what to do; `None`: nothing.
    #[must_use]
    pub fn lacks(&self) -> Option<String> {
        lock(&self.lacks).clone()
    }

    /// Services that the kernel cannot serve as declared, and why.
    #[must_use]
    pub fn troubles(&self) -> BTreeMap<ServiceName, String> {
        lock(&self.troubles).clone()
    }
}
