//! Telling: what was decided for a service, what was held back, and why.

use domain::{Revision, ServiceName, Timestamp};
use std::fmt;
use std::time::Duration;

/// Why something that would have been done was not, or not fully.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeldBack {
    /// The declared maximum.
    Maximum(u32),
    /// The declared minimum.
    Minimum(u32),
    /// The operator holds the number.
    Operator(u32),
    /// Growth outside bursts is bounded.
    UpRate {
        /// What load asks for.
        wanted: u32,
        /// What one span allows.
        allowed: u32,
    },
    /// The next scale-in step is not due.
    DownRate {
        /// Where the scale-in goes.
        goal: u32,
        /// When the next step is due.
        until: Timestamp,
    },
    /// Too short a time was measured.
    Coverage {
        /// Measured so far.
        covered: Duration,
        /// Needed.
        needed: Duration,
    },
    /// A burst is not long enough ago.
    Burst(Timestamp),
    /// We lead for too short a time to take anything away.
    NewLeader(Timestamp),
    /// Higher need within the look back.
    Recent(u32),
    /// Too many instances do not say how loaded they are: nothing is taken away.
    Missing {
        /// How many.
        missing: u32,
        /// Of how many.
        of: u32,
    },
    /// Nearly all do not say: load decides nothing.
    Blind {
        /// How many.
        missing: u32,
        /// Of how many.
        of: u32,
    },
    /// Starts of this revision fail.
    CrashGuard {
        /// Which.
        revision: Revision,
        /// Next try.
        until: Timestamp,
    },
    /// A start failed a moment ago.
    Retry(Timestamp),
    /// This revision was given up; its predecessor stays.
    RolledBack(Revision),
    /// A start waits for a place.
    Place(String),
    /// Fewer ready ones than the floor: nothing is drained.
    Floor(u32),
    /// So many nodes are silent that nothing moves.
    SilentFleet,
    /// Unknown demand is not idle.
    UnknownDemand,
}

impl HeldBack {
    /// Whether this is worth a line in the history when it first appears.
    #[must_use]
    pub fn is_news(&self) -> bool {
        match self {
            HeldBack::Maximum(_)
            | HeldBack::Missing { .. }
            | HeldBack::Blind { .. }
            | HeldBack::CrashGuard { .. }
            | HeldBack::RolledBack(_)
            | HeldBack::Place(_)
            | HeldBack::SilentFleet => true,
            HeldBack::Minimum(_)
            | HeldBack::Operator(_)
            | HeldBack::UpRate { .. }
            | HeldBack::DownRate { .. }
            | HeldBack::Coverage { .. }
            | HeldBack::Burst(_)
            | HeldBack::NewLeader(_)
            | HeldBack::Recent(_)
            | HeldBack::Retry(_)
            | HeldBack::Floor(_)
            | HeldBack::UnknownDemand => false,
        }
    }

    /// What a start waits for, if this is that.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        if let HeldBack::Place(detail) = self { Some(detail) } else { None }
    }

    /// One stable word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            HeldBack::Maximum(_) => "maximum",
            HeldBack::Minimum(_) => "minimum",
            HeldBack::Operator(_) => "operator",
            HeldBack::UpRate { .. } => "up_rate",
            HeldBack::DownRate { .. } => "down_rate",
            HeldBack::Coverage { .. } => "coverage",
            HeldBack::Burst(_) => "burst",
            HeldBack::NewLeader(_) => "new_leader",
            HeldBack::Recent(_) => "recent",
            HeldBack::Missing { .. } => "missing",
            HeldBack::Blind { .. } => "blind",
            HeldBack::CrashGuard { .. } => "crash_guard",
            HeldBack::Retry(_) => "retry",
            HeldBack::RolledBack(_) => "rolled_back",
            HeldBack::Place(_) => "place",
            HeldBack::Floor(_) => "floor",
            HeldBack::SilentFleet => "silent_fleet",
            HeldBack::UnknownDemand => "unknown_demand",
        }
    }
}

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeldBack::Maximum(n) => write!(f, "max_instances is {n}"),
            HeldBack::Minimum(n) => write!(f, "min_instances is {n}"),
            HeldBack::Operator(n) => write!(f, "the operator holds {n}"),
            HeldBack::UpRate { wanted, allowed } => {
                write!(f, "{wanted} wanted, growth is bounded to {allowed} for the moment")
            }
            HeldBack::DownRate { goal, .. } => write!(f, "going to {goal} in steps"),
            HeldBack::Coverage { covered, needed } => {
                write!(f, "measured for {} s of {} s", covered.as_secs(), needed.as_secs())
            }
            HeldBack::Burst(_) => f.write_str("a burst was too short a time ago"),
            HeldBack::NewLeader(_) => {
                f.write_str("this manager leads for less than one window: nothing is taken away")
            }
            HeldBack::Recent(n) => write!(f, "{n} were needed within the look back"),
            HeldBack::Missing { missing, of } => {
                write!(f, "{missing} of {of} do not report: nothing is taken away")
            }
            HeldBack::Blind { missing, of } => {
                write!(f, "{missing} of {of} do not report: load decides nothing")
            }
            HeldBack::CrashGuard { revision, .. } => {
                write!(f, "starts of revision {revision} fail; see the instances' logs")
            }
            HeldBack::Retry(_) => f.write_str("a start failed; the next is a moment away"),
            HeldBack::RolledBack(revision) => {
                write!(f, "revision {revision} was given up, its predecessor stays")
            }
            HeldBack::Place(detail) => write!(f, "waits for a place: {detail}"),
            HeldBack::Floor(n) => write!(f, "at least {n} must stay ready"),
            HeldBack::SilentFleet => {
                f.write_str("most nodes are silent: probably we are cut off, so nothing moves")
            }
            HeldBack::UnknownDemand => f.write_str("demand is unknown, which is not idle"),
        }
    }
}

/// One service's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceReport {
    /// Which service.
    pub service: ServiceName,
    /// Instances wanted before and now.
    pub from: u32,
    /// Instances wanted now.
    pub wanted: u32,
    /// Instances that take requests.
    pub ready: u32,
    /// Instances on their way.
    pub starting: u32,
    /// Instances on their way out.
    pub draining: u32,
    /// Why this number: `load`, `burst`, `wake`, `idle`, `minimum`, `maximum`, `operator`,
    /// `delete`, `steady`.
    pub why: &'static str,
    /// The formula's inputs and values, as `name=value` words.
    pub inputs: String,
    /// Mean load of the ready instances over the window, ten-thousandths, as seen for scaling out.
    pub load: Option<u64>,
    /// Requests waiting at live balancers.
    pub queued: u32,
    /// What was held back.
    pub held_back: Vec<HeldBack>,
}

impl fmt::Display for ServiceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: wants {} ({}), has {} ready, {} starting, {} draining",
            self.service, self.wanted, self.why, self.ready, self.starting, self.draining
        )?;
        if !self.inputs.is_empty() {
            write!(f, "; {}", self.inputs)?;
        }
        self.held_back.iter().try_for_each(|held| write!(f, "; {held}"))
    }
}
