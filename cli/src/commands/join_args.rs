//! The arguments of `tally node join`, which makes this host a node.

use clap::Args;
use std::net::IpAddr;
use std::path::PathBuf;

/// `tally node join`.
#[derive(Debug, Clone, Args)]
pub struct JoinArgs {
    /// Address of the API to join [default: TALLY_API].
    #[arg(long, value_name = "URL")]
    pub api: Option<String>,
    /// The one-time token from `tally node token`.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub token: Option<String>,
    /// A file that holds the one-time token, so that it does not show in process lists.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The node's unique name [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Address under which other hosts reach this node's instances.
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Where the node keeps its state.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where the executor listens: `host:port` or `unix:/path`.
    #[arg(long, value_name = "ADDR")]
    pub executor_listen: Option<String>,
    /// Ports for instances, first-last [default: 20000-29999].
    #[arg(long = "executor-ports", alias = "ports", value_name = "FIRST-LAST")]
    pub ports: Option<String>,
    /// A label of this node, `key=value`; may be said several times.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
}
