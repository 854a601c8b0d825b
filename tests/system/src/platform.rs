//! A platform of real processes in a folder of its own, ended with the story.

use crate::wait::until;
use chassis::{Client, PeerUrl};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use wire::operator::{InstanceView, List, NodeView, ServiceView};

/// One call of the API.
const CALL: Duration = Duration::from_secs(10);

/// The binary under test: `TALLY_BIN`, or the debug build beside the test.
///
/// # Panics
/// When there is none.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "xtask tells tests where the binary is")]
pub fn tally() -> PathBuf {
    let told = std::env::var("TALLY_BIN").map(PathBuf::from);
    let beside = || {
        let test = std::env::current_exe().expect("the test's own path");
        test.ancestors().nth(2).expect("target/debug").join("tally")
    };
    let path = told.unwrap_or_else(|_unset| beside());
    assert!(path.is_file(), "{} is not built: run `cargo build -p tally`", path.display());
    path
}

/// Runs one `tally` command to its end.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn run(args: &[&str]) -> Output {
    Command::new(tally()).args(args).stdin(Stdio::null()).output().expect("running tally")
}

/// A process of the platform.
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts `tally ARGS`, its output in `folder/NAME.log`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(name: &str, folder: &Path, args: &[String]) -> Process {
        let log = folder.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let child = Command::new(tally())
            .args(args)
            .env("TALLY_LOG", "info")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log twice"))
            .stderr(log)
            .spawn()
            .expect("starting tally");
        Process { name: name.to_owned(), child }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Panics
    /// When it cannot be ended.
    pub fn kill(mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("its end");
    }

    /// Asks it to end and waits.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn term(mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("SIGTERM");
        until(&format!("the end of {}", self.name), || {
            let ended = self.child.try_wait().expect("asking for its end").ok_or("it runs");
            std::future::ready(ended)
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended: fine. Never by name.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// `tally up` in a folder of its own.
pub struct Platform {
    folder: TempDir,
    up: Option<Process>,
    redis: Option<String>,
    listen: Option<SocketAddr>,
    /// Where its parts answer; as of the last start.
    pub at: Addresses,
}

/// `DATA/run/addresses.json`.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The front door.
    pub front: SocketAddr,
    /// The API.
    pub api: String,
}

impl Platform {
    /// Starts `tally up` and waits until it is ready.
    pub async fn start(redis: Option<&str>) -> Platform {
        let folder = tempfile::Builder::new().prefix("tally-t-").tempdir().expect("a folder");
        let at = Addresses { front: SocketAddr::from(([0, 0, 0, 0], 0)), api: String::new() };
        let redis = redis.map(str::to_owned);
        let mut platform = Platform { folder, up: None, redis, listen: None, at };
        platform.start_again().await;
        platform.settled().await;
        platform
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts `tally up` again on the same data and the same front door.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_again(&mut self) {
        let said = self.data().join("run/addresses.json");
        let _none_yet = fs::remove_file(&said);
        let any = "127.0.0.1:0".to_owned();
        let listen = self.listen.map_or_else(|| any.clone(), |a| a.to_string());
        let mut args: Vec<String> = ["up", "--data"].map(str::to_owned).to_vec();
        args.push(self.data().display().to_string());
        args.extend(["--listen".to_owned(), listen, "--api".to_owned(), any.clone()]);
        if let Some(redis) = &self.redis {
            args.extend(["--redis".to_owned(), redis.clone()]);
        }
        let config = self.folder.path().join("tally.toml");
        let text = format!("[balancer]\nadmin = \"{any}\"\n[load_receiver]\nlisten = \"{any}\"\n");
        fs::write(&config, text).expect("the configuration");
        args.extend(["--config".to_owned(), config.display().to_string()]);
        self.up = Some(Process::start("up", self.folder.path(), &args));
        let folder = self.folder.path().to_owned();
        self.at = until("tally up's addresses", || {
            std::future::ready(addresses(&said).ok_or_else(|| tail(&folder.join("up.log"))))
        })
        .await;
        self.listen = Some(self.at.front);
    }

    /// Waits until the first node is ready.
    pub async fn settled(&self) {
        until("the first node", || async {
            let nodes = self.nodes().await?;
            let ready = nodes.iter().any(|n| n.state == "ready");
            if ready { Ok(()) } else { Err(format!("{nodes:?} {}", self.log())) }
        })
        .await;
    }

    /// `kill -9` of `tally up`.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        self.up.take().expect("tally up runs").kill();
    }

    /// SIGTERM of `tally up`: instances stay.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn term(&mut self) -> ExitStatus {
        self.up.take().expect("tally up runs").term().await
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.up.as_ref().expect("tally up runs").pid()
    }

    /// The end of its log.
    #[must_use]
    pub fn log(&self) -> String {
        tail(&self.folder.path().join("up.log"))
    }

    /// A client of its API.
    ///
    /// # Panics
    /// When the address is none.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.at.api.parse::<PeerUrl>().expect("the API's address"))
    }

    /// Declares a service.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn put_service(&self, name: &str, body: &Value) -> ServiceView {
        let path = format!("/v1/services/{name}");
        let put = self.client().json(http::Method::PUT, &path, Some(body), CALL).await;
        put.unwrap_or_else(|e| panic!("declaring {name}: {e}"))
    }

    /// A service.
    ///
    /// # Errors
    /// In words.
    pub async fn service(&self, name: &str) -> Result<ServiceView, String> {
        let path = format!("/v1/services/{name}");
        self.client().get(&path, CALL).await.map_err(|e| e.to_string())
    }

    /// Its instances that have not stopped.
    ///
    /// # Errors
    /// In words.
    pub async fn instances(&self, name: &str) -> Result<Vec<InstanceView>, String> {
        let path = format!("/v1/services/{name}/instances");
        let list: List<InstanceView> =
            self.client().get(&path, CALL).await.map_err(|e| e.to_string())?;
        Ok(list.items.into_iter().filter(|i| i.state != "stopped").collect())
    }

    /// The nodes that have not stopped.
    ///
    /// # Errors
    /// In words.
    pub async fn nodes(&self) -> Result<Vec<NodeView>, String> {
        let list: List<NodeView> =
            self.client().get("/v1/nodes", CALL).await.map_err(|e| e.to_string())?;
        Ok(list.items.into_iter().filter(|n| n.state != "stopped").collect())
    }

    /// Waits until `count` instances are ready; they, sorted.
    pub async fn ready(&self, name: &str, count: usize) -> Vec<InstanceView> {
        until(&format!("{count} ready instances of {name}"), || async {
            let mut ready = self.instances(name).await?;
            ready.retain(|i| i.state == "ready");
            ready.sort_by(|a, b| a.id.cmp(&b.id));
            if ready.len() == count { Ok(ready) } else { Err(format!("{ready:?} {}", self.log())) }
        })
        .await
    }

    /// `tally down`, and checks that no process of the platform is left.
    ///
    /// # Panics
    /// When something is left.
    pub async fn down(mut self) {
        let data = self.data().display().to_string();
        let output = tokio::task::spawn_blocking(move || run(&["down", "--data", &data])).await;
        let output = output.expect("tally down");
        assert!(output.status.success(), "tally down: {output:?}\n{}", self.log());
        self.up.take();
        until("the end of every process", || {
            let left = processes_of(self.folder.path());
            std::future::ready(if left.is_empty() { Ok(()) } else { Err(left) })
        })
        .await;
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        // A failed story leaves nothing either: its processes are known by its folder.
        self.up.take();
        for (pid, _) in processes_of(self.folder.path()) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Processes whose command line names `folder`, or whose environment does: pid and command line.
#[must_use]
pub fn processes_of(folder: &Path) -> Vec<(i32, String)> {
    let needle = folder.display().to_string();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| {
            let read = |name: &str| {
                let bytes = fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
                String::from_utf8_lossy(&bytes).replace('\0', " ")
            };
            let line = read("cmdline");
            // A dead one that nobody has collected yet has no command line.
            let ours = line.contains(&needle) || read("environ").contains(&needle);
            (ours && !line.is_empty()).then_some((pid, line))
        })
        .collect()
}

fn addresses(path: &Path) -> Option<Addresses> {
    let value: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some(Addresses {
        front: value.get("front")?.as_str()?.parse().ok()?,
        api: value.get("api")?.as_str()?.to_owned(),
    })
}

fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let from = text.len().saturating_sub(3000);
    text.get(from..).unwrap_or(&text).to_owned()
}

/// A service of known capacity: the demo's, 40 ms a request, 8 at once, at zero until asked.
#[must_use]
pub fn demo_service(min: u32, max: u32) -> Value {
    let command = [tally().display().to_string(), "demo-service".to_owned(), "--port".to_owned()];
    serde_json::json!({
        "min_instances": min,
        "max_instances": max,
        "run": {"command": [command[0], command[1], command[2], "{port}"]},
        "resources": {"cpu": "100m", "memory": "32MiB"},
        "load": {"concurrency": 8, "window": "5s", "slow_start": "1s"},
        "lifecycle": {"idle_timeout": "3s", "drain_deadline": "5s"},
    })
}
