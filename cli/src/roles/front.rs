//! The balancer as the binary runs it.

use super::{Common, listen};
use crate::data::Data;
use crate::settings::Settings;
use anyhow::Context;
use balancer::{Balancer, Config, Deps};
use chassis::{Client, Listen, PeerUrl, Shutdown};
use domain::BalancerId;
use std::net::SocketAddr;
use std::sync::Arc;

/// A bound balancer.
pub struct Front(Balancer);

/// Binds the front door and the admin address.
///
/// # Errors
/// When an address cannot be had.
pub async fn bind(common: &Common, data: &Data, manager: PeerUrl) -> anyhow::Result<Front> {
    chassis::descriptors::raise();
    let settings = &common.settings.balancer;
    let address = address(&common.settings)?;
    let admin = listen("balancer.admin", &settings.admin)?;
    let mut config = Config::new(id(&settings.id, address)?);
    config.listen = vec![address];
    config.admin = Some(admin);
    config.workers = settings.threads;
    config.limits = settings.limits.clone();
    config.access_log = settings.access_log.clone();
    config.save = Some(data.root().join("balancer-view.json"));
    let manager = Client::new(manager).with_token(&common.identity.balancer_token());
    let deps = Deps {
        board: Arc::clone(&common.board),
        clock: Arc::clone(&common.clock),
        manager: Some(manager),
    };
    Ok(Front(Balancer::bind(config, deps).await?))
}

/// Where the balancer of these settings listens.
///
/// # Errors
/// When that is no address.
pub fn address(settings: &Settings) -> anyhow::Result<SocketAddr> {
    match listen("balancer.listen", &settings.balancer.listen)? {
        Listen::Tcp(address) => Ok(address),
        Listen::Unix(_) => anyhow::bail!("balancer.listen must be host:port"),
    }
}

/// The configured name, or one made of the host's name and the port: the same after a restart, so
/// that a balancer that comes back is not taken for a second one.
///
/// # Errors
/// When the configured name is none.
pub fn id(wanted: &str, address: SocketAddr) -> anyhow::Result<BalancerId> {
    if !wanted.is_empty() {
        return wanted.parse().context("balancer.id");
    }
    let port = address.port();
    let tail = if port == 0 { chassis::ids::secret()[..8].to_owned() } else { port.to_string() };
    let name: String = crate::host::name().chars().take(40).collect();
    format!("{name}-{tail}").parse().context("a name for this balancer")
}

impl Front {
    /// The front door, with its real port.
    ///
    /// # Errors
    /// When it has none.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        self.0.addresses().first().copied().context("the balancer has no address")
    }

    /// Its name among balancers.
    pub fn id(&self) -> BalancerId {
        self.0.id().clone()
    }

    /// Runs until the shutdown.
    ///
    /// # Errors
    /// When a worker cannot be started.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<&'static str> {
        self.0.run(shutdown).await?;
        Ok("the balancer")
    }
}
