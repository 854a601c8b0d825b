//! The engine for plain processes: each under its own instance shim, in its own control group.

use super::command;
use crate::cgroup::Cgroups;
use crate::engine::{CommandEnd, Engine, Exit, Found, Running, Start, fill};
use crate::error::EngineError;
use crate::proc;
use crate::shim::{EXIT_FILE, RUN_FILE, SPEC_FILE, ShimExit, ShimRun, ShimSpec, write_json};
use crate::shim_log;
use crate::store::Store;
use crate::users::{self, UserIds};
use async_trait::async_trait;
use domain::{InstanceId, NodeId};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use wire::assignment::{AssignedInstance, IsolationKind, Limits};

/// A log file of an instance; one older file is kept beside it.
const LOG_BYTES_MAX: u64 = 8 << 20;
/// Bytes of log looked at for the last lines.
const TAIL_BYTES_MAX: u64 = 1 << 20;
/// A shim says within this whether its command runs: a loaded node needs long for an `exec`.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// Killed processes are gone within this, unless the kernel holds them (a dead network disk).
const KILL_DEADLINE: Duration = Duration::from_secs(5);
/// After its command's end a shim has only a file to write.
const SHIM_DEADLINE: Duration = Duration::from_secs(2);
/// How often the end of killed processes is looked for.
const KILL_PAUSE: Duration = Duration::from_millis(5);

/// How shims are started: `program arguments... DIR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimProgram {
    /// The `tally` binary.
    pub program: PathBuf,
    /// `instance-shim`.
    pub arguments: Vec<String>,
}

/// The engine.
#[derive(Debug)]
pub struct ProcessEngine {
    /// The node's directory.
    pub store: Store,
    /// Its control groups.
    pub cgroups: Cgroups,
    /// Where instances answer.
    pub address: IpAddr,
    /// Whose instances these are.
    pub node: NodeId,
    /// How shims are started.
    pub shim: ShimProgram,
    /// What every process finds in its environment; `PATH` at least.
    pub env: BTreeMap<String, String>,
}

impl ProcessEngine {
    fn running(&self, id: &InstanceId, run: &ShimRun, port: u16, missing: Vec<String>) -> Running {
        Running {
            pid: run.pid,
            start_time: run.start_time,
            probe: SocketAddr::new(self.address, port),
            cgroups: self.cgroups.paths(id),
            missing,
            checked: false,
        }
    }

    fn environment(&self, start: &Start<'_>) -> BTreeMap<String, String> {
        let mut env = self.env.clone();
        env.extend(start.env.clone());
        env.extend(start.instance.run.env.clone());
        // By these the executor finds its own again, so nobody may set them otherwise.
        env.insert("TALLY_INSTANCE".to_owned(), start.instance.id.to_string());
        env.insert("TALLY_NODE".to_owned(), self.node.to_string());
        env.insert("PORT".to_owned(), start.port.to_string());
        env
    }

    fn spec(&self, start: &Start<'_>, join: Vec<PathBuf>) -> Result<ShimSpec, EngineError> {
        let run = &start.instance.run;
        let namespaces = run.isolation == IsolationKind::Namespaces;
        let foreign = run.mounts.iter().find(|m| m.source != m.target || m.read_only);
        if let Some(mount) = foreign.filter(|_| !namespaces) {
            return Err(EngineError::lasting(format!(
                "a plain process sees {} only with isolation: namespaces, or run it as a container",
                mount.target
            )));
        }
        Ok(ShimSpec {
            command: fill(&run.command, start, start.port, &self.address.to_string()),
            env: self.environment(start),
            workdir: run.workdir.as_ref().map(PathBuf::from),
            user: user_of(start.instance)?,
            join,
            namespaces,
            mounts: if namespaces { run.mounts.clone() } else { Vec::new() },
            log_bytes_max: LOG_BYTES_MAX,
        })
    }

