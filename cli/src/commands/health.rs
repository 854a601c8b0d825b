//! `tally health`: asks the parts whether they are ready; made for people and for health checks of
//! containers.

use crate::client::{API_DEFAULT, Failure, GlobalArgs, Output};
use crate::show;
use bytes::Bytes;
use chassis::config;
use chassis::peer::{Client, PeerUrl};
use clap::{Args, ValueEnum};
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// A part that is ready says so from memory.
const ASK_DEADLINE: Duration = Duration::from_secs(3);

/// A part that can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The front door.
    Balancer,
    /// The receiver of load reports.
    LoadReceiver,
    /// The manager of services and instances; it serves the API.
    ContainerManager,
    /// The manager of nodes and money.
    MachineManager,
    /// The executor of this node.
    Executor,
    /// The transmitter of this node; it has no address of its own, so say --url.
    Transmitter,
}

impl Role {
    /// The parts that `tally up` opens an address for.
    const OPEN: [Role; 3] = [Role::ContainerManager, Role::LoadReceiver, Role::Balancer];

    /// Name, the variable that moves its address, and the default address.
    fn known(self) -> (&'static str, &'static str, Option<&'static str>) {
        match self {
            Role::Balancer => ("balancer", "TALLY_BALANCER__ADMIN", Some("127.0.0.1:7404")),
            Role::LoadReceiver => {
                ("load-receiver", "TALLY_LOAD_RECEIVER__LISTEN", Some("127.0.0.1:7402"))
            }
            Role::ContainerManager => ("container-manager", "TALLY_API", Some(API_DEFAULT)),
            Role::MachineManager => {
                ("machine-manager", "TALLY_MACHINE_MANAGER__API", Some("127.0.0.1:7401"))
            }
            Role::Executor => ("executor", "TALLY_EXECUTOR__LISTEN", Some("127.0.0.1:7403")),
            Role::Transmitter => ("transmitter", "TALLY_TRANSMITTER__LISTEN", None),
        }
    }
}

/// What `tally health --help` teaches.
pub const HELP: &str = "Ask the parts whether they are ready (GET /readyz). Exit code 0: all that \
    were asked are; 1: one is not, or does not answer.\n\n\
    Without a role, the parts of `tally up` are asked.\n\n\
    Examples:\n  \
      tally health\n  \
      tally health balancer\n  \
      tally health machine-manager --url unix:tally-data/run/machine-manager.sock";

/// `tally health`.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// Which part.
    #[arg(value_enum)]
    pub role: Option<Role>,
    /// Where it answers, if not at its default address.
    #[arg(long, value_name = "URL", requires = "role")]
    pub url: Option<PeerUrl>,
}

/// Carries it out.
///
/// # Errors
/// `Usage` when an address is none.
pub async fn run(args: &HealthArgs, global: &GlobalArgs) -> Result<ExitCode, Failure> {
    let roles = args.role.map_or_else(|| Role::OPEN.to_vec(), |role| vec![role]);
    let mut answers = Vec::new();
    for role in roles {
        answers.push(ask(role, args, global).await?);
    }
    let well = answers.iter().all(|a| a.get("ready") == Some(&Value::Bool(true)));
    let body = json!({ "ok": well, "parts": answers });
    match global.output() {
        Output::Json => show::line(&show::json(&body)),
        Output::Yaml => show::line(show::yaml(&body)?.trim_end()),
        Output::Table | Output::Wide | Output::Name => {
            for answer in &answers {
                let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
                show::line(&format!("{}: {}", text("role"), text("detail")));
            }
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn ask(role: Role, args: &HealthArgs, global: &GlobalArgs) -> Result<Value, Failure> {
    let (name, variable, address) = role.known();
    let flag = if role == Role::ContainerManager { global.api.clone() } else { None };
    let peer = match &args.url {
        Some(url) => url.clone(),
        None => flag
            .or_else(|| config::env(variable))
            .or_else(|| address.map(str::to_owned))
            .ok_or_else(|| Failure::usage(format!("the {name} has no default address; say --url")))?
            .parse()
            .map_err(Failure::usage)?,
    };
    let client = Client::new(peer.clone());
    let asked =
        client.call(Method::GET, "/readyz", HeaderMap::new(), Bytes::new(), ASK_DEADLINE).await;
    let (ready, detail) = match asked {
        Ok(answer) => {
            let text = String::from_utf8_lossy(&answer.body);
            let lines: Vec<String> = text.lines().take(20).map(show::printable).collect();
            let ready = answer.status.is_success();
            let words =
                if ready { "ready".to_owned() } else { format!("not ready: {}", lines.join("; ")) };
            (ready, words)
        }
        Err(error) => (false, format!("not ready: {error}")),
    };
    Ok(json!({ "role": name, "url": peer.to_string(), "ready": ready, "detail": detail }))
}
