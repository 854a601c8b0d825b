//! Starting, bounding and stopping other programs, also when the person presses Ctrl-C.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a waiting loop looks for an interrupt, an exit or a passed deadline.
const LOOK: Duration = Duration::from_millis(50);
/// A silent program is mentioned this often, so that nobody takes a long build for a hang.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Time between the polite signal and SIGKILL.
const POLITE: Duration = Duration::from_secs(10);
/// After a program's end its pipe may be held open by a daemon it left behind; what was written
/// until then has long arrived by this time.
const DRAIN: Duration = Duration::from_secs(2);

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Turns SIGINT, SIGTERM and SIGHUP into a flag, so that everything started is also stopped.
pub fn watch_signals() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in
        [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
    {
        signal_hook::flag::register(signal, Arc::clone(flag)).context("watch for signals")?;
    }
    Ok(())
}

/// Whether the person (or the system) asked us to end.
pub fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Exit code 0.
    Ok,
    /// Any other exit, in words.
    Failed(String),
    /// It passed its deadline and was stopped.
    TimedOut(Duration),
    /// We were asked to end and stopped it.
    Interrupted,
}

/// A program that ran: how it ended, and what it wrote (stdout and stderr in one).
#[derive(Debug)]
pub struct Ran {
    pub end: End,
    pub output: String,
}

impl Ran {
    /// Whether it ended with exit code 0.
    pub fn ok(&self) -> bool {
        self.end == End::Ok
    }

    /// The last `count` lines it wrote.
    pub fn tail(&self, count: usize) -> String {
        let lines: Vec<&str> = self.output.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

/// What a run is called, where its output goes and how long it may take.
#[derive(Debug)]
pub struct Bounds<'a> {
    /// Shown in heartbeats.
    pub name: &'a str,
    /// Where the whole output is kept.
    pub log: Option<&'a Path>,
    /// After this the whole process group is stopped.
    pub deadline: Duration,
    /// Whether silence is broken by heartbeats.
    pub heartbeat: bool,
    /// Whether it is stopped when we are asked to end. Tidying up is not.
    pub interruptible: bool,
}

/// Runs a program in a process group of its own, collects what it writes, and hands each line to
/// `each`. The group is stopped at the deadline and on an interrupt.
pub fn run(mut command: Command, bounds: &Bounds<'_>, each: &mut dyn FnMut(&str)) -> Result<Ran> {
    let program = command.get_program().to_string_lossy().into_owned();
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let mut child = command.spawn().with_context(|| format!("start `{program}`"))?;
    drop(command); // it holds the pipe's writing end
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || read_lines(reader, &send));
    let mut log = bounds.log.map(std::fs::File::create).transpose().context("open the log")?;

    let started = Instant::now();
    let mut spoken = started;
    let mut output = String::new();
    let mut exited: Option<(ExitStatus, Instant)> = None;
    let mut cut = None;
    loop {
        match lines.recv_timeout(LOOK) {
            Ok(line) => {
                if let Some(log) = &mut log {
                    writeln!(log, "{line}").context("write the log")?;
                }
                each(&line);
                output.push_str(&line);
                output.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) if exited.is_some() => break,
            // The pipe is closed but the program lives on: wait without spinning.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if exited.is_none() {
            exited = child.try_wait().context("wait")?.map(|status| (status, Instant::now()));
        }
        if exited.is_some_and(|(_, at)| at.elapsed() > DRAIN) {
            break;
        }
        let asked = interrupted() && bounds.interruptible;
        if exited.is_none() && (asked || started.elapsed() > bounds.deadline) {
            cut = Some(if asked { End::Interrupted } else { End::TimedOut(bounds.deadline) });
            exited = Some((stop_group(&mut child)?, Instant::now()));
        }
        if bounds.heartbeat && spoken.elapsed() > HEARTBEAT {
            spoken = Instant::now();
            say_alive(bounds.name, started.elapsed(), &output);
        }
    }
    let end = match (cut, exited) {
        (Some(cut), _) => cut,
        (None, Some((status, _))) if status.success() => End::Ok,
        (None, Some((status, _))) => End::Failed(status.to_string()),
        (None, None) => End::Failed("no exit status".into()),
    };
    Ok(Ran { end, output })
}

/// Runs a short program quietly and gives what it wrote.
pub fn quiet(command: Command, deadline: Duration) -> Result<Ran> {
    let bounds = Bounds { name: "", log: None, deadline, heartbeat: false, interruptible: true };
    run(command, &bounds, &mut |_| {})
}

/// Runs a short program quietly that must succeed.
pub fn must(command: Command, name: &str, deadline: Duration) -> Result<()> {
    let ran = quiet(command, deadline).with_context(|| format!("run {name}"))?;
    if !ran.ok() {
        bail!("`{name}` failed: {}", ran.tail(5));
    }
    Ok(())
}

/// [`quiet`] for tidying up, which goes on when the person has asked us to end.
pub fn tidy_up(command: Command, deadline: Duration) -> Result<Ran> {
    let bounds = Bounds { name: "", log: None, deadline, heartbeat: false, interruptible: false };
    run(command, &bounds, &mut |_| {})
}

