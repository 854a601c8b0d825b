//! A node: joining a cluster, remembering it, and running executor and transmitter.

use crate::client::GlobalArgs;
use crate::commands::JoinArgs;
use crate::host;
use anyhow::{Context, bail};
use chassis::backoff::Backoff;
use chassis::{
    Client, Listen, Listener, Metrics, PeerError, PeerUrl, Readiness, Shutdown, SystemClock,
    Verifier,
};
use domain::Clock;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use wire::join::{JoinAnswer, JoinRequest};

/// One attempt to join.
const JOIN_LIMIT: Duration = Duration::from_secs(10);
/// A first joining that has not worked after this has failed.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);
/// For instances' watchers and messages in hand after SIGTERM; instances stay.
const GRACE: Duration = Duration::from_secs(10);

/// `DATA/node/node.json`: what a node must remember to come back as itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remembered {
    answer: JoinAnswer,
    api: String,
    name: String,
    address: IpAddr,
    executor_listen: String,
    ports: String,
    labels: BTreeMap<String, String>,
}

/// Joins, or comes back as the node it was, and runs until a signal.
///
/// # Errors
/// When it may not join or cannot run.
pub async fn join(args: JoinArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let data = make_folder(args.data.as_deref().unwrap_or(Path::new("./tally-node")))?;
    let remembered = recall(&data)?;
    let api = args.api.clone().or_else(|| global.api.clone());
    let api = match (api, &remembered) {
        (Some(api), _) => api,
        (None, Some(r)) => r.api.clone(),
        (None, None) => global.api_url().map_err(|e| anyhow::anyhow!("{e}"))?.to_string(),
    };
    let peer: PeerUrl = api.parse().map_err(anyhow::Error::msg).context("--api")?;
    let listen = args
        .executor_listen
        .clone()
        .or_else(|| remembered.as_ref().map(|r| r.executor_listen.clone()))
        .unwrap_or_else(|| "127.0.0.1:7403".to_owned());
    let listener = bind(&listen).await?;
    let address = args
        .address
        .or_else(|| remembered.as_ref().map(|r| r.address))
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let name = args.name.clone().or_else(|| remembered.as_ref().map(|r| r.name.clone()));
    let mut request = JoinRequest {
        wire: wire::WIRE_VERSION,
        token: token(&args)?,
        node: None,
        node_secret: None,
        name: name.unwrap_or_else(host::name),
        address,
        executor_url: executor_url(&listener, address),
        cpu_millis: 0,
        memory_bytes: 0,
        disk_bytes: 0,
        labels: labels(&args, remembered.as_ref())?,
    };
    let room = host::room(&data);
    request.cpu_millis = room.cpu.0;
    request.memory_bytes = room.memory.0;
    request.disk_bytes = room.disk.0;
    let shutdown = Shutdown::new();
    let signal = shutdown.clone();
    tokio::spawn(async move { signal.on_signal().await });
    let client = Client::new(peer);
    let answer = match &remembered {
        Some(known) => {
            request.token = None;
            request.node = Some(known.answer.node.clone());
            request.node_secret = Some(known.answer.node_secret.clone());
            // The managers may be away: the node keeps its instances well meanwhile.
            shutdown.spawn(come_back(client, request.clone(), shutdown.clone()));
            known.answer.clone()
        }
        None => first_join(&client, &request, &shutdown).await?,
    };
    let ports = args.ports.clone().or_else(|| remembered.as_ref().map(|r| r.ports.clone()));
    let remember = Remembered {
        answer,
        api,
        name: request.name,
        address,
        executor_listen: listener.local().to_string(),
        ports: ports.unwrap_or_else(|| "20000-29999".to_owned()),
        labels: request.labels,
    };
    keep(&data, &remember)?;
    tracing::info!(node.id = %remember.answer.node, "this host is a node");
    run_roles(&data, &remember, Some(listener), true, shutdown).await
}

