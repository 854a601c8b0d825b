//! The world model: what the registry says of nodes and money, what the nodes say of themselves,
//! and what the container-manager wants. In memory, written through.

use crate::Busy;
use crate::provider::{Started, Stopped};
use domain::{
    Budget, InstanceId, Mono, Node, NodeId, NodeState, NodeTypeName, ServiceName, ServiceSpec,
    Share, Timestamp,
};
use machine_planner::{
    Account, Books, Memory, Minimum, NodeView, Placed, Plan, Policy, Requested, Snapshot,
    StopWanted, Waiting, Wanted,
};
use registry::{BudgetRow, InstanceStat, NodeStat, TypeRow};
use std::collections::BTreeMap;
use std::time::Duration;

/// A grant holds its room until the instance's row is there, at most this long.
pub(crate) const RESERVED_FOR: Duration = Duration::from_secs(30);
/// Minimums held for declarations that are being written at most: hundreds of services a second.
pub(crate) const ADMITTED_MAX: usize = 10_000;
/// Demand that is not stated again within this is gone: its container-manager is away.
pub(crate) const WANTED_FOR: Duration = Duration::from_secs(5);
/// Measurements that wait for the registry at most; beyond, the oldest are dropped.
pub(crate) const STATS_WAITING_MAX: usize = 20_000;

/// What became of a call to a provider.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It runs.
    Started(NodeId, Started),
    /// It never will.
    Refused(NodeId, String),
    /// It is gone.
    Stopped(NodeId, Stopped),
    /// Nobody knows; asked again.
    Unsure(NodeId, String),
}

/// What a node said last.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) at: Mono,
    pub(crate) seq: u64,
    pub(crate) stat: Option<NodeStat>,
    /// Processor use of each instance, thousandths: now and when it was first told.
    pub(crate) instances: BTreeMap<InstanceId, (u32, u32)>,
}

/// A service as its declaration says; `None` when it cannot be read.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) generation: domain::Generation,
    pub(crate) deleting: bool,
    pub(crate) spec: Option<Box<ServiceSpec>>,
}

/// Everything at once.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// Read from the registry under the present lease; `false`: read it again.
    pub(crate) loaded: bool,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) types: BTreeMap<NodeTypeName, TypeRow>,
    pub(crate) budget: Option<BudgetRow>,
    pub(crate) books: Books,
    pub(crate) services: BTreeMap<ServiceName, Known>,
    /// Minimums admitted a moment ago, whose declarations may not be in the registry yet.
    pub(crate) admitted: BTreeMap<ServiceName, (Minimum, Mono)>,
    pub(crate) placed: Vec<Placed>,
    pub(crate) reserved: BTreeMap<InstanceId, (Placed, Mono)>,
    pub(crate) wanted: Vec<Wanted>,
    pub(crate) wanted_at: Mono,
    pub(crate) heard: BTreeMap<NodeId, Heard>,
    /// From when silence counts: before, nobody could have been heard.
    pub(crate) listening_since: Mono,
    pub(crate) backoff: BTreeMap<NodeTypeName, (Timestamp, u32)>,
    pub(crate) memory: Memory,
    /// The last accepted plan.
    pub(crate) plan: Plan,
    pub(crate) planned_at: Timestamp,
    pub(crate) waiting: BTreeMap<InstanceId, Waiting>,
    /// What was answered last to each start, so that a change can be noticed.
    pub(crate) answered: BTreeMap<InstanceId, String>,
    pub(crate) node_stats: Vec<NodeStat>,
    pub(crate) instance_stats: Vec<InstanceStat>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) busy: Busy,
    /// Calls to a provider rest until then, after so many failures.
    pub(crate) rest: BTreeMap<NodeId, (Mono, u32)>,
    /// When the providers' lists were compared last.
    pub(crate) listed_at: Option<Mono>,
    /// Nodes whose machines do not run, by their provider's list, until they are heard again.
    pub(crate) dead: Busy,
    /// Machines nobody ordered, told about once.
    pub(crate) strangers: Busy,
    /// Steps so far, and how the last one ended.
    pub(crate) steps: u64,
    pub(crate) last_result: String,
}

impl World {
    /// The budget in force.
    pub(crate) fn budget(&self) -> Budget {
        self.budget.as_ref().map(|row| row.budget.clone()).unwrap_or_default()
    }

    /// Accounts of every living node.
    pub(crate) fn accounts(&self) -> BTreeMap<NodeId, Account> {
        self.nodes.values().map(|n| (n.id.clone(), self.books.account(n))).collect()
    }

