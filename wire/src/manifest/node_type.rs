//! The node-type manifest, as written and as the checked `NodeType`.

use super::parse::ManifestError;
use crate::quantity::{Cpu, Size, Time};
use domain::{
    Bytes, Capacity, Currency, Generation, Money, NodeType, Pool, PoolState, PricePerHour,
    Resources,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Most nodes one type may have: one cell is planned for 5,000 nodes.
const COUNT_MAX: u32 = 5000;

/// `kind: node-type`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of keys")]
pub struct NodeTypeManifest {
    /// `node-type`; may be absent in a PUT body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its unique name; in a PUT body it must equal the path's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `static`, `local`, `command`, ...
    pub provider: String,
    /// Processors.
    pub cpu: Cpu,
    /// Class of its processors; default `standard`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_class: Option<String>,
    /// Memory.
    pub memory: Size,
    /// Disk; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Size>,
    /// Default `standard`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_type: Option<String>,
    /// `0.0060 EUR`.
    pub price_per_hour: String,
    /// Default 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing_unit: Option<Time>,
    /// Default: one unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing_minimum: Option<Time>,
    /// Default 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_life: Option<Time>,
    /// Default 0s for units up to a minute, else 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_lead: Option<Time>,
    /// Default 1.
    #[serde(default = "one")]
    pub max_count: u32,
    /// Labels its nodes have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Spare nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolManifest>,
    /// Provider `command`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start_command: Vec<String>,
    /// Provider `command`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop_command: Vec<String>,
    /// Provider `command`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub list_command: Vec<String>,
}

fn one() -> u32 {
    1
}

/// `pool`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of keys")]
pub struct PoolManifest {
    /// At least this many spare nodes.
    #[serde(default)]
    pub min: u32,
    /// `running`, `stopped` (default), `suspended`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl NodeTypeManifest {
    /// The checked node type and the currency of its price.
    ///
    /// # Errors
    /// The first fault, with a JSON pointer.
    pub fn check(&self) -> Result<(NodeType, Currency), ManifestError> {
        if self.kind.as_deref().is_some_and(|k| k != "node-type") {
            return Err(ManifestError::at("/kind", "must be \"node-type\" here"));
        }
        let name = self.name.as_deref().ok_or_else(|| ManifestError::at("/name", "is missing"))?;
        let name =
            name.parse().map_err(|e: domain::IdError| ManifestError::at("/name", e.to_string()))?;
        let (price, currency) = Money::parse_with_currency(&self.price_per_hour)
            .map_err(|e| ManifestError::at("/price_per_hour", e.to_string()))?;
        if self.max_count > COUNT_MAX {
            let detail = format!("must be at most {COUNT_MAX}");
            return Err(ManifestError::at("/max_count", detail));
        }
        if self.memory.0 == Bytes(0) {
            return Err(ManifestError::at("/memory", "must be above 0"));
        }
        if self.provider == "command" && self.start_command.is_empty() {
            return Err(ManifestError::at(
                "/start_command",
                "is missing; provider command needs it",
            ));
        }
        let unit = self.billing_unit.map_or(Duration::from_secs(3600), |q| q.0.0);
        if unit < Duration::from_secs(1) {
            return Err(ManifestError::at("/billing_unit", "must be at least 1s"));
        }
        let lead_default = if unit <= Duration::from_secs(60) { 0 } else { 60 };
        let stop_lead = self.stop_lead.map_or(Duration::from_secs(lead_default), |q| q.0.0);
        if stop_lead >= unit {
            return Err(ManifestError::at("/stop_lead", "must be shorter than billing_unit"));
        }
        let node_type = NodeType {
            name,
            provider: self.provider.clone(),
            capacity: Capacity {
                resources: Resources { cpu: self.cpu.0, memory: self.memory.0 },
                disk: self.disk.map_or(Bytes(0), |q| q.0),
            },
            cpu_class: self.cpu_class.clone().unwrap_or_else(|| "standard".to_owned()),
            disk_type: self.disk_type.clone().unwrap_or_else(|| "standard".to_owned()),
            price: PricePerHour(price.0),
            billing_unit: unit,
            billing_minimum: self.billing_minimum.map_or(unit, |q| q.0.0).max(unit),
            min_life: self.min_life.map_or(Duration::ZERO, |q| q.0.0),
            stop_lead,
            max_count: self.max_count,
            labels: self.labels.clone(),
            pool: self.pool()?,
            start_command: self.start_command.clone(),
            stop_command: self.stop_command.clone(),
            list_command: self.list_command.clone(),
            generation: Generation(0),
        };
        Ok((node_type, currency))
    }

    fn pool(&self) -> Result<Pool, ManifestError> {
        let Some(pool) = &self.pool else { return Ok(Pool::default()) };
        let state = match pool.state.as_deref() {
            Some("running") => PoolState::Running,
            None | Some("stopped") => PoolState::Stopped,
            Some("suspended") => PoolState::Suspended,
            Some(_) => {
                let detail = "must be running, stopped or suspended";
                return Err(ManifestError::at("/pool/state", detail));
            }
        };
        if pool.min > self.max_count {
            return Err(ManifestError::at("/pool/min", "must not exceed max_count"));
        }
        Ok(Pool { min: pool.min, state })
    }
}
