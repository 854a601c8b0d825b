//! What is counted of a service's connections: one set per worker, summed when read.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Why a connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The service has as many connections as it may have.
    Connections,
    /// As many wait as may.
    Queue,
    /// It waited as long as it may.
    Deadline,
    /// The client gave up while it waited.
    Gone,
    /// No instance exists and none may be started.
    Unstartable,
    /// This host lacks descriptors, memory or ports for one more.
    Lacking,
}

impl Refusal {
    /// Every reason, as metrics name them.
    pub const ALL: [(Refusal, &'static str); 6] = [
        (Refusal::Connections, "connections"),
        (Refusal::Queue, "queue"),
        (Refusal::Deadline, "deadline"),
        (Refusal::Gone, "client_gone"),
        (Refusal::Unstartable, "unstartable"),
        (Refusal::Lacking, "lacking"),
    ];
}

/// One worker's counters of one service.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections open now: held, being joined or joined.
    pub open: AtomicU32,
    /// Connections that reached an instance.
    pub joined: AtomicU64,
    /// Connections ended by the idle limit.
    pub idle: AtomicU64,
    /// Connections that one side broke off.
    pub broken: AtomicU64,
    /// Connect attempts that failed.
    pub connect_failures: AtomicU64,
    /// Bytes from clients.
    pub received: AtomicU64,
    /// Bytes to clients.
    pub sent: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Counts {
    /// Counts a connection turned away.
    pub fn refused(&self, why: Refusal) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }

    /// Connections turned away for this reason.
    #[must_use]
    pub fn refused_for(&self, why: Refusal) -> u64 {
        self.refused[why as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_place() {
        for (index, (why, _)) in Refusal::ALL.iter().enumerate() {
            assert_eq!(*why as usize, index);
        }
    }
}
