//! The roles as processes of their own: a control plane of four, and nodes of two.

use crate::api::Api;
use crate::process::{Process, end_all, processes_of, run, tell};
use crate::wait::until;
use http::StatusCode;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use tempfile::TempDir;

/// Ports a cell may listen on: below those the kernel gives to connections, and beside those that
/// executors give to instances.
const PORTS: std::ops::Range<u16> = 11_000..19_000;

/// The control roles, in the order in which a person would start them.
pub const CONTROL: [&str; 4] =
    ["machine-manager", "container-manager", "load-receiver", "balancer"];

/// A cluster of single roles on this host.
pub struct Cell {
    folder: TempDir,
    processes: BTreeMap<String, Process>,
    /// The front door.
    pub front: SocketAddr,
    /// The API.
    pub api: Api,
}

impl Cell {
    /// Starts the four control roles, sharing a scoreboard and a data directory.
    ///
    /// # Panics
    /// When they do not come up.
    pub async fn start(redis: &str) -> Cell {
        let folder = tempfile::Builder::new().prefix("tally-t-").tempdir().expect("a folder");
        let [front, admin, load, api, machines] = free_ports();
        let text = format!(
            "redis = \"{redis}\"\n\
             [balancer]\nlisten = \"127.0.0.1:{front}\"\nadmin = \"127.0.0.1:{admin}\"\n\
             [load_receiver]\nlisten = \"127.0.0.1:{load}\"\n\
             [container_manager]\napi = \"127.0.0.1:{api}\"\n\
             [machine_manager]\napi = \"127.0.0.1:{machines}\"\n"
        );
        fs::write(folder.path().join("tally.toml"), text).expect("the configuration");
        let api = Api { url: format!("http://127.0.0.1:{api}"), folder: folder.path().to_owned() };
        let front = SocketAddr::from((Ipv4Addr::LOCALHOST, front));
        let mut cell = Cell { folder, processes: BTreeMap::new(), front, api };
        for role in CONTROL {
            cell.start_role(role);
        }
        cell.managers_answer().await;
        cell
    }

    /// Waits until both managers lead and answer.
    pub async fn managers_answer(&self) {
        until("the managers", || async {
            // The machine-manager answers this through the container-manager.
            let answer: Result<serde_json::Value, _> =
                self.api.client().get("/v1/budget", std::time::Duration::from_secs(5)).await;
            answer.map(|_| ()).map_err(|e| e.to_string())
        })
        .await;
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn node_data(&self) -> PathBuf {
        self.folder.path().join("host")
    }

    /// Starts a control role, or a node's `executor` or `transmitter`.
    pub fn start_role(&mut self, role: &str) {
        let path = |path: PathBuf| path.display().to_string();
        let words = if CONTROL.contains(&role) {
            let config = path(self.folder.path().join("tally.toml"));
            vec![role.to_owned(), "--config".into(), config, "--data".into(), path(self.data())]
        } else {
            vec![role.to_owned(), "--data".into(), path(self.node_data())]
        };
        let process = Process::start(role, self.folder.path(), &words);
        self.processes.insert(role.to_owned(), process);
    }

    /// `kill -9` of a role.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self, role: &str) {
        self.processes.remove(role).expect("it runs").kill();
    }

    /// Makes this host a node: a token, `tally node join`, and then each of its two roles alone.
    ///
    /// # Panics
    /// When it may not join.
    pub async fn join(&mut self) {
        let metal = json!({
            "provider": "static", "cpu": "2", "memory": "1GiB", "price_per_hour": "0 EUR",
        });
        let declared = self.api.put("/v1/node-types/metal", &metal).await;
        assert_eq!(declared.status, StatusCode::CREATED, "{}", declared.body);
        let url = self.api.url.clone();
        let token = run(&["node", "token", "--type", "metal", "--api", &url, "-o", "name"]);
        assert!(token.status.success(), "{token:?}");
        let token = String::from_utf8_lossy(&token.stdout).trim().to_owned();
        let data = self.node_data().display().to_string();
        let words = ["node", "join", "--api", &url, "--token", &token, "--data", &data];
        let rest = ["--name", "host-1", "--executor-listen", "127.0.0.1:0"];
        let words: Vec<String> = words.iter().chain(&rest).map(|w| (*w).to_owned()).collect();
        let joining = Process::start("join", self.folder.path(), &words);
        self.node_is("ready").await;
        let ended = joining.term().await;
        assert!(ended.success(), "{ended:?}\n{}", self.api.log());
        self.start_role("executor");
        self.start_role("transmitter");
        self.node_is("ready").await;
    }

    /// Waits for the node's state.
    pub async fn node_is(&self, state: &str) {
        until(&format!("the node to be {state}"), || async {
            let nodes = self.api.nodes().await?;
            let is = nodes.iter().any(|n| n.state == state);
            if is { Ok(()) } else { Err(format!("{nodes:?} {}", self.api.log())) }
        })
        .await;
    }

    /// Ends every role and checks that nothing is left.
    pub async fn end(mut self) {
        // The node's first: what it still has to say has a listener.
        while let Some((_, process)) = self.processes.pop_last() {
            process.term().await;
        }
        until("the end of every process", || {
            let left = processes_of(self.folder.path());
            std::future::ready(if left.is_empty() { Ok(()) } else { Err(left) })
        })
        .await;
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tell(self.folder.path());
        }
        self.processes.clear();
        end_all(self.folder.path());
    }
}

/// Ports nobody listens on, spread by this process's id so that two runs seldom meet.
fn free_ports<const N: usize>() -> [u16; N] {
    let length = u32::from(PORTS.end - PORTS.start);
    let offset = u16::try_from(std::process::id().wrapping_mul(37) % length).unwrap_or(0);
    let from = PORTS.start + offset;
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let mut ports = (from..PORTS.end).chain(PORTS.start..from).filter(free);
    std::array::from_fn(|_| ports.next().expect("a free port"))
}
