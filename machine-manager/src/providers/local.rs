//! Provider `local`: nodes that are processes on this host, each with its own folder, ports and
//! socket. They outlive us and are found again by pid and start time.

use super::process::{Process, with_argument, with_environment};
use crate::provider::{Machine, NodeProvider, ProviderError, StartOrder, Started, Stopped};
use async_trait::async_trait;
use domain::{Clock, NodeId, Timestamp};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// The name that node types use.
pub const NAME: &str = "local";
/// Executor ports of all nodes of this host together; the contract's range.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// Ports of one local node: twenty nodes share a host's range.
pub const PORTS_EACH: u16 = 500;
/// After SIGTERM a node may settle what it has in hand for this long.
pub const TERM_LIMIT: Duration = Duration::from_secs(10);
/// After SIGKILL a process is gone within this, or stuck in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// The one-time token, in the node's folder: an argument would show in process lists.
const TOKEN_FILE: &str = "token";
/// What we know of a node, in its folder.
const FILE: &str = "local-node.json";

/// Where local nodes live and how they are started.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// The program, usually our own binary.
    pub program: PathBuf,
    /// Arguments before `node join ...`.
    pub arguments: Vec<String>,
    /// What a node is told as `--api`: how it reaches `POST /v1/nodes/join`.
    pub api: String,
    /// Each node gets `nodes/ID` below this.
    pub data: PathBuf,
    /// Each node's executor gets `n-ID.sock` in here.
    pub run: PathBuf,
    /// Arguments after all others.
    pub extra: Vec<String>,
    /// From SIGTERM to SIGKILL ([`TERM_LIMIT`]).
    pub term_limit: Duration,
}

/// Written before the process starts, and again with its pid after.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    node: NodeId,
    node_type: String,
    ports_from: u16,
    started_ms: i64,
    #[serde(default)]
    pid: Option<i32>,
    #[serde(default)]
    start_ticks: Option<u64>,
}

/// Nodes as child processes.
pub struct LocalProvider {
    config: LocalConfig,
    clock: Arc<dyn Clock>,
    /// One start or stop at a time: two starts must not choose the same ports.
    turn: Mutex<()>,
}

fn unsure(what: &str, error: &io::Error) -> ProviderError {
    ProviderError::Unsure { provider: NAME.to_owned(), detail: format!("{what}: {error}") }
}

fn refused(detail: String) -> ProviderError {
    ProviderError::Refused { provider: NAME.to_owned(), detail }
}

impl LocalProvider {
    /// A provider of processes under `config.data`.
    #[must_use]
    pub fn new(config: LocalConfig, clock: Arc<dyn Clock>) -> LocalProvider {
        LocalProvider { config, clock, turn: Mutex::new(()) }
    }

    fn nodes(&self) -> PathBuf {
        self.config.data.join("nodes")
    }

    fn folder(&self, node: &NodeId) -> PathBuf {
        self.nodes().join(node.as_str())
    }

    /// Where a node's executor listens.
    #[must_use]
    pub fn socket(&self, node: &NodeId) -> PathBuf {
        self.config.run.join(format!("{node}.sock"))
    }

    fn records(&self) -> Result<Vec<Record>, ProviderError> {
        let entries = match fs::read_dir(self.nodes()) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(unsure("the nodes' folder cannot be read", &e)),
        };
        let mut records: Vec<Record> = entries.filter_map(|e| read(&e.ok()?.path())).collect();
        records.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(records)
    }

    /// The living process of a record. Its pid may be missing when we died between starting it
    /// and writing that down; then the folder in its arguments tells.
    fn process(&self, record: &Record) -> Option<Process> {
        if let (Some(pid), Some(start_ticks)) = (record.pid, record.start_ticks) {
            return Some(Process { pid, start_ticks }).filter(|p| p.is_alive());
        }
        let folder = self.folder(&record.node);
        folder.to_str().and_then(|folder| with_argument(folder).first().copied())
    }

    fn free_ports(&self) -> Result<u16, ProviderError> {
        let used: BTreeSet<u16> = self.records()?.iter().map(|r| r.ports_from).collect();
        let mut slices = PORTS.step_by(usize::from(PORTS_EACH));
        slices.find(|from| !used.contains(from)).ok_or_else(|| {
            refused(format!(
                "all {} port slices of this host are taken; a host holds that many local nodes",
                (PORTS.end - PORTS.start) / PORTS_EACH
            ))
        })
    }

    fn spawn(&self, order: &StartOrder, record: &Record) -> Result<Process, ProviderError> {
        let folder = self.folder(&order.node);
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log"));
        let log = log.map_err(|e| unsure("the node's log cannot be opened", &e))?;
        let errors = log.try_clone().map_err(|e| unsure("the node's log cannot be opened", &e))?;
        write_secret(&folder.join(TOKEN_FILE), &order.token)
            .map_err(|e| unsure("the node's token cannot be written", &e))?;
        let until = record.ports_from + PORTS_EACH - 1;
        let mut command = Command::new(&self.config.program);
        command
            .args(&self.config.arguments)
            .args(["node", "join", "--api", &self.config.api, "--token-file"])
            .arg(folder.join(TOKEN_FILE))
            .args(["--name", &order.name, "--address", "127.0.0.1", "--data"])
            .arg(&folder)
            .arg("--executor-listen")
            .arg(format!("unix:{}", self.socket(&order.node).display()))
            .args(["--ports", &format!("{}-{until}", record.ports_from)])
            .args(&self.config.extra)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Its own process group: neither Ctrl-C nor the end of our terminal reaches it.
            .process_group(0);
        let mut child = command.spawn().map_err(|e| {
            refused(format!("{} cannot be started: {e}", self.config.program.display()))
        })?;
        let pid = i32::try_from(child.id()).unwrap_or(0);
        // Reaps it when it ends while we live; if we end first, init does.
        std::thread::spawn(move || drop(child.wait()));
        Process::find(pid)
            .ok_or_else(|| refused("the node's process ended at once; its log says why".to_owned()))
    }
}

fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(secret.as_bytes())
}

fn read(folder: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()
}

/// Whole or not at all.
fn write(folder: &Path, record: &Record) -> io::Result<()> {
    let draft = folder.join(format!(".{FILE}"));
    let mut file = fs::File::create(&draft)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    fs::rename(&draft, folder.join(FILE))
}

#[async_trait]
impl NodeProvider for LocalProvider {
    fn name(&self) -> &str {
        NAME
    }

    /// Instances outlive their executor; a new one adopts them.
    fn revives(&self) -> bool {
        true
    }

    async fn start(&self, order: &StartOrder) -> Result<Started, ProviderError> {
        let _turn = self.turn.lock().await;
        let folder = self.folder(&order.node);
        let old = read(&folder);
        if let Some(record) = &old
            && let Some(process) = self.process(record)
        {
            let provider_ref = format!("{}:{}", process.pid, process.start_ticks);
            return Ok(Started { provider_ref, started_at: Timestamp(record.started_ms) });
        }
        let made = fs::create_dir_all(&folder).and_then(|()| fs::create_dir_all(&self.config.run));
        made.map_err(|e| unsure("the node's folder cannot be made", &e))?;
        let mut record = Record {
            node: order.node.clone(),
            node_type: order.node_type.name.to_string(),
            ports_from: match &old {
                Some(old) => old.ports_from,
                None => self.free_ports()?,
            },
            started_ms: old.as_ref().map_or_else(|| self.clock.now().0, |old| old.started_ms),
            pid: None,
            start_ticks: None,
        };
        write(&folder, &record).map_err(|e| unsure("the node's record cannot be written", &e))?;
        let process = self.spawn(order, &record)?;
        (record.pid, record.start_ticks) = (Some(process.pid), Some(process.start_ticks));
        write(&folder, &record).map_err(|e| unsure("the node's record cannot be written", &e))?;
        let provider_ref = format!("{}:{}", process.pid, process.start_ticks);
        Ok(Started { provider_ref, started_at: Timestamp(record.started_ms) })
    }

    async fn stop(&self, node: &NodeId) -> Result<Stopped, ProviderError> {
        let _turn = self.turn.lock().await;
        let folder = self.folder(node);
        let Some(record) = read(&folder) else { return Ok(Stopped { ran: None }) };
        if let Some(process) = self.process(&record) {
            process.signal(Signal::TERM);
            if !process.gone(self.config.term_limit).await {
                process.signal(Signal::KILL);
                if !process.gone(KILL_LIMIT).await {
                    let detail = format!("process {} does not die", process.pid);
                    return Err(ProviderError::Unsure { provider: NAME.to_owned(), detail });
                }
            }
        }
        // A machine that is switched off takes along what still ran on it.
        for stray in with_environment(&format!("TALLY_NODE={node}")) {
            stray.signal(Signal::KILL);
        }
        match fs::remove_dir_all(&folder) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(unsure("the node's folder cannot be removed", &e)),
        }
        let _gone_with_its_process = fs::remove_file(self.socket(node));
        Ok(Stopped { ran: Some((Timestamp(record.started_ms), self.clock.now())) })
    }

    async fn list(&self) -> Result<Vec<Machine>, ProviderError> {
        let machines = self.records()?.into_iter().map(|record| {
            let process = self.process(&record);
            let provider_ref = match (record.pid, record.start_ticks) {
                (Some(pid), Some(ticks)) => format!("{pid}:{ticks}"),
                _ => String::new(),
            };
            Machine { node: record.node, provider_ref, running: process.is_some() }
        });
        Ok(machines.collect())
    }
}