/// One role of a node that has joined before.
///
/// # Errors
/// When it has not joined, or cannot run.
pub async fn role(data: &Path, executor: bool) -> anyhow::Result<()> {
    let data = make_folder(data)?;
    let Some(known) = recall(&data)? else {
        bail!("{} is no node's directory yet; run `tally node join --data` first", data.display());
    };
    let shutdown = Shutdown::new();
    let signal = shutdown.clone();
    tokio::spawn(async move { signal.on_signal().await });
    let listener = if executor { Some(bind(&known.executor_listen).await?) } else { None };
    run_roles(&data, &known, listener, !executor, shutdown).await
}

async fn run_roles(
    data: &Path,
    known: &Remembered,
    listener: Option<Listener>,
    transmitter: bool,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let work = shutdown.branch();
    // One page of metrics for the node: the executor's listener serves the transmitter's too.
    let metrics = Metrics::new();
    let start = || start_transmitter(data, known, &clock, metrics.clone(), &work);
    let sending = transmitter.then(start).transpose()?;
    let ended = match listener {
        Some(listener) => {
            let clock = Arc::clone(&clock);
            run_executor(data, known, listener, clock, metrics, shutdown.clone()).await
        }
        None => {
            shutdown.started().await;
            Ok(())
        }
    };
    shutdown.start();
    if let Some(sending) = sending {
        let _ended = tokio::time::timeout(GRACE, sending).await;
    }
    ended
}

fn start_transmitter(
    data: &Path,
    known: &Remembered,
    clock: &Arc<dyn Clock>,
    metrics: Metrics,
    work: &Shutdown,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let url = |text: &str| text.parse::<PeerUrl>().map_err(anyhow::Error::msg);
    let deps = transmitter::Deps {
        clock: Arc::clone(clock),
        node: known.answer.node.clone(),
        node_secret: known.answer.node_secret.clone(),
        data: data.to_owned(),
        stats: url(&known.answer.stats_url).context("the machine-manager's address")?,
        load: url(&known.answer.load_url).context("the load-receiver's address")?,
        metrics,
        readiness: Readiness::new(),
    };
    Ok(work.spawn(transmitter::run(transmitter::Config::default(), deps, work.clone())))
}

async fn run_executor(
    data: &Path,
    known: &Remembered,
    listener: Listener,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let node = known.answer.node.clone();
    let verifier = Verifier::new(&known.answer.public_key, node.clone(), Arc::clone(&clock))
        .context("the container-manager's public key")?;
    let program = std::env::current_exe().context("finding this program")?;
    let docker = chassis::config::env("DOCKER_HOST");
    let config = executor::Config {
        node_dir: data.join("node"),
        node,
        cluster: known.answer.cluster.clone(),
        address: known.address,
        ports: ports(&known.ports)?,
        load_url: Some(known.answer.load_url.clone()),
        docker_host: docker.unwrap_or_else(|| executor::DOCKER_HOST_DEFAULT.to_owned()),
        env: instance_env(),
    };
    let deps = executor::Deps {
        verifier,
        listener,
        clock,
        shim: executor::ShimProgram { program, arguments: vec!["instance-shim".to_owned()] },
        metrics,
        readiness: Readiness::new(),
    };
    Box::pin(executor::run(config, deps, shutdown)).await.context("the executor")
}

/// What every plain process finds in its environment, of ours.
fn instance_env() -> BTreeMap<String, String> {
    const PASSED: [&str; 5] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ"];
    let pair = |name: &str| chassis::config::env(name).map(|value| (name.to_owned(), value));
    PASSED.iter().filter_map(|name| pair(name)).collect()
}

fn ports(text: &str) -> anyhow::Result<RangeInclusive<u16>> {
    let parsed = text.split_once('-').and_then(|(first, last)| {
        Some((first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?))
    });
    match parsed {
        Some((first, last)) if first > 0 && first <= last => Ok(first..=last),
        _ => bail!("--executor-ports {text:?} is not FIRST-LAST, such as 20000-29999"),
    }
}

