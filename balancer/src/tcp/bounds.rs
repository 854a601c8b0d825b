//! What protects the service ports: every bound by its name, with a default that protects.

use std::time::Duration;

/// Bounds of modes `tcp` and `nat` in user space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections of one service at once; more are broken off at once. What an instance takes is
    /// bounded by `load.max_in_flight` and what waits by `route.hold`; this is for what both
    /// together would let through, such as a thousand instances that somebody idles on.
    pub connections: u32,
    /// A connection on which nothing moved for so long is broken off: the same as a tunnel's.
    pub idle: Duration,
    /// An instance must accept within this; then another one is tried.
    pub connect: Duration,
    /// Whether bulk goes through pipes in the kernel instead of being copied.
    pub splices: bool,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            connections: 16_384,
            idle: Duration::from_secs(3600),
            connect: Duration::from_secs(2),
            splices: true,
        }
    }
}
