//! The engines a node has: plain processes always, containers where a Docker daemon answers.

pub mod command;
pub mod docker;
pub mod docker_health;
pub mod docker_spec;
pub mod process;

use crate::engine::Engine;
use std::sync::Arc;
use wire::assignment::EngineKind;

/// Every engine of the node.
#[derive(Clone)]
pub struct Engines {
    /// Plain processes.
    pub process: Arc<dyn Engine>,
    /// Containers.
    pub docker: Arc<dyn Engine>,
}

impl Engines {
    /// The one of `kind`.
    #[must_use]
    pub fn of(&self, kind: EngineKind) -> &Arc<dyn Engine> {
        match kind {
            EngineKind::Process => &self.process,
            EngineKind::Docker => &self.docker,
        }
    }
}
