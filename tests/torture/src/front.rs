//! The front door under test: Tally's balancer in a process of its own, its metrics, memory and
//! descriptors.

use crate::client::Client;
use crate::wait::until;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How a front is started.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Instances of the one service, published on a board in its process.
    pub to: Vec<SocketAddr>,
    /// A board on Redis instead; its services are published by the test.
    pub redis: Option<String>,
    /// Where the last view is kept.
    pub save: Option<String>,
    /// Where to listen; a free port if there is none.
    pub listen: Option<SocketAddr>,
    /// Requests one instance takes at once; 0: many.
    pub max_in_flight: u32,
    /// Client connections at once; 0: as many as by default.
    pub connections: usize,
    /// `tcp` or `nat`, with the service's port, instead of HTTP.
    pub mode: Option<(&'static str, u16)>,
}

/// A running front, ended with this value.
#[derive(Debug)]
pub struct Front {
    /// Where clients come.
    pub address: SocketAddr,
    /// Where its metrics are.
    pub admin: SocketAddr,
    child: Child,
    // Its end tells the front that nobody needs it any more.
    _stdin: Option<ChildStdin>,
}

impl Front {
    /// Starts `program` (the package's own `front`) and waits until it serves.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(program: &str, setup: &Setup) -> Front {
        let mut command = Command::new(program);
        for to in &setup.to {
            command.arg("--to").arg(to.to_string());
        }
        let given = [("--redis", &setup.redis), ("--save", &setup.save)];
        for (flag, value) in given {
            if let Some(value) = value {
                command.arg(flag).arg(value);
            }
        }
        if let Some(listen) = setup.listen {
            command.arg("--listen").arg(listen.to_string());
        }
        if setup.max_in_flight > 0 {
            command.arg("--max-in-flight").arg(setup.max_in_flight.to_string());
        }
        if setup.connections > 0 {
            command.arg("--connections").arg(setup.connections.to_string());
        }
        if let Some((mode, port)) = setup.mode {
            command.args(["--mode", mode, "--port", &port.to_string()]);
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the front starts");
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("its output");
        let said = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let said = said.await.expect("a reader").expect("its first line");
        let said: Value = serde_json::from_str(&said).expect("its addresses");
        let at = |key: &str| said[key].as_str().and_then(|a| a.parse().ok()).expect("an address");
        let front = Front { address: at("front"), admin: at("admin"), child, _stdin: stdin };
        if !setup.to.is_empty() {
            front.serves().await;
        }
        front
    }

    /// A front of these instances.
    ///
    /// # Panics
    /// As [`Front::start`].
    pub async fn of(program: &str, to: &[SocketAddr]) -> Front {
        Front::start(program, &Setup { to: to.to_vec(), ..Setup::default() }).await
    }

    /// Waits until its routes are in use: its metrics then name the service.
    pub async fn serves(&self) {
        until("the routes are in use", || async {
            let metrics = self.metrics().await;
            let known = metrics.0.contains_key("tally_balancer_in_flight{service=\"torture\"}");
            if known { Ok(()) } else { Err("no service") }
        })
        .await;
        until("clients are let in", || async {
            tokio::net::TcpStream::connect(self.address).await.map(drop).map_err(|e| e.to_string())
        })
        .await;
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether its process runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Panics
    /// When it cannot be ended.
    pub fn kill(mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("its end");
    }

    /// Its metrics.
    pub async fn metrics(&self) -> Metrics {
        let mut client = Client::connect(self.admin).await;
        client.send("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let text = client.answer(false).await.ok().flatten().map_or(String::new(), |a| a.text());
        let lines = text.lines().filter(|l| !l.starts_with('#'));
        Metrics(
            lines
                .filter_map(|line| {
                    let (name, value) = line.rsplit_once(' ')?;
                    Some((name.to_owned(), value.parse().ok()?))
                })
                .collect(),
        )
    }

    /// Resident memory, KiB.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    /// Open descriptors.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.pid());
        std::fs::read_dir(Path::new(&folder)).map_or(0, Iterator::count)
    }

    /// Waits until nothing is in hand: no request at an instance, none held, no tunnel.
    pub async fn is_quiet(&self) {
        until("no request in hand", || async {
            let metrics = self.metrics().await;
            let left: Vec<(String, f64)> = metrics
                .0
                .into_iter()
                .filter(|(name, value)| {
                    let level = ["in_flight{", "held_requests{", "open_tunnels{"];
                    level.iter().any(|l| name.contains(l)) && *value != 0.0
                })
                .collect();
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // Already ended: fine. Never by name.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Metrics by name and labels.
#[derive(Debug, Clone)]
pub struct Metrics(pub BTreeMap<String, f64>);

impl Metrics {
    /// The sum over all labels of one metric.
    #[must_use]
    pub fn sum(&self, name: &str) -> f64 {
        let of = |full: &String| full.split('{').next() == Some(name);
        self.0.iter().filter(|(full, _)| of(full)).map(|(_, value)| value).sum()
    }
}

/// A front that several tasks share.
pub type Shared = Arc<Front>;

/// What a front may need to end what it has in hand.
pub const GRACE: Duration = Duration::from_secs(10);
