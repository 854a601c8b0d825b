//! Runs on a node exactly what the manager assigned, and keeps it well while every manager is away.

mod cgroup;
mod diff;
mod engine;
mod engines;
mod error;
mod events;
mod health;
mod operations;
mod ports;
mod proc;
mod shim;
mod shim_log;
mod shim_space;
mod store;
#[cfg(test)]
mod testing;
mod users;

pub use engines::docker::DOCKER_HOST_DEFAULT;
pub use engines::process::ShimProgram;
pub use error::Error;
pub use shim::shim_main;
