//! `tally proxy`: a feedback balancer between addresses, without a file and without a manager.

#![expect(clippy::print_stderr, reason = "what it does and what to do next is for people")]

mod args;
mod more;
mod routes;
mod targets;

use crate::data;
use crate::processes::UsageError;
use crate::roles::receiver::agent_door;
use crate::settings::Settings;
use anyhow::Context;
use balancer::{Balancer, Deps};
use chassis::{Identity, Listen, Metrics, Readiness, Shutdown, SystemClock};
use domain::{BalancerId, Clock, RouteMode};
use routes::Published;
use scoreboard::Board;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use targets::{Target, Targets};

pub use args::ProxyArgs;

/// The balancer has read its routes within milliseconds; beyond this something is wrong.
const READY_DEADLINE: Duration = Duration::from_secs(10);
/// For requests in hand after a signal, as for every role.
const GRACE: Duration = Duration::from_secs(40);

/// Runs until a signal.
///
/// # Errors
/// [`UsageError`] before anything is bound; others later.
pub async fn run(args: ProxyArgs) -> anyhow::Result<()> {
    let wanted = args.checked()?;
    let from = targets::listen(&args.from).await?;
    wanted.fits(from)?;
    let targets = Targets::look_up(&wanted.targets).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let settings =
        Settings { redis: args.redis.clone().unwrap_or_default(), ..Settings::default() };
    let board = data::board(&settings, &clock)?;
    let identity = match &args.data {
        Some(folder) => {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("--data: cannot make {}", folder.display()))?;
            Identity::load_or_create(folder)?
        }
        None => Identity::generate(),
    };
    let shutdown = Shutdown::new();
    let signal = shutdown.clone();
    tokio::spawn(async move { signal.on_signal().await });

    chassis::descriptors::raise();
    let mut config = wanted.config(&args, from)?;
    let mut published = Published::new(wanted.front(&args, from.port()), targets, &*clock);
    config.known = vec![published.known()];
    let id = config.id.clone();
    let deps = Deps { board: Arc::clone(&board), clock: Arc::clone(&clock), manager: None };
    let balancer = Balancer::bind(config, deps).await?;
    let from = balancer.addresses().first().copied().unwrap_or(from);
    let loads = Loads::bind(&args, &board, &clock, &identity).await?;
    let admin = balancer.admin();
    let stands = published.first(&*board).await?;

    let serving = shutdown.branch();
    let balancing = tokio::spawn(balancer.run(shutdown.clone()));
    let receiving = loads.run(&serving);
    let mode = published.mode();
    let served = async {
        if !(stands && is_used(&published, &*board, &id, &shutdown).await?) {
            eprintln!(
                "tally proxy: the scoreboard does not answer; the addresses given are served, and \
                 other proxies and reports are seen as soon as it does"
            );
        }
        if !shutdown.has_started() {
            tell(&published, &args, from, &receiving, admin.as_ref(), &identity, &id);
        }
        serving.spawn(published.keep(wanted.targets, Arc::clone(&board), serving.clone()));
        tokio::select! {
            ended = balancing => ended.context("the balancer ended badly")??,
            () = grace(&shutdown) => anyhow::bail!("requests in hand did not end in time"),
        }
        anyhow::Ok(())
    };
    let served = served.await;
    serving.start();
    serving.finished(Duration::from_secs(5)).await;
    if mode == RouteMode::Nat {
        // Nobody else knows these addresses: with the command the port ends too, however it ends.
        balancer::nat::remove(&id).await;
    }
    served?;
    if shutdown.has_started() { Ok(()) } else { anyhow::bail!("the balancer ended by itself") }
}

/// Waits until the balancer says on the board that it serves; false when the board does not answer.
async fn is_used(
    published: &Published,
    board: &dyn Board,
    id: &BalancerId,
    shutdown: &Shutdown,
) -> anyhow::Result<bool> {
    tokio::select! {
        used = tokio::time::timeout(READY_DEADLINE, published.in_use(board, id)) => match used {
            Ok(used) => used.map(|()| true),
            Err(_elapsed) => Ok(false),
        },
        () = shutdown.started() => Ok(true),
    }
}

/// Over when requests in hand have had their time after a signal.
async fn grace(shutdown: &Shutdown) {
    shutdown.started().await;
    tokio::time::sleep(GRACE).await;
}

/// Where loads are reported and told, if anywhere.
#[derive(Default)]
struct Loads {
    deps: Option<load_receiver::Deps>,
    told: Told,
}

