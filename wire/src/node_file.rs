//! `DATA/node/instances.json`: how the executor tells the transmitter which instances there are.

use crate::assignment::Limits;
use domain::{InstanceId, ServiceName};
use serde::{Deserialize, Serialize};

/// The file's whole content; replaced by an atomic rename.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct NodeFile {
    /// Sorted by id.
    pub instances: Vec<NodeFileInstance>,
}

/// One instance that runs on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFileInstance {
    /// Which one.
    pub id: InstanceId,
    /// Of which service.
    pub service: ServiceName,
    /// Its control groups: one path on v2; on v1 the paths of `cpuacct`, `cpu` and `memory`.
    #[serde(default)]
    pub cgroups: CgroupPaths,
    /// Its process, where it has no control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// `auto`, `pushed`, `header`, `cgroup` or `balancer`.
    pub load_source: String,
    /// For reporting in its name.
    pub load_token: String,
    /// Its limits.
    pub limits: Limits,
}

/// Absolute paths of control group directories; all absent: none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct CgroupPaths {
    /// The one directory of version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unified: Option<String>,
    /// Version 1: `cpuacct` (usage).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuacct: Option<String>,
    /// Version 1: `cpu` (quota, throttling).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Version 1: `memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}
