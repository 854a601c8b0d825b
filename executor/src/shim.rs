//! `tally instance-shim DIR`: the small parent of one plain process, which outlives the executor.
//!
//! It makes its own session, joins the control group, spawns the command, writes its output to a
//! bounded log, passes SIGTERM on, and writes `exit.json` when all is over. One thread, no runtime.

use crate::proc;
use crate::shim_log::Log;
use crate::users::UserIds;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use wire::assignment::AssignedMount;

/// The shim's orders, in the instance's directory.
pub const SPEC_FILE: &str = "shim.json";
/// Who the shim is.
pub const RUN_FILE: &str = "run.json";
/// How the command ended.
pub const EXIT_FILE: &str = "exit.json";
/// Held while a shim lives: no two of them for one instance.
const LOCK_FILE: &str = "lock";
/// Exit code when the command could not be started; shells use the same range.
const EXIT_NOT_STARTED: u8 = 125;
/// Rounds of killing what the command left behind; each round ends only when no child is left
/// or new ones appeared meanwhile, so a few are plenty.
const SWEEPS_MAX: u32 = 100;

/// What the shim shall do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimSpec {
    /// Program and arguments, filled in.
    pub command: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub workdir: Option<PathBuf>,
    /// Whom to run as.
    pub user: Option<UserIds>,
    /// Files to write `0` to in order to join the control groups.
    pub join: Vec<PathBuf>,
    /// Whether to leave the host's mount, IPC and host name spaces.
    pub namespaces: bool,
    /// Bound in the own mount space.
    pub mounts: Vec<AssignedMount>,
    /// A log file is replaced when it would grow beyond this; one old file is kept.
    pub log_bytes_max: u64,
}

/// Who the shim is: enough to know it again after the executor's restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimRun {
    /// The shim's process.
    pub pid: i32,
    /// When it started, clock ticks since boot.
    pub start_time: u64,
    /// In which boot.
    pub boot: String,
}

/// How the command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ShimExit {
    /// Exit code, when it ended by itself.
    pub code: Option<i32>,
    /// Signal, when one ended it.
    pub signal: Option<i32>,
    /// Why it could not be started.
    pub error: Option<String>,
    /// Whether trying again is pointless until something changes.
    #[serde(default)]
    pub permanent: bool,
}

struct Failure {
    text: String,
    permanent: bool,
    /// Whether another shim holds the instance: its files are not ours to write.
    held: bool,
}

impl Failure {
    fn fleeting(what: &str, error: impl std::fmt::Display) -> Failure {
        Failure { text: format!("{what}: {error}"), permanent: false, held: false }
    }
    fn lasting(text: String) -> Failure {
        Failure { text, permanent: true, held: false }
    }
}

/// Runs the shim for the instance directory `dir` until its command has ended.
#[must_use]
pub fn shim_main(dir: &Path) -> ExitCode {
    match run(dir) {
        Ok(exit) => {
            let told = write_json(&dir.join(EXIT_FILE), &exit);
            if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            let exit = ShimExit {
                error: Some(failure.text.clone()),
                permanent: failure.permanent,
                ..ShimExit::default()
            };
            if !failure.held {
                let _the_pipe_says_it_too = write_json(&dir.join(EXIT_FILE), &exit);
            }
            tell(&format!("failed {}", failure.text.replace('\n', " ")));
            ExitCode::from(EXIT_NOT_STARTED)
        }
    }
}

/// One line to the executor; it may be gone, and that is fine.
fn tell(line: &str) {
    let mut out = io::stdout();
    let _reader_gone = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Replaces `path` at once: a reader sees the old content or the new one.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    crate::store::replace(path, &bytes)
}

fn run(dir: &Path) -> Result<ShimExit, Failure> {
    // Fails only for a group leader, which a spawned process is not; then the group is ours anyway.
    let _already_leader = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|e| Failure::fleeting("cannot adopt orphans", e))?;
    let _lock = lock(dir)?;
    let bytes = fs::read(dir.join(SPEC_FILE)).map_err(|e| Failure::fleeting(SPEC_FILE, e))?;
    let spec: ShimSpec =
        serde_json::from_slice(&bytes).map_err(|e| Failure::fleeting(SPEC_FILE, e))?;
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let start_time = proc::stat(me).map_or(0, |s| s.start_time);
    write_json(&dir.join(RUN_FILE), &ShimRun { pid: me, start_time, boot: proc::boot_id() })
        .map_err(|e| Failure::fleeting(RUN_FILE, e))?;
    let signals = Signals::new().map_err(|e| Failure::fleeting("cannot watch signals", e))?;
    for group in &spec.join {
        fs::write(group, "0").map_err(|e| Failure::fleeting(&group.display().to_string(), e))?;
    }
    if spec.namespaces {
        crate::shim_space::enter(&spec.mounts).map_err(Failure::lasting)?;
    }
    let log = Log::open(dir, spec.log_bytes_max).map_err(|e| Failure::fleeting("the log", e))?;
    let (output, pid) = spawn(&spec)?;
    tell(&format!("started {pid}"));
    supervise(Pid::from_raw(pid), output, log, &signals)
}

