//! Routes: what a balancer must know of a service and its instances.

use crate::id::{InstanceId, Revision, ServiceName};
use crate::load::{AgentCheck, LoadReading, LoadSource};
use crate::service::{Health, Hold};
use crate::time::{Epoch, Generation};
use crate::units::{Bytes, Share};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
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

/// What of a request decides where it goes under consistent hashing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HashBy {
    /// The client's address, without its port.
    #[default]
    Source,
    /// The value of a header of this name, lower case.
    Header(String),
    /// The value of a cookie of this name.
    Cookie(String),
    /// The request's path, without its query.
    Path,
    /// The host the request is for.
    Host,
}

impl HashBy {
    /// The kind as written in manifests; a header or cookie has a name besides.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            HashBy::Source => "source",
            HashBy::Header(_) => "header",
            HashBy::Cookie(_) => "cookie",
            HashBy::Path => "path",
            HashBy::Host => "host",
        }
    }

    /// The name of the header or cookie.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            HashBy::Header(name) | HashBy::Cookie(name) => Some(name),
            HashBy::Source | HashBy::Path | HashBy::Host => None,
        }
    }

    /// The kind of that name; `None` when there is no such kind, or its name is missing or too
    /// much.
    #[must_use]
    pub fn from_parts(by: &str, name: Option<String>) -> Option<HashBy> {
        match (by, name) {
            ("source", None) => Some(HashBy::Source),
            ("path", None) => Some(HashBy::Path),
            ("host", None) => Some(HashBy::Host),
            ("header", Some(name)) => Some(HashBy::Header(name)),
            ("cookie", Some(name)) => Some(HashBy::Cookie(name)),
            _ => None,
        }
    }
}

/// Consistent hashing with bounded load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashRule {
    /// What is hashed.
    pub by: HashBy,
    /// What an instance may have in flight against the mean; beyond it the next in order is taken.
    pub balance: Share,
}

impl Default for HashRule {
    fn default() -> HashRule {
        // A quarter above the mean: little is moved, and no instance is flooded by a popular key.
        HashRule { by: HashBy::Source, balance: Share::percent(125) }
    }
}

/// Requests of one client stay at one instance while it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// The cookie that says which.
    pub cookie: String,
    /// How long the client keeps it; `None`: as long as its session.
    pub max_age: Option<Duration>,
}

/// How the policy `prequal` asks instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The HTTP path that answers with requests in flight and latency.
    pub path: String,
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
    /// What is hashed, for policy `hash`.
    pub hash: HashRule,
    /// Whether clients stay at their instance.
    pub sticky: Option<Sticky>,
    /// How policy `prequal` asks instances; `None`: it judges by what the balancer sees.
    pub probe: Option<Probe>,
    /// Bytes of a request's body at most; `None`: any number.
    pub body_max: Option<Bytes>,
    /// Bounds of what may wait.
    pub hold: Hold,
    /// How an instance shows that it is well.
    pub health: Health,
    /// An agent on each instance's host that is asked for its load.
    pub agent: Option<AgentCheck>,
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

/// What changed on the board: loads by value, the rest by name, which the receiver reads anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A service's front.
    Front(ServiceName),
    /// A service's route table.
    Routes(ServiceName),
    /// Loads of a service, to be read: some left, or there were too many to tell.
    Loads(ServiceName),
    /// New readings of a service's instances, whole: nothing needs to be read.
    Told(ServiceName, Arc<[LoadReading]>),
    /// Demand for a service.
    Demand(ServiceName),
    /// Something was missed: read everything.
    All,
}
