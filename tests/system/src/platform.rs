//! A platform of real processes in a folder of its own, ended with the story.

use crate::api::Api;
use crate::process::{Process, end_all, processes_of, run, tail, tally, tell};
use crate::wait::until;
use chassis::Client;
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use tempfile::TempDir;
use wire::operator::{InstanceView, NodeView, ServiceView};

/// `tally up` in a folder of its own.
pub struct Platform {
    folder: TempDir,
    up: Option<Process>,
    redis: Option<String>,
    env: Vec<(String, String)>,
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
        Platform::start_with(redis, &[]).await
    }

    /// The same, with more in its environment.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_with(redis: Option<&str>, env: &[(&str, &str)]) -> Platform {
        let folder = tempfile::Builder::new().prefix("tally-t-").tempdir().expect("a folder");
        let at = Addresses { front: SocketAddr::from(([0, 0, 0, 0], 0)), api: String::new() };
        let redis = redis.map(str::to_owned);
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut platform = Platform { folder, up: None, redis, env, listen: None, at };
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
        self.up = Some(Process::start_with("up", self.folder.path(), &args, &self.env));
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

    /// Its API.
    #[must_use]
    pub fn api(&self) -> Api {
        Api { url: self.at.api.clone(), folder: self.folder.path().to_owned() }
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A client of its API.
    #[must_use]
    pub fn client(&self) -> Client {
        self.api().client()
    }

    /// Declares a service.
    pub async fn put_service(&self, name: &str, body: &Value) -> ServiceView {
        self.api().put_service(name, body).await
    }

    /// A service.
    ///
    /// # Errors
    /// In words.
    pub async fn service(&self, name: &str) -> Result<ServiceView, String> {
        self.api().service(name).await
    }

    /// Its instances that have not stopped.
    ///
    /// # Errors
    /// In words.
    pub async fn instances(&self, name: &str) -> Result<Vec<InstanceView>, String> {
        self.api().instances(name).await
    }

    /// The nodes that have not stopped.
    ///
    /// # Errors
    /// In words.
    pub async fn nodes(&self) -> Result<Vec<NodeView>, String> {
        self.api().nodes().await
    }

    /// Waits until `count` instances are ready; they, sorted.
    pub async fn ready(&self, name: &str, count: usize) -> Vec<InstanceView> {
        self.api().ready(name, count).await
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
        // A failed story leaves nothing either.
        if std::thread::panicking() {
            tell(self.folder.path());
        }
        self.up.take();
        end_all(self.folder.path());
    }
}

fn addresses(path: &Path) -> Option<Addresses> {
    let value: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some(Addresses {
        front: value.get("front")?.as_str()?.parse().ok()?,
        api: value.get("api")?.as_str()?.to_owned(),
    })
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
