//! Which instance gets this request: the pure decision.
//!
//! Everything is a function of what is handed in: views of the instances, the time, a small
//! generator of chance. The balancer and the simulator run this very code.

pub mod capacity;
pub mod crowd;
pub mod hash;
pub mod nat;
pub mod outlier;
pub mod pick;
pub mod prequal;
pub mod retry;
pub mod rng;
pub mod score;
pub mod view;

pub use capacity::Capacity;
pub use crowd::Crowd;
pub use outlier::{Ejection, Standing};
pub use pick::{Ask, NoPick, Picker};
pub use prequal::Probe;
pub use retry::Budget;
pub use rng::Rng;
pub use score::cost;
pub use view::{Candidates, Field, Glance, Latency, Others, Outcomes, Reported, View};
