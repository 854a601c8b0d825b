//! A small world for tests: builds snapshots in a few words and plays executors and balancers.

use crate::plan::{Plan, plan};
use crate::policy::Policy;
use crate::snapshot::{Grant, NodeView, Observed, ObservedState, Reading, ServiceView, Snapshot};
use crate::{Memory, check};
use domain::id::CROCKFORD;
use domain::route::RouteTable;
use domain::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Counted ids.
#[derive(Default)]
pub struct Ids(pub u64);

impl IdSource for Ids {
    fn random_part(&mut self) -> String {
        self.0 += 1;
        (0..10)
            .rev()
            .map(|i| char::from(CROCKFORD[usize::try_from((self.0 >> (5 * i)) & 31).unwrap()]))
            .collect()
    }
}

pub fn spec(name: &str, min: u32, max: u32) -> ServiceSpec {
    let s = Duration::from_secs;
    ServiceSpec {
        name: name.parse().unwrap(),
        min_instances: min,
        max_instances: max,
        load_balanced: true,
        group: ServiceGroup::SelfContained,
        run: Run {
            image: None,
            command: vec!["./app".into()],
            stop_command: Vec::new(),
            port: None,
            env: BTreeMap::new(),
            workdir: None,
            user: None,
            mounts: Vec::new(),
            isolation: Isolation::Cgroup,
        },
        resources: Resources { cpu: MilliCpu(250), memory: Bytes(64 << 20) },
        needs: Needs::default(),
        priority: 0,
        owner: None,
        load: LoadPolicy {
            source: None,
            agent: None,
            concurrency: Some(10),
            max_in_flight: 100,
            wait_limit: Duration::from_millis(500),
            period: s(1),
            slow_start: s(10),
            up: Share::percent(70),
            down: Share::percent(40),
            target: Share::percent(55),
            window: s(60),
            band: Band::Manual,
        },
        lifecycle: Lifecycle {
            idle_timeout: s(300),
            lifespan: None,
            start_deadline: s(30),
            drain_deadline: s(30),
            hibernate: Hibernate::Stop,
            replace: Replace::StartFirst,
        },
        rollout: Rollout { surge: 1, floor: Share::percent(100), bake: s(10) },
        vertical: None,
        route: Route {
            hosts: Vec::new(),
            paths: vec!["/".into()],
            mode: RouteMode::Http,
            port: None,
            policy: PolicyName::Feedback,
            hash: domain::HashRule::default(),
            sticky: None,
            probe: None,
            body_max: None,
            hold: Hold::default(),
        },
        health: Health::default(),
    }
}

/// One service in a world of willing executors, one node and one balancer.
pub struct World {
    pub snapshot: Snapshot,
    pub policy: Policy,
    pub ids: Ids,
    /// Load per ready instance that reports: total demand spread over them.
    pub demand: f64,
    /// Loads pinned per instance; `None`: it says nothing.
    pub pinned: BTreeMap<InstanceId, Option<f64>>,
    pub queued: u32,
    pub idle: bool,
    /// Time from assignment to ready.
    pub start_time: Duration,
    /// Revisions whose starts fail.
    pub broken: BTreeSet<Revision>,
    pub last: Option<Plan>,
    seen_gen: RouteTable,
}

pub fn node_id() -> NodeId {
    "n-0123456789".parse().unwrap()
}

impl World {
    pub fn new(spec: ServiceSpec) -> World {
        let now = Timestamp(1_000_000_000);
        let mut snapshot = Snapshot::new(now, Epoch(1), now.minus(Duration::from_secs(86_400)));
        snapshot.balancers = Some(["b1".parse().unwrap()].into());
        snapshot.nodes.insert(
            node_id(),
            NodeView {
                name: "one".into(),
                state: NodeState::Ready,
                silent: Duration::ZERO,
                drain: None,
            },
        );
        snapshot.services.push(ServiceView {
            name: spec.name.clone(),
            spec,
            revision: Revision(1),
            fallback: None,
            deleting: false,
            hold: None,
            wake: None,
            memory: Memory::default(),
            demand: BTreeMap::new(),
            instances: Vec::new(),
            cost_per_hour: Money(1000),
        });
        World {
            snapshot,
            policy: Policy::default(),
            ids: Ids::default(),
            demand: 0.0,
            pinned: BTreeMap::new(),
            queued: 0,
            idle: false,
            start_time: Duration::ZERO,
            broken: BTreeSet::new(),
            last: None,
            seen_gen: RouteTable::default(),
        }
    }

    /// A world in which `n` instances have been ready for long.
    pub fn with_ready(spec: ServiceSpec, n: u32) -> World {
        let mut world = World::new(spec);
        world.service().memory.wanted = Some(n);
        world.settle_quietly();
        world
    }

