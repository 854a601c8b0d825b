//! Side-by-side measurements of Tally and its best peers: what the programs of this package share.

pub mod answer;
pub mod args;
pub mod bars;
pub mod feedback;
pub mod figures;
pub mod machine;
pub mod openloop;
pub mod peer;
pub mod proxies;
pub mod receiver;
pub mod side;
pub mod sleep;
pub mod template;
