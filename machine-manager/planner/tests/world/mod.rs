//! A simulated cloud and a manager around the planner: the provider is slow, deaf, refuses and stops
//! late; the biller sees only its start and stop times and the prices.

mod cloud;
mod life;

pub use cloud::{Dice, Due, Machine};

use domain::{
    Budget, Bytes, Capacity, Currency, LedgerEntry, MilliCpu, Money, MonthlyCap, Node, NodeId,
    NodeState, NodeType, Pool, PricePerHour, Resources, Share, Timestamp,
};
use machine_planner::{
    Books, Memory, Minimum, Month, NodeView, Placed, Plan, Policy, Requested, Snapshot, Wanted,
    check, plan,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Everything at once.
pub struct World {
    pub dice: Dice,
    pub tick: i64,
    pub now: i64,
    pub policy: Policy,
    pub budget: Budget,
    pub types: Vec<NodeType>,
    pub nodes: BTreeMap<NodeId, Node>,
    pub machines: BTreeMap<NodeId, Machine>,
    pub books: Books,
    placed: Vec<Placed>,
    wanted: Vec<Wanted>,
    minimums: Vec<Minimum>,
    memory: Memory,
    due: Vec<(i64, Due)>,
    starting: BTreeSet<NodeId>,
    refused: BTreeSet<NodeId>,
    asked_to_stop: BTreeSet<NodeId>,
    /// Orders, orders held back by the cap, stops.
    pub orders: usize,
    pub held: usize,
    pub stops: usize,
    /// Greatest share of the cap ever billed in a month, in percent.
    pub fullest: i64,
    /// Caps and when each came into force.
    pub caps: Vec<(i64, i64)>,
    pub may_lower: bool,
}

fn resources(cpu: u32) -> Resources {
    Resources { cpu: MilliCpu(cpu), memory: Bytes(u64::from(cpu) << 20) }
}

/// One to four types with units, minimums and leads of a few ticks.
fn some_types(dice: &mut Dice, tick: i64) -> Vec<NodeType> {
    let span = |n: u64| Duration::from_millis(n * u64::try_from(tick).unwrap());
    let mut types = Vec::new();
    for i in 0..=dice.below(3) {
        let unit = 1 + dice.below(12);
        let lead = dice.below(unit.min(3));
        let cpu = u32::try_from(1 + dice.below(4)).unwrap() * 1000;
        types.push(NodeType {
            name: format!("t{i}").parse().unwrap(),
            provider: "cloud".into(),
            capacity: Capacity { resources: resources(cpu), disk: Bytes(1 << 30) },
            cpu_class: "standard".into(),
            disk_type: "ssd".into(),
            price: PricePerHour(i64::try_from(1 + dice.below(5_000_000)).unwrap()),
            billing_unit: span(unit),
            billing_minimum: span(dice.pick(&[0, 0, unit, 2 * unit + 1])),
            min_life: span(dice.pick(&[0, 0, 5, 20])),
            stop_lead: span(lead),
            max_count: u32::try_from(1 + dice.below(5)).unwrap(),
            labels: BTreeMap::new(),
            pool: Pool::default(),
            start_command: vec![],
            stop_command: vec![],
            list_command: vec![],
            generation: domain::Generation(1),
        });
    }
    types
}

impl World {
    pub fn new(seed: u64, may_lower: bool) -> World {
        let mut dice = Dice(seed);
        let tick = dice.pick(&[1_000, 60_000, 600_000, 3_600_000]);
        let span = |n: u64| Duration::from_millis(n * u64::try_from(tick).unwrap());
        let month = Month::of(Timestamp(
            1_767_225_600_000 + i64::try_from(dice.below(700)).unwrap() * 86_400_000,
        ));
        let before =
            i64::try_from(dice.below(90)).unwrap() * tick + i64::try_from(dice.below(999)).unwrap();
        let now = month.end().0 - before;
        let types = some_types(&mut dice, tick);
        let policy = Policy {
            batch_idle: span(1),
            batch_max: span(3),
            empty_after: span(2),
            short_unit: span(2),
            renew_ahead: span(4),
            drain_lead: span(dice.below(5)),
            order_deadline: span(12),
            join_deadline: span(12),
            drain_deadline: span(15),
            stop_deadline: span(4),
            quiet: span(3),
            hourly_share: None,
            orders_per_minute: 1000,
            ..Policy::default()
        };
        // A cap between a few units and a few machines for a month.
        let hours = tick * i64::try_from(10 + dice.below(200)).unwrap() / 100_000;
        let scale = dice.pick(&[hours, hours * 10, 3_600 * 24 * 40]);
        let cap =
            types[0].price.0 / 3_600 * scale / 10 + i64::try_from(dice.below(3_000_000)).unwrap();
        let budget = Budget {
            currency: Currency::EUR,
            cap: MonthlyCap::Amount(Money(cap)),
            reserve: Share::percent(dice.pick(&[0, 3])),
            strict_pacing: dice.chance(10),
            generation: domain::Generation(1),
        };
        World {
            dice,
            tick,
            now,
            policy,
            budget,
            types,
            nodes: BTreeMap::new(),
            machines: BTreeMap::new(),
            books: Books::default(),
            placed: vec![],
            wanted: vec![],
            minimums: vec![],
            memory: Memory::default(),
            due: vec![],
            starting: BTreeSet::new(),
            refused: BTreeSet::new(),
            asked_to_stop: BTreeSet::new(),
            orders: 0,
            held: 0,
            stops: 0,
            fullest: 0,
            caps: vec![(i64::MIN, cap)],
            may_lower,
        }
    }

    fn ticks(&mut self, most: u64) -> i64 {
        let fine = i64::try_from(self.dice.below(u64::try_from(self.tick).unwrap())).unwrap();
        i64::try_from(self.dice.below(most + 1)).unwrap() * self.tick + fine
    }

    fn snapshot(&self, requested: Vec<Requested>) -> Snapshot {
        let mut snapshot = Snapshot {
            now: Timestamp(self.now),
            nodes: self
                .nodes
                .values()
                .map(|n| NodeView {
                    node: n.clone(),
                    silent_for: None,
                    dead: false,
                    cpu: None,
                    instances_cpu: vec![],
                })
                .collect(),
            types: self.types.clone(),
            placed: self.placed.clone(),
            wanted: self.wanted.clone(),
            minimums: self.minimums.clone(),
            requested,
            budget: self.budget.clone(),
            accounts: self.nodes.values().map(|n| (n.id.clone(), self.books.account(n))).collect(),
            charged: self.books.charged().clone(),
            memory: self.memory.clone(),
            ..Snapshot::default()
        };
        snapshot.normalise();
        snapshot
    }

    fn write(&mut self, lines: &[LedgerEntry]) {
        lines.iter().for_each(|l| self.books.apply(l));
    }

    /// The world goes on to `until`: whatever the provider does in between happens at its time.
    fn provider(&mut self, until: i64) {
        loop {
            self.due.sort_by_key(|(at, _)| *at);
            if self.due.first().is_none_or(|(at, _)| *at > until) {
                break;
            }
            let (at, due) = self.due.remove(0);
            self.now = self.now.max(at);
            match due {
                Due::Start(id) => {
                    let stopped = self.asked_to_stop.contains(&id);
                    if let (Some(node), false) = (self.nodes.get(&id), stopped) {
                        let machine = Machine {
                            price: node.price.0,
                            unit_ms: i64::try_from(node.billing_unit.as_millis()).unwrap(),
                            minimum_ms: i64::try_from(node.billing_minimum.as_millis()).unwrap(),
                            start: at,
                            stop: None,
                            promised_stop: None,
                        };
                        self.machines.insert(id.clone(), machine);
                        let answer = at + self.ticks(3);
                        if self.dice.chance(85) {
                            self.due.push((answer, Due::Answer(id, at)));
                        }
                    }
                    // Else the answer is lost: the order ends at its deadline.
                }
                Due::Answer(id, started) => self.begun(&id, started),
                Due::Refusal(id) => {
                    if self.nodes.contains_key(&id) {
                        let lines = self
                            .books
                            .account(&self.nodes[&id])
                            .settle(Timestamp(at), Timestamp(at));
                        self.write(&lines);
                        self.nodes.remove(&id);
                    }
                }
                Due::Join(id) => {
                    if let Some(node) =
                        self.nodes.get_mut(&id).filter(|n| n.state == NodeState::Booting)
                    {
                        node.state = NodeState::Ready;
                        node.ready_at = Some(Timestamp(at));
                        node.deadline = None;
                    }
                }
                Due::Stop(id) => {
                    if let Some(machine) = self.machines.get_mut(&id).filter(|m| m.stop.is_none()) {
                        machine.stop = Some(at);
                    }
                    let told = at + self.ticks(3);
                    self.due.push((told, Due::Confirm(id)));
                }
                Due::Confirm(id) => self.confirmed(&id, at),
            }
        }
        self.now = until;
    }

    fn begun(&mut self, id: &NodeId, started: i64) {
        let Some(node) = self.nodes.get(id).cloned() else { return };
        let account = self.books.account(&node);
        if account.started_at.is_none() {
            let (_, lines) = account.begin(Timestamp(started), Timestamp(self.now));
            self.write(&lines);
        }
        if node.state == NodeState::Ordered {
            let join = self.now + self.ticks(3);
            let node = self.nodes.get_mut(id).unwrap();
            node.state = NodeState::Booting;
            node.deadline = Some(Timestamp(self.now).plus(self.policy.join_deadline));
            if self.dice.chance(95) {
                self.due.push((join, Due::Join(id.clone())));
            }
        }
    }

    /// The provider says the machine is gone, and when it ran.
    fn confirmed(&mut self, id: &NodeId, at: i64) {
        let Some(node) = self.nodes.remove(id) else { return };
        let mut account = self.books.account(&node);
        let now = Timestamp(at);
        if let Some(machine) = self.machines.get(id).cloned() {
            if account.started_at.is_none() {
                let (begun, lines) = account.begin(Timestamp(machine.start), now);
                self.write(&lines);
                account = begun;
            }
            self.write(&account.settle(Timestamp(machine.stop.unwrap()), now));
        } else {
            self.write(&account.settle(now, now));
        }
        self.placed.retain(|p| p.node != *id);
    }

    fn ask_stop(&mut self, id: &NodeId) {
        let lead = i64::try_from(self.nodes[id].stop_lead.as_millis()).unwrap();
        self.asked_to_stop.insert(id.clone());
        let asked = self.now;
        if let Some(machine) = self.machines.get_mut(id) {
            machine.promised_stop.get_or_insert(asked + lead);
        }
        let late = match self.dice.below(10) {
            0..=6 => i64::try_from(self.dice.below(u64::try_from(lead).unwrap() + 1)).unwrap(),
            7 | 8 => lead + self.ticks(10),
            // Refused: asked again when the stop is overdue.
            _ => return,
        };
        self.due.push((asked + late, Due::Stop(id.clone())));
    }

    /// One step of the manager: a plan, written down, then carried out.
    pub fn step(&mut self) -> Plan {
        let until = self.now + self.tick / 4 + self.ticks(2);
        self.provider(until);
        self.random_life();
        let requested = self.requests();
        let snapshot = self.snapshot(requested);
        if self.dice.chance(5) {
            // Equal worlds are equal plans, however they are listed.
            let mut mixed = snapshot.clone();
            mixed.nodes.reverse();
            mixed.placed.reverse();
            mixed.wanted.reverse();
            mixed.minimums.reverse();
            mixed.normalise();
            let again = plan(&mixed, &self.policy, &mut self.dice.clone());
            assert_eq!(again, plan(&snapshot, &self.policy, &mut self.dice.clone()));
        }
        let plan = plan(&snapshot, &self.policy, &mut self.dice);
        check(&snapshot, &plan).unwrap_or_else(|v| {
            panic!(
                "{v}\n{:?}\n{:?}\n{:?}\n{:?}",
                snapshot.accounts, snapshot.charged, plan.ledger, plan.orders
            )
        });
        self.memory = plan.memory.clone();
        self.held +=
            plan.waiting.iter().filter(|w| w.refusal.why == machine_planner::Why::Cap).count();
        self.write(&plan.ledger);
        for grant in &plan.granted {
            let at = self.wanted.iter().position(|w| w.instance == grant.instance).unwrap();
            let w = self.wanted.remove(at);
            self.placed.push(Placed {
                instance: w.instance,
                service: w.service,
                node: grant.node.clone(),
                resources: w.resources,
                priority: w.priority,
                group: w.group,
                needs: w.needs,
            });
        }
        for order in &plan.orders {
            self.order(order);
        }
        for change in &plan.transitions {
            let Some(node) = self.nodes.get_mut(&change.node) else { continue };
            assert!(node.state.may_become(change.to), "{} -> {}", node.state, change.to);
            node.state = change.to;
            node.deadline = change.deadline;
            node.drain = (change.to == NodeState::Draining).then(|| domain::DrainOrder {
                reason: change.reason.clone(),
                deadline: change.deadline.unwrap(),
            });
            if change.to == NodeState::Stopping {
                self.stops += 1;
                self.placed.retain(|p| p.node != change.node);
                self.ask_stop(&change.node.clone());
            }
            if change.to == NodeState::Draining {
                // The container-manager moves what it can.
                let id = change.node.clone();
                if self.dice.chance(70) {
                    self.placed.retain(|p| p.node != id);
                }
            }
        }
        plan
    }

    /// The bill of a month by what the provider saw, units begun through its own fault aside.
    pub fn honest_bill(&self, month: Month) -> i64 {
        self.machines.values().map(|m| m.bill(month, self.now, true)).sum()
    }

    /// The greatest cap in force at any moment since `since`.
    pub fn cap_since(&self, since: i64) -> i64 {
        let at = self.caps.iter().rposition(|(at, _)| *at <= since).unwrap_or(0);
        self.caps[at..].iter().map(|(_, cap)| *cap).max().unwrap()
    }
}
