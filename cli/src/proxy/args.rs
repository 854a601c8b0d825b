//! The flags of `tally proxy`, and what they mean for the balancer.

use super::more::{More, MoreArgs};
use super::targets::Wanted;
use super::{targets, usage};
use balancer::http::access::Format;
use balancer::{AccessLog, Config};
use clap::Args;
use domain::{AgentCheck, Health, PolicyName, Revision, RouteMode, ServiceFront, ServiceName};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// `tally proxy`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Requests go where they wait least: by what each instance has in flight here, by its answers' latency
and failures, and by what it says of its load, in whatever way it can:

  in its answers     endpoint-load-metrics: TEXT application_utilization=0.42, rps_fractional=120
  by reports         --load-listen 127.0.0.1:7402, then POST /v1/load (the line to copy is printed)
  by an agent        --agent-port 9777: asked as HAProxy does, for a line such as `75% up`

Examples:

  tally proxy --from 127.0.0.1:8080 --to 127.0.0.1:9001 --to 127.0.0.1:9002
  tally proxy --from :80 --to app.internal:8080 --health /up      each address of the name is one
  tally proxy --from :5432 --to db-1:5432 --to db-2:5432 --mode tcp
  tally proxy --from :80 --to a:80 --to b:80 --redis redis://board:6379    several see each other")]
pub struct ProxyArgs {
    /// Where clients come: HOST:PORT, :PORT for every address, PORT for loopback alone.
    #[arg(long, value_name = "ADDR")]
    pub from: String,
    /// An instance: HOST:PORT. A name with several addresses is several instances, and is looked up
    /// again every few seconds.
    #[arg(long, value_name = "ADDR", required = true)]
    pub to: Vec<String>,
    /// How an instance is chosen.
    #[arg(long, default_value = "feedback", value_name = "POLICY")]
    pub policy: String,
    /// What is passed on: http (requests), tcp (bytes), nat (packets, by the kernel).
    #[arg(long, default_value = "http", value_name = "MODE")]
    pub mode: String,
    /// Path that must answer 2xx or 3xx [default: the port accepts].
    #[arg(long, value_name = "PATH")]
    pub health: Option<String>,
    /// Requests an instance gets at once; more wait.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_in_flight: u32,
    /// Requests an instance serves at load 1.0, where that is known.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: Option<u32>,
    /// Port of an agent on each instance's host, asked every two seconds.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub agent_port: Option<u16>,
    /// Where instances report their load, by HTTP and datagram.
    #[arg(long, value_name = "ADDR")]
    pub load_listen: Option<String>,
    /// Where an HAProxy in front finds an agent for all of it.
    #[arg(long, value_name = "ADDR")]
    pub agent_listen: Option<String>,
    /// Where /livez, /readyz and /metrics answer [default: nowhere].
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// Where requests are logged as JSON, `-` for standard output [default: nowhere].
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,
    /// The scoreboard to share with other proxies: redis://HOST:PORT [default: in this process].
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// The service's name on the scoreboard, in reports and in metrics.
    #[arg(long, default_value = "proxy", value_name = "NAME")]
    pub name: String,
    /// Keeps the secret of the instances' tokens over restarts [default: new ones each time].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The rarer ones.
    #[command(flatten)]
    pub more: MoreArgs,
}

/// The flags, read.
#[derive(Debug)]
pub struct Checked {
    /// Where requests go.
    pub targets: Vec<Wanted>,
    service: ServiceName,
    policy: PolicyName,
    mode: RouteMode,
    more: More,
}

impl ProxyArgs {
    /// Reads what clap cannot.
    ///
    /// # Errors
    /// Usage errors: which flag, and what to write.
    pub fn checked(&self) -> anyhow::Result<Checked> {
        let service: ServiceName =
            self.name.parse().map_err(|why| usage(format!("--name: {why}")))?;
        let policy = self.policy.parse().map_err(|why| usage(format!("--policy: {why}")))?;
        let modes = [RouteMode::Http, RouteMode::Tcp, RouteMode::Nat];
        let mode = modes.into_iter().find(|mode| mode.as_str() == self.mode);
        let mode = mode.ok_or_else(|| usage("--mode: must be http, tcp or nat"))?;
        if self.health.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err(usage("--health: must be a path that begins with /, such as /up"));
        }
        let more = self.more.checked()?;
        let targets = self.to.iter().map(|to| targets::wanted(&service, to));
        Ok(Checked {
            targets: targets.collect::<anyhow::Result<_>>()?,
            service,
            policy,
            mode,
            more,
        })
    }
}

impl Checked {
    /// Whether it can be served at this address.
    ///
    /// # Errors
    /// A port that the system chooses is no service's port.
    pub fn fits(&self, from: SocketAddr) -> anyhow::Result<()> {
        if self.mode != RouteMode::Http && from.port() == 0 {
            return Err(usage(format!("--from: mode {} needs a port", self.mode.as_str())));
        }
        Ok(())
    }

    /// The balancer's configuration.
    ///
    /// # Errors
    /// When `--admin` is no address.
    pub fn config(&self, args: &ProxyArgs, from: SocketAddr) -> anyhow::Result<Config> {
        // The same after a restart: by it the kernel's table of mode nat is found again.
        let mut config = Config::new(crate::roles::front::id("", from)?);
        config.admin = match &args.admin {
            None => None,
            Some(text) => {
                let admin = text.parse().map_err(|why| usage(format!("--admin: {why}")))?;
                Some(admin)
            }
        };
        if self.mode == RouteMode::Http {
            config.listen = vec![from];
        } else {
            (config.listen, config.hosts) = (Vec::new(), vec![from.ip()]);
        }
        let format = match args.more.log_format.as_str() {
            "common" => Format::Common,
            _ => Format::Json,
        };
        config.access_log = args.access_log.clone().map(|path| AccessLog { path, format });
        config.limits = self.more.limits.clone();
        Ok(config)
    }

    /// What is published of the service.
    #[must_use]
    pub fn front(&self, args: &ProxyArgs, port: u16) -> ServiceFront {
        let agent = args.agent_port;
        ServiceFront {
            service: self.service.clone(),
            hosts: Vec::new(),
            paths: vec!["/".to_owned()],
            mode: self.mode,
            port: (self.mode != RouteMode::Http).then_some(port),
            policy: self.policy,
            hash: self.more.hash.clone(),
            sticky: self.more.sticky.clone(),
            probe: self.more.probe.clone(),
            body_max: None,
            hold: self.more.hold.clone(),
            health: Health { path: args.health.clone(), ..Health::default() },
            agent: agent.map(|port| AgentCheck { port, interval: Duration::from_secs(2) }),
            concurrency: args.concurrency,
            max_in_flight: args.max_in_flight,
            slow_start: self.more.slow_start,
            source: None,
            load_balanced: true,
            revision: Revision(1),
            // Nobody starts an instance here: a request without any is refused at once.
            startable: false,
        }
    }
}
