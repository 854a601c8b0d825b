//! Manifests: what an owner or an operator declares, in YAML, TOML or JSON with the same keys.

mod budget;
mod node_type;
mod parse;
mod route;
mod service;
mod service_spec;
#[cfg(test)]
mod tests;

pub use budget::BudgetManifest;
pub use node_type::{NodeTypeManifest, PoolManifest};
pub use parse::{Format, MANIFEST_BYTES_MAX, Manifest, ManifestError, from_value, parse_text};
pub use route::{
    BodyMax, HashManifest, HoldManifest, ProbeManifest, RouteManifest, StickyManifest,
};
pub use service::{
    AgentManifest, HealthManifest, LifecycleManifest, LoadManifest, MountManifest, NeedsManifest,
    ResourcesManifest, RolloutManifest, RunManifest, ServiceManifest, VerticalManifest,
};
