//! The `Registry` trait and its promises, and the rows it keeps.

use async_trait::async_trait;
use domain::{
    Budget, Decision, Epoch, Event, Generation, Instance, InstanceId, LedgerEntry, Node, NodeId,
    NodeType, NodeTypeName, Revision, ServiceName, Timestamp,
};
use std::time::Duration;

/// Why the registry refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Another manager leads: stop acting at once.
    #[error("a manager with epoch {newer} leads; this one's epoch {ours} is over")]
    Superseded {
        /// Whom we took ourselves for.
        ours: Epoch,
        /// Who leads.
        newer: Epoch,
    },
    /// The object is not in the state the writer expected.
    #[error("{what} is at generation {found}, not as expected")]
    Conflict {
        /// Which object.
        what: String,
        /// Its present generation; 0 when it does not exist.
        found: Generation,
    },
    /// There is no such object.
    #[error("{what} does not exist")]
    Unknown {
        /// Which object.
        what: String,
    },
    /// The store itself failed (disk full, file damaged, no answer). Nothing of the call was done.
    #[error("the registry failed while trying to {doing}")]
    Store {
        /// The step that failed.
        doing: &'static str,
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A stored row is not readable: the file was written by something else or is damaged.
    #[error("the registry holds something unreadable in {table}: {detail}")]
    Damaged {
        /// The table.
        table: &'static str,
        /// What is wrong.
        detail: String,
    },
}

/// The two leaders of a cluster, each with a lease of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Owns services, instances, decisions.
    ContainerManager,
    /// Owns nodes, types, ledger, budget.
    MachineManager,
}

/// A term of leadership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Of which manager.
    pub role: Role,
    /// Its number; greater than every earlier one, at least the unix time in seconds.
    pub epoch: Epoch,
    /// Who holds it.
    pub holder: String,
    /// Until when, unless renewed.
    pub until: Timestamp,
}

/// What a writer expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Anything or nothing.
    Any,
    /// Nothing.
    Absent,
    /// Something, at any version.
    Present,
    /// Exactly this version.
    At(Generation),
}

/// A service as stored: its declaration is an opaque document, parsed by its owner at the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRow {
    /// Unique.
    pub name: ServiceName,
    /// The declaration, canonical JSON.
    pub document: String,
    /// Raised with every write of the declaration.
    pub generation: Generation,
    /// Raised when the declaration changes what instances are.
    pub revision: Revision,
    /// Removed by its owner; instances are being drained.
    pub deleting: bool,
    /// An operator holds the number of instances here.
    pub scale_hold: Option<u32>,
    /// What the planner must remember, in its own text form.
    pub memory: String,
    /// First written.
    pub created_at: Timestamp,
    /// Last written.
    pub updated_at: Timestamp,
}

/// A declaration to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePut {
    /// Unique.
    pub name: ServiceName,
    /// The declaration, canonical JSON.
    pub document: String,
    /// Whether instances of the former revision must be replaced.
    pub new_revision: bool,
    /// What must be there.
    pub expect: Expect,
}

/// All that one step of the container-manager changes, in one transaction under its epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceCommit {
    /// New and changed instances, whole.
    pub instances: Vec<Instance>,
    /// What was decided.
    pub decisions: Vec<Decision>,
    /// What the planner must remember, per service.
    pub memories: Vec<(ServiceName, String)>,
    /// Services that were deleting and have no instance left: removed for good.
    pub purged: Vec<ServiceName>,
    /// What happened.
    pub events: Vec<Event>,
}

/// All that one step of the machine-manager changes, in one transaction under its epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeCommit {
    /// New and changed nodes, whole.
    pub nodes: Vec<Node>,
    /// Lines added to the ledger.
    pub ledger: Vec<LedgerEntry>,
    /// What happened.
    pub events: Vec<Event>,
    /// What the planner must remember, in its own text form; `None`: unchanged.
    pub memory: Option<String>,
}

/// A node type as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeRow {
    /// Its unique name.
    pub name: NodeTypeName,
    /// The parsed declaration.
    pub node_type: NodeType,
    /// The declaration as it came, canonical JSON.
    pub document: String,
    /// Version.
    pub generation: Generation,
    /// Last written.
    pub updated_at: Timestamp,
}

/// The budget as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetRow {
    /// The parsed declaration.
    pub budget: Budget,
    /// The declaration as it came, canonical JSON.
    pub document: String,
    /// Last written.
    pub updated_at: Timestamp,
}

