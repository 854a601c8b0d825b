//! What owners and operators do at random: starts, ends, minimums, protection, caps, orders.

use super::{Due, World, resources};
use domain::{
    Budget, IdSource, Money, MonthlyCap, Needs, Node, NodeId, NodeState, ServiceGroup, Timestamp,
};
use machine_planner::{Minimum, Requested, Wanted, admit_cap, admit_minimum, admit_protection};
use std::collections::{BTreeMap, BTreeSet};

impl World {
    pub fn random_life(&mut self) {
        let services = ["a", "b", "c"];
        if self.dice.chance(25) && self.wanted.len() < 8 {
            let service = self.dice.pick(&services).parse().unwrap();
            let instance = self.dice.instance(&service);
            self.wanted.push(Wanted {
                instance,
                service,
                resources: resources(self.dice.pick(&[250, 500, 1000, 3000])),
                needs: Needs { dedicated: self.dice.chance(5), ..Needs::default() },
                group: ServiceGroup::SelfContained,
                not_on: BTreeSet::new(),
                wake: self.dice.chance(30),
                priority: i32::try_from(self.dice.below(3)).unwrap(),
            });
        }
        if self.dice.chance(10) && !self.wanted.is_empty() {
            let at = usize::try_from(self.dice.below(self.wanted.len() as u64)).unwrap();
            self.wanted.remove(at);
        }
        if self.dice.chance(20) && !self.placed.is_empty() {
            let at = usize::try_from(self.dice.below(self.placed.len() as u64)).unwrap();
            self.placed.remove(at);
        }
        if self.dice.chance(4) {
            self.change_minimum(&services);
        }
        if self.dice.chance(4) {
            self.change_protection();
        }
        if self.dice.chance(4) {
            self.change_cap();
        }
    }

    fn change_minimum(&mut self, services: &[&str]) {
        let minimum = Minimum {
            service: self.dice.pick(services).parse().unwrap(),
            count: u32::try_from(self.dice.below(3)).unwrap(),
            resources: resources(self.dice.pick(&[250, 1000])),
            needs: Needs::default(),
            group: ServiceGroup::SelfContained,
        };
        if admit_minimum(&self.snapshot(vec![]), &self.policy, &minimum).is_ok() {
            self.minimums.retain(|m| m.service != minimum.service);
            self.minimums.push(minimum);
        }
    }

    fn change_protection(&mut self) {
        let ready: Vec<NodeId> = self
            .nodes
            .values()
            .filter(|n| n.state == NodeState::Ready)
            .map(|n| n.id.clone())
            .collect();
        let Some(id) = ready.first() else { return };
        if !self.nodes[id].may_stop {
            self.nodes.get_mut(id).unwrap().may_stop = true;
        } else if admit_protection(&self.snapshot(vec![]), &self.policy, id).is_ok() {
            self.nodes.get_mut(id).unwrap().may_stop = false;
        }
    }

    fn change_cap(&mut self) {
        let MonthlyCap::Amount(cap) = self.budget.cap else { return };
        let percent =
            if self.may_lower { 50 + self.dice.below(100) } else { 100 + self.dice.below(50) };
        let next = cap.0 / 100 * i64::try_from(percent).unwrap();
        let budget = Budget { cap: MonthlyCap::Amount(Money(next)), ..self.budget.clone() };
        if admit_cap(&self.snapshot(vec![]), &self.policy, &budget).is_ok() {
            self.budget = budget;
            self.caps.push((self.now, next));
        }
    }

    pub fn requests(&mut self) -> Vec<Requested> {
        if !self.dice.chance(6) {
            return vec![];
        }
        let node_type = self.types
            [usize::try_from(self.dice.below(self.types.len() as u64)).unwrap()]
        .name
        .clone();
        vec![Requested { node_type, name: None, may_stop: self.dice.chance(70) }]
    }

    /// Writes the order down and asks the provider, who may refuse, be slow or lose the answer.
    pub fn order(&mut self, order: &machine_planner::Order) {
        self.orders += 1;
        let node_type = self.types.iter().find(|t| t.name == order.node_type).unwrap();
        let id = order.account.node.clone();
        let node = Node {
            id: id.clone(),
            name: order.name.clone(),
            node_type: node_type.name.clone(),
            provider: node_type.provider.clone(),
            provider_ref: None,
            state: NodeState::Ordered,
            state_since: Timestamp(self.now),
            deadline: Some(order.deadline),
            address: None,
            executor_url: None,
            capacity: node_type.capacity,
            cpu_class: node_type.cpu_class.clone(),
            disk_type: node_type.disk_type.clone(),
            labels: BTreeMap::new(),
            price: node_type.price,
            billing_unit: node_type.billing_unit,
            billing_minimum: node_type.billing_minimum,
            min_life: node_type.min_life,
            stop_lead: node_type.stop_lead,
            may_stop: order.may_stop,
            drain: None,
            ordered_at: Timestamp(self.now),
            ready_at: None,
            seen_at: None,
            stopped_at: None,
            secret_hash: None,
            reason: String::new(),
        };
        self.write(std::slice::from_ref(&order.reserve));
        self.nodes.insert(id.clone(), node);
        assert!(self.starting.insert(id.clone()), "an id is ordered once");
        if self.dice.chance(8) {
            let at = self.now + self.ticks(3);
            self.refused.insert(id.clone());
            self.due.push((at, Due::Refusal(id)));
        } else {
            let at = self.now + self.ticks(5);
            self.due.push((at, Due::Start(id)));
        }
    }
}
