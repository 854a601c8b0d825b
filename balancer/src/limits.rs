//! What protects the front door: every bound by its name, with a default that protects.

use domain::Bytes;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use wire::quantity::{Q, Size, Span, Time};

/// Bounds of the front door: `[balancer.limits]` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client connections at once, over all workers. When they are used up, the ones that were
    /// idle longest are closed for new ones; if none is idle, new ones wait in the kernel.
    pub connections: usize,
    /// A request's head; more is answered 431.
    pub head: Size,
    /// A request's target; more is answered 414.
    pub target: Size,
    /// A request's body; more is answered 413. A service may be stricter (`route.body_max`).
    /// Bodies are streamed, so that this is no bound on memory; it keeps a client from sending for
    /// ever.
    pub body: Size,
    /// A request's body of a known length up to this is read whole before an instance is chosen: a
    /// client that sends slowly then takes no instance's place, and the request can be tried again.
    pub buffer: Size,
    /// A quiet keep-alive connection is closed after this: longer than common clients keep theirs
    /// (60 s), so that the client closes first and no request meets a closing connection.
    pub idle: Time,
    /// A request's head must be complete this long after its first byte; slower is an attack or
    /// broken.
    pub head_time: Time,
    /// An answer's head must come this long after the request was sent.
    pub answer_time: Time,
    /// A body in either direction must move within this time.
    pub stall_time: Time,
    /// A tunnel must move within this time.
    pub tunnel_idle: Time,
    /// How long a client may keep the balancer waiting over a whole request, be it for its body or
    /// for room to write, before [`Limits::slow_rate`] counts.
    pub slow_time: Time,
    /// What a client that keeps the balancer waiting must move in a second; `0B`: anything. What
    /// is slower holds an instance's place that others need.
    pub slow_rate: Size,
    /// Connections of one service port at once, in user space; more are broken off at once. What
    /// an instance takes is bounded by `load.max_in_flight` and what waits by `route.hold`: this is
    /// for what both together would let through, such as a thousand instances somebody idles on.
    pub port_connections: u32,
    /// An instance must accept a service port's connection within this; then another one is tried.
    pub port_connect_time: Time,
    /// Whether bulk on service ports goes through pipes in the kernel instead of being copied.
    pub port_splice: bool,
}

const fn seconds(n: u64) -> Time {
    Q(Span(Duration::from_secs(n)))
}

const fn bytes(n: u64) -> Size {
    Q(Bytes(n))
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 32_768,
            head: bytes(64 << 10),
            target: bytes(16 << 10),
            body: bytes(16 << 30),
            buffer: bytes(64 << 10),
            idle: seconds(75),
            head_time: seconds(10),
            answer_time: seconds(120),
            stall_time: seconds(300),
            tunnel_idle: seconds(3600),
            slow_time: seconds(20),
            slow_rate: bytes(500),
            port_connections: 16_384,
            port_connect_time: seconds(2),
            port_splice: true,
        }
    }
}

/// Smallest bound on heads: less than this refuses ordinary browsers.
const HEAD_MIN: u64 = 4 << 10;
/// Largest bound on what one request may keep in memory.
const KEPT_MAX: u64 = 1 << 20;
/// Shorter deadlines than the sweep's own step cannot be kept.
const TIME_MIN: Duration = Duration::from_millis(250);

/// Descriptors that are not for clients: listeners, the board, checks and probes, pipes, logs.
const DESCRIPTORS_KEPT: u64 = 256;
/// A client's connection, and the one to an instance.
const DESCRIPTORS_EACH: u64 = 2;

impl Limits {
    /// The same bounds, with those that would make the front door useless put right.
    #[must_use]
    pub fn sane(mut self) -> Limits {
        self.connections = self.connections.max(1);
        self.head = bytes(self.head.0.0.clamp(HEAD_MIN, KEPT_MAX));
        self.target = bytes(self.target.0.0.clamp(1 << 10, self.head.0.0));
        self.buffer = bytes(self.buffer.0.0.min(KEPT_MAX));
        for time in [
            &mut self.idle,
            &mut self.head_time,
            &mut self.answer_time,
            &mut self.stall_time,
            &mut self.tunnel_idle,
            &mut self.port_connect_time,
        ] {
            time.0.0 = time.0.0.max(TIME_MIN);
        }
        self
    }

    /// The same bounds, with no more connections than so many descriptors carry.
    #[must_use]
    pub fn within(mut self, descriptors: u64) -> Limits {
        let carried = descriptors.saturating_sub(DESCRIPTORS_KEPT) / DESCRIPTORS_EACH;
        let carried = usize::try_from(carried).unwrap_or(usize::MAX).max(1);
        if carried < self.connections {
            tracing::warn!(
                descriptors,
                connections = carried,
                wanted = self.connections,
                "this process may open too few files for balancer.limits.connections: fewer \
                 connections are taken; raise the limit (`ulimit -n`, or LimitNOFILE in its unit) to \
                 twice as many and {DESCRIPTORS_KEPT}",
            );
            self.connections = carried;
        }
        self
    }

    /// Bytes of one worker for bodies that are read whole before an instance is chosen; beyond it
    /// they are passed on as they come. Many slow senders at once must not take more.
    pub const BUFFER_MEMORY: u64 = 32 << 20;
    /// Bytes of one worker for heads that did not come in one piece. Beyond it, heads that are longer
    /// than [`Limits::HEAD_SMALL`] are refused: nobody who sends an ordinary one pays for those who
    /// send long ones slowly.
    pub const HEAD_MEMORY: u64 = 32 << 20;
    /// What any head may take.
    pub const HEAD_SMALL: u64 = 8 << 10;

    /// The longest that answered connections may linger to take in what the client still sends.
    pub const LINGER: Time = seconds(2);
}

/// A size for memory; nothing here is larger than memory can be.
#[must_use]
pub fn size(size: Size) -> usize {
    usize::try_from(size.0.0).unwrap_or(usize::MAX)
}

/// A time in milliseconds.
#[must_use]
pub fn millis(time: Time) -> u64 {
    u64::try_from(time.0.0.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_connections_are_taken_than_descriptors_carry() {
        let limits = Limits { connections: 32_768, ..Limits::default() };
        let within = |descriptors| limits.clone().within(descriptors).connections;
        assert_eq!(within(u64::MAX), 32_768);
        assert_eq!(within(2 * 32_768 + 256), 32_768);
        assert_eq!(within(1024), 384);
        assert_eq!(within(10), 1, "never none");
    }
}