/// The addresses of the same.
#[derive(Default)]
struct Told {
    reports: Option<SocketAddr>,
    agent: Option<SocketAddr>,
}

impl Loads {
    async fn bind(
        args: &ProxyArgs,
        board: &Arc<dyn Board>,
        clock: &Arc<dyn Clock>,
        identity: &Identity,
    ) -> anyhow::Result<Loads> {
        let (mut listeners, mut sockets, mut told) = (Vec::new(), Vec::new(), Told::default());
        if let Some(listen) = &args.load_listen {
            let listen = Listen::Tcp(targets::listen_at("--load-listen", listen).await?);
            let (listener, socket) =
                load_receiver::bind(&listen).await.map_err(anyhow::Error::msg)?;
            if let Listen::Tcp(address) = listener.local() {
                told.reports = Some(address);
            }
            listeners.push(listener);
            sockets.extend(socket);
        }
        let agents = match &args.agent_listen {
            None => Vec::new(),
            Some(listen) => {
                let listen = targets::listen_at("--agent-listen", listen).await?;
                agent_door(&listen.to_string(), &args.name).await?
            }
        };
        told.agent = agents.first().and_then(|door| door.listener.local_addr().ok());
        if listeners.is_empty() && agents.is_empty() && args.agent_port.is_none() {
            return Ok(Loads::default());
        }
        let deps = load_receiver::Deps {
            board: Arc::clone(board),
            clock: Arc::clone(clock),
            identity: Arc::new(identity.clone()),
            listeners,
            sockets,
            agents,
            metrics: Metrics::new(),
            readiness: Readiness::new(),
        };
        Ok(Loads { deps: Some(deps), told })
    }

    fn run(self, serving: &Shutdown) -> Told {
        if let Some(deps) = self.deps {
            let config = load_receiver::Config::default();
            serving.spawn(load_receiver::run(config, deps, serving.clone()));
        }
        self.told
    }
}

fn tell(
    published: &Published,
    args: &ProxyArgs,
    from: SocketAddr,
    loads: &Told,
    admin: Option<&Listen>,
    identity: &Identity,
    id: &BalancerId,
) {
    let service = &args.name;
    let scheme = if published.mode() == RouteMode::Http { "http" } else { "tcp" };
    eprintln!("tally proxy: {scheme}://{from} -> {} by {}", args.to.join(", "), published.policy());
    let remote = loads.reports.is_some_and(|at| !at.ip().is_loopback());
    for Target { instance, address } in published.targets() {
        let token = if remote {
            let token = identity.load_token(&instance.service(), instance);
            format!("  token {token}")
        } else {
            String::new()
        };
        eprintln!("  instance   {instance}  {address}{token}");
    }
    if published.mode() == RouteMode::Http {
        eprintln!("  try        curl http://{from}/");
    }
    match (loads.reports, published.targets().first()) {
        (Some(at), Some(first)) => {
            let bearer = if remote { " -H 'Authorization: Bearer TOKEN'" } else { "" };
            eprintln!(
                "  report     curl -X POST http://{at}/v1/load{bearer} -d '{{\"service\": \
                 \"{service}\", \"instance\": \"{}\", \"load\": 0.42}}'",
                first.instance
            );
            eprintln!("  total      curl 'http://{at}/v1/load?service={service}'");
        }
        _ => eprintln!(
            "  loads      from answers (endpoint-load-metrics){}, else by what is in flight; \
             --load-listen 127.0.0.1:7402 lets instances report",
            args.agent_port.map(|port| format!(", from agents at port {port}")).unwrap_or_default()
        ),
    }
    if let Some(at) = loads.agent {
        eprintln!("  HAProxy    agent-check agent-addr {} agent-port {}", at.ip(), at.port());
    }
    match admin {
        Some(admin) => eprintln!("  metrics    curl http://{admin}/metrics"),
        None => eprintln!("  metrics    with --admin 127.0.0.1:7404"),
    }
    if published.mode() == RouteMode::Nat {
        eprintln!(
            "  stop       Ctrl-C: the kernel then passes nothing on any more (after a kill -9 it \
             does, until the next start or `nft delete table inet tally-{id}`)"
        );
    } else {
        eprintln!("  stop       Ctrl-C: requests in hand are finished first");
    }
}

/// An error of the command line.
fn usage(text: impl Into<String>) -> anyhow::Error {
    UsageError(text.into()).into()
}
