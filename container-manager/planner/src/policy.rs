//! Every constant of the decision, named, with its reason; the owner's own values are in the spec.

use domain::Share;
use std::time::Duration;

/// Constants of the planner. [`Policy::default`] is the product; [`Policy::demo`] its fast pace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Time between two steps of a scale-in: a removed instance's requests must have moved and
    /// been measured before the next one goes.
    pub down_every: Duration,
    /// Share of the instances one scale-in step takes (at least one instance).
    pub down_share: Share,
    /// Shortest look back for the highest need before a scale-in.
    pub stabilize_min: Duration,
    /// Longest look back.
    pub stabilize_max: Duration,
    /// The look back is this many start times (95th percentile): what is slow to start must be
    /// slow to go.
    pub stabilize_starts: u32,
    /// Span over which a scale-out outside bursts is bounded.
    pub up_every: Duration,
    /// Within that span the number may grow by this factor ...
    pub up_factor: u32,
    /// ... or by this many, whichever is more.
    pub up_plus: u32,
    /// Readings needed since the first instance was ready before load may scale out.
    pub up_coverage: Duration,
    /// Shortest window in which a burst is seen.
    pub burst_window_min: Duration,
    /// The burst window is this part of the averaging window.
    pub burst_window_part: u32,
    /// Load at which a burst begins at the latest.
    pub burst_load: Share,
    /// A report lives this many declared periods ...
    pub report_periods: u32,
    /// ... but at least this long: one lost datagram is no missing instance.
    pub report_min: Duration,
    /// With more than this share missing nothing is taken away.
    pub missing_no_down: Share,
    /// With more than this share missing load decides nothing.
    pub missing_hold: Share,
    /// Missing for max(2 windows, this): judged by what balancers see.
    pub missing_limit: Duration,
    /// For this long after ready, load above target is start-up work and counts as target.
    pub warm_up: Duration,
    /// Failed starts in a row that stop a revision.
    pub guard_failures: u32,
    /// Span in which more than half of the starts failing stops a revision.
    pub guard_span: Duration,
    /// Starts needed in that span before their failing half says anything.
    pub guard_samples: u32,
    /// Wait before the next start after the first failed one; doubled with each further one.
    pub retry_first: Duration,
    /// Wait before a guarded revision is tried again; doubled each time.
    pub guard_retry: Duration,
    /// Longest wait between such tries.
    pub guard_retry_max: Duration,
    /// How often what is remembered is made durable when nothing else is written.
    pub remember_every: Duration,
    /// Silence after which a node takes no new instances.
    pub suspect_after: Duration,
    /// Silence after which a node's instances are replaced.
    pub lost_after: Duration,
    /// More than this share of the nodes silent ...
    pub silent_share: Share,
    /// ... and at least this many: it is we who are cut off, so nothing moves.
    pub silent_nodes: usize,
    /// How long an instance may wait for a place under one id.
    pub wanted_deadline: Duration,
    /// Beyond the drain deadline, how long the executor's word that an instance ended is awaited.
    pub stop_grace: Duration,
    /// How long a failed instance waits for the executor's word that it is gone.
    pub failed_keep: Duration,
    /// How long a lost instance that was replaced is still known.
    pub lost_keep: Duration,
    /// With no live balancer heard, a drain waits this long: a balancer's heartbeat outlives it.
    pub unheard_drain: Duration,
    /// Lifespans are shortened by up to this share, so that what started together does not end so.
    pub lifespan_jitter: Share,
}

impl Default for Policy {
    fn default() -> Policy {
        let s = Duration::from_secs;
        Policy {
            down_every: s(30),
            down_share: Share::percent(10),
            stabilize_min: s(30),
            stabilize_max: s(300),
            stabilize_starts: 10,
            up_every: s(5),
            up_factor: 2,
            up_plus: 4,
            up_coverage: s(5),
            burst_window_min: s(3),
            burst_window_part: 10,
            burst_load: Share::percent(95),
            report_periods: 3,
            report_min: s(5),
            missing_no_down: Share::percent(30),
            missing_hold: Share::percent(70),
            missing_limit: s(120),
            warm_up: s(5),
            guard_failures: 3,
            guard_span: s(300),
            guard_samples: 4,
            retry_first: Duration::from_millis(500),
            guard_retry: s(30),
            guard_retry_max: s(300),
            remember_every: s(5),
            suspect_after: s(3),
            lost_after: s(10),
            silent_share: Share::percent(45),
            silent_nodes: 3,
            wanted_deadline: s(900),
            stop_grace: s(10),
            failed_keep: s(30),
            lost_keep: s(600),
            unheard_drain: s(10),
            lifespan_jitter: Share::percent(10),
        }
    }
}

impl Policy {
    /// The demonstration's pace: the look back is 5 s and a scale-in step comes every 2 s.
    #[must_use]
    pub fn demo() -> Policy {
        let five = Duration::from_secs(5);
        Policy {
            down_every: Duration::from_secs(2),
            stabilize_min: five,
            stabilize_max: five,
            ..Policy::default()
        }
    }
}
