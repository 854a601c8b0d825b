//! The configuration file's shape: every key, its default and what it does.

use crate::args::DataArgs;
use chassis::config::{self, ConfigError};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything that can be configured. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where everything durable is kept.
    pub data: String,
    /// The scoreboard: `redis://HOST:PORT`; empty: in this process.
    pub redis: String,
    /// The registry: `sqlite:PATH` or a path; empty: `DATA/registry.sqlite`.
    pub registry: String,
    /// What is logged, as in `RUST_LOG`.
    pub log: String,
    /// The front door.
    pub balancer: BalancerSettings,
    /// Where loads are reported.
    pub load_receiver: ReceiverSettings,
    /// Services, instances, the API.
    pub container_manager: ManagerSettings,
    /// Nodes and money.
    pub machine_manager: ManagerSettings,
    /// This host as a node.
    pub executor: ExecutorSettings,
}

/// `[balancer]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BalancerSettings {
    /// Front door.
    pub listen: String,
    /// Admin and metrics.
    pub admin: String,
    /// Threads that carry requests; 0: one per processor.
    pub threads: usize,
    /// Unique name among balancers; empty: made from the host's name and the listener.
    pub id: String,
    /// What protects the front door.
    pub limits: balancer::Limits,
    /// Where requests are logged; left out: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<balancer::AccessLog>,
}

/// `[load_receiver]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiverSettings {
    /// HTTP and datagrams.
    pub listen: String,
    /// What instances are told; empty: as `listen`.
    pub advertise: String,
    /// Where `HAProxy` finds an agent for whole services (`agent-check`); empty: nowhere.
    pub agent_listen: String,
    /// The service meant there by who sends no name; empty: the only one there is.
    pub agent_service: String,
}

/// `[container_manager]` and `[machine_manager]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ManagerSettings {
    /// Its API.
    pub api: String,
    /// What others are told; empty: as `api`.
    pub advertise: String,
}

/// `[executor]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExecutorSettings {
    /// Where the executor of a node that joins by itself listens.
    pub listen: String,
    /// Where instances answer; empty: 127.0.0.1 under `tally up`.
    pub address: String,
    /// Ports given to instances.
    pub ports: String,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            data: "./tally-data".to_owned(),
            redis: String::new(),
            registry: String::new(),
            log: "info".to_owned(),
            balancer: BalancerSettings::default(),
            load_receiver: ReceiverSettings::default(),
            container_manager: ManagerSettings::at("127.0.0.1:7400"),
            machine_manager: ManagerSettings::at("127.0.0.1:7401"),
            executor: ExecutorSettings::default(),
        }
    }
}

impl Default for BalancerSettings {
    fn default() -> BalancerSettings {
        BalancerSettings {
            listen: "127.0.0.1:8080".to_owned(),
            admin: "127.0.0.1:7404".to_owned(),
            threads: 0,
            id: String::new(),
            limits: balancer::Limits::default(),
            access_log: None,
        }
    }
}

impl Default for ReceiverSettings {
    fn default() -> ReceiverSettings {
        ReceiverSettings {
            listen: "127.0.0.1:7402".to_owned(),
            advertise: String::new(),
            agent_listen: String::new(),
            agent_service: String::new(),
        }
    }
}

impl ManagerSettings {
    fn at(api: &str) -> ManagerSettings {
        ManagerSettings { api: api.to_owned(), advertise: String::new() }
    }
}

impl Default for ManagerSettings {
    fn default() -> ManagerSettings {
        ManagerSettings::at("127.0.0.1:7400")
    }
}

impl Default for ExecutorSettings {
    fn default() -> ExecutorSettings {
        ExecutorSettings {
            listen: "127.0.0.1:7403".to_owned(),
            address: String::new(),
            ports: "20000-29999".to_owned(),
        }
    }
}

/// Files looked for when none is named.
const FILES: [&str; 2] = ["./tally.toml", "/etc/tally/tally.toml"];

impl Settings {
    /// Everything on free loopback ports: for the demo, beside whatever else runs here.
    pub fn loopback() -> Settings {
        let free = || "127.0.0.1:0".to_owned();
        let mut settings = Settings::default();
        settings.balancer.listen = free();
        settings.balancer.admin = free();
        settings.load_receiver.listen = free();
        settings.container_manager.api = free();
        settings.machine_manager.api = free();
        settings
    }

    /// Merges defaults, file, environment and flags.
    ///
    /// # Errors
    /// [`ConfigError`]: a usage error, before anything is bound.
    pub fn load(
        args: &DataArgs,
        flags: &[(&str, Option<String>)],
    ) -> Result<Settings, ConfigError> {
        let file = args
            .config
            .clone()
            .or_else(|| FILES.iter().map(PathBuf::from).find(|path| path.is_file()));
        let mut set: Vec<(&str, String)> = flags
            .iter()
            .filter_map(|(key, value)| value.clone().map(|value| (*key, value)))
            .collect();
        if let Some(data) = &args.data {
            set.push(("data", data.display().to_string()));
        }
        let mut settings: Settings = config::load(file.as_deref(), config::env_layer()?, &set)?;
        if let Some(log) = config::env("TALLY_LOG").or_else(|| config::env("RUST_LOG")) {
            settings.log = log;
        }
        Ok(settings)
    }
}
