//! The registry in one SQLite file: the embedded default.

mod migrate;
mod readers;
#[cfg(test)]
mod tests;
mod writer;

use crate::columns::Done;
use crate::limits::Limits;
use crate::store::{
    BudgetRow, Expect, InstanceCommit, InstanceStat, Lease, NodeCommit, NodeStat, NodeToken,
    Registry, RegistryError, Role, ServicePut, ServiceRow, ServiceStat, StoredEvent, TypeRow,
};
use crate::{decisions, instances, lease, ledger, nodes, services, stats, types};
use async_trait::async_trait;
use domain::{
    Budget, Clock, Decision, Event, Instance, InstanceId, LedgerEntry, Node, NodeId, NodeType,
    NodeTypeName, Revision, ServiceName, Timestamp,
};
use readers::Readers;
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use writer::Writer;

/// A registry in a file. What it acknowledged is on the disk (write-ahead log, full sync); two
/// processes on one host may share the file.
pub struct SqliteRegistry {
    readers: Readers,
    writer: Writer,
    limits: Limits,
}

impl SqliteRegistry {
    /// Opens the file, making it when it is not there.
    ///
    /// # Errors
    /// [`RegistryError::Store`] when the file cannot be opened or written, is no registry, or was
    /// written by a newer Tally.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<SqliteRegistry, RegistryError> {
        Self::open_with(path, clock, Limits::default())
    }

    /// Opens the file to keep less (or more) history.
    ///
    /// # Errors
    /// As [`SqliteRegistry::open`].
    pub fn open_with(
        path: &Path,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<SqliteRegistry, RegistryError> {
        let conn = migrate::open_writer(path)?;
        let readers = Readers::start(path.to_owned())?;
        Ok(SqliteRegistry { readers, writer: Writer::start(conn, clock, limits)?, limits })
    }

    async fn read<T, F>(&self, doing: &'static str, work: F) -> Result<T, RegistryError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Done<T> + Send + 'static,
    {
        self.readers.call(doing, work).await
    }

    async fn write<T, F>(&self, doing: &'static str, work: F) -> Result<T, RegistryError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, Timestamp) -> Done<T> + Send + 'static,
    {
        self.writer.call(doing, work).await
    }
}

fn write_instances(
    conn: &Connection,
    lease: &Lease,
    commit: &InstanceCommit,
    limits: &Limits,
    now: Timestamp,
) -> Done<()> {
    lease::fence(conn, Role::ContainerManager, lease)?;
    for instance in &commit.instances {
        instances::put(conn, instance, now)?;
    }
    for decision in &commit.decisions {
        decisions::add(conn, decision, now)?;
    }
    for (name, memory) in &commit.memories {
        services::remember(conn, name, memory)?;
    }
    for name in &commit.purged {
        services::purge(conn, name, limits, now)?;
    }
    decisions::add_events(conn, &commit.events, now)
}

fn write_nodes(conn: &Connection, lease: &Lease, commit: &NodeCommit, now: Timestamp) -> Done<()> {
    lease::fence(conn, Role::MachineManager, lease)?;
    for node in &commit.nodes {
        nodes::put(conn, node, now)?;
    }
    for line in &commit.ledger {
        ledger::add(conn, line, now)?;
    }
    if let Some(memory) = &commit.memory {
        nodes::remember(conn, memory, now)?;
    }
    decisions::add_events(conn, &commit.events, now)
}

#[async_trait]
impl Registry for SqliteRegistry {
    async fn take_lease(
        &self,
        role: Role,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Lease>, RegistryError> {
        let holder = holder.to_owned();
        self.write("take a lease", move |conn, now| lease::take(conn, role, &holder, ttl, now))
            .await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, RegistryError> {
        let lease = lease.clone();
        self.write("renew a lease", move |conn, now| lease::renew(conn, &lease, ttl, now)).await
    }

    async fn give_back_lease(&self, lease: &Lease) -> Result<(), RegistryError> {
        let lease = lease.clone();
        self.write("give back a lease", move |conn, now| lease::give_back(conn, &lease, now)).await
    }

    async fn services(&self) -> Result<Vec<ServiceRow>, RegistryError> {
        self.read("list services", services::all).await
    }

    async fn put_service(&self, put: ServicePut) -> Result<ServiceRow, RegistryError> {
        self.write("store a service", move |conn, now| services::put(conn, put, now)).await
    }

    async fn delete_service(
        &self,
        name: &ServiceName,
        expect: Expect,
    ) -> Result<ServiceRow, RegistryError> {
        let name = name.clone();
        self.write("remove a service", move |conn, now| services::delete(conn, &name, expect, now))
            .await
    }

    async fn hold_scale(
        &self,
        name: &ServiceName,
        instances: Option<u32>,
    ) -> Result<ServiceRow, RegistryError> {
        let name = name.clone();
        self.write("hold a service's number of instances", move |conn, now| {
            services::hold(conn, &name, instances, now)
        })
        .await
    }

    async fn bump_revision(&self, name: &ServiceName) -> Result<ServiceRow, RegistryError> {
        let name = name.clone();
        self.write("raise a service's revision", move |conn, now| services::bump(conn, &name, now))
            .await
    }

    async fn revision_document(
        &self,
        name: &ServiceName,
        revision: Revision,
    ) -> Result<Option<String>, RegistryError> {
        let name = name.clone();
        self.read("read a revision", move |conn| services::document(conn, &name, revision)).await
    }

    async fn instances(&self) -> Result<Vec<Instance>, RegistryError> {
        self.read("list instances", instances::living).await
    }

    async fn instance(&self, id: &InstanceId) -> Result<Option<Instance>, RegistryError> {
        let id = id.clone();
        self.read("read an instance", move |conn| instances::find(conn, &id)).await
    }

    async fn ended_instances(
        &self,
        service: &ServiceName,
        limit: usize,
    ) -> Result<Vec<Instance>, RegistryError> {
        let service = service.clone();
        self.read("list ended instances", move |conn| instances::ended(conn, &service, limit)).await
    }

    async fn commit_instances(
        &self,
        lease: &Lease,
        commit: InstanceCommit,
    ) -> Result<(), RegistryError> {
        let lease = lease.clone();
        let limits = self.limits;
        self.write("commit a step of the container-manager", move |conn, now| {
            write_instances(conn, &lease, &commit, &limits, now)
        })
        .await
    }

    async fn decisions(
        &self,
        service: Option<&ServiceName>,
        limit: usize,
    ) -> Result<Vec<Decision>, RegistryError> {
        let service = service.cloned();
        self.read("list decisions", move |conn| decisions::newest(conn, service.as_ref(), limit))
            .await
    }

    async fn nodes(&self) -> Result<Vec<Node>, RegistryError> {
        self.read("list nodes", nodes::living).await
    }

    async fn node(&self, id: &NodeId) -> Result<Option<Node>, RegistryError> {
        let id = id.clone();
        self.read("read a node", move |conn| nodes::find(conn, &id)).await
    }

    async fn commit_nodes(&self, lease: &Lease, commit: NodeCommit) -> Result<(), RegistryError> {
        let lease = lease.clone();
        self.write("commit a step of the machine-manager", move |conn, now| {
            write_nodes(conn, &lease, &commit, now)
        })
        .await
    }

    async fn machine_memory(&self) -> Result<String, RegistryError> {
        self.read("read the machine-planner's memory", nodes::memory).await
    }

    async fn node_types(&self) -> Result<Vec<TypeRow>, RegistryError> {
        self.read("list node types", types::all).await
    }

    async fn put_node_type(
        &self,
        node_type: NodeType,
        document: String,
        expect: Expect,
    ) -> Result<TypeRow, RegistryError> {
        self.write("store a node type", move |conn, now| {
            types::put(conn, (node_type, document), expect, now)
        })
        .await
    }

    async fn delete_node_type(
        &self,
        name: &NodeTypeName,
        expect: Expect,
    ) -> Result<(), RegistryError> {
        let name = name.clone();
        let limits = self.limits;
        self.write("remove a node type", move |conn, now| {
            types::delete(conn, &name, expect, &limits, now)
        })
        .await
    }

    async fn budget(&self) -> Result<Option<BudgetRow>, RegistryError> {
        self.read("read the budget", ledger::budget).await
    }

    async fn put_budget(
        &self,
        budget: Budget,
        document: String,
        expect: Expect,
    ) -> Result<BudgetRow, RegistryError> {
        self.write("store the budget", move |conn, now| {
            ledger::put_budget(conn, budget, document, expect, now)
        })
        .await
    }

    async fn ledger(
        &self,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<LedgerEntry>, RegistryError> {
        self.read("read the ledger", move |conn| ledger::within(conn, from, until)).await
    }

    async fn put_node_token(&self, token: NodeToken) -> Result<(), RegistryError> {
        self.write("store a node token", move |conn, now| nodes::put_token(conn, &token, now)).await
    }

    async fn take_node_token(
        &self,
        hash: &str,
        now: Timestamp,
    ) -> Result<Option<NodeToken>, RegistryError> {
        let hash = hash.to_owned();
        self.write("take a node token", move |conn, _now| nodes::take_token(conn, &hash, now)).await
    }

    async fn add_stats(
        &self,
        nodes: Vec<NodeStat>,
        instances: Vec<InstanceStat>,
    ) -> Result<(), RegistryError> {
        self.write("store measurements", move |conn, _now| {
            nodes.iter().try_for_each(|stat| stats::add_node(conn, stat))?;
            instances.iter().try_for_each(|stat| stats::add_instance(conn, stat))
        })
        .await
    }

    async fn add_service_stats(&self, stats: Vec<ServiceStat>) -> Result<(), RegistryError> {
        self.write("store a service's history", move |conn, _now| {
            stats.iter().try_for_each(|stat| stats::add_service(conn, stat))
        })
        .await
    }

    async fn node_stats(
        &self,
        node: &NodeId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<NodeStat>, RegistryError> {
        let node = node.clone();
        self.read("read a node's measurements", move |conn| {
            stats::of_node(conn, &node, since, limit)
        })
        .await
    }

    async fn instance_stats(
        &self,
        instance: &InstanceId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<InstanceStat>, RegistryError> {
        let id = instance.clone();
        self.read("read an instance's measurements", move |conn| {
            stats::of_instance(conn, &id, since, limit)
        })
        .await
    }

    async fn service_stats(
        &self,
        service: &ServiceName,
        since: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<ServiceStat>, RegistryError> {
        let service = service.clone();
        self.read("read a service's history", move |conn| {
            stats::of_service(conn, &service, (since, until), limit)
        })
        .await
    }

    async fn add_events(&self, events: Vec<Event>) -> Result<(), RegistryError> {
        self.write("store events", move |conn, now| decisions::add_events(conn, &events, now)).await
    }

    async fn events_after(
        &self,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, RegistryError> {
        self.read("read events", move |conn| decisions::events_after(conn, seq, limit)).await
    }

    async fn last_event(&self) -> Result<u64, RegistryError> {
        self.read("read the newest event", decisions::last_event).await
    }

    async fn setting(&self, name: &str) -> Result<Option<String>, RegistryError> {
        let name = name.to_owned();
        self.read("read a setting", move |conn| nodes::setting(conn, &name)).await
    }

    async fn put_setting(&self, name: &str, value: &str) -> Result<(), RegistryError> {
        let name = name.to_owned();
        let value = value.to_owned();
        self.write("store a setting", move |conn, now| nodes::put_setting(conn, &name, &value, now))
            .await
    }
}
