//! Loads and demand: what instances and balancers say.

use crate::id::InstanceId;
use crate::route::RouteGen;
use crate::time::Timestamp;
use crate::units::Load;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Who says how loaded an instance is. Greater outranks smaller under `source: auto`: the
/// instance's own word before an agent's on its host, and that before what is measured from
/// outside. What an instance sends of itself comes as its load changes; an agent is asked every
/// few seconds, and often speaks for the whole host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LoadSource {
    /// The balancers, from what they have in flight.
    Balancer,
    /// The transmitter, from the control group.
    Cgroup,
    /// An agent on the instance's host, asked by the load-receiver.
    Agent,
    /// The instance, in a response header.
    Header,
    /// The instance, by HTTP or datagram.
    Pushed,
}

impl LoadSource {
    /// The text form used in manifests and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            LoadSource::Balancer => "balancer",
            LoadSource::Cgroup => "cgroup",
            LoadSource::Agent => "agent",
            LoadSource::Header => "header",
            LoadSource::Pushed => "pushed",
        }
    }
}

impl fmt::Display for LoadSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for LoadSource {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Balancer, Self::Cgroup, Self::Agent, Self::Header, Self::Pushed]
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| "must be auto, pushed, header, agent, cgroup or balancer".to_owned())
    }
}

/// An agent that answers with a load, one line a connection, as `HAProxy`'s agents do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentCheck {
    /// Its port on the instance's host.
    pub port: u16,
    /// How often it is asked.
    pub interval: Duration,
}

/// One admitted report. Rates in thousandths, so that no float is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// Who reports.
    pub instance: InstanceId,
    /// How loaded it is.
    pub load: Load,
    /// Requests in flight there.
    pub in_flight: Option<u32>,
    /// Requests a second, in thousandths.
    pub rps_milli: Option<u64>,
    /// Errors a second, in thousandths.
    pub eps_milli: Option<u64>,
    /// Grows with each report of one instance; older ones are dropped.
    pub seq: Option<u64>,
    /// Who measured it.
    pub source: LoadSource,
}

/// A report as it stands on the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReading {
    /// The report.
    pub report: LoadReport,
    /// When the board took it, by the board's clock. Tells reports apart.
    pub at: Timestamp,
    /// Its age when the board was read, by the board's clock.
    pub age: Duration,
}

/// What one balancer knows about one service's demand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Demand {
    /// When it was written, by the writer's clock; for display.
    pub at: Timestamp,
    /// Requests held.
    pub queued: u32,
    /// Longest wait among them.
    pub oldest_wait: Duration,
    /// Requests in flight per instance.
    pub in_flight: BTreeMap<InstanceId, u32>,
    /// Instances this balancer set aside for failing: a hint to the others.
    pub set_aside: BTreeSet<InstanceId>,
    /// Completed requests a second, in thousandths.
    pub rps_milli: u64,
    /// Failed requests a second, in thousandths.
    pub eps_milli: u64,
    /// Median response time.
    pub p50: Duration,
    /// 95th percentile of the response time.
    pub p95: Duration,
    /// Time since the last request; `None`: none since this balancer started.
    pub last_request_ago: Option<Duration>,
    /// Open connections that belong to the service (tunnels, TCP).
    pub open_connections: u32,
    /// Newest routes this balancer acts on.
    pub routes_gen: RouteGen,
}
