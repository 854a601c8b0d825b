//! The machine-manager as the binary runs it.

use super::{Common, holder, listen};
use crate::data::Data;
use crate::host;
use crate::up::Pace;
use anyhow::Context;
use chassis::{Client, Halt, Listen, Listener, Metrics, PeerUrl, RandomIds, Shutdown};
use machine_manager::provider::NodeProvider;
use machine_manager::providers::{LocalConfig, LocalProvider, StaticProvider};
use machine_manager::{Config, Deps, FirstNode, Policy};
use std::sync::Arc;
use std::time::Duration;
use wire::manifest::NodeTypeManifest;
use wire::quantity::Q;

/// Name of the type of `tally up`'s own host.
const FIRST_TYPE: &str = "this-host";
/// Nodes of this type on one host: itself.
const FIRST_COUNT: u32 = 1;

/// Where a machine-manager listens and whom it speaks to.
pub struct Ends {
    /// Its own address.
    pub listen: Listen,
    /// The container-manager, for nudges.
    pub containers: PeerUrl,
    /// How nodes reach the API.
    pub api: String,
    /// Where instances report their load: `http://host:port`.
    pub load_url: String,
    /// Whether this host is the first node.
    pub first: bool,
}

/// A bound machine-manager.
pub struct Machines {
    config: Config,
    deps: Deps,
}

/// Binds its API and makes its providers.
///
/// # Errors
/// When the address cannot be had.
pub async fn bind(
    common: &Common,
    data: &Data,
    ends: Ends,
    halt: Halt,
) -> anyhow::Result<Machines> {
    let listener = Listener::bind(&ends.listen).await.map_err(anyhow::Error::msg)?;
    let program = std::env::current_exe().context("finding this program")?;
    let local = LocalConfig {
        program,
        arguments: Vec::new(),
        api: ends.api.clone(),
        data: data.root().to_owned(),
        run: data.root().join("run"),
        extra: Vec::new(),
        term_limit: machine_manager::providers::local::TERM_LIMIT,
    };
    let providers: Vec<Arc<dyn NodeProvider>> = vec![
        Arc::new(LocalProvider::new(local, Arc::clone(&common.clock))),
        Arc::new(StaticProvider),
    ];
    let config = Config {
        holder: holder("machine-manager", common, &ends.listen),
        policy: policy(common.pace),
        beat: Duration::from_secs(1),
        load_url: ends.load_url,
        stats_url: ends.api,
        first_node: ends.first.then(|| first_node(common, data)),
        halt,
    };
    let token = common.identity.admin_token();
    let containers = Client::new(ends.containers).with_token(token);
    let deps = Deps {
        registry: Arc::clone(&common.registry),
        clock: Arc::clone(&common.clock),
        ids: Box::new(RandomIds),
        identity: common.identity.clone(),
        listener,
        container_manager: Some(containers),
        providers,
        metrics: Metrics::new(),
    };
    Ok(Machines { config, deps })
}

/// This host as a node: free, protected, as large as it is; the demo's is small, so that a second
/// one is needed.
fn first_node(common: &Common, data: &Data) -> FirstNode {
    let room = host::room(data.root());
    let (cpu, memory) = match common.pace {
        Pace::Normal => (room.cpu, room.memory),
        Pace::Demo => (domain::MilliCpu(500), domain::Bytes(1 << 30)),
    };
    FirstNode {
        node_type: NodeTypeManifest {
            kind: Some("node-type".to_owned()),
            name: Some(FIRST_TYPE.to_owned()),
            provider: "local".to_owned(),
            cpu: Q(cpu),
            cpu_class: None,
            memory: Q(memory),
            disk: Some(Q(room.disk)),
            disk_type: None,
            price_per_hour: "0 EUR".to_owned(),
            billing_unit: None,
            billing_minimum: None,
            min_life: None,
            stop_lead: None,
            max_count: FIRST_COUNT,
            labels: std::collections::BTreeMap::new(),
            pool: None,
            start_command: Vec::new(),
            stop_command: Vec::new(),
            list_command: Vec::new(),
        },
        name: host::name(),
    }
}

/// The planner's constants; the demo's are printed by the demo.
fn policy(pace: Pace) -> Policy {
    match pace {
        Pace::Normal => Policy::default(),
        Pace::Demo => Policy::demo(),
    }
}

impl Machines {
    /// Runs until the shutdown.
    ///
    /// # Errors
    /// When the first node's type cannot be.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<&'static str> {
        machine_manager::run(self.config, self.deps, shutdown).await?;
        Ok("the machine-manager")
    }
}

/// Reads the machine-manager's configured address.
///
/// # Errors
/// Naming the key.
pub fn configured(common: &Common) -> anyhow::Result<Listen> {
    listen("machine_manager.api", &common.settings.machine_manager.api)
}
