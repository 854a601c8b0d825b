//! `tally up`: every role in one process, over the sockets they would use as six.

use crate::data::{self, Data};
use crate::down;
use crate::roles::{self, Common};
use crate::settings::Settings;
use anyhow::{Context, bail};
use chassis::{Client, Halt, Listen, PeerUrl, Shutdown, SystemClock};
use domain::{BalancerId, Clock};
use registry::Registry;
use serde_json::json;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};

/// For requests in hand and the last writes after a signal.
const GRACE: Duration = Duration::from_secs(20);

/// From the start until the managers lead: longer than a lease left behind by another.
const READY_PATIENCE: Duration = Duration::from_secs(15);

/// How fast decisions are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As documented.
    Normal,
    /// The demo's: seconds instead of minutes.
    Demo,
}

/// All roles, running.
pub struct Running {
    data: Data,
    shutdown: Shutdown,
    roles: JoinSet<anyhow::Result<&'static str>>,
    registry: Arc<dyn Registry>,
    front: SocketAddr,
    balancer: BalancerId,
    api: Listen,
    admin_token: Option<String>,
    halt: Halt,
}

/// Starts every role; they run until [`Running::stop`] or [`Running::down`].
///
/// # Errors
/// When anything cannot be had: the directory, an address, the registry.
pub async fn start(settings: &Settings, pace: Pace) -> anyhow::Result<Running> {
    let data = Data::take(settings)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let board = data::board(settings, &clock)?;
    let registry = data::registry(settings, data.root(), &clock)?;
    let identity = chassis::Identity::load_or_create(data.root())?;
    let common = Common {
        settings: settings.clone(),
        pace,
        clock,
        board,
        registry: Arc::clone(&registry),
        identity,
        alone: true,
    };
    let halt = Halt::default();
    let receiver = roles::receiver::bind(&common).await?;
    let load = receiver.ends();
    let (api, machine) = (data.socket("api"), data.socket("machine-manager"));
    let ends = roles::machines::Ends {
        listen: Listen::Unix(machine.clone()),
        containers: PeerUrl::Unix(api.clone()),
        api: format!("unix:{}", api.display()),
        load_url: receiver.base_url(),
        first: true,
    };
    let machines = roles::machines::bind(&common, &data, ends, halt.clone()).await?;
    let containers =
        roles::containers::bind(&common, &load, Some(&api), PeerUrl::Unix(machine), halt.clone())
            .await?;
    let front = roles::front::bind(&common, &data, PeerUrl::Unix(api)).await?;

    let shutdown = Shutdown::new();
    let mut running = Running {
        front: front.address()?,
        balancer: front.id(),
        api: containers.address(),
        admin_token: containers.admin_token(),
        data,
        shutdown: shutdown.clone(),
        roles: JoinSet::new(),
        registry,
        halt,
    };
    let roles = &mut running.roles;
    roles.spawn(receiver.run(shutdown.branch()));
    roles.spawn(machines.run(shutdown.branch()));
    roles.spawn(containers.run(shutdown.branch()));
    roles.spawn(front.run(shutdown.branch()));
    if let Err(error) = running.write_addresses() {
        // Only scripts that let the system choose ports miss it; a full disk must not keep the
        // front door shut.
        tracing::error!(error = %format!("{error:#}"), "run/addresses.json is not written");
    }
    Ok(running)
}

impl Running {
    /// The front door.
    pub fn front(&self) -> SocketAddr {
        self.front
    }

    /// Where the API answers.
    pub fn api(&self) -> &Listen {
        &self.api
    }

    /// The operator's token, where the API is open beyond this host.
    pub fn admin_token(&self) -> Option<&str> {
        self.admin_token.as_deref()
    }

    /// A client of the API over its unix socket.
    pub fn api_client(&self) -> Client {
        Client::new(PeerUrl::Unix(self.data.socket("api")))
    }

    /// Waits until both managers lead and answer.
    ///
    /// # Errors
    /// When they do not within [`READY_PATIENCE`], or a role ended.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let api = self.api_client();
        let answering = async {
            // The budget comes from the machine-manager through the container-manager.
            while let Err(error) = api.get::<serde_json::Value>("/v1/budget", READY_PATIENCE).await
            {
                tracing::debug!(%error, "not ready yet");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ready = async {
            let slow = "the managers do not answer; is the disk slow, or do others lead?";
            tokio::time::timeout(READY_PATIENCE, answering).await.context(slow)
        };
        tokio::select! {
            ended = self.roles.join_next() => match ended {
                Some(ended) => bail!("{} ended by itself", name_of(ended)?),
                None => bail!("nothing runs"),
            },
            ready = ready => ready,
        }
    }

    /// The registry, for reading.
    pub fn registry(&self) -> Arc<dyn Registry> {
        Arc::clone(&self.registry)
    }

    /// The data directory.
    pub fn data(&self) -> &std::path::Path {
        self.data.root()
    }

    /// For scripts and tests that let the system choose ports.
    fn write_addresses(&self) -> anyhow::Result<()> {
        let run = self.data.root().join("run");
        let (draft, path) = (run.join(".addresses.json"), run.join("addresses.json"));
        let api = match &self.api {
            Listen::Tcp(address) => format!("http://{address}"),
            unix @ Listen::Unix(_) => unix.to_string(),
        };
        let value = json!({
            "front": self.front.to_string(),
            "api": api,
            "pid": std::process::id(),
        });
        fs::write(&draft, value.to_string()).context("writing the addresses")?;
        fs::rename(&draft, &path).context("writing the addresses")
    }

    /// Runs until a role ends (an error) or `until` does.
    ///
    /// # Errors
    /// The role's.
    pub async fn wait(&mut self, until: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::select! {
            ended = self.roles.join_next() => match ended {
                Some(ended) => bail!("{} ended by itself", name_of(ended)?),
                None => Ok(()),
            },
            () = until => Ok(()),
        }
    }

    /// Ends the roles; instances and nodes stay.
    ///
    /// # Errors
    /// When a role does not end in time or ended badly.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.start();
        let all = async {
            while let Some(ended) = self.roles.join_next().await {
                name_of(ended)?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(GRACE, all).await.context("a role did not end in time")??;
        let _gone_already = fs::remove_file(self.data.root().join("run/addresses.json"));
        Ok(())
    }

    /// Drains and stops every instance, then every node of this host, then the roles.
    ///
    /// # Errors
    /// When something is left; it says what.
    pub async fn down(self) -> anyhow::Result<()> {
        let drained = down::drain(&self.registry, &self.halt).await;
        let nodes = match drained {
            Ok(()) => down::stop_nodes(&self.registry, &self.api_client()).await,
            Err(error) => Err(error),
        };
        let balancer = self.balancer.clone();
        let stopped = self.stop().await;
        // Mode nat outlives its balancer; not the instances it leads to.
        balancer::nat::remove(&balancer).await;
        nodes.and(stopped)
    }
}

fn name_of(ended: Result<anyhow::Result<&'static str>, JoinError>) -> anyhow::Result<&'static str> {
    ended.context("a role broke")?
}