fn lock(dir: &Path) -> Result<File, Failure> {
    let file = File::create(dir.join(LOCK_FILE)).map_err(|e| Failure::fleeting(LOCK_FILE, e))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
        |e| Failure { held: true, ..Failure::fleeting("another shim holds this instance", e) },
    )?;
    Ok(file)
}

fn spawn(spec: &ShimSpec) -> Result<(io::PipeReader, i32), Failure> {
    let (program, arguments) = spec
        .command
        .split_first()
        .ok_or_else(|| Failure::lasting("the command is empty".to_owned()))?;
    let pipe = |e| Failure::fleeting("cannot make a pipe", e);
    let (reader, writer) = io::pipe().map_err(pipe)?;
    rustix::io::ioctl_fionbio(&reader, true).map_err(|e| pipe(e.into()))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(&spec.env)
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(pipe)?)
        .stderr(writer)
        .process_group(0);
    if let Some(dir) = &spec.workdir {
        command.current_dir(dir);
    }
    if let Some(user) = spec.user {
        command.uid(user.uid).gid(user.gid);
    }
    let child = command.spawn().map_err(|e| {
        let kind = e.kind();
        let place = spec.workdir.as_ref().map_or(String::new(), |d| format!(" in {}", d.display()));
        let text = format!("cannot start {program:?}{place}: {e}");
        let lasting = matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied);
        Failure { text, permanent: lasting, held: false }
    })?;
    Ok((reader, i32::try_from(child.id()).unwrap_or(0)))
}

/// Signals as readable streams: nothing runs in a signal handler but one write.
struct Signals {
    term: UnixStream,
    child: UnixStream,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        let watch = |signal: Signal| {
            let (ours, handlers) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            handlers.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(signal.as_raw(), handlers)?;
            Ok::<UnixStream, io::Error>(ours)
        };
        // A hang-up means nothing to a session without a terminal, but must not end us.
        let _ignored = signal_hook::flag::register(Signal::HUP.as_raw(), Default::default())?;
        Ok(Signals { term: watch(Signal::TERM)?, child: watch(Signal::CHILD)? })
    }
}

/// Empties a stream; `true` when something was in it.
fn emptied(mut stream: &UnixStream) -> bool {
    let mut buffer = [0_u8; 64];
    let mut any = false;
    while stream.read(&mut buffer).is_ok_and(|n| n > 0) {
        any = true;
    }
    any
}

fn supervise(
    main: Option<Pid>,
    mut output: io::PipeReader,
    mut log: Log,
    signals: &Signals,
) -> Result<ShimExit, Failure> {
    let main = main.ok_or_else(|| Failure::fleeting("the command", "has no process id"))?;
    let mut open = true;
    loop {
        let mut watched = vec![
            PollFd::new(&signals.child, PollFlags::IN),
            PollFd::new(&signals.term, PollFlags::IN),
        ];
        if open {
            watched.push(PollFd::new(&output, PollFlags::IN));
        }
        match poll(&mut watched, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::fleeting("cannot wait", error)),
        }
        if emptied(&signals.term) {
            let _already_gone = rustix::process::kill_process_group(main, Signal::TERM);
        }
        if open {
            open = log.take(&mut output);
        }
        if emptied(&signals.child)
            && let Some(status) = reap(main)
        {
            sweep();
            if open {
                log.take(&mut output);
            }
            return Ok(ended(status));
        }
    }
}

/// Reaps every ended child; answers the command's status once it is among them.
fn reap(main: Pid) -> Option<WaitStatus> {
    let mut found = None;
    // `wait` means any child; `waitpid(None)` would mean our own process group alone.
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == main {
            found = Some(status);
        }
    }
    found
}

/// Kills what the command left behind. As subreaper we are the parent of all of it, own sessions
/// or not.
fn sweep() {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    for _ in 0..SWEEPS_MAX {
        let left = proc::descendants(me);
        for pid in left.into_iter().filter_map(Pid::from_raw) {
            let _already_gone = rustix::process::kill_process(pid, Signal::KILL);
        }
        // Blocks until a child ends; `CHILD` means that none is left.
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_none_left) => return,
        }
    }
}

fn ended(status: WaitStatus) -> ShimExit {
    ShimExit {
        code: status.exit_status(),
        signal: status.terminating_signal(),
        ..ShimExit::default()
    }
}
