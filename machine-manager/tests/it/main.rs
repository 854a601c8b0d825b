//! The machine-manager as a whole: its loop, its API, and its providers with real processes.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod api;
mod house;
mod local;
mod manager;
