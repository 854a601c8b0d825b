//! Idle connections of one worker to one service's instances: newest first, bounded, swept.

use crate::upstream::Upstream;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Idle connections kept per worker and instance: enough for the burst of one core, and a fleet of
/// cores and balancers stays below common limits of servers.
pub const IDLE_PER_INSTANCE_MAX: usize = 128;
/// An idle connection is closed after this: under the 5 s that Node.js keeps its own, so that we
/// close first.
pub const IDLE_MILLIS_MAX: u64 = 4_000;

/// The idle connections.
#[derive(Debug, Default)]
pub struct Pool {
    by_instance: HashMap<u64, Vec<Upstream>, BuildHasherDefault<Spread>>,
}

/// Spreads instances' serial numbers. They are this process's own, so nobody can make them collide.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0.rotate_left(8) ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        // The odd number next to 2^64 divided by the golden ratio: neighbours land far apart.
        self.0 = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl Pool {
    /// The newest connection that still stands.
    pub fn take(&mut self, instance: u64) -> Option<Upstream> {
        let idle = self.by_instance.get_mut(&instance)?;
        while let Some(upstream) = idle.pop() {
            if upstream.is_idle() {
                return Some(upstream);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub fn give(&mut self, instance: u64, mut upstream: Upstream, tick: u64) {
        let idle = self.by_instance.entry(instance).or_default();
        if idle.len() < IDLE_PER_INSTANCE_MAX {
            upstream.idle_since = tick;
            upstream.used = true;
            upstream.seen = false;
            idle.push(upstream);
        }
    }

    /// Closes what is too old, ended, or leads to an instance that `wanted` does not know.
    pub fn sweep(&mut self, tick: u64, wanted: impl Fn(u64) -> bool) {
        self.by_instance.retain(|instance, idle| {
            if !wanted(*instance) {
                return false;
            }
            idle.retain(|u| tick.saturating_sub(u.idle_since) < IDLE_MILLIS_MAX && u.is_idle());
            !idle.is_empty()
        });
    }
}
