//! What protects the front door: every bound by its name, with a default that protects.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Bounds of the front door, `balancer.limits` in the configuration. Times in milliseconds, sizes
/// in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client connections at once, over all workers. When they are used up, the ones that were
    /// idle longest are closed for new ones; if none is idle, new ones wait in the kernel.
    pub connections: usize,
    /// Bytes of a request's head; more is answered 431.
    pub head_bytes: usize,
    /// Bytes of a request's target; more is answered 414.
    pub target_bytes: usize,
    /// Bytes of a request's body; more is answered 413. A service may be stricter
    /// (`route.body_max`). Bodies are streamed, so that this is no bound on memory; it keeps a
    /// client from sending for ever.
    pub body_bytes: u64,
    /// A quiet keep-alive connection is closed after this: longer than common clients keep theirs
    /// (60 s), so that the client closes first and no request meets a closing connection.
    pub idle_millis: u64,
    /// A request's head must be complete this long after its first byte; slower is an attack or
    /// broken.
    pub head_millis: u64,
    /// An answer's head must come this long after the request was sent.
    pub answer_millis: u64,
    /// A body in either direction must move within this time.
    pub stall_millis: u64,
    /// A tunnel must move within this time.
    pub tunnel_idle_millis: u64,
    /// Time a client may keep the balancer waiting over a whole request, be it for its body or for
    /// room to write, before [`Limits::rate_bytes`] counts.
    pub slow_millis: u64,
    /// Bytes a second that a client which keeps the balancer waiting must move; 0: any. What is
    /// slower holds an instance's place that others need.
    pub rate_bytes: u64,
    /// A request's body up to this size is read whole before an instance is chosen: a client that
    /// sends slowly then takes no instance's place, and the request can be tried again.
    pub buffer_bytes: usize,
    /// Connections of one service port at once, in user space; more are broken off at once. What
    /// an instance takes is bounded by `load.max_in_flight` and what waits by `route.hold`: this is
    /// for what both together would let through, such as a thousand instances somebody idles on.
    pub port_connections: u32,
    /// An instance must accept a service port's connection within this; then another one is tried.
    pub port_connect_millis: u64,
    /// Whether bulk on service ports goes through pipes in the kernel instead of being copied.
    pub port_splice: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 32_768,
            head_bytes: 64 << 10,
            target_bytes: 16 << 10,
            body_bytes: 16 << 30,
            idle_millis: 75_000,
            head_millis: 10_000,
            answer_millis: 120_000,
            stall_millis: 300_000,
            tunnel_idle_millis: 3_600_000,
            slow_millis: 20_000,
            rate_bytes: 500,
            buffer_bytes: 64 << 10,
            port_connections: 16_384,
            port_connect_millis: 2_000,
            port_splice: true,
        }
    }
}

/// Smallest bound on heads: less than this refuses ordinary browsers.
pub const HEAD_BYTES_MIN: usize = 4 << 10;

impl Limits {
    /// The same bounds, with those that would make the front door useless put right.
    #[must_use]
    pub fn sane(mut self) -> Limits {
        self.connections = self.connections.max(1);
        self.head_bytes = self.head_bytes.clamp(HEAD_BYTES_MIN, 1 << 20);
        self.target_bytes = self.target_bytes.clamp(1 << 10, self.head_bytes);
        self.buffer_bytes = self.buffer_bytes.min(1 << 20);
        for millis in [
            &mut self.idle_millis,
            &mut self.head_millis,
            &mut self.answer_millis,
            &mut self.stall_millis,
            &mut self.tunnel_idle_millis,
            &mut self.port_connect_millis,
        ] {
            *millis = (*millis).max(MILLIS_MIN);
        }
        self
    }

    /// The longest that answered connections may linger to take in what the client still sends.
    pub const LINGER: Duration = Duration::from_secs(2);
}

/// Shorter deadlines than the sweep's own step cannot be kept.
const MILLIS_MIN: u64 = 250;
