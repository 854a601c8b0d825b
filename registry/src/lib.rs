//! The registry: services, instances, nodes, decisions and money, kept for good.

pub mod limits;
pub mod memory;
mod rules;
pub mod store;

pub use limits::Limits;
pub use memory::MemoryRegistry;
pub use store::{
    BudgetRow, Expect, InstanceCommit, InstanceStat, Lease, NodeCommit, NodeStat, NodeToken,
    Registry, RegistryError, Role, ServicePut, ServiceRow, ServiceStat, SettingRow, StoredEvent,
    TypeRow,
};
