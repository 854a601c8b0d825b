//! The load-receiver as the binary runs it.

use super::{Common, listen};
use anyhow::Context;
use chassis::{Listen, Listener, Metrics, Readiness, Shutdown};
use container_manager::LoadEnds;
use load_receiver::AgentDoor;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::UdpSocket;

/// A bound load-receiver.
pub struct Receiver {
    deps: load_receiver::Deps,
    ends: LoadEnds,
}

/// Binds HTTP and datagrams, on the Docker bridge's gateway too, where there is one: containers
/// reach this host there.
///
/// # Errors
/// When an address cannot be had.
pub async fn bind(common: &Common) -> anyhow::Result<Receiver> {
    let settings = &common.settings.load_receiver;
    let wanted = listen("load_receiver.listen", &settings.listen)?;
    let (listener, socket) = load_receiver::bind(&wanted).await.map_err(anyhow::Error::msg)?;
    let Listen::Tcp(bound) = listener.local() else {
        anyhow::bail!("load_receiver.listen must be host:port, so that instances can reach it");
    };
    let told = if settings.advertise.is_empty() {
        bound
    } else {
        settings.advertise.parse::<SocketAddr>().context("load_receiver.advertise")?
    };
    let ends = LoadEnds { url: format!("http://{told}/v1/load"), address: told.to_string() };
    let mut deps = load_receiver::Deps {
        board: Arc::clone(&common.board),
        clock: Arc::clone(&common.clock),
        identity: Arc::new(common.identity.clone()),
        listeners: vec![listener],
        sockets: socket.into_iter().collect(),
        agents: agent_door(&settings.agent_listen, &settings.agent_service).await?,
        metrics: Metrics::new(),
        readiness: Readiness::new(),
    };
    if bound.ip().is_loopback() {
        for (listener, socket) in on_bridges(bound.port()).await {
            deps.listeners.push(listener);
            deps.sockets.extend(socket);
        }
    }
    Ok(Receiver { deps, ends })
}

/// The port at which `HAProxy` finds its agent, where there is one.
///
/// # Errors
/// When the address or the name cannot be, or the address cannot be had.
pub async fn agent_door(listen: &str, service: &str) -> anyhow::Result<Vec<AgentDoor>> {
    if listen.is_empty() {
        return Ok(Vec::new());
    }
    let service = match service {
        "" => None,
        name => Some(name.parse().context("load_receiver.agent_service")?),
    };
    let bound = tokio::net::TcpListener::bind(listen).await;
    let listener = bound.with_context(|| {
        format!("load_receiver.agent_listen: cannot listen on {listen}; choose another HOST:PORT")
    })?;
    Ok(vec![AgentDoor { listener, service }])
}

/// Container bridges by their usual names.
const BRIDGES: [&str; 2] = ["docker0", "podman0"];

async fn on_bridges(port: u16) -> Vec<(Listener, Option<UdpSocket>)> {
    let mut bound = Vec::new();
    for address in BRIDGES.iter().filter_map(|name| gateway_of(name)) {
        let listen = Listen::Tcp(SocketAddr::new(address, port));
        match load_receiver::bind(&listen).await {
            Ok(both) => bound.push(both),
            Err(why) => tracing::warn!(%why, "containers on this bridge cannot report their load"),
        }
    }
    bound
}

/// The IPv4 address of a bridge, out of the kernel's routing table: the local address of the
/// interface whose subnet it routes.
fn gateway_of(bridge: &str) -> Option<IpAddr> {
    let routes = std::fs::read_to_string("/proc/net/route").ok()?;
    let line = routes.lines().find(|line| line.split('\t').next() == Some(bridge))?;
    let mut words = line.split('\t').skip(1);
    let network = u32::from_str_radix(words.next()?, 16).ok()?;
    // The table is in the host's byte order; a bridge's gateway is its network's first address.
    let [a, b, c, d] = network.to_le_bytes();
    let first = u32::from_be_bytes([a, b, c, d]).checked_add(1)?;
    Some(IpAddr::from(first.to_be_bytes()))
}

impl Receiver {
    /// What instances are told.
    pub fn ends(&self) -> LoadEnds {
        self.ends.clone()
    }

    /// What nodes are told: `http://host:port`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.ends.address)
    }

    /// Runs until the shutdown.
    ///
    /// # Errors
    /// None: what fails is logged and counted.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<&'static str> {
        load_receiver::run(load_receiver::Config::default(), self.deps, shutdown).await;
        Ok("the load-receiver")
    }
}