/// A one-time token for joining.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeToken {
    /// SHA-256 of the token, hex.
    pub hash: String,
    /// The type the node will have.
    pub node_type: NodeTypeName,
    /// The node it was made for, when Tally ordered it.
    pub node: Option<NodeId>,
    /// The name the node will have.
    pub name: Option<String>,
    /// Useless after.
    pub expires_at: Timestamp,
}

/// One measurement of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStat {
    /// Which node.
    pub node: NodeId,
    /// When it arrived, by the manager's clock.
    pub at: Timestamp,
    /// Used processors, thousandths.
    pub cpu_millis: u32,
    /// Used memory, bytes.
    pub memory_bytes: u64,
    /// Used disk, bytes.
    pub disk_bytes: u64,
    /// Bytes a second received.
    pub rx_bytes_per_second: u64,
    /// Bytes a second sent.
    pub tx_bytes_per_second: u64,
}

/// One measurement of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceStat {
    /// Which instance.
    pub instance: InstanceId,
    /// When it arrived, by the manager's clock.
    pub at: Timestamp,
    /// Used processors, thousandths.
    pub cpu_millis: u32,
    /// Used memory, bytes.
    pub memory_bytes: u64,
    /// Share of periods in which it was throttled, ten-thousandths.
    pub throttled_share: u32,
}

/// One point of a service's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceStat {
    /// Which service.
    pub service: ServiceName,
    /// When.
    pub at: Timestamp,
    /// Average load of ready instances, ten-thousandths; `None`: unknown.
    pub load: Option<u32>,
    /// Wanted instances.
    pub desired: u32,
    /// Ready instances.
    pub ready: u32,
    /// Starting instances.
    pub starting: u32,
    /// Draining instances.
    pub draining: u32,
    /// Requests held.
    pub queued: u32,
    /// Requests a second, thousandths.
    pub rps_milli: u64,
}

/// An event with its place in the order of all events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Grows by at least one with each event.
    pub seq: u64,
    /// The event.
    pub event: Event,
}