    async fn spawn(&self, dir: &Path, id: &InstanceId) -> Result<ShimRun, EngineError> {
        let program = &self.shim.program;
        let mut child = Command::new(program)
            .args(&self.shim.arguments)
            .arg(dir)
            .env_clear()
            .env("TALLY_INSTANCE", id.as_str())
            .env("TALLY_NODE", self.node.as_str())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| EngineError::fleeting(format!("cannot run {}: {e}", program.display())))?;
        let said = tokio::time::timeout(START_DEADLINE, first_line(&mut child)).await;
        // Someone must collect it when it ends; whoever waits for the instance looks elsewhere.
        tokio::spawn(async move {
            if let Err(error) = child.wait().await {
                tracing::warn!(%error, "an ended shim could not be collected");
            }
        });
        match said {
            Ok(line) if line.starts_with("started ") => read_json::<ShimRun>(&dir.join(RUN_FILE))
                .ok_or_else(|| EngineError::fleeting("the shim left no run.json")),
            Ok(line) => {
                let exit = read_json::<ShimExit>(&dir.join(EXIT_FILE)).unwrap_or_default();
                let text = line.strip_prefix("failed ").map(str::to_owned).or(exit.error);
                let text = text.unwrap_or_else(|| "the shim ended without a word".to_owned());
                Err(EngineError { text, permanent: exit.permanent })
            }
            Err(_elapsed) => {
                Err(EngineError::fleeting(format!("no process after {START_DEADLINE:?}")))
            }
        }
    }

    /// Living processes of an instance, its shim not included.
    fn living(&self, id: &InstanceId, running: &Running) -> BTreeSet<i32> {
        let mut living = self.cgroups.members(id);
        living.extend(proc::descendants(running.pid));
        if !proc::runs(running.pid, running.start_time) {
            // Its tree has lost its root; what carries its name is still found.
            living.extend(self.carrying(Some(id)).remove(id).unwrap_or_default());
        }
        living.remove(&running.pid);
        living.retain(|pid| proc::stat(*pid).is_some_and(|s| s.alive()));
        living
    }

    async fn kill_all_but_shim(&self, id: &InstanceId, running: &Running) -> bool {
        let killing = async {
            loop {
                let living = self.living(id, running);
                if living.is_empty() {
                    return;
                }
                for pid in living.into_iter().filter_map(Pid::from_raw) {
                    let _already_gone = kill_process(pid, Signal::KILL);
                }
                tokio::time::sleep(KILL_PAUSE).await;
            }
        };
        tokio::time::timeout(KILL_DEADLINE, killing).await.is_ok()
    }

    /// Processes of this node's instances by what they carry in their environment.
    fn carrying(&self, only: Option<&InstanceId>) -> BTreeMap<InstanceId, BTreeSet<i32>> {
        let mut by_id: BTreeMap<InstanceId, BTreeSet<i32>> = BTreeMap::new();
        for pid in proc::pids() {
            let ours = proc::environment(pid, "TALLY_NODE").as_deref() == Some(self.node.as_str());
            let id = proc::environment(pid, "TALLY_INSTANCE").filter(|_| ours);
            let id = id.and_then(|id| id.parse::<InstanceId>().ok());
            if let Some(id) = id.filter(|id| only.is_none_or(|only| only == id)) {
                by_id.entry(id).or_default().insert(pid);
            }
        }
        by_id
    }

    /// The root of each instance's tree, found by control groups and environments.
    fn carriers(&self) -> BTreeMap<InstanceId, i32> {
        let mut by_id = self.carrying(None);
        for id in self.cgroups.instances() {
            let members = self.cgroups.members(&id);
            by_id.entry(id).or_default().extend(members);
        }
        let root = |pids: BTreeSet<i32>| {
            let alive = |pid: &&i32| proc::stat(**pid).is_some_and(|s| s.alive());
            let is_root = |pid: &&i32| proc::stat(**pid).is_some_and(|s| !pids.contains(&s.parent));
            pids.iter().filter(alive).find(is_root).copied()
        };
        by_id.into_iter().filter_map(|(id, pids)| Some((id, root(pids)?))).collect()
    }
}

#[async_trait]
impl Engine for ProcessEngine {
    async fn start(&self, start: &Start<'_>) -> Result<Running, EngineError> {
        let id = &start.instance.id;
        let dir = self.store.instance_dir(id);
        if let Some(run) = living_shim(&dir) {
            return Ok(self.running(id, &run, start.port, Vec::new()));
        }
        for stale in [RUN_FILE, EXIT_FILE] {
            let _absent = fs::remove_file(dir.join(stale));
        }
        let made = match start.instance.run.isolation {
            IsolationKind::None => crate::cgroup::Made::default(),
            IsolationKind::Cgroup | IsolationKind::Namespaces => {
                self.cgroups.create(id, start.instance.limits)
            }
        };
        let spec = self.spec(start, made.join)?;
        let kept = write_json(&dir.join(SPEC_FILE), &spec);
        kept.map_err(|e| EngineError::fleeting(format!("cannot write {}: {e}", dir.display())))?;
        let run = self.spawn(&dir, id).await?;
        Ok(self.running(id, &run, start.port, made.missing))
    }

    async fn found(&self) -> Result<BTreeMap<InstanceId, Found>, EngineError> {
        let mut found = BTreeMap::new();
        for record in self.store.records() {
            let id = record.instance.id;
            if let Some(run) = living_shim(&self.store.instance_dir(&id)) {
                let running = self.running(&id, &run, record.port, Vec::new());
                found.insert(id, Found { running, whole: true });
            }
        }
        for (id, pid) in self.carriers() {
            let start_time = proc::stat(pid).map_or(0, |s| s.start_time);
            found.entry(id.clone()).or_insert_with(|| {
                let run = ShimRun { pid, start_time, boot: String::new() };
                Found { running: self.running(&id, &run, 0, Vec::new()), whole: false }
            });
        }
        Ok(found)
    }

