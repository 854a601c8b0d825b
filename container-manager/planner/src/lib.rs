//! How many instances, which go and which come: the pure decision.
//!
//! [`plan`] turns a [`Snapshot`] into a [`Plan`] without clock, chance or I/O; [`check`] reads the
//! result again and shares no helper with it. What a decision must remember lives in [`Memory`],
//! goes out with the plan and comes back with the next snapshot.

pub mod check;
pub mod demand;
pub mod guard;
pub mod lifecycle;
pub mod memory;
pub mod plan;
pub mod policy;
pub mod replicas;
pub mod report;
pub mod rollout;
pub mod routes;
pub mod snapshot;
pub mod windows;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod world;

pub use check::{Violation, check};
pub use memory::{Memory, MemoryError};
pub use plan::{Plan, ServicePlan, StartAsk, StopAsk, plan};
pub use policy::Policy;
pub use report::{HeldBack, ServiceReport};
pub use snapshot::{
    Grant, InstanceView, NodeView, Observed, ObservedState, Reading, ServiceView, Snapshot,
    WaitWhy, Waiting,
};
