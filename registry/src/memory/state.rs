//! The tables of the registry in memory and the writes that span several of them.

use super::shelf::{History, Shelf, cut};
use crate::limits::Limits;
use crate::rules::{self, LeaseRow, Retired};
use crate::store::{
    BudgetRow, InstanceCommit, InstanceStat, NodeCommit, NodeStat, NodeToken, Role, ServiceRow,
    ServiceStat, StoredEvent, TypeRow,
};
use domain::{
    Decision, Event, Instance, InstanceId, InstanceState, LedgerEntry, Node, NodeId, NodeState,
    NodeTypeName, Revision, ServiceName, Timestamp,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Names that were used and given up, with the last numbers they had.
#[derive(Debug, Default)]
pub(super) struct Cemetery {
    of: BTreeMap<String, (u64, Retired)>,
    order: BTreeMap<u64, String>,
    buried: u64,
    floor: Retired,
}

impl Cemetery {
    pub(super) fn of(&self, name: &str) -> Retired {
        self.of.get(name).map_or(self.floor, |(_, last)| *last)
    }

    pub(super) fn bury(&mut self, name: &str, last: Retired, most: usize) {
        self.buried += 1;
        if let Some((seq, _)) = self.of.insert(name.to_owned(), (self.buried, last)) {
            self.order.remove(&seq);
        }
        self.order.insert(self.buried, name.to_owned());
        while self.order.len() > most
            && let Some((_, oldest)) = self.order.pop_first()
            && let Some((_, last)) = self.of.remove(&oldest)
        {
            self.floor = self.floor.or_higher(last);
        }
    }
}

/// Everything the registry in memory holds.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) leases: BTreeMap<Role, LeaseRow>,
    pub(super) services: BTreeMap<ServiceName, ServiceRow>,
    pub(super) retired_services: Cemetery,
    pub(super) revisions: BTreeMap<(ServiceName, Revision), String>,
    pub(super) instances: Shelf<InstanceId, Instance>,
    pub(super) decisions: History<ServiceName, Decision>,
    pub(super) nodes: Shelf<NodeId, Node>,
    pub(super) machine_memory: String,
    pub(super) types: BTreeMap<NodeTypeName, TypeRow>,
    pub(super) retired_types: Cemetery,
    pub(super) budget: Option<BudgetRow>,
    /// By the beginning of the paid period, then in the order of writing.
    pub(super) ledger: BTreeMap<(Timestamp, u64), LedgerEntry>,
    pub(super) ledger_lines: u64,
    pub(super) tokens: BTreeMap<String, NodeToken>,
    pub(super) node_stats: History<NodeId, NodeStat>,
    pub(super) instance_stats: History<InstanceId, InstanceStat>,
    pub(super) service_stats: History<ServiceName, ServiceStat>,
    pub(super) events: VecDeque<StoredEvent>,
    pub(super) last_event: u64,
    pub(super) settings: BTreeMap<String, String>,
}

impl State {
    /// Stores a service's row and the document of its revision.
    pub(super) fn put_service(&mut self, row: &ServiceRow) {
        self.revisions.insert((row.name.clone(), row.revision), row.document.clone());
        self.services.insert(row.name.clone(), row.clone());
    }

    /// The row as it is, or that it is unknown.
    pub(super) fn service(&self, name: &ServiceName) -> Result<ServiceRow, crate::RegistryError> {
        self.services.get(name).cloned().ok_or_else(|| rules::unknown_service(name))
    }

    pub(super) fn commit_instances(&mut self, commit: InstanceCommit, limits: &Limits) {
        for instance in commit.instances {
            let ended = (instance.state == InstanceState::Stopped).then_some(instance.state_since);
            self.instances.put(instance.id.clone(), instance, ended);
        }
        for decision in commit.decisions {
            let service = decision.service.clone();
            self.decisions.add(service.clone(), decision.at, decision);
            self.decisions.prune_one(&service, limits.decisions_of_one);
        }
        self.decisions.prune(Timestamp(i64::MIN), limits.decisions);
        for (name, memory) in commit.memories {
            if let Some(row) = self.services.get_mut(&name) {
                row.memory = memory;
            }
        }
        for name in commit.purged {
            self.purge(&name, limits);
        }
        self.add_events(commit.events, limits);
    }

    /// Removes a deleting service without instances; one that was revived since stays.
    fn purge(&mut self, name: &ServiceName, limits: &Limits) {
        let gone = self.services.get(name).is_some_and(|row| row.deleting)
            && !self.instances.living().any(|instance| instance.service == *name);
        if gone && let Some(row) = self.services.remove(name) {
            let last = Retired { generation: row.generation, revision: row.revision };
            self.retired_services.bury(name.as_str(), last, limits.retired);
            self.revisions.retain(|(service, _), _| service != name);
        }
    }

    pub(super) fn commit_nodes(&mut self, commit: NodeCommit, limits: &Limits) {
        for node in commit.nodes {
            let ended = (node.state == NodeState::Stopped).then_some(node.state_since);
            self.nodes.put(node.id.clone(), node, ended);
        }
        for line in commit.ledger {
            self.ledger_lines += 1;
            self.ledger.insert((line.from, self.ledger_lines), line);
        }
        if let Some(memory) = commit.memory {
            self.machine_memory = memory;
        }
        self.add_events(commit.events, limits);
    }

    pub(super) fn add_events(&mut self, events: Vec<Event>, limits: &Limits) {
        for event in events {
            self.last_event += 1;
            self.events.push_back(StoredEvent { seq: self.last_event, event });
        }
        while self.events.len() > limits.events {
            self.events.pop_front();
        }
    }

    pub(super) fn prune_stats(&mut self, limits: &Limits, now: Timestamp) {
        let since = cut(now, limits.stats_for);
        self.node_stats.prune(since, limits.stats_rows);
        self.instance_stats.prune(since, limits.stats_rows);
        self.service_stats.prune(since, limits.stats_rows);
    }

    /// Drops what was kept long enough.
    pub(super) fn upkeep(&mut self, limits: &Limits, now: Timestamp) {
        self.instances.prune(cut(now, limits.ended_for), limits.ended_rows);
        self.nodes.prune(cut(now, limits.ended_for), limits.ended_rows);
        self.prune_stats(limits, now);
        self.tokens.retain(|_, token| token.expires_at > now);
        let since = cut(now, limits.ledger_for);
        self.ledger.retain(|_, line| line.until >= since);
        let lived: BTreeSet<(ServiceName, Revision)> =
            self.instances.living().map(|i| (i.service.clone(), i.revision)).collect();
        let services = &self.services;
        self.revisions.retain(|key, _| {
            lived.contains(key)
                || services
                    .get(&key.0)
                    .is_some_and(|row| key.1 >= rules::oldest_kept(row.revision, limits.revisions))
        });
    }
}
