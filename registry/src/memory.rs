//! The registry in memory, for tests and the simulator: the same promises, but for a crash.

mod shelf;
mod state;

use crate::limits::{Limits, UPKEEP_EVERY};
use crate::rules::{self, LeaseRow, Retired};
use crate::store::{
    BudgetRow, Expect, InstanceCommit, InstanceStat, Lease, NodeCommit, NodeStat, NodeToken,
    Registry, RegistryError, Role, ServicePut, ServiceRow, ServiceStat, StoredEvent, TypeRow,
};
use async_trait::async_trait;
use domain::{
    Budget, Clock, Decision, Event, Instance, InstanceId, LedgerEntry, Node, NodeId, NodeType,
    NodeTypeName, Revision, ServiceName, Timestamp,
};
use state::State;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

struct Inner {
    state: State,
    upkept_at: Option<Timestamp>,
}

/// A registry that lives as long as its process.
pub struct MemoryRegistry {
    clock: Arc<dyn Clock>,
    limits: Limits,
    inner: Mutex<Inner>,
}

impl MemoryRegistry {
    /// An empty registry.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> MemoryRegistry {
        Self::with_limits(clock, Limits::default())
    }

    /// An empty registry that keeps less (or more) history.
    #[must_use]
    pub fn with_limits(clock: Arc<dyn Clock>, limits: Limits) -> MemoryRegistry {
        let inner = Mutex::new(Inner { state: State::default(), upkept_at: None });
        MemoryRegistry { clock, limits, inner }
    }

    /// A poisoned lock hides no half-done write: rules are checked before anything changes.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, reader: impl FnOnce(&State) -> T) -> T {
        reader(&self.lock().state)
    }

    fn write<T>(
        &self,
        writer: impl FnOnce(&mut State, Timestamp) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let now = self.clock.now();
        let mut inner = self.lock();
        let done = writer(&mut inner.state, now);
        // Set back, the clock makes an age of zero: then upkeep waits, which harms nobody.
        if inner.upkept_at.is_none_or(|at| now.since(at) >= UPKEEP_EVERY) {
            inner.state.upkeep(&self.limits, now);
            inner.upkept_at = Some(now);
        }
        done
    }

    fn change_service(
        &self,
        name: &ServiceName,
        change: impl FnOnce(ServiceRow, Timestamp) -> Result<ServiceRow, RegistryError>,
    ) -> Result<ServiceRow, RegistryError> {
        self.write(|state, now| {
            let row = change(state.service(name)?, now)?;
            state.put_service(&row);
            Ok(row)
        })
    }
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn take_lease(
        &self,
        role: Role,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Lease>, RegistryError> {
        self.write(|state, now| {
            let taken = rules::lease_after_take(state.leases.get(&role), holder, ttl, now);
            Ok(taken.map(|row| {
                let lease =
                    Lease { role, epoch: row.epoch, holder: holder.to_owned(), until: row.until };
                state.leases.insert(role, row);
                lease
            }))
        })
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, RegistryError> {
        self.write(|state, now| match state.leases.get_mut(&lease.role) {
            Some(row) if rules::lease_is_held(Some(row), lease) => {
                row.until = now.plus(ttl);
                Ok(true)
            }
            Some(_) | None => Ok(false),
        })
    }

    async fn give_back_lease(&self, lease: &Lease) -> Result<(), RegistryError> {
        self.write(|state, now| {
            if rules::lease_is_held(state.leases.get(&lease.role), lease) {
                let row = LeaseRow { epoch: lease.epoch, holder: None, until: now };
                state.leases.insert(lease.role, row);
            }
            Ok(())
        })
    }

    async fn services(&self) -> Result<Vec<ServiceRow>, RegistryError> {
        Ok(self.read(|state| state.services.values().cloned().collect()))
    }

    async fn put_service(&self, put: ServicePut) -> Result<ServiceRow, RegistryError> {
        self.write(|state, now| {
            let old = state.services.get(&put.name).cloned();
            let retired = state.retired_services.of(put.name.as_str());
            let row = rules::service_after_put(old, retired, put, now)?;
            state.put_service(&row);
            Ok(row)
        })
    }

    async fn delete_service(
        &self,
        name: &ServiceName,
        expect: Expect,
    ) -> Result<ServiceRow, RegistryError> {
        self.change_service(name, |row, now| rules::service_after_delete(row, expect, now))
    }

    async fn hold_scale(
        &self,
        name: &ServiceName,
        instances: Option<u32>,
    ) -> Result<ServiceRow, RegistryError> {
        self.change_service(name, |row, now| Ok(rules::service_after_hold(row, instances, now)))
    }

    async fn bump_revision(&self, name: &ServiceName) -> Result<ServiceRow, RegistryError> {
        self.change_service(name, |row, now| Ok(rules::service_after_bump(row, now)))
    }

    async fn revision_document(
        &self,
        name: &ServiceName,
        revision: Revision,
    ) -> Result<Option<String>, RegistryError> {
        Ok(self.read(|state| state.revisions.get(&(name.clone(), revision)).cloned()))
    }

    async fn instances(&self) -> Result<Vec<Instance>, RegistryError> {
        Ok(self.read(|state| state.instances.living().cloned().collect()))
    }

    async fn instance(&self, id: &InstanceId) -> Result<Option<Instance>, RegistryError> {
        Ok(self.read(|state| state.instances.get(id).cloned()))
    }

    async fn ended_instances(
        &self,
        service: &ServiceName,
        limit: usize,
    ) -> Result<Vec<Instance>, RegistryError> {
        Ok(self.read(|state| {
            let of = state.instances.ended().filter(|instance| instance.service == *service);
            of.take(limit).cloned().collect()
        }))
    }

    async fn commit_instances(
        &self,
        lease: &Lease,
        commit: InstanceCommit,
    ) -> Result<(), RegistryError> {
        self.write(|state, _now| {
            let role = Role::ContainerManager;
            rules::check_fence(state.leases.get(&role), role, lease)?;
            state.commit_instances(commit, &self.limits);
            Ok(())
        })
    }

    async fn decisions(
        &self,
        service: Option<&ServiceName>,
        limit: usize,
    ) -> Result<Vec<Decision>, RegistryError> {
        Ok(self.read(|state| match service {
            Some(name) => state.decisions.newest_of(name, limit),
            None => state.decisions.newest(limit),
        }))
    }

    async fn nodes(&self) -> Result<Vec<Node>, RegistryError> {
        Ok(self.read(|state| state.nodes.living().cloned().collect()))
    }

    async fn node(&self, id: &NodeId) -> Result<Option<Node>, RegistryError> {
        Ok(self.read(|state| state.nodes.get(id).cloned()))
    }

    async fn commit_nodes(&self, lease: &Lease, commit: NodeCommit) -> Result<(), RegistryError> {
        self.write(|state, _now| {
            let role = Role::MachineManager;
            rules::check_fence(state.leases.get(&role), role, lease)?;
            state.commit_nodes(commit, &self.limits);
            Ok(())
        })
    }

    async fn machine_memory(&self) -> Result<String, RegistryError> {
        Ok(self.read(|state| state.machine_memory.clone()))
    }

    async fn node_types(&self) -> Result<Vec<TypeRow>, RegistryError> {
        Ok(self.read(|state| state.types.values().cloned().collect()))
    }

    async fn put_node_type(
        &self,
        node_type: NodeType,
        document: String,
        expect: Expect,
    ) -> Result<TypeRow, RegistryError> {
        self.write(|state, now| {
            let old = state.types.get(&node_type.name).cloned();
            let retired = state.retired_types.of(node_type.name.as_str());
            let row = rules::type_after_put(old, retired, (node_type, document), expect, now)?;
            state.types.insert(row.name.clone(), row.clone());
            Ok(row)
        })
    }

    async fn delete_node_type(
        &self,
        name: &NodeTypeName,
        expect: Expect,
    ) -> Result<(), RegistryError> {
        self.write(|state, _now| {
            let row = state.types.get(name).ok_or_else(|| rules::unknown_type(name))?;
            rules::check_expect(&format!("node type {name}"), Some(row.generation), expect)?;
            let last = Retired { generation: row.generation, revision: Revision(0) };
            state.retired_types.bury(name.as_str(), last, self.limits.retired);
            state.types.remove(name);
            Ok(())
        })
    }

    async fn budget(&self) -> Result<Option<BudgetRow>, RegistryError> {
        Ok(self.read(|state| state.budget.clone()))
    }

    async fn put_budget(
        &self,
        budget: Budget,
        document: String,
        expect: Expect,
    ) -> Result<BudgetRow, RegistryError> {
        self.write(|state, now| {
            let old = state.budget.as_ref();
            let row = rules::budget_after_put(old, budget, document, expect, now)?;
            state.budget = Some(row.clone());
            Ok(row)
        })
    }

    async fn ledger(
        &self,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<LedgerEntry>, RegistryError> {
        if from >= until {
            return Ok(Vec::new());
        }
        Ok(self.read(|state| {
            state.ledger.range((from, 0)..(until, 0)).map(|(_, line)| line.clone()).collect()
        }))
    }

    async fn put_node_token(&self, token: NodeToken) -> Result<(), RegistryError> {
        self.write(|state, _now| {
            state.tokens.insert(token.hash.clone(), token);
            Ok(())
        })
    }

    async fn take_node_token(
        &self,
        hash: &str,
        now: Timestamp,
    ) -> Result<Option<NodeToken>, RegistryError> {
        self.write(|state, _now| {
            Ok(state.tokens.remove(hash).filter(|token| token.expires_at > now))
        })
    }

    async fn add_stats(
        &self,
        nodes: Vec<NodeStat>,
        instances: Vec<InstanceStat>,
    ) -> Result<(), RegistryError> {
        self.write(|state, now| {
            for stat in nodes {
                state.node_stats.add(stat.node.clone(), stat.at, stat);
            }
            for stat in instances {
                state.instance_stats.add(stat.instance.clone(), stat.at, stat);
            }
            state.prune_stats(&self.limits, now);
            Ok(())
        })
    }

    async fn add_service_stats(&self, stats: Vec<ServiceStat>) -> Result<(), RegistryError> {
        self.write(|state, now| {
            for stat in stats {
                state.service_stats.add(stat.service.clone(), stat.at, stat);
            }
            state.prune_stats(&self.limits, now);
            Ok(())
        })
    }

    async fn node_stats(
        &self,
        node: &NodeId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<NodeStat>, RegistryError> {
        let until = Timestamp(i64::MAX);
        Ok(self.read(|state| state.node_stats.span(node, since, until, limit)))
    }

    async fn instance_stats(
        &self,
        instance: &InstanceId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<InstanceStat>, RegistryError> {
        let until = Timestamp(i64::MAX);
        Ok(self.read(|state| state.instance_stats.span(instance, since, until, limit)))
    }

    async fn service_stats(
        &self,
        service: &ServiceName,
        since: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<ServiceStat>, RegistryError> {
        Ok(self.read(|state| state.service_stats.span(service, since, until, limit)))
    }

    async fn add_events(&self, events: Vec<Event>) -> Result<(), RegistryError> {
        self.write(|state, _now| {
            state.add_events(events, &self.limits);
            Ok(())
        })
    }

    async fn events_after(
        &self,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, RegistryError> {
        Ok(self.read(|state| {
            let first = state.events.partition_point(|event| event.seq <= seq);
            state.events.iter().skip(first).take(limit).cloned().collect()
        }))
    }

    async fn last_event(&self) -> Result<u64, RegistryError> {
        Ok(self.read(|state| state.last_event))
    }

    async fn setting(&self, name: &str) -> Result<Option<String>, RegistryError> {
        Ok(self.read(|state| state.settings.get(name).cloned()))
    }

    async fn put_setting(&self, name: &str, value: &str) -> Result<(), RegistryError> {
        self.write(|state, _now| {
            state.settings.insert(name.to_owned(), value.to_owned());
            Ok(())
        })
    }
}
