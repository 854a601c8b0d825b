//! Each role as the binary runs it: bound first, run later, so that nothing starts half.

pub mod containers;
pub mod front;
pub mod machines;
pub mod receiver;

use crate::processes::UsageError;
use crate::settings::Settings;
use crate::up::Pace;
use chassis::{Identity, Listen};
use domain::Clock;
use registry::Registry;
use scoreboard::Board;
use std::sync::Arc;

/// What every role of one process shares.
#[derive(Clone)]
pub struct Common {
    /// The configuration.
    pub settings: Settings,
    /// How fast decisions are made.
    pub pace: Pace,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The one board.
    pub board: Arc<dyn Board>,
    /// The one registry.
    pub registry: Arc<dyn Registry>,
    /// The cluster's secrets.
    pub identity: Identity,
    /// Whether this process holds the data directory alone.
    pub alone: bool,
}

/// Reads an address of the configuration.
///
/// # Errors
/// Naming the key.
pub fn listen(key: &str, text: &str) -> anyhow::Result<Listen> {
    text.parse().map_err(|why| UsageError(format!("{key}: {why}")).into())
}

/// A role's name in its lease: the same after a restart, so that nobody waits for the old lease to
/// run out. The data directory's lock, or the address, keeps others from using it meanwhile.
pub fn holder(role: &str, common: &Common, listen: &Listen) -> String {
    let host = crate::host::name();
    if common.alone { format!("{role} of {host}") } else { format!("{role} of {host} at {listen}") }
}
