//! What one worker keeps of a service's instances: idle connections, newest first, bounded, swept.

use crate::upstream::Upstream;
use crate::view::Instance;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::Arc;

/// Idle connections kept per worker and instance: enough for the burst of one core, and a fleet of
/// cores and balancers stays below common limits of servers.
pub const IDLE_PER_INSTANCE_MAX: usize = 128;
/// An idle connection is closed after this: under the 5 s that Node.js keeps its own, so that we
/// close first.
pub const IDLE_MILLIS_MAX: u64 = 4_000;

/// One instance as one worker has it: reached without touching what other cores write.
#[derive(Debug)]
pub struct Spot {
    /// The instance.
    pub instance: Arc<Instance>,
    idle: RefCell<Vec<Upstream>>,
}

impl Spot {
    /// The newest connection that still stands.
    pub fn take(&self) -> Option<Upstream> {
        let mut idle = self.idle.borrow_mut();
        while let Some(upstream) = idle.pop() {
            if upstream.is_idle() {
                return Some(upstream);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub fn give(&self, mut upstream: Upstream, tick: u64) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_PER_INSTANCE_MAX {
            upstream.idle_since = tick;
            upstream.used = true;
            upstream.seen = false;
            idle.push(upstream);
        }
    }
}

/// The instances of a service.
#[derive(Debug, Default)]
pub struct Pool {
    spots: HashMap<u64, Rc<Spot>, BuildHasherDefault<Spread>>,
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
    /// The worker's part of an instance, made when first needed.
    pub fn spot(&mut self, instance: &Arc<Instance>) -> Rc<Spot> {
        let make = || Rc::new(Spot { instance: Arc::clone(instance), idle: RefCell::default() });
        Rc::clone(self.spots.entry(instance.serial).or_insert_with(make))
    }

    /// Closes what is too old, ended, or leads to an instance that `wanted` does not know.
    pub fn sweep(&mut self, tick: u64, wanted: impl Fn(u64) -> bool) {
        self.spots.retain(|serial, spot| {
            if !wanted(*serial) {
                return false;
            }
            let young = |u: &Upstream| tick.saturating_sub(u.idle_since) < IDLE_MILLIS_MAX;
            spot.idle.borrow_mut().retain(|u| young(u) && u.is_idle());
            true
        });
    }
}
