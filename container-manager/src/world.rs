//! The world as this process knows it: written through from the registry, fed by pushes.

use chassis::Nudge;
use container_planner::{Memory, ServiceReport};
use domain::{
    Ability, BalancerId, Demand, Generation, Instance, InstanceId, Mono, Node, NodeId, Revision,
    ServiceName, ServiceSpec, Timestamp,
};
use registry::{Lease, ServiceRow};
use scoreboard::BoardView;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use wire::assignment::{Assignment, InstanceSeen};

/// A wake call speaks for this long; balancers repeat it every second while anybody waits.
pub const WAKE_LIFE: Duration = Duration::from_secs(3);
/// Operators' ends of instances that wait for the next step at most: more are refused.
pub const EXPIRE_MAX: usize = 1000;

/// A service as declared, parsed once per version.
#[derive(Debug, Clone)]
pub struct Service {
    /// The stored row.
    pub row: ServiceRow,
    /// Its declaration.
    pub spec: Arc<ServiceSpec>,
}

/// What is known of one executor.
#[derive(Debug, Clone, Default)]
pub struct LinkView {
    /// Since when it is followed.
    pub since: Mono,
    /// When it was last heard.
    pub heard: Option<Mono>,
    /// Its inventory was read since the last gap.
    pub complete: bool,
    /// Its instances.
    pub seen: BTreeMap<InstanceId, InstanceSeen>,
    /// The newest assignment it has accepted of this term.
    pub accepted: Option<Generation>,
}

/// The board as last read.
#[derive(Debug, Clone, Default)]
pub struct BoardSeen {
    /// When; `None`: never, or the last reading failed.
    pub at: Option<Mono>,
    /// Fronts, routes, loads, balancers.
    pub view: BoardView,
    /// Demand with its age at the reading.
    pub demand: BTreeMap<ServiceName, Vec<(BalancerId, Demand, Duration)>>,
    /// What live balancers say they can do; read only where a service has a port of its own.
    pub abilities: BTreeMap<BalancerId, Ability>,
}

/// A wake call.
#[derive(Debug, Clone, Copy)]
pub struct Wake {
    /// When.
    pub at: Mono,
    /// Requests said to wait.
    pub queued: u32,
}

/// Everything the loop, the links and the API share.
#[derive(Debug, Default)]
pub struct World {
    /// Our term; `None`: another manager leads.
    pub lease: Option<Lease>,
    /// Since when we lead.
    pub leader_since: Timestamp,
    /// Declared services.
    pub services: BTreeMap<ServiceName, Service>,
    /// A declaration was written: read them again.
    pub services_stale: bool,
    /// Declarations of former revisions that instances live of.
    pub former: BTreeMap<(ServiceName, Revision), Arc<ServiceSpec>>,
    /// Instances that have not ended.
    pub rows: BTreeMap<InstanceId, Instance>,
    /// What the planner remembers.
    pub memories: BTreeMap<ServiceName, Memory>,
    /// Nodes as their manager records them.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Executors.
    pub links: BTreeMap<NodeId, LinkView>,
    /// The board.
    pub board: BoardSeen,
    /// Wake calls.
    pub wakes: BTreeMap<ServiceName, Wake>,
    /// Instances an operator wants to end.
    pub expire: BTreeSet<InstanceId>,
    /// The planner's last word per service.
    pub reports: BTreeMap<ServiceName, ServiceReport>,
    /// What each service's starts wait for.
    pub startable: BTreeMap<ServiceName, bool>,
    /// Assignment numbers of this term.
    pub generations: BTreeMap<NodeId, Generation>,
    /// How often the board was found without what we had shown.
    pub board_lost: u64,
}

impl World {
    /// Whether a balancer holds requests of a service that has nobody to take them, or for longer
    /// than the service allows.
    #[must_use]
    pub fn demand_waits(&self) -> bool {
        self.board.demand.iter().any(|(name, demands)| {
            let ready = self.reports.get(name).map_or(0, |report| report.ready);
            let limit = self.services.get(name).map(|s| s.spec.load.wait_limit);
            demands.iter().any(|(_, demand, _)| {
                demand.queued > 0 && (ready == 0 || limit.is_some_and(|l| demand.oldest_wait > l))
            })
        })
    }
}

/// The world and its bells.
#[derive(Debug, Clone)]
pub struct Shared {
    world: Arc<Mutex<World>>,
    /// Wakes the loop.
    pub nudge: Nudge,
    /// Rings when something was appended to the events.
    pub events: watch::Sender<u64>,
    /// What each node shall run; its link sends it.
    pub assignments: watch::Sender<BTreeMap<NodeId, Arc<Assignment>>>,
    /// What the board shall show.
    pub board: watch::Sender<crate::publish::Wanted>,
    /// When the loop shall look again although nobody nudges: the next deadline.
    pub alarm: watch::Sender<Option<Mono>>,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            world: Arc::default(),
            nudge: Nudge::new(),
            events: watch::Sender::new(0),
            assignments: watch::Sender::new(BTreeMap::new()),
            board: watch::Sender::new(crate::publish::Wanted::default()),
            alarm: watch::Sender::new(None),
        }
    }
}

impl Shared {
    /// The world, for a moment; never held across an await.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rings the bell of those who follow events.
    pub fn ring_events(&self) {
        self.events.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Notes a wake call and wakes the loop.
    pub fn wake(&self, service: ServiceName, queued: u32, now: Mono) {
        self.world().wakes.insert(service, Wake { at: now, queued: queued.max(1) });
        self.nudge.nudge();
    }
}
