//! Where instances go, which nodes to buy and what may be spent: the pure decision.
//!
//! [`plan`] is a function of a [`Snapshot`] and a [`Policy`]; it has no clock, no chance and no
//! effects. [`check`] reads its result as someone who distrusts it.

pub mod account;
pub mod admit;
pub mod books;
pub mod carry;
pub mod check;
pub mod consolidate;
pub mod fit;
pub mod health;
pub mod memory;
pub mod month;
pub mod order;
pub mod place;
pub mod plan;
pub mod planner;
pub mod policy;
pub mod purse;
pub mod renew;
pub mod room;
pub mod snapshot;
pub mod tell;
pub mod words;

pub use account::Account;
pub use admit::{admit_cap, admit_minimum, admit_protection};
pub use books::Books;
pub use check::{Violation, check};
pub use month::{Month, date};
pub use plan::{Grant, Order, Plan, Refusal, Report, Transition, Waiting, Why};
pub use planner::plan;
pub use policy::Policy;
pub use snapshot::{Memory, Minimum, NodeView, Placed, Requested, Snapshot, StopWanted, Wanted};
