//! Policies against policies: the same arrivals and the same work for every contender at once.

mod churn;
pub mod contender;
pub mod run;
pub mod table;
pub mod workload;

pub use contender::Contender;
pub use run::{Field, Run};
pub use workload::Workload;
