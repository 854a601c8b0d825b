//! One role as a process of its own: what it needs from outside, and what is refused.

use crate::args::RoleArgs;
use crate::data::{self, Data};
use crate::roles::{self, Common};
use crate::settings::Settings;
use crate::up::Pace;
use anyhow::Context;
use chassis::telemetry::{self, LogFormat};
use chassis::{Halt, Identity, PeerUrl, Shutdown, SystemClock};
use container_manager::LoadEnds;
use domain::Clock;
use std::sync::Arc;
use std::time::Duration;

/// For requests in hand after a signal.
const GRACE: Duration = Duration::from_secs(40);

/// Which role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The front door.
    Balancer,
    /// Where loads are reported.
    LoadReceiver,
    /// Services and instances.
    ContainerManager,
    /// Nodes and money.
    MachineManager,
}

/// Something on the command line cannot be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

impl Role {
    fn key(self) -> &'static str {
        match self {
            Role::Balancer => "balancer.listen",
            Role::LoadReceiver => "load_receiver.listen",
            Role::ContainerManager => "container_manager.api",
            Role::MachineManager => "machine_manager.api",
        }
    }

    fn advertise_key(self) -> Option<&'static str> {
        match self {
            Role::Balancer => None,
            Role::LoadReceiver => Some("load_receiver.advertise"),
            Role::ContainerManager => Some("container_manager.advertise"),
            Role::MachineManager => Some("machine_manager.advertise"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Role::Balancer => "balancer",
            Role::LoadReceiver => "load-receiver",
            Role::ContainerManager => "container-manager",
            Role::MachineManager => "machine-manager",
        }
    }
}

/// Runs one role until a signal.
///
/// # Errors
/// [`UsageError`] and configuration errors before anything is bound; others later.
pub async fn run(role: Role, args: RoleArgs, api: Option<String>) -> anyhow::Result<()> {
    let api_of_others = if role == Role::ContainerManager { None } else { api.clone() };
    let mut flags = vec![
        (role.key(), args.listen.clone()),
        ("redis", args.redis.clone()),
        ("registry", args.registry.clone()),
    ];
    if role == Role::ContainerManager && args.listen.is_none() {
        flags.push(("container_manager.api", api));
    }
    if let Some(key) = role.advertise_key() {
        flags.push((key, args.advertise.clone()));
    }
    let settings = Settings::load(&args.data, &flags)?;
    if settings.redis.is_empty() && role != Role::MachineManager {
        return Err(UsageError(format!(
            "`tally {}` needs --redis URL: a scoreboard in memory lives inside one process only; \
             `tally up` runs every role in one",
            role.name()
        ))
        .into());
    }
    if let Err(why) = telemetry::init(&settings.log, LogFormat::Auto) {
        return Err(UsageError(why).into());
    }
    let data = Data::share(&settings)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let common = Common {
        board: data::board(&settings, &clock)?,
        registry: data::registry(&settings, data.root(), &clock)?,
        identity: Identity::load_or_create(data.root())?,
        settings,
        pace: Pace::Normal,
        clock,
        alone: false,
    };
    let shutdown = Shutdown::new();
    let signal = shutdown.clone();
    tokio::spawn(async move { signal.on_signal().await });
    let ended = Box::pin(start(role, &args, api_of_others, &common, &data, shutdown.clone()));
    let ended = async { tokio::spawn(ended.await?).await? };
    tokio::select! {
        ended = ended => { ended?; }
        () = async { shutdown.started().await; tokio::time::sleep(GRACE).await; } => {
            anyhow::bail!("{} did not end in time", role.name());
        }
    }
    if shutdown.has_started() { Ok(()) } else { anyhow::bail!("{} ended by itself", role.name()) }
}

type Work = futures_util::future::BoxFuture<'static, anyhow::Result<&'static str>>;

async fn start(
    role: Role,
    args: &RoleArgs,
    api: Option<String>,
    common: &Common,
    data: &Data,
    shutdown: Shutdown,
) -> anyhow::Result<Work> {
    let settings = &common.settings;
    Ok(match role {
        Role::Balancer => {
            let manager = peer("--api", api.as_deref(), &settings.container_manager.api)?;
            let front = roles::front::bind(common, data, manager).await?;
            tracing::info!(listen = %front.address()?, "the balancer is up");
            Box::pin(front.run(shutdown))
        }
        Role::LoadReceiver => {
            let receiver = roles::receiver::bind(common).await?;
            tracing::info!(url = receiver.base_url(), "the load-receiver is up");
            Box::pin(receiver.run(shutdown))
        }
        Role::ContainerManager => {
            let machines = args.machine_manager.as_deref();
            let machines = peer("--machine-manager", machines, &settings.machine_manager.api)?;
            let ends = load_ends(settings);
            let halt = Halt::default();
            let manager = roles::containers::bind(common, &ends, None, machines, halt).await?;
            tracing::info!(listen = %manager.address(), "the container-manager is up");
            Box::pin(manager.run(shutdown))
        }
        Role::MachineManager => {
            let containers = peer("--api", api.as_deref(), &settings.container_manager.api)?;
            let listen = roles::machines::configured(common)?;
            let advertised = &settings.container_manager.advertise;
            let ends = roles::machines::Ends {
                api: if advertised.is_empty() {
                    containers.to_string()
                } else {
                    advertised.clone()
                },
                load_url: format!("http://{}", load_ends(settings).address),
                containers,
                listen,
                first: false,
            };
            let manager = roles::machines::bind(common, data, ends, Halt::default()).await?;
            Box::pin(manager.run(shutdown))
        }
    })
}

/// Where another role answers: the flag, else its configured address.
fn peer(flag: &str, told: Option<&str>, configured: &str) -> anyhow::Result<PeerUrl> {
    let text = told.unwrap_or(configured);
    text.parse().map_err(|why: String| UsageError(format!("{flag}: {why}"))).context("an address")
}

/// What instances are told of the load-receiver.
fn load_ends(settings: &Settings) -> LoadEnds {
    let receiver = &settings.load_receiver;
    let told = if receiver.advertise.is_empty() { &receiver.listen } else { &receiver.advertise };
    LoadEnds { url: format!("http://{told}/v1/load"), address: told.clone() }
}
