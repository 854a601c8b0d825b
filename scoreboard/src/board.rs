//! The `Board` trait: what every scoreboard promises, whatever it is made of.

use async_trait::async_trait;
use domain::{
    Ability, BalancerId, Change, Demand, InstanceId, LoadReading, LoadReport, RouteGen, RouteTable,
    ServiceFront, ServiceName, Terms,
};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::broadcast;

/// A load not renewed for this long leaves the board, so that the first of a range is no corpse.
pub const LOAD_TTL: Duration = Duration::from_secs(10);
/// A balancer's heartbeat older than this leaves the board.
pub const HEARTBEAT_TTL: Duration = Duration::from_secs(10);
/// A balancer heard within this is live (safe stop, count of balancers, demand).
pub const BALANCER_LIVE: Duration = Duration::from_secs(3);
/// Changes a slow reader may be behind before it is told to read everything.
pub const CHANGES_BUFFERED: usize = 4096;

/// Why the board could not be read or written. Always worth trying again later.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// No connection, or it broke.
    #[error("the scoreboard cannot be reached while trying to {doing}")]
    Unreachable {
        /// The step that failed.
        doing: &'static str,
        /// What the client said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It did not answer in time.
    #[error("the scoreboard did not answer within {limit:?} while trying to {doing}")]
    Deadline {
        /// The step that failed.
        doing: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// What was given as its address is none.
    #[error("the scoreboard's address cannot be used")]
    Address(#[source] crate::redis::AddressError),
    /// Loads of some services were written, those of others not: their part of a Cluster is away.
    #[error("loads of {} services could not be written", services.len())]
    Partly {
        /// Whose loads were not written.
        services: std::collections::BTreeSet<ServiceName>,
        /// What happened to the first of them.
        #[source]
        source: Box<BoardError>,
    },
    /// What stands there is not ours.
    #[error("the scoreboard holds something unreadable at {key}: {detail}")]
    Unreadable {
        /// The key.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// Most readings in one [`Change::Told`]; of a larger write the service's name alone is told, and
/// it is read. A message stays under 100 KiB, however many listen.
pub const TOLD_MAX: usize = 1000;

/// A stream of what changed. A reader that lags, or whose connection broke, gets [`Change::All`].
pub struct Changes(pub broadcast::Receiver<Change>);

impl Changes {
    /// The next change; [`Change::All`] when some were missed; `None` when the board is closed.
    pub async fn next(&mut self) -> Option<Change> {
        match self.0.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Change::All),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// A change that came already; `None` when there is none to take without waiting.
    pub fn at_hand(&mut self) -> Option<Change> {
        match self.0.try_recv() {
            Ok(change) => Some(change),
            Err(broadcast::error::TryRecvError::Lagged(_)) => Some(Change::All),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => {
                None
            }
        }
    }
}

/// Everything the board knows of one service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceView {
    /// What was published of the service; `None`: unknown (not "gone").
    pub front: Option<ServiceFront>,
    /// Its instances; `None`: unknown, keep the last view.
    pub routes: Option<RouteTable>,
    /// Loads not older than [`LOAD_TTL`], sorted by instance.
    pub loads: Vec<LoadReading>,
}

/// Everything a balancer or the container-manager reads at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BoardView {
    /// Every service whose front is published. A service missing here is unknown, not gone.
    pub services: BTreeMap<ServiceName, ServiceView>,
    /// Balancers heard within [`HEARTBEAT_TTL`], with the age of the last beat, sorted.
    pub balancers: Vec<BalancerSeen>,
}

/// A balancer's heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BalancerSeen {
    /// Which one.
    pub balancer: BalancerId,
    /// Age of its last beat, by the board's clock.
    pub age: Duration,
}

/// The live board of routes, loads and demand.
///
/// Promises, tested by one contract suite on every implementation:
/// - a load is never read after [`LOAD_TTL`]; a missing load is unknown, never zero;
/// - a report with a `seq` not above the last one of that instance changes nothing (unless the
///   last one expired);
/// - routes and fronts never expire; `publish_routes` with a generation not above the present one
///   changes nothing and answers the present one;
/// - every write is followed by its [`Change`] at every `watch`er, at the latest with `All`; of
///   recorded loads the change is the readings themselves ([`Change::Told`]), up to [`TOLD_MAX`];
/// - every call ends within a bounded time, with an error if need be.
#[async_trait]
pub trait Board: Send + Sync + 'static {
    /// Publishes what balancers must know of a service.
    async fn publish_front(&self, front: &ServiceFront) -> Result<(), BoardError>;

    /// Removes a service: front, routes, loads, demand.
    async fn remove_service(&self, service: &ServiceName) -> Result<(), BoardError>;

    /// Publishes a whole route table. Answers the generation that stands afterwards: greater than
    /// the given one when a newer table was there already.
    async fn publish_routes(
        &self,
        service: &ServiceName,
        routes: &RouteTable,
    ) -> Result<RouteGen, BoardError>;

    /// Records admitted reports, in one round trip. Answers how many were new.
    async fn record(&self, reports: &[LoadReport]) -> Result<usize, BoardError>;

    /// Takes the loads of instances that ended off the board.
    async fn forget(&self, instances: &[domain::InstanceId]) -> Result<(), BoardError>;

    /// Writes one balancer's demand for several services, and its heartbeat, in one round trip.
    async fn write_demand(
        &self,
        balancer: &BalancerId,
        demand: &[(ServiceName, Demand)],
    ) -> Result<(), BoardError>;

    /// Demand per service and balancer, not older than [`BALANCER_LIVE`], with its age. Services
    /// whose front is published, as in [`Board::view`].
    async fn demand(
        &self,
    ) -> Result<BTreeMap<ServiceName, Vec<(BalancerId, Demand, Duration)>>, BoardError>;

    /// Says what a balancer can do. Whoever wants to know reads it; no change is told.
    async fn write_ability(
        &self,
        balancer: &BalancerId,
        ability: &Ability,
    ) -> Result<(), BoardError>;

    /// What live balancers last said they can do: of those heard within [`BALANCER_LIVE`].
    async fn abilities(&self) -> Result<BTreeMap<BalancerId, Ability>, BoardError>;

    /// Takes terms of instances; those as configured take former ones back. Like a load, what is
    /// not written again within [`LOAD_TTL`] is forgotten. No change is told.
    async fn write_terms(&self, terms: &[(InstanceId, Terms)]) -> Result<(), BoardError>;

    /// The terms that stand, of instances whose agents changed them.
    async fn terms(&self) -> Result<BTreeMap<InstanceId, Terms>, BoardError>;

    /// One service's front, routes and loads.
    async fn service(&self, service: &ServiceName) -> Result<ServiceView, BoardError>;

    /// Everything.
    async fn view(&self) -> Result<BoardView, BoardError>;

    /// What changes from now on.
    fn watch(&self) -> Changes;

    /// What changes from now on, without the loads themselves where that saves work: loads of a
    /// service may come as [`Change::Loads`]. For who has no use for each reading.
    fn watch_names(&self) -> Changes {
        self.watch()
    }

    /// Answers if the board can be read and written.
    async fn ping(&self) -> Result<(), BoardError>;
}
