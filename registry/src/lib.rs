//! The registry: services, instances, nodes, decisions and money, kept for good.

pub mod store;

pub use store::{
    BudgetRow, Expect, InstanceCommit, InstanceStat, Lease, NodeCommit, NodeStat, NodeToken,
    Registry, RegistryError, Role, ServicePut, ServiceRow, ServiceStat, SettingRow, StoredEvent,
    TypeRow,
};
