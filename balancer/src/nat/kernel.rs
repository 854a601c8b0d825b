//! What the kernel passes on of one service, as it was last counted.

use domain::Mono;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Counts of one service, written by the keeper of the kernel's table.
#[derive(Debug, Default)]
pub struct Kernel {
    /// Connections open now.
    pub open: AtomicU32,
    /// New connections a second, in thousandths.
    pub rate_milli: AtomicU64,
    last: Mutex<Option<Mono>>,
}

impl Kernel {
    /// Takes a count: `open` now, and `fresh` ones since the last count.
    pub fn take(&self, open: u32, fresh: u64, now: Mono) {
        self.open.store(open, Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let span = last.replace(now).map(|last| now.since(last).as_millis());
        // The first count finds what was there before.
        let rate = match span.and_then(|span| u64::try_from(span).ok()) {
            Some(span) if span > 0 => fresh.saturating_mul(1_000_000) / span,
            Some(_) | None => 0,
        };
        self.rate_milli.store(rate, Relaxed);
    }
}