/// One named text kept for a role (a cluster id, the last month closed).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingRow {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// The durable record.
///
/// Promises, tested by one contract suite on every implementation:
/// - a call that answered `Ok` survives `kill -9` and power loss; one that failed did nothing;
/// - `commit_*` is one transaction, refused with [`RegistryError::Superseded`] under an old epoch;
/// - lists are sorted by id or name; histories and events by time, oldest first unless said;
/// - readers never wait for a writer.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    // ---- leadership -------------------------------------------------------------------------

    /// Takes the lease when it is free, expired, or held by `holder`; the epoch rises with every
    /// change of holder and every fresh process (`renew` keeps it). `None`: another holds it.
    async fn take_lease(
        &self,
        role: Role,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Lease>, RegistryError>;

    /// Extends a lease still held. `false`: it is lost.
    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, RegistryError>;

    /// Gives a lease back, so that another need not wait for its end.
    async fn give_back_lease(&self, lease: &Lease) -> Result<(), RegistryError>;

    // ---- services ---------------------------------------------------------------------------

    /// All services, deleting ones included.
    async fn services(&self) -> Result<Vec<ServiceRow>, RegistryError>;

    /// Stores a declaration; answers the row as it stands afterwards. Putting a deleting service
    /// revives it.
    async fn put_service(&self, put: ServicePut) -> Result<ServiceRow, RegistryError>;

    /// Marks a service as deleting.
    async fn delete_service(
        &self,
        name: &ServiceName,
        expect: Expect,
    ) -> Result<ServiceRow, RegistryError>;

    /// Sets or lifts the operator's hold.
    async fn hold_scale(
        &self,
        name: &ServiceName,
        instances: Option<u32>,
    ) -> Result<ServiceRow, RegistryError>;

    /// Raises the revision without a new declaration: every instance is replaced (`restart`).
    async fn bump_revision(&self, name: &ServiceName) -> Result<ServiceRow, RegistryError>;

    /// The declaration of one revision, kept while instances of it may live.
    async fn revision_document(
        &self,
        name: &ServiceName,
        revision: Revision,
    ) -> Result<Option<String>, RegistryError>;

    // ---- instances and decisions ------------------------------------------------------------

    /// All instances that have not stopped.
    async fn instances(&self) -> Result<Vec<Instance>, RegistryError>;

    /// One instance, stopped ones included while kept.
    async fn instance(&self, id: &InstanceId) -> Result<Option<Instance>, RegistryError>;

    /// Stopped instances of a service, newest first.
    async fn ended_instances(
        &self,
        service: &ServiceName,
        limit: usize,
    ) -> Result<Vec<Instance>, RegistryError>;

    /// Writes one step of the container-manager.
    async fn commit_instances(
        &self,
        lease: &Lease,
        commit: InstanceCommit,
    ) -> Result<(), RegistryError>;

    /// Decisions, newest first, of one service or all.
    async fn decisions(
        &self,
        service: Option<&ServiceName>,
        limit: usize,
    ) -> Result<Vec<Decision>, RegistryError>;

    // ---- nodes, types, money ----------------------------------------------------------------

    /// All nodes that have not stopped.
    async fn nodes(&self) -> Result<Vec<Node>, RegistryError>;

    /// One node, stopped ones included while kept.
    async fn node(&self, id: &NodeId) -> Result<Option<Node>, RegistryError>;

    /// Writes one step of the machine-manager.
    async fn commit_nodes(&self, lease: &Lease, commit: NodeCommit) -> Result<(), RegistryError>;

    /// What the machine-planner must remember; empty at first.
    async fn machine_memory(&self) -> Result<String, RegistryError>;

    /// All node types.
    async fn node_types(&self) -> Result<Vec<TypeRow>, RegistryError>;

    /// Stores a node type.
    async fn put_node_type(
        &self,
        node_type: NodeType,
        document: String,
        expect: Expect,
    ) -> Result<TypeRow, RegistryError>;

    /// Removes a node type.
    async fn delete_node_type(
        &self,
        name: &NodeTypeName,
        expect: Expect,
    ) -> Result<(), RegistryError>;

    /// The budget; `None` while none was set.
    async fn budget(&self) -> Result<Option<BudgetRow>, RegistryError>;

    /// Stores the budget; its generation rises.
    async fn put_budget(
        &self,
        budget: Budget,
        document: String,
        expect: Expect,
    ) -> Result<BudgetRow, RegistryError>;

    /// Ledger lines whose paid period began within `[from, until)`, oldest first.
    async fn ledger(
        &self,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<LedgerEntry>, RegistryError>;

    /// Stores a one-time token.
    async fn put_node_token(&self, token: NodeToken) -> Result<(), RegistryError>;

    /// Takes a token: it can be taken once. `None`: unknown, used or expired at `now`.
    async fn take_node_token(
        &self,
        hash: &str,
        now: Timestamp,
    ) -> Result<Option<NodeToken>, RegistryError>;

    // ---- histories --------------------------------------------------------------------------

    /// Adds measurements; what is older than the retention is dropped.
    async fn add_stats(
        &self,
        nodes: Vec<NodeStat>,
        instances: Vec<InstanceStat>,
    ) -> Result<(), RegistryError>;

    /// Adds points of services' histories; what is older than the retention is dropped.
    async fn add_service_stats(&self, stats: Vec<ServiceStat>) -> Result<(), RegistryError>;

    /// A node's measurements, oldest first, at most `limit` of the newest.
    async fn node_stats(
        &self,
        node: &NodeId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<NodeStat>, RegistryError>;

    /// An instance's measurements, oldest first, at most `limit` of the newest.
    async fn instance_stats(
        &self,
        instance: &InstanceId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<InstanceStat>, RegistryError>;

    /// A service's history, oldest first, at most `limit` of the newest.
    async fn service_stats(
        &self,
        service: &ServiceName,
        since: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<ServiceStat>, RegistryError>;

    /// Adds events outside a step (API refusals, operators' acts).
    async fn add_events(&self, events: Vec<Event>) -> Result<(), RegistryError>;

    /// Events after `seq`, oldest first.
    async fn events_after(&self, seq: u64, limit: usize)
    -> Result<Vec<StoredEvent>, RegistryError>;

    /// The newest event's number; 0 when there is none.
    async fn last_event(&self) -> Result<u64, RegistryError>;

    /// A named text.
    async fn setting(&self, name: &str) -> Result<Option<String>, RegistryError>;

    /// Stores a named text.
    async fn put_setting(&self, name: &str, value: &str) -> Result<(), RegistryError>;
}
