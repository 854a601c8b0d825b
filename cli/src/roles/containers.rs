//! The container-manager as the binary runs it.

use super::{Common, holder, listen};
use crate::up::Pace;
use anyhow::bail;
use chassis::{Client, Halt, Listen, Listener, Metrics, PeerUrl, RandomIds, Readiness, Shutdown};
use container_manager::{Config, Deps, HttpPlacements, LoadEnds, Policy};
use std::path::Path;
use std::sync::Arc;

/// A bound container-manager.
pub struct Containers {
    config: Config,
    deps: Deps,
    address: Listen,
    admin_token: Option<String>,
}

/// Binds the API, and its unix socket where one is named.
///
/// # Errors
/// When an address cannot be had, or the API would be open to others without credentials.
pub async fn bind(
    common: &Common,
    load: &LoadEnds,
    socket: Option<&Path>,
    machines: PeerUrl,
    halt: Halt,
) -> anyhow::Result<Containers> {
    let wanted = listen("container_manager.api", &common.settings.container_manager.api)?;
    let api = Listener::bind(&wanted).await.map_err(anyhow::Error::msg)?;
    let address = api.local();
    let mut listeners = vec![api];
    if let Some(socket) = socket {
        let listen = Listen::Unix(socket.to_owned());
        listeners.push(Listener::bind(&listen).await.map_err(anyhow::Error::msg)?);
    }
    let admin_token = (!address.is_local()).then(|| common.identity.admin_token().to_owned());
    if admin_token.as_deref() == Some("") {
        bail!("the API at {address} would be open to others, and the identity holds no token");
    }
    let mut config = Config::new(holder("container-manager", common, &wanted), load.clone());
    config.policy = policy(common.pace);
    config.halt = halt;
    let token = common.identity.admin_token();
    let deps = Deps {
        board: Arc::clone(&common.board),
        registry: Arc::clone(&common.registry),
        placements: Arc::new(HttpPlacements::new(Client::new(machines).with_token(token))),
        executors: None,
        clock: Arc::clone(&common.clock),
        ids: Box::new(RandomIds),
        identity: common.identity.clone(),
        api: listeners,
        metrics: Metrics::new(),
        readiness: Readiness::new(),
    };
    Ok(Containers { config, deps, address, admin_token })
}

/// The planner's constants; the demo's are printed by the demo.
fn policy(pace: Pace) -> Policy {
    match pace {
        Pace::Normal => Policy::default(),
        Pace::Demo => Policy::demo(),
    }
}

impl Containers {
    /// Where the API answers.
    pub fn address(&self) -> Listen {
        self.address.clone()
    }

    /// The operator's token, where others can reach the API.
    pub fn admin_token(&self) -> Option<String> {
        self.admin_token.clone()
    }

    /// Runs until the shutdown.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<&'static str> {
        container_manager::run(self.config, self.deps, shutdown).await?;
        Ok("the container-manager")
    }
}
