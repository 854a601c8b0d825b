//! A Docker daemon for the tests: the one that answers, else one of our own in a temporary folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::apt;
use crate::process::{self, Server};

/// A cold daemon loads its storage driver and starts its containerd.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// One `docker info`.
const ASK_DEADLINE: Duration = Duration::from_secs(10);
/// Our daemon's containers are on a bridge of their own, so that another daemon's stays as it is.
/// The third number comes from our process id: two runs at once do not meet.
const BRIDGE_SUBNET: &str = "10.213";

/// A daemon the tests may use.
#[derive(Debug)]
pub struct Docker {
    /// For `DOCKER_HOST` and `TALLY_TEST_DOCKER`.
    pub host: String,
    /// In words, for the log.
    pub told: String,
    _own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    server: Option<Server>,
    dir: PathBuf,
    _bridge: Bridge,
}

/// A network bridge that goes with this value.
#[derive(Debug)]
struct Bridge {
    name: String,
}

impl Bridge {
    fn add() -> Result<Bridge> {
        let pid = std::process::id();
        // The kernel takes 15 characters.
        let bridge = Bridge { name: format!("tally{pid}") };
        ip(&["link", "add", &bridge.name, "type", "bridge"])?;
        let address = format!("{BRIDGE_SUBNET}.{}.1/24", pid % 250);
        ip(&["addr", "add", &address, "dev", &bridge.name])?;
        ip(&["link", "set", &bridge.name, "up"])?;
        Ok(bridge)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Err(error) = ip(&["link", "delete", &self.name]) {
            println!("  note: the bridge {} is left: {error:#}", self.name);
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let mut command = Command::new(process::find("ip").context("`ip` is not installed")?);
    command.args(args);
    let ran = process::tidy_up(command, ASK_DEADLINE)?;
    if !ran.ok() {
        bail!("`ip {}`: {}", args.join(" "), ran.tail(1));
    }
    Ok(())
}

/// Finds a daemon that answers, else starts one with all its files in `dir`.
pub fn ready(dir: &Path) -> Result<Docker> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let host = if host.is_empty() { "unix:///var/run/docker.sock".to_owned() } else { host };
    if let Some(version) = answers(&host) {
        let told = format!("the daemon that answers at {host}, {version}");
        return Ok(Docker { host, told, _own: None });
    }
    start(dir)
}

fn start(dir: &Path) -> Result<Docker> {
    if !apt::is_root() {
        bail!("no Docker daemon answers, and only root may start one");
    }
    let program = process::find("dockerd").context("dockerd is not installed")?;
    std::fs::create_dir_all(dir)?;
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let host = format!("unix://{}", path("docker.sock"));
    let bridge = Bridge::add()?;
    let args = [
        "--bridge",
        &bridge.name,
        "--host",
        &host,
        "--data-root",
        &path("data"),
        "--exec-root",
        &path("exec"),
        "--pidfile",
        &path("docker.pid"),
        &format!("--iptables={}", firewall_drops()),
        "--ip6tables=false",
    ]
    .map(str::to_owned);
    let server = Server::start("dockerd", &program, &args, &dir.join("dockerd.log"))?;
    let mut own = Own { server: Some(server), dir: dir.to_path_buf(), _bridge: bridge };
    let mut version = None;
    if let Some(server) = &mut own.server {
        server.wait(READY_DEADLINE, || {
            version = answers(&host);
            version.is_some()
        })?;
    }
    let told = format!("a daemon of our own, {}", version.unwrap_or_default());
    Ok(Docker { host, told, _own: Some(own) })
}

/// The host's firewall is nobody's to change in a test, and ports are published by the daemon's own
/// forwarder: only where an earlier daemon left its rule that drops what passes between containers
/// must ours add its own.
fn firewall_drops() -> bool {
    let mut command = Command::new(process::find("iptables").unwrap_or_default());
    command.args(["-S", "FORWARD"]);
    process::quiet(command, ASK_DEADLINE).is_ok_and(|ran| ran.output.contains("-P FORWARD DROP"))
}

/// The server's version and cgroup driver, if one answers there.
fn answers(host: &str) -> Option<String> {
    let mut command = Command::new(process::find("docker")?);
    command.args(["info", "--format", "{{.ServerVersion}} cgroup v{{.CgroupVersion}}"]);
    command.env("DOCKER_HOST", host);
    let ran = process::quiet(command, ASK_DEADLINE).ok()?;
    // A client alone prints its own errors and, in some versions, still exits with 0.
    let line = ran.output.lines().next_back()?.trim().to_owned();
    (ran.ok() && line.starts_with(|c: char| c.is_ascii_digit())).then_some(line)
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.server.take()); // stops the daemon, and with it its containers
        unmount_below(&self.dir);
    }
}

/// What the daemon left mounted would keep the temporary folder from being removed.
fn unmount_below(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let prefix = dir.to_string_lossy().into_owned();
    let mut below: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|point| point.starts_with(&prefix))
        .collect();
    below.sort_unstable_by_key(|point| std::cmp::Reverse(point.len()));
    for point in below {
        let mut command = Command::new("umount");
        command.args(["-l", point]);
        if !process::tidy_up(command, ASK_DEADLINE).is_ok_and(|ran| ran.ok()) {
            println!("  note: {point} stays mounted");
        }
    }
}
