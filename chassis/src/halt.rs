//! A halt of the whole cluster: nothing is wanted any more, whatever was declared (`tally down`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by both managers of one process; once set it stays set.
#[derive(Debug, Clone, Default)]
pub struct Halt(Arc<AtomicBool>);

impl Halt {
    /// From now on every service is wanted at zero and no node is ordered.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
