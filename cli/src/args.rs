//! The command line of `tally`: what can be said, and the help that teaches it.

use crate::client::GlobalArgs;
use crate::commands::OperatorCommand;
use crate::proxy::ProxyArgs;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Keeps services in balance by feedback.
#[derive(Debug, Parser)]
#[command(
    name = "tally",
    version,
    about = "Keeps services in balance by feedback: balancing, scaling and nodes within a cost cap",
    long_about = "Tally keeps services in balance by feedback.\n\n\
        Every instance says how loaded it is; the balancer sends each request where the score \
        says; the container-manager keeps the right number of instances; the machine-manager \
        keeps the cheapest nodes that hold them, within a monthly cap.\n\n\
        First steps:\n  \
          tally demo                     see the whole loop on this host in a minute\n  \
          tally proxy --from 8080 --to HOST:PORT --to HOST:PORT   balance what runs already\n  \
          tally up                       run every part in this process\n  \
          tally apply -f service.yaml    declare a service\n  \
          curl -H 'Host: NAME' http://127.0.0.1:8080/   use it",
    arg_required_else_help = true
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole loop on this host: real load, local nodes at made-up prices, a summary.
    Demo(DemoArgs),
    /// Run every role in this process, with this host as the first node.
    #[command(after_help = "Instances keep running when it ends; `tally down` stops them.")]
    Up(UpArgs),
    /// Drain and stop all instances and nodes of a data directory.
    Down(DataArgs),
    /// A feedback balancer between addresses, without a file and without a manager.
    Proxy(Box<ProxyArgs>),
    /// The front door alone. Needs --redis.
    Balancer(RoleArgs),
    /// The receiver of load reports alone. Needs --redis.
    LoadReceiver(RoleArgs),
    /// The manager of services and instances alone. Needs --redis.
    ContainerManager(RoleArgs),
    /// The manager of nodes and money alone.
    MachineManager(RoleArgs),
    /// The executor of a node that has joined.
    Executor(NodeRoleArgs),
    /// The transmitter of a node that has joined.
    Transmitter(NodeRoleArgs),
    /// Commands for operators.
    #[command(flatten)]
    Operator(OperatorCommand),
    /// Parent of one plain process on a node; started by the executor.
    #[command(hide = true)]
    InstanceShim {
        /// The instance's folder.
        dir: PathBuf,
    },
    /// The service that `tally demo` runs.
    #[command(hide = true)]
    DemoService(DemoServiceArgs),
}

/// `tally demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Length of the load, seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(40..=600))]
    pub seconds: u32,
    /// Print lines instead of a live view (for logs).
    #[arg(long)]
    pub plain: bool,
    /// Leave the temporary folder (logs, registry) and say where it is.
    #[arg(long)]
    pub keep: bool,
}

/// A data directory and the configuration.
#[derive(Debug, Clone, Args)]
pub struct DataArgs {
    /// Where everything durable is kept [default: ./tally-data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Configuration file (TOML) [default: TALLY_CONFIG, ./tally.toml, /etc/tally/tally.toml].
    #[arg(long, value_name = "FILE", env = "TALLY_CONFIG")]
    pub config: Option<PathBuf>,
}

/// `tally up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Data and configuration.
    #[command(flatten)]
    pub data: DataArgs,
    /// Where the balancer listens [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Keep the scoreboard in Redis or Valkey instead of in this process.
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// The registry: a file path, or sqlite:PATH [default: DATA/registry.sqlite].
    #[arg(long, value_name = "URL")]
    pub registry: Option<String>,
}

/// One control role.
#[derive(Debug, Clone, Args)]
pub struct RoleArgs {
    /// Data and configuration.
    #[command(flatten)]
    pub data: DataArgs,
    /// Where it listens (its main address).
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Address others reach it under, where that differs.
    #[arg(long, value_name = "URL")]
    pub advertise: Option<String>,
    /// The scoreboard: redis://HOST:PORT.
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// The registry: a file path, or sqlite:PATH.
    #[arg(long, value_name = "URL")]
    pub registry: Option<String>,
    /// Where the machine-manager answers (container-manager only).
    #[arg(long, value_name = "URL")]
    pub machine_manager: Option<String>,
}

/// A node's role.
#[derive(Debug, Clone, Args)]
pub struct NodeRoleArgs {
    /// The node's data directory, as `tally node join` left it.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

/// `tally demo-service`.
#[derive(Debug, Clone, Args)]
pub struct DemoServiceArgs {
    /// Port to listen on.
    #[arg(long)]
    pub port: u16,
    /// Service time of one request, ms.
    #[arg(long, default_value_t = 40)]
    pub work_ms: u64,
    /// Requests served at once.
    #[arg(long, default_value_t = 8)]
    pub concurrency: usize,
}
