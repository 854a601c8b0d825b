//! How a node introduces itself, and the measurements it sends afterwards.

use domain::{InstanceId, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// `POST /v1/nodes/join`: first with a one-time token, later with the node's secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// [`crate::WIRE_VERSION`].
    pub wire: u32,
    /// The one-time token; absent when rejoining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The id from the first joining; absent then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// The secret from the first joining; absent then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_secret: Option<String>,
    /// A unique name; the host's by default.
    pub name: String,
    /// Where instances answer.
    pub address: IpAddr,
    /// Where the executor answers: `http://host:port` or `unix:/path`.
    pub executor_url: String,
    /// What the node measured of itself; the type's values count where it has one.
    pub cpu_millis: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk.
    pub disk_bytes: u64,
    /// Labels of this host.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The answer to a joining.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The node's id.
    pub node: NodeId,
    /// The cluster's id.
    pub cluster: String,
    /// The container-manager's Ed25519 key, base64: executors obey it alone.
    pub public_key: String,
    /// For rejoining and for `/v1/stats`.
    pub node_secret: String,
    /// Where loads are reported: `http://host:port`.
    pub load_url: String,
    /// Where measurements go: `http://host:port` or `unix:/path`.
    pub stats_url: String,
}

/// Measurements of a node, totals where nothing else is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct NodeMeasure {
    /// Used processors, thousandths.
    pub cpu_millis: u32,
    /// Used memory, bytes.
    pub memory_bytes: u64,
    /// Used disk, bytes.
    pub disk_bytes: u64,
    /// Bytes a second received.
    pub rx_bytes_per_second: u64,
    /// Bytes a second sent.
    pub tx_bytes_per_second: u64,
}

/// Measurements of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceMeasure {
    /// Which instance.
    pub instance: InstanceId,
    /// Used processors, thousandths.
    pub cpu_millis: u32,
    /// Used memory, bytes.
    pub memory_bytes: u64,
    /// Share of periods in which it was throttled, ten-thousandths.
    #[serde(default)]
    pub throttled_share: u32,
}

/// `POST /v1/stats`, `Authorization: Bearer NODE_SECRET`, every second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsReport {
    /// [`crate::WIRE_VERSION`].
    pub wire: u32,
    /// Which node.
    pub node: NodeId,
    /// Grows with each message; older ones are dropped.
    pub seq: u64,
    /// The node.
    pub measure: NodeMeasure,
    /// Its instances, at most [`crate::assignment::ASSIGNED_INSTANCES_MAX`].
    #[serde(default)]
    pub instances: Vec<InstanceMeasure>,
}