    /// The minimum of every service that has one.
    pub(crate) fn minimums(&self) -> Vec<Minimum> {
        let living = self.services.values().filter(|known| !known.deleting);
        let specs = living.filter_map(|known| known.spec.as_ref());
        let declared = specs.filter(|spec| spec.min_instances > 0).map(|spec| Minimum {
            service: spec.name.clone(),
            count: spec.min_instances,
            resources: spec.resources,
            needs: spec.needs.clone(),
            group: spec.group,
        });
        let mut minimums: Vec<Minimum> = declared.collect();
        for (minimum, _) in self.admitted.values() {
            match minimums.iter_mut().find(|m| m.service == minimum.service) {
                Some(old) if minimum.count > old.count => *old = minimum.clone(),
                Some(_) => {}
                None => minimums.push(minimum.clone()),
            }
        }
        minimums
    }

    /// Lets go of grants whose instance has a row, or whose time is over.
    pub(crate) fn expire(&mut self, mono: Mono) {
        let rows: std::collections::BTreeSet<&InstanceId> =
            self.placed.iter().map(|p| &p.instance).collect();
        self.reserved.retain(|id, (_, until)| !rows.contains(id) && *until > mono);
        self.admitted.retain(|_, (_, until)| *until > mono);
        if mono.since(self.wanted_at) > WANTED_FOR {
            self.wanted.clear();
        }
        // An instance that has its row needs no place any more.
        self.wanted.retain(|w| !rows.contains(&w.instance));
    }

    /// All that a plan may look at.
    pub(crate) fn snapshot(
        &self,
        now: Timestamp,
        mono: Mono,
        requested: Vec<Requested>,
        stops: Vec<StopWanted>,
    ) -> Snapshot {
        let mut snapshot = Snapshot {
            now,
            nodes: self.nodes.values().map(|n| self.view(n, mono)).collect(),
            types: self.types.values().map(|row| row.node_type.clone()).collect(),
            placed: self.placed.clone(),
            reservations: self.reserved.values().map(|(placed, _)| placed.clone()).collect(),
            wanted: self.wanted.clone(),
            stops,
            minimums: self.minimums(),
            requested,
            budget: self.budget(),
            accounts: self.accounts(),
            charged: self.books.charged().clone(),
            backoff: self.backoff.iter().map(|(t, (until, _))| (t.clone(), *until)).collect(),
            memory: self.memory.clone(),
        };
        snapshot.normalise();
        snapshot
    }

    fn view(&self, node: &Node, mono: Mono) -> NodeView {
        let heard = self.heard.get(&node.id);
        let speaks = matches!(
            node.state,
            NodeState::Ready | NodeState::Suspect | NodeState::Lost | NodeState::Draining
        );
        let last = heard.map_or(self.listening_since, |h| h.at.max(self.listening_since));
        let whole = u64::from(node.capacity.resources.cpu.0.max(1));
        let share = |millis: u64| {
            Share(u32::try_from(millis * 10_000 / whole).unwrap_or(u32::MAX).min(40_000))
        };
        // Several local nodes share this host's processors: what each uses is what its instances do.
        let used = heard.and_then(|h| {
            if node.provider == crate::providers::local::NAME {
                Some(h.instances.values().map(|(cpu, _)| u64::from(*cpu)).sum())
            } else {
                h.stat.as_ref().map(|stat| u64::from(stat.cpu_millis))
            }
        });
        let instances = heard.map(|h| &h.instances).into_iter().flatten();
        NodeView {
            node: node.clone(),
            silent_for: speaks.then(|| mono.since(last)),
            dead: self.dead.contains(&node.id),
            cpu: used.map(share),
            instances_cpu: instances
                .map(|(id, (cpu, first))| {
                    (id.clone(), share(u64::from(*cpu)), share(u64::from(*first)))
                })
                .collect(),
        }
    }

    /// The moment the last plan was made for.
    pub(crate) fn plan_now(&self) -> Timestamp {
        self.planned_at
    }

    /// When calls about this node may go on.
    pub(crate) fn rests(&self, node: &NodeId, mono: Mono) -> bool {
        self.rest.get(node).is_some_and(|(until, _)| *until > mono)
    }

    /// A call about this node failed: the next one waits, 1 s doubled up to a minute.
    pub(crate) fn let_rest(&mut self, node: &NodeId, mono: Mono) {
        let failures = self.rest.get(node).map_or(0, |(_, n)| *n) + 1;
        let wait = Duration::from_secs(1 << failures.min(6).saturating_sub(1)).min(
            // A stop that is retried once a minute costs a minute at most.
            Duration::from_secs(60),
        );
        self.rest.insert(node.clone(), (mono.plus(wait), failures));
    }

    /// A provider refused an order of this type: it rests, twice as long each time.
    pub(crate) fn back_off(&mut self, node_type: &NodeTypeName, now: Timestamp, policy: &Policy) {
        let failures = self.backoff.get(node_type).map_or(0, |(_, n)| *n);
        let wait = policy.backoff.saturating_mul(1 << failures.min(8)).min(policy.backoff_max);
        self.backoff.insert(node_type.clone(), (now.plus(wait), failures + 1));
    }
}
