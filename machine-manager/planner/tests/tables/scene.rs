//! Small worlds in a few words, and plans told in words.

use domain::{
    Budget, Bytes, Capacity, IdSource, MilliCpu, Money, MonthlyCap, Needs, Node, NodeState,
    NodeType, Pool, PricePerHour, Resources, ServiceGroup, Timestamp,
};
use machine_planner::{
    Account, Books, NodeView, Placed, Plan, Policy, Snapshot, Wanted, check, plan,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const HOUR: i64 = 3_600_000;
/// 2026-11-21 00:00 UTC: 240 h before the month's end.
pub const NOW: i64 = 1_795_219_200_000;

pub struct Ids(u32);
impl IdSource for Ids {
    fn random_part(&mut self) -> String {
        self.0 += 1;
        format!("{:010}", self.0)
    }
}

pub fn micros(units: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "small literals")]
    let micros = (units * 1e6).round() as i64;
    micros
}

pub fn kind(name: &str, price: f64, cpus: u32) -> NodeType {
    NodeType {
        name: name.parse().unwrap(),
        provider: "local".into(),
        capacity: Capacity {
            resources: Resources {
                cpu: MilliCpu(cpus * 1000),
                memory: Bytes(u64::from(cpus) << 30),
            },
            disk: Bytes(1 << 40),
        },
        cpu_class: "standard".into(),
        disk_type: "ssd".into(),
        price: PricePerHour(micros(price)),
        billing_unit: Duration::from_secs(3600),
        billing_minimum: Duration::ZERO,
        min_life: Duration::ZERO,
        stop_lead: Duration::ZERO,
        max_count: 100,
        labels: BTreeMap::new(),
        pool: Pool::default(),
        start_command: vec![],
        stop_command: vec![],
        list_command: vec![],
        generation: domain::Generation(1),
    }
}

pub struct Scene {
    pub snapshot: Snapshot,
    pub books: Books,
    pub policy: Policy,
}

impl Scene {
    pub fn new(types: &[NodeType], cap: f64) -> Scene {
        let budget = Budget { cap: MonthlyCap::Amount(Money(micros(cap))), ..Budget::default() };
        let snapshot =
            Snapshot { now: Timestamp(NOW), types: types.to_vec(), budget, ..Snapshot::default() };
        Scene { snapshot, books: Books::default(), policy: Policy::default() }
    }

    /// A ready node whose billing began `age` ago.
    pub fn node(&mut self, n: u32, of: &NodeType, age: i64) -> &mut Node {
        let at = Timestamp(NOW - age);
        let id = format!("n-{:010}", 9000 + n).parse().unwrap();
        let account = Account::order(id, of, at, Duration::ZERO);
        let (_, lines) = account.begin(at, at);
        lines.iter().for_each(|l| self.books.apply(l));
        let node = Node {
            id: account.node,
            name: format!("node-{n}"),
            node_type: of.name.clone(),
            provider: of.provider.clone(),
            provider_ref: None,
            state: NodeState::Ready,
            state_since: at,
            deadline: None,
            address: None,
            executor_url: None,
            capacity: of.capacity,
            cpu_class: of.cpu_class.clone(),
            disk_type: of.disk_type.clone(),
            labels: of.labels.clone(),
            price: of.price,
            billing_unit: of.billing_unit,
            billing_minimum: of.billing_minimum,
            min_life: of.min_life,
            stop_lead: of.stop_lead,
            may_stop: true,
            drain: None,
            ordered_at: at,
            ready_at: Some(at),
            seen_at: Some(at),
            stopped_at: None,
            secret_hash: None,
            reason: String::new(),
        };
        self.snapshot.nodes.push(NodeView {
            node,
            silent_for: Some(Duration::ZERO),
            dead: false,
            cpu: None,
            instances_cpu: vec![],
        });
        &mut self.snapshot.nodes.last_mut().unwrap().node
    }

    pub fn placed(&mut self, n: u32, on: u32, cpu: u32) {
        let service: domain::ServiceName = "shop".parse().unwrap();
        self.snapshot.placed.push(Placed {
            instance: format!("shop-{n:010}").parse().unwrap(),
            service,
            node: format!("n-{:010}", 9000 + on).parse().unwrap(),
            resources: size(cpu),
            priority: 0,
            group: ServiceGroup::SelfContained,
            needs: Needs::default(),
        });
    }

    pub fn wants(&mut self, n: u32, cpu: u32) -> &mut Wanted {
        self.snapshot.wanted.push(Wanted {
            instance: format!("shop-{n:010}").parse().unwrap(),
            service: "shop".parse().unwrap(),
            resources: size(cpu),
            needs: Needs::default(),
            group: ServiceGroup::SelfContained,
            not_on: BTreeSet::new(),
            wake: true,
            priority: 0,
        });
        self.snapshot.wanted.last_mut().unwrap()
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.snapshot.clone();
        snapshot.charged = self.books.charged().clone();
        snapshot.accounts = snapshot
            .nodes
            .iter()
            .map(|v| (v.node.id.clone(), self.books.account(&v.node)))
            .collect();
        snapshot.normalise();
        snapshot
    }

    pub fn plan(&self) -> Plan {
        let snapshot = self.snapshot();
        let made = plan(&snapshot, &self.policy, &mut Ids(0));
        check(&snapshot, &made).unwrap();
        made
    }
}

pub fn size(cpu: u32) -> Resources {
    Resources { cpu: MilliCpu(cpu), memory: Bytes(u64::from(cpu) << 18) }
}

/// The plan in words, one line each.
pub fn told(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(plan.granted.iter().map(|g| format!("{} -> {}", g.instance, g.node)));
    lines.extend(plan.orders.iter().map(|o| format!("order {}", o.node_type)));
    lines.extend(plan.waiting.iter().map(|w| {
        let node = w.node.as_ref().map(|n| format!(" {n}")).unwrap_or_default();
        format!("{} waits: {}{node}", w.instance, w.refusal.why)
    }));
    lines.extend(plan.transitions.iter().map(|t| format!("{} {}: {}", t.node, t.to, t.reason)));
    lines
}

pub fn event<'a>(plan: &'a Plan, what: &str) -> Option<&'a str> {
    plan.events.iter().find(|e| e.what == what).map(|e| e.detail.as_str())
}
