//! Decisions by table and by counting: small worlds, and what the planner says about them.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod decisions;
mod fit;
mod nodes;
mod scene;
mod stranger;
