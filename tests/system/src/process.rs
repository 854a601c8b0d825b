//! Processes of the binary under test: started, ended, and found wherever a story left them.

use crate::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

/// Rounds of ending what is left: each ends what the one before had not seen yet.
const ROUNDS: u32 = 100;
/// The end of a log that is shown, bytes.
const TAIL_BYTES: usize = 3000;

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
        Process::start_with(name, folder, args, &[])
    }

    /// The same, with more in its environment.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_with(
        name: &str,
        folder: &Path,
        args: &[String],
        env: &[(String, String)],
    ) -> Process {
        Process::start_program(&tally(), name, folder, args, env)
    }

    /// The same, of another binary.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_program(
        program: &Path,
        name: &str,
        folder: &Path,
        args: &[String],
        env: &[(String, String)],
    ) -> Process {
        let log = folder.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let child = Command::new(program)
            .args(args)
            .env("TALLY_LOG", "info")
            .envs(env.iter().map(|(name, value)| (name, value)))
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

    /// Asks it to end, as a service manager would, and waits.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn term(self) -> ExitStatus {
        self.end(Signal::TERM).await
    }

    /// Asks it to end, as Ctrl-C would, and waits.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn interrupt(self) -> ExitStatus {
        self.end(Signal::INT).await
    }

    async fn end(mut self, signal: Signal) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a signal");
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

/// The logs in `folder`.
#[must_use]
pub fn logs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut logs: Vec<PathBuf> = entries.map(|e| e.path()).collect();
    logs.retain(|path| path.extension().is_some_and(|e| e == "log"));
    logs.sort();
    logs
}

/// Shows the end of every log in `folder`: a story has failed.
#[expect(clippy::print_stderr, reason = "why a story failed is in the logs")]
pub fn tell(folder: &Path) {
    for log in logs(folder) {
        eprintln!("--- {}\n{}", log.display(), tail(&log));
    }
}

/// Processes of a platform in `folder`: its path, or the id of one of its nodes, is in their command
/// line or environment. Pid and command line. A dead one that nobody has collected yet is none.
#[must_use]
pub fn processes_of(folder: &Path) -> Vec<(i32, String)> {
    let mut needles = vec![folder.display().to_string()];
    needles.extend(node_ids(folder).iter().map(|id| format!("TALLY_NODE={id}")));
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
            let (line, environ) = (read("cmdline"), read("environ"));
            let ours = needles.iter().any(|n| line.contains(n) || environ.contains(n));
            (ours && !line.is_empty()).then_some((pid, line))
        })
        .collect()
}

/// Nodes that have a folder below `folder`: `DATA/nodes/ID`, or `node/node.json` of one that joined
/// by itself.
fn node_ids(folder: &Path) -> Vec<String> {
    let inside = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|e| e.path()).collect()
    };
    let mut ids = Vec::new();
    for data in inside(folder) {
        for node in inside(&data.join("nodes")) {
            ids.extend(node.file_name().and_then(|n| n.to_str()).map(str::to_owned));
        }
        let joined = fs::read(data.join("node/node.json")).unwrap_or_default();
        let joined: Value = serde_json::from_slice(&joined).unwrap_or_default();
        let id = joined.pointer("/answer/node").and_then(Value::as_str);
        ids.extend(id.map(str::to_owned));
    }
    ids.retain(|id| id.starts_with("n-"));
    ids
}

/// Ends every process of a platform in `folder`: parents first may start more, so until none is
/// left.
pub fn end_all(folder: &Path) {
    for _ in 0..ROUNDS {
        let left = processes_of(folder);
        if left.is_empty() {
            return;
        }
        for (pid, _) in left {
            if let Some(pid) = Pid::from_raw(pid) {
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The end of a log.
#[must_use]
pub fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let from = text.len().saturating_sub(TAIL_BYTES);
    text.get(from..).unwrap_or(&text).to_owned()
}
