//! The registry: services, instances, nodes, decisions and money, kept for good.

mod columns;
#[cfg(feature = "testing")]
pub mod contract;
mod decisions;
mod instances;
mod lease;
mod ledger;
pub mod limits;
pub mod memory;
mod nodes;
mod rules;
mod services;
pub mod sqlite;
mod stats;
pub mod store;
mod types;

pub use limits::Limits;
pub use memory::MemoryRegistry;
pub use sqlite::SqliteRegistry;
pub use store::{
    BudgetRow, Expect, InstanceCommit, InstanceStat, Lease, NodeCommit, NodeStat, NodeToken,
    Registry, RegistryError, Role, ServicePut, ServiceRow, ServiceStat, SettingRow, StoredEvent,
    TypeRow,
};
