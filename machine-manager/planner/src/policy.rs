//! Every constant of the planner, with its default and the reason for it.

use domain::Share;
use std::time::Duration;

/// What an operator may tune. `Policy::default()` is the product; the demo runs a faster pace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Unplaced demand is ordered for once nothing new came for this long (0.2 s): starts that
    /// belong together share a node. A wake skips it.
    pub batch_idle: Duration,
    /// Demand waits at most this long for company (2 s).
    pub batch_max: Duration,
    /// An empty node with a billing unit of `short_unit` or less leaves after this (60 s; 3 s in
    /// the demo). With longer units it leaves at its edge: the time is paid anyway.
    pub empty_after: Duration,
    /// Units up to this (60 s) count as short.
    pub short_unit: Duration,
    /// A renewal is decided this long before the last moment (10 s). Must exceed the longest time
    /// between two steps, or a unit begins that nobody admitted.
    pub renew_ahead: Duration,
    /// A node that will not be renewed is drained this long before it is stopped (60 s), so that
    /// what runs on it can start elsewhere first.
    pub drain_lead: Duration,
    /// A provider must accept an order within this (5 min).
    pub order_deadline: Duration,
    /// A started node must join within this (15 min).
    pub join_deadline: Duration,
    /// A drain is forced after this (10 min), unless the node is protected.
    pub drain_deadline: Duration,
    /// A stop is asked for again and told about when it took longer than this (5 min).
    pub stop_deadline: Duration,
    /// A lost node that was ordered is given back after this (5 min): it costs and serves nothing.
    pub lost_deadline: Duration,
    /// Silent for longer (3 s): no new instances.
    pub suspect_after: Duration,
    /// Silent for longer (10 s): lost.
    pub lost_after: Duration,
    /// More than this share of nodes silent (45 %) and at least `silent_nodes`: it is us who are
    /// deaf, and nothing moves.
    pub silent_share: Share,
    /// See `silent_share` (3).
    pub silent_nodes: usize,
    /// Nodes ordered within any minute, at most (20): a runaway is stopped before it is rich.
    pub orders_per_minute: usize,
    /// Share of the cap that orders of one hour may promise (10 %); the first order of an hour is
    /// always allowed. `None` switches the guard off.
    pub hourly_share: Option<Share>,
    /// A node with more of its processors in use for `hot_window` is hot (80 %).
    pub node_up: Share,
    /// See `node_up` (60 s).
    pub hot_window: Duration,
    /// A node with less of its room taken (40 %) may be emptied when its instances fit elsewhere.
    pub node_down: Share,
    /// Nothing is consolidated for this long after a node was added or drained (3 min).
    pub quiet: Duration,
    /// Whether under-used nodes are emptied at all.
    pub consolidate: bool,
    /// When a provider refused an order of a type, the type rests for this long, doubled with each
    /// further refusal (5 min) up to `backoff_max`.
    pub backoff: Duration,
    /// See `backoff` (30 min).
    pub backoff_max: Duration,
    /// How long a node needs from order to ready when nothing was learned yet (30 s). Display only.
    pub boot_guess: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        let seconds = Duration::from_secs;
        Policy {
            batch_idle: Duration::from_millis(200),
            batch_max: seconds(2),
            empty_after: seconds(60),
            short_unit: seconds(60),
            renew_ahead: seconds(10),
            drain_lead: seconds(60),
            order_deadline: seconds(300),
            join_deadline: seconds(900),
            drain_deadline: seconds(600),
            stop_deadline: seconds(300),
            lost_deadline: seconds(300),
            suspect_after: seconds(3),
            lost_after: seconds(10),
            silent_share: Share::percent(45),
            silent_nodes: 3,
            orders_per_minute: 20,
            hourly_share: Some(Share::percent(10)),
            node_up: Share::percent(80),
            hot_window: seconds(60),
            node_down: Share::percent(40),
            quiet: seconds(180),
            consolidate: true,
            backoff: seconds(300),
            backoff_max: seconds(1800),
            boot_guess: seconds(30),
        }
    }
}

impl Policy {
    /// The demo's pace: empty nodes leave after 3 s, quiet 3 s, units of a second.
    #[must_use]
    pub fn demo() -> Policy {
        let seconds = Duration::from_secs;
        Policy {
            empty_after: seconds(3),
            renew_ahead: seconds(3),
            drain_lead: seconds(5),
            drain_deadline: seconds(20),
            quiet: seconds(3),
            hourly_share: None,
            boot_guess: seconds(1),
            ..Policy::default()
        }
    }

    /// How long an order may be in flight: until then its first unit may begin at any moment, so
    /// it counts in every month this reaches.
    #[must_use]
    pub fn flight_max(&self) -> Duration {
        self.order_deadline.saturating_add(self.renew_ahead)
    }
}
