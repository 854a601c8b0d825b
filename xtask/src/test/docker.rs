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
/// The bridge a daemon makes; ours is taken away again if it was not there before.
const BRIDGE: &str = "docker0";

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
    bridge_is_ours: bool,
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
    let args = [
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
    let bridge_is_ours = !bridge_exists();
    let server = Server::start("dockerd", &program, &args, &dir.join("dockerd.log"))?;
    let mut own = Own { server: Some(server), dir: dir.to_path_buf(), bridge_is_ours };
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

fn bridge_exists() -> bool {
    Path::new("/sys/class/net").join(BRIDGE).exists()
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.server.take()); // stops the daemon, and with it its containers
        if self.bridge_is_ours && bridge_exists() {
            let mut command = Command::new("ip");
            command.args(["link", "delete", BRIDGE]);
            if !process::quiet(command, ASK_DEADLINE).is_ok_and(|ran| ran.ok()) {
                println!("  note: the bridge {BRIDGE} of our Docker daemon is left");
            }
        }
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
        if !process::quiet(command, ASK_DEADLINE).is_ok_and(|ran| ran.ok()) {
            println!("  note: {point} stays mounted");
        }
    }
}
