//! Side-by-side measurements of Tally and its best peers.
