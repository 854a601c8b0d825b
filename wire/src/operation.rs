//! What an executor did to its instances, and the end of what they wrote.

use crate::stamp::Stamp;
use domain::InstanceId;
use serde::{Deserialize, Serialize};

/// What was done; the complete list of things an executor can do to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// A process or container was started.
    Start,
    /// One that was running already was taken over.
    Adopt,
    /// The service's own stop command was run.
    StopCommand,
    /// It was asked to end, and killed at its deadline.
    Stop,
    /// Its limits were changed while it ran.
    Limit,
    /// It was frozen.
    Pause,
    /// It was thawed.
    Resume,
    /// It was to be written to disk.
    Checkpoint,
    /// Something nobody assigned was stopped.
    StopStray,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Grows by one.
    pub id: u64,
    /// When it ended.
    pub at: Stamp,
    /// On which instance.
    pub instance: InstanceId,
    /// What.
    pub verb: Verb,
    /// Whether it did what it should.
    pub ok: bool,
    /// Exit status of the command, where one was run and ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// The end of its output, or what went wrong.
    pub output: String,
    /// How long it took.
    pub took_ms: u64,
}

/// `GET /v1/operations`: the newest operations, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operations {
    /// Bounded; older ones are forgotten.
    pub items: Vec<Operation>,
}

/// `GET /v1/logs?instance=ID&lines=N`: the end of what an instance wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// Which one.
    pub instance: InstanceId,
    /// Oldest first; bytes that are no UTF-8 are replaced.
    pub lines: Vec<String>,
}
