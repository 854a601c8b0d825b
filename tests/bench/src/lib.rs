//! Side-by-side measurements of Tally and its best peers: what the programs of this package share.

pub mod figures;
pub mod peer;