    async fn wait(&self, id: &InstanceId, running: &Running) -> Exit {
        proc::until_gone(running.pid, running.start_time).await;
        let path = self.store.instance_dir(id).join(EXIT_FILE);
        let Some(exit) = read_json::<ShimExit>(&path) else {
            // The shim was killed: what it watched over has no supervisor any more.
            self.kill_all_but_shim(id, running).await;
            let text = "its supervising process was killed".to_owned();
            return Exit { text, code: None, permanent: false };
        };
        let out_of_memory = exit.signal == Some(9) && self.cgroups.oom_kills(id) > 0;
        let text = match (&exit.error, exit.code, exit.signal) {
            (Some(error), _, _) => error.clone(),
            (None, Some(code), _) => format!("ended by itself with exit code {code}"),
            (None, None, Some(_)) if out_of_memory => {
                "killed by the kernel: it needed more memory than its limit".to_owned()
            }
            (None, None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None, None) => "ended".to_owned(),
        };
        Exit { text, code: exit.code, permanent: exit.permanent }
    }

    async fn terminate(&self, _id: &InstanceId, running: &Running) -> Result<(), EngineError> {
        signal(running, Signal::TERM)
    }

    async fn kill(&self, id: &InstanceId, running: &Running) -> Result<(), EngineError> {
        let _not_frozen = self.cgroups.freeze(id, false);
        let gone = self.kill_all_but_shim(id, running).await;
        let ending = proc::until_gone(running.pid, running.start_time);
        if tokio::time::timeout(SHIM_DEADLINE, ending).await.is_err() {
            let _already_gone = signal(running, Signal::KILL);
            let ending = proc::until_gone(running.pid, running.start_time);
            let _reported_below = tokio::time::timeout(SHIM_DEADLINE, ending).await;
        }
        let shim_gone = !proc::runs(running.pid, running.start_time);
        if gone && shim_gone && self.living(id, running).is_empty() {
            Ok(())
        } else {
            Err(EngineError::fleeting("processes of it do not end, even by SIGKILL"))
        }
    }

    async fn stop_command(
        &self,
        start: &Start<'_>,
        _running: &Running,
        argv: &[String],
        limit: Duration,
    ) -> CommandEnd {
        let argv = fill(argv, start, start.port, &self.address.to_string());
        let Some((program, arguments)) = argv.split_first() else {
            return CommandEnd { code: None, output: "the stop command is empty".to_owned() };
        };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(self.environment(start));
        // It is not part of what is to be stopped, nor of what a restart should find.
        command.env_remove("TALLY_NODE");
        if let Some(dir) = &start.instance.run.workdir {
            command.current_dir(dir);
        }
        match user_of(start.instance) {
            Ok(Some(user)) => {
                command.uid(user.uid).gid(user.gid);
            }
            Ok(None) => {}
            Err(error) => return CommandEnd { code: None, output: error.text },
        }
        command::run(command, limit).await
    }

    async fn limit(&self, id: &InstanceId, limits: Limits) -> Result<(), EngineError> {
        if self.cgroups.paths(id) == wire::node_file::CgroupPaths::default() {
            return Err(EngineError::lasting("it has no control group, so nothing limits it"));
        }
        let wrong = self.cgroups.set_limits(id, limits);
        if wrong.is_empty() { Ok(()) } else { Err(EngineError::fleeting(wrong.join("; "))) }
    }

    async fn freeze(&self, id: &InstanceId, frozen: bool) -> Result<(), EngineError> {
        self.cgroups.freeze(id, frozen).map_err(|e| {
            EngineError::lasting(format!("this node cannot pause it without control groups: {e}"))
        })
    }

    async fn clear(&self, id: &InstanceId) {
        let removing = async {
            while !self.cgroups.remove(id) {
                tokio::time::sleep(KILL_PAUSE).await;
            }
        };
        // The kernel lets go of the last member a moment after its end.
        if tokio::time::timeout(SHIM_DEADLINE, removing).await.is_err() {
            tracing::warn!(instance.id = %id, "its control group stays behind");
        }
        self.cgroups.remove_node();
    }

    async fn logs(&self, id: &InstanceId, lines: usize) -> Result<Vec<String>, EngineError> {
        let dir = self.store.instance_dir(id);
        tokio::task::spawn_blocking(move || shim_log::tail(&dir, lines, TAIL_BYTES_MAX))
            .await
            .map_err(|e| EngineError::fleeting(e.to_string()))
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The shim that lives for the instance directory `dir`.
fn living_shim(dir: &Path) -> Option<ShimRun> {
    let run = read_json::<ShimRun>(&dir.join(RUN_FILE))?;
    (run.boot == proc::boot_id() && proc::runs(run.pid, run.start_time)).then_some(run)
}

fn user_of(instance: &AssignedInstance) -> Result<Option<UserIds>, EngineError> {
    let Some(user) = instance.run.user.as_deref() else { return Ok(None) };
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    users::find(user, &read("/etc/passwd"), &read("/etc/group"))
        .map(Some)
        .map_err(EngineError::lasting)
}

async fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        // Broken off or empty reads as "without a word".
        let _read = BufReader::new(out).read_line(&mut line).await;
    }
    line.trim_end().to_owned()
}

fn signal(running: &Running, signal: Signal) -> Result<(), EngineError> {
    if proc::signal(running.pid, running.start_time, signal) {
        Ok(())
    } else {
        Err(EngineError::fleeting("its process is gone"))
    }
}