fn read_lines(reader: std::io::PipeReader, send: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
        let line = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
        if send.send(line).is_err() {
            return;
        }
        bytes.clear();
    }
}

fn say_alive(name: &str, took: Duration, output: &str) {
    let last = output.lines().next_back().unwrap_or("").trim();
    let last: String = last.chars().take(100).collect();
    println!("  ... {name}: {} s, {last}", took.as_secs());
}

/// Stops a program and its whole process group: politely, then not.
pub fn stop_group(child: &mut Child) -> Result<ExitStatus> {
    signal_group(child.id(), "TERM");
    let asked = Instant::now();
    while asked.elapsed() < POLITE {
        if let Some(status) = child.try_wait().context("wait")? {
            // Members that outlived the leader.
            signal_group(child.id(), "KILL");
            return Ok(status);
        }
        std::thread::sleep(LOOK);
    }
    signal_group(child.id(), "KILL");
    child.kill().context("kill")?;
    child.wait().context("wait")
}

/// Signals every member of a group; a group that is gone is no error.
pub fn signal_group(leader: u32, signal: &str) {
    send_signal(signal, &format!("-{leader}"));
}

/// Signals one process; a process that is gone is no error.
pub fn signal(pid: u32, signal: &str) {
    send_signal(signal, &pid.to_string());
}

fn send_signal(signal: &str, target: &str) {
    // The shell's own `kill`, because small images have no program of that name.
    let sent = Command::new("sh")
        .args(["-c", "kill -s \"$1\" -- \"$2\"", "sh", signal, target])
        .stderr(Stdio::null())
        .status();
    if let Err(error) = sent {
        println!("  note: no signal could be sent to {target}: {error}");
    }
}

/// A program that serves the tests and is stopped when this value goes.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a program in its own group, writing to `log`. Should we be killed outright, the
    /// kernel ends it for us (where `setpriv` is at hand).
    pub fn start(name: &str, program: &Path, args: &[String], log: &Path) -> Result<Server> {
        let out = std::fs::File::create(log).context("open the log")?;
        let mut command = match find("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "TERM"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Server { name: name.to_owned(), child, log: log.to_path_buf() })
    }

    /// Waits until `ready` holds, at most `deadline`; the error carries the end of the log.
    pub fn wait(&mut self, deadline: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let started = Instant::now();
        while !ready() {
            let why = if let Some(status) = self.child.try_wait()? {
                format!("ended with {status}")
            } else if started.elapsed() > deadline {
                format!("was not ready within {} s", deadline.as_secs())
            } else if interrupted() {
                "was interrupted".to_owned()
            } else {
                std::thread::sleep(LOOK);
                continue;
            };
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(5)..].join("\n");
            anyhow::bail!("{} {why}:\n{tail}", self.name);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = stop_group(&mut self.child) {
            println!("  note: {} could not be stopped: {error:#}", self.name);
        }
    }
}

/// Finds a program on PATH, and where daemons live when PATH is a plain user's.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"])
        .filter(|dir| !dir.is_empty())
        .map(|dir| Path::new(dir).join(program))
        .find(|candidate| candidate.is_file())
}

/// A free TCP port on loopback. Another program may take it before it is used, so callers that
/// hand it on try again with a new one.
pub fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

/// A `cargo` command at the checkout's root, without what the outer `cargo run` left in the
/// environment: nested builds then have the same fingerprints as a person's.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command.current_dir(crate::root::repo());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_of_both_streams_and_the_end_are_kept() {
        let ran = quiet(sh("echo one; echo two >&2; exit 3"), Duration::from_secs(20)).unwrap();
        assert!(ran.output.contains("one") && ran.output.contains("two"));
        assert!(matches!(ran.end, End::Failed(why) if why.contains('3')));
    }

    #[test]
    fn a_program_past_its_deadline_is_stopped_with_its_children() {
        let deadline = Duration::from_millis(200);
        let ran = quiet(sh("sleep 600 & echo $!; wait"), deadline).unwrap();
        assert_eq!(ran.end, End::TimedOut(deadline));
        let pid: u32 = ran.output.trim().parse().unwrap();
        let gone = || {
            // A killed orphan may wait for its reaper; it no longer runs.
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .map_or(true, |stat| stat.contains(") Z "))
        };
        let started = Instant::now();
        while !gone() {
            assert!(started.elapsed() < Duration::from_secs(20), "{pid} lives on");
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn a_server_stops_when_its_value_goes() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let args = ["-c".to_owned(), "echo up; exec sleep 600".to_owned()];
        let mut server = Server::start("sleeper", Path::new("/bin/sh"), &args, &log).unwrap();
        let up = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("up"));
        server.wait(Duration::from_secs(20), up).unwrap();
        let pid = server.child.id();
        drop(server);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_server_that_ends_early_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-c".to_owned(), "echo no such thing >&2; exit 7".to_owned()];
        let log = dir.path().join("log");
        let mut server = Server::start("broken", Path::new("/bin/sh"), &args, &log).unwrap();
        let error = server.wait(Duration::from_secs(20), || false).unwrap_err().to_string();
        assert!(error.contains("no such thing") && error.contains('7'), "{error}");
    }
}
