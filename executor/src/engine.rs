//! What runs instances: the seam between the executor and containers or plain processes.

use crate::error::EngineError;
use async_trait::async_trait;
use domain::InstanceId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use wire::assignment::{AssignedInstance, Limits};
use wire::node_file::CgroupPaths;

/// What an engine needs to start an instance.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// What was assigned.
    pub instance: &'a AssignedInstance,
    /// The instance's port on the node.
    pub port: u16,
    /// Tally's own variables; the instance's own ones come on top.
    pub env: BTreeMap<String, String>,
}

/// A running instance, as its engine knows it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The shim's process, or the container's first one.
    pub pid: i32,
    /// When that process started, clock ticks since boot; 0 where the engine watches by name.
    pub start_time: u64,
    /// Where it is to be probed.
    pub probe: SocketAddr,
    /// Its control groups.
    pub cgroups: CgroupPaths,
    /// What it runs without, in words.
    pub missing: Vec<String>,
    /// Whether the engine runs a check of the instance's own ([`Engine::own_check`]).
    pub checked: bool,
}

/// What an instance's own check says, as its engine knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnCheck {
    /// It is well, or has no such check.
    Well,
    /// It is not, or not yet. In words.
    Unwell(String),
    /// The engine does not answer. In words.
    Unknown(String),
}

/// Something that runs without having been started by this executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// How it is known again.
    pub running: Running,
    /// Whether it can be taken over; if not, its supervisor is gone and it can only be ended.
    pub whole: bool,
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// In words.
    pub text: String,
    /// Exit code, when it ended by itself.
    pub code: Option<i32>,
    /// Whether trying again is pointless.
    pub permanent: bool,
}

/// How a stop command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandEnd {
    /// Exit code, when it ended by itself and in time.
    pub code: Option<i32>,
    /// The end of its output, or why there is none.
    pub output: String,
}

/// Bytes of output kept of a command.
pub const OUTPUT_BYTES_KEPT: usize = 4 << 10;

/// Runs instances of one kind. Every call is bounded in time and safe to repeat.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Starts an instance; one of the same id that still runs is taken over.
    ///
    /// # Errors
    /// With a sentence for the owner of the service.
    async fn start(&self, start: &Start<'_>) -> Result<Running, EngineError>;

    /// What runs on this node in this engine, whoever started it.
    ///
    /// # Errors
    /// When the engine does not answer.
    async fn found(&self) -> Result<BTreeMap<InstanceId, Found>, EngineError>;

    /// Waits for the end of an instance. May be dropped and called again.
    async fn wait(&self, id: &InstanceId, running: &Running) -> Exit;

    /// What the instance's own check says, where [`Running::checked`].
    async fn own_check(&self, _id: &InstanceId) -> OwnCheck {
        OwnCheck::Well
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// When it could not be asked; it may have ended.
    async fn terminate(&self, id: &InstanceId, running: &Running) -> Result<(), EngineError>;

    /// Kills all of it.
    ///
    /// # Errors
    /// When something of it still lives.
    async fn kill(&self, id: &InstanceId, running: &Running) -> Result<(), EngineError>;

    /// Runs the service's stop command (`argv`, filled in) for at most `limit`.
    async fn stop_command(
        &self,
        start: &Start<'_>,
        running: &Running,
        argv: &[String],
        limit: Duration,
    ) -> CommandEnd;

    /// Changes the limits of a running instance.
    ///
    /// # Errors
    /// Which limit did not change.
    async fn limit(&self, id: &InstanceId, limits: Limits) -> Result<(), EngineError>;

    /// Freezes or thaws it.
    ///
    /// # Errors
    /// When this host cannot.
    async fn freeze(&self, id: &InstanceId, frozen: bool) -> Result<(), EngineError>;

    /// Removes what an ended instance leaves behind in the engine.
    async fn clear(&self, id: &InstanceId);

    /// The last `lines` lines of its output, oldest first.
    ///
    /// # Errors
    /// When there is none.
    async fn logs(&self, id: &InstanceId, lines: usize) -> Result<Vec<String>, EngineError>;
}

/// Fills `{port}`, `{instance}`, `{service}` and `{address}` into arguments. Values have no
/// spaces or quotes, and no shell sees them.
#[must_use]
pub fn fill(arguments: &[String], start: &Start<'_>, port: u16, address: &str) -> Vec<String> {
    let one = |argument: &String| {
        argument
            .replace("{port}", &port.to_string())
            .replace("{instance}", start.instance.id.as_str())
            .replace("{service}", start.instance.service.as_str())
            .replace("{address}", address)
    };
    arguments.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_wherever_they_stand() {
        let instance = crate::testing::instance("shop");
        let start = Start { instance: &instance, port: 1, env: BTreeMap::new() };
        let given = ["--port={port}", "{instance}", "{unknown} {port}{port}"].map(String::from);
        let filled = fill(&given, &start, 80, "127.0.0.1");
        assert_eq!(filled[0], "--port=80");
        assert_eq!(filled[1], instance.id.as_str());
        assert_eq!(filled[2], "{unknown} 8080");
    }
}