    fn settle_quietly(&mut self) {
        let n = self.service().memory.wanted;
        self.service().hold = n;
        for _ in 0..20 {
            self.step_by(Duration::from_secs(1));
        }
        self.service().hold = None;
        let mut kept = std::mem::take(&mut self.service().memory);
        kept = Memory {
            wanted: kept.wanted,
            guard: kept.guard,
            routes_gen: kept.routes_gen,
            routes_digest: kept.routes_digest,
            ..Memory::default()
        };
        self.service().memory = kept;
    }

    pub fn service(&mut self) -> &mut ServiceView {
        &mut self.snapshot.services[0]
    }

    pub fn count(&self, state: InstanceState) -> usize {
        self.snapshot.services[0].instances.iter().filter(|v| v.row.state == state).count()
    }

    pub fn ready(&self) -> Vec<InstanceId> {
        let views = &self.snapshot.services[0].instances;
        let ready = views.iter().filter(|v| v.row.state == InstanceState::Ready);
        ready.map(|v| v.row.id.clone()).collect()
    }

    pub fn wanted(&self) -> u32 {
        self.snapshot.services[0].memory.wanted.unwrap_or(0)
    }

    /// What the executors, instances and balancers say at this moment.
    pub fn observe(&mut self) {
        let (demand, start_time, now) = (self.demand, self.start_time, self.snapshot.now);
        let ready = self.ready();
        let free = ready.iter().filter(|id| !self.pinned.contains_key(*id)).count();
        let seen = self.seen_gen.generation;
        let (queued, idle, pinned, broken) =
            (self.queued, self.idle, self.pinned.clone(), self.broken.clone());
        let service = self.service();
        let mut in_flight = BTreeMap::new();
        for view in &mut service.instances {
            let state = match view.row.state {
                InstanceState::Starting if broken.contains(&view.row.revision) => {
                    Some(ObservedState::Failed)
                }
                InstanceState::Starting if now.since(view.row.state_since) < start_time => {
                    Some(ObservedState::Starting)
                }
                InstanceState::Starting
                | InstanceState::Ready
                | InstanceState::Draining
                | InstanceState::Lost => Some(ObservedState::Ready),
                InstanceState::Stopping | InstanceState::Failed => Some(ObservedState::Gone),
                InstanceState::Wanted | InstanceState::Paused | InstanceState::Stopped => None,
            };
            view.observed = state.map(|state| Observed {
                state,
                address: Some("127.0.0.1:20000".parse().unwrap()),
                restarts: 0,
                detail: String::new(),
            });
            if view.row.state == InstanceState::Ready {
                let load = match pinned.get(&view.row.id) {
                    Some(pinned) => *pinned,
                    None => Some(demand / free.max(1) as f64),
                };
                let said = load.map(|load| Reading {
                    load: Load::from_reported(load).unwrap(),
                    age: Duration::ZERO,
                    source: LoadSource::Pushed,
                });
                view.reading = match (said, view.reading) {
                    (Some(said), _) => Some(said),
                    (None, Some(old)) => Some(Reading { age: Duration::from_secs(60), ..old }),
                    (None, None) => None,
                };
                in_flight.insert(view.row.id.clone(), u32::from(!idle));
            }
        }
        let demand = Demand {
            queued,
            in_flight,
            last_request_ago: (!idle).then_some(Duration::ZERO),
            routes_gen: seen,
            ..Demand::default()
        };
        service.demand = [("b1".parse().unwrap(), demand)].into();
        let wanted: Vec<InstanceId> = service
            .instances
            .iter()
            .filter(|v| v.row.state == InstanceState::Wanted)
            .map(|v| v.row.id.clone())
            .collect();
        self.snapshot.grants = wanted.into_iter().map(|id| (id, Grant::On(node_id()))).collect();
    }

    /// One step at the present moment: observes, plans, checks, applies.
    pub fn step(&mut self) -> Plan {
        self.observe();
        let made = plan(&self.snapshot, &self.policy, &mut self.ids);
        if let Err(violation) = check(&self.snapshot, &made, &self.policy) {
            panic!("{violation}: {}", made.services[0].report);
        }
        made.apply_to(&mut self.snapshot);
        self.see_routes(&made);
        self.last = Some(made.clone());
        made
    }

    /// The balancer acts on the routes of a plan.
    pub fn see_routes(&mut self, made: &Plan) {
        if made.services[0].routes_changed {
            self.seen_gen = made.services[0].routes.clone();
        }
    }

    pub fn step_by(&mut self, span: Duration) -> Plan {
        self.snapshot.now = self.snapshot.now.plus(span);
        self.step()
    }

    /// Steps every second for `seconds`; the different numbers wanted, in order.
    pub fn run(&mut self, seconds: u32) -> Vec<u32> {
        let mut numbers = vec![self.wanted()];
        for _ in 0..seconds {
            self.step_by(Duration::from_secs(1));
            if numbers.last() != Some(&self.wanted()) {
                numbers.push(self.wanted());
            }
        }
        numbers
    }

    pub fn why(&self) -> String {
        self.last.as_ref().map_or_else(String::new, |p| p.services[0].report.to_string())
    }
}