async fn first_join(
    client: &Client,
    request: &JoinRequest,
    shutdown: &Shutdown,
) -> anyhow::Result<JoinAnswer> {
    if request.token.is_none() {
        bail!("a first joining needs a token; an operator makes one with `tally node token`");
    }
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let deadline = tokio::time::Instant::now() + JOIN_PATIENCE;
    loop {
        let joined: Result<JoinAnswer, PeerError> =
            client.post("/v1/nodes/join", request, JOIN_LIMIT).await;
        match joined {
            Ok(answer) => return Ok(answer),
            Err(refused @ PeerError::Refused { .. }) => {
                return Err(refused).context("the cluster refused this node");
            }
            Err(error) if tokio::time::Instant::now() >= deadline => {
                return Err(error).context("joining did not work");
            }
            Err(error) => tracing::warn!(%error, "joining again"),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.wait()) => {}
            () = shutdown.started() => bail!("interrupted before it joined"),
        }
    }
}

/// Tells the machine-manager where this node now is, until it has heard.
async fn come_back(client: Client, request: JoinRequest, shutdown: Shutdown) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    while !shutdown.has_started() {
        let joined: Result<JoinAnswer, PeerError> =
            client.post("/v1/nodes/join", &request, JOIN_LIMIT).await;
        match joined {
            Ok(_) => return,
            Err(error) => tracing::warn!(%error, "the cluster has not heard of this node's return"),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.wait()) => {}
            () = shutdown.started() => {}
        }
    }
}

async fn bind(listen: &str) -> anyhow::Result<Listener> {
    let listen: Listen = listen.parse().map_err(anyhow::Error::msg).context("--executor-listen")?;
    Listener::bind(&listen).await.map_err(anyhow::Error::msg)
}

/// Where managers reach the executor: its socket, or its port under the node's address.
fn executor_url(listener: &Listener, address: IpAddr) -> String {
    match listener.local() {
        Listen::Unix(path) => format!("unix:{}", path.display()),
        Listen::Tcp(bound) => {
            let ip = if bound.ip().is_unspecified() { address } else { bound.ip() };
            format!("http://{}", std::net::SocketAddr::new(ip, bound.port()))
        }
    }
}

fn token(args: &JoinArgs) -> anyhow::Result<Option<String>> {
    match &args.token_file {
        Some(path) => {
            let text = fs::read_to_string(path)
                .with_context(|| format!("reading the token from {}", path.display()))?;
            Ok(Some(text.trim().to_owned()))
        }
        None => Ok(args.token.clone()),
    }
}

fn labels(args: &JoinArgs, known: Option<&Remembered>) -> anyhow::Result<BTreeMap<String, String>> {
    let mut labels = known.map(|k| k.labels.clone()).unwrap_or_default();
    for text in &args.labels {
        let Some((key, value)) = text.split_once('=') else {
            bail!("--label {text:?} is not KEY=VALUE");
        };
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn make_folder(data: &Path) -> anyhow::Result<PathBuf> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data.join("node"))
        .with_context(|| format!("making {}", data.display()))?;
    fs::canonicalize(data).with_context(|| format!("finding {}", data.display()))
}

fn recall(data: &Path) -> anyhow::Result<Option<Remembered>> {
    let path = data.join("node/node.json");
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| {
            format!("{} is damaged; remove it and join again with a new token", path.display())
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
    }
}

fn keep(data: &Path, known: &Remembered) -> anyhow::Result<()> {
    let (draft, path) = (data.join("node/.node.json"), data.join("node/node.json"));
    let bytes = serde_json::to_vec_pretty(known)?;
    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .with_context(|| format!("writing {}", draft.display()))?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).context("writing node.json")?;
    fs::rename(&draft, &path).context("keeping node.json")?;
    Ok(fs::File::open(data.join("node")).and_then(|dir| dir.sync_all())?)
}
