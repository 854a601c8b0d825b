//! Routes: what a balancer must know of a service and its instances.

use crate::id::{InstanceId, Revision, ServiceName};
use crate::load::LoadSource;
use crate::service::Hold;
use crate::time::{Epoch, Generation};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// Version of a route table: a newer leader's tables are newer, whatever their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RouteGen {
    /// The container-manager's term.
    pub epoch: Epoch,
    /// Counted within the term.
    pub generation: Generation,
}

impl fmt::Display for RouteGen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.generation)
    }
}

impl FromStr for RouteGen {
    type Err = String;
    /// `EPOCH.GENERATION`.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not EPOCH.GENERATION");
        let (epoch, generation) = text.split_once('.').ok_or_else(bad)?;
        Ok(RouteGen {
            epoch: Epoch(epoch.parse().map_err(|_nan| bad())?),
            generation: Generation(generation.parse().map_err(|_nan| bad())?),
        })
    }
}

/// Whether an instance takes new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteState {
    /// It does.
    Ready,
    /// It finishes what it has.
    Draining,
}

/// One instance in a route table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEntry {
    /// Which one.
    pub instance: InstanceId,
    /// Where it answers.
    pub address: SocketAddr,
    /// Whether it takes new requests.
    pub state: RouteState,
    /// Configured weight in percent of an equal share; 100 is normal.
    pub weight: u32,
    /// Requests it takes at once.
    pub max_in_flight: u32,
    /// Its revision.
    pub revision: Revision,
}

/// All instances of a service that a balancer may know, sorted by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteTable {
    /// Version; only a higher one replaces a view.
    pub generation: RouteGen,
    /// Sorted by instance id.
    pub entries: Vec<RouteEntry>,
}

/// How connections are passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RouteMode {
    /// Requests are.
    #[default]
    Http,
    /// Bytes are, in user space.
    Tcp,
    /// Packets are, by the kernel.
    Nat,
}

impl RouteMode {
    /// The text form used in manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RouteMode::Http => "http",
            RouteMode::Tcp => "tcp",
            RouteMode::Nat => "nat",
        }
    }
}

/// How an instance is picked; the names users write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum PolicyName {
    /// Tally's own rule (algorithms, section 1).
    #[default]
    Feedback,
    /// The paper's: the lowest reported score.
    LowestScore,
    /// In turn.
    RoundRobin,
    /// By chance.
    Random,
    /// Fewest of our own requests in flight.
    LeastInFlight,
    /// The better of two by own requests in flight.
    P2c,
    /// Peak-sensitive latency average of eight candidates.
    PeakEwma,
    /// Probing (Prequal).
    Prequal,
    /// Consistent hashing with bounded load.
    Hash,
}

impl PolicyName {
    /// Every policy, in the order of the reference.
    pub const ALL: [PolicyName; 9] = [
        PolicyName::Feedback,
        PolicyName::LowestScore,
        PolicyName::RoundRobin,
        PolicyName::Random,
        PolicyName::LeastInFlight,
        PolicyName::P2c,
        PolicyName::PeakEwma,
        PolicyName::Prequal,
        PolicyName::Hash,
    ];

    /// The name users write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PolicyName::Feedback => "feedback",
            PolicyName::LowestScore => "lowest-score",
            PolicyName::RoundRobin => "round-robin",
            PolicyName::Random => "random",
            PolicyName::LeastInFlight => "least-in-flight",
            PolicyName::P2c => "p2c",
            PolicyName::PeakEwma => "peak-ewma",
            PolicyName::Prequal => "prequal",
            PolicyName::Hash => "hash",
        }
    }
}

impl FromStr for PolicyName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        PolicyName::ALL.into_iter().find(|p| p.as_str() == text).ok_or_else(|| {
            let names: Vec<_> = PolicyName::ALL.iter().map(|p| p.as_str()).collect();
            format!("must be one of {}", names.join(", "))
        })
    }
}

/// What a balancer must know of a service itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFront {
    /// Which service.
    pub service: ServiceName,
    /// Host names, lower case; empty: any host.
    pub hosts: Vec<String>,
    /// Path prefixes, `/` for all.
    pub paths: Vec<String>,
    /// HTTP, TCP or kernel NAT.
    pub mode: RouteMode,
    /// Front port, for TCP and NAT.
    pub port: Option<u16>,
    /// How an instance is picked.
    pub policy: PolicyName,
    /// Bounds of what may wait.
    pub hold: Hold,
    /// Declared requests at load 1.0.
    pub concurrency: Option<u32>,
    /// Per instance; more waits.
    pub max_in_flight: u32,
    /// Ramp of a new instance.
    pub slow_start: Duration,
    /// Whose word counts; `None`: the first that speaks.
    pub source: Option<LoadSource>,
    /// False: reports go to the container-manager alone, and there is no route.
    pub load_balanced: bool,
    /// The revision that new instances get.
    pub revision: Revision,
    /// Whether an instance can be had at all: false when the maximum is 0 or starts are held back.
    pub startable: bool,
}

/// What changed on the board, by name; the receiver reads it anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// A service's front.
    Front(ServiceName),
    /// A service's route table.
    Routes(ServiceName),
    /// Loads of a service.
    Loads(ServiceName),
    /// Demand for a service.
    Demand(ServiceName),
    /// Something was missed: read everything.
    All,
}
