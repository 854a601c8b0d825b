//! The words of Tally: ids, units, money, time, services, instances, nodes, loads, budgets.
//!
//! Floor 0: no runtime, no I/O. Everything here is right by type once it exists; text and numbers
//! from outside become these types at the edge (`FromStr`, `TryFrom`, the conversions in `wire`).

pub mod ability;
pub mod budget;
pub mod decision;
pub mod id;
pub mod instance;
pub mod load;
pub mod money;
pub mod node;
pub mod route;
pub mod service;
pub mod terms;
pub mod time;
pub mod units;

pub use ability::Ability;
pub use budget::{Budget, LedgerEntry, LedgerKind, MonthlyCap};
pub use decision::{Decision, Event, EventKind};
pub use id::{
    BalancerId, IdError, IdSource, InstanceId, NodeId, NodeTypeName, OwnerName, Revision,
    ServiceName,
};
pub use instance::{Instance, InstanceState, Tier};
pub use load::{AgentCheck, Demand, LoadReading, LoadReport, LoadSource};
pub use money::{Currency, Money, MoneyError, PricePerHour};
pub use node::{Capacity, DrainOrder, Node, NodeGroupRule, NodeState, NodeType, Pool, PoolState};
pub use route::{
    Change, HashBy, HashRule, PolicyName, Probe, RouteEntry, RouteGen, RouteMode, RouteState,
    RouteTable, ServiceFront, Sticky,
};
pub use service::{
    Band, Engine, Health, Hibernate, Hold, Isolation, Lifecycle, LoadPolicy, Mount, Needs, Replace,
    Rollout, Route, Run, ServiceGroup, ServiceSpec, SpecError, Vertical,
};
pub use terms::Terms;
pub use time::{Clock, Epoch, Generation, Mono, Timestamp};
pub use units::{Bytes, Load, MilliCpu, Resources, Share, UnitError};
