//! Processes by pid and start time: a pid alone may belong to somebody else by now.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How often a dying process is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A process of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub(crate) start_ticks: u64,
}

impl Process {
    /// The process with this pid, if it lives.
    pub(crate) fn find(pid: i32) -> Option<Process> {
        let (state, start_ticks) = stat(pid)?;
        (state != 'Z' && state != 'X').then_some(Process { pid, start_ticks })
    }

    /// Whether it still is the same process and lives.
    pub(crate) fn is_alive(self) -> bool {
        Process::find(self.pid) == Some(self)
    }

    /// Sends a signal if it still is the same process.
    pub(crate) fn signal(self, signal: Signal) {
        if !self.is_alive() {
            return;
        }
        if let Some(pid) = Pid::from_raw(self.pid) {
            // Gone in between is as good as done.
            let _gone = kill_process(pid, signal);
        }
    }

    /// Waits until it is gone, at most `limit`. `false`: it lives.
    pub(crate) async fn gone(self, limit: Duration) -> bool {
        let wait = async {
            while self.is_alive() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }
}

/// State letter and start time of a process.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses included.
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // `state` is field 3, the start time field 22.
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    let mut pids: Vec<i32> = names.collect();
    pids.sort_unstable();
    pids
}

/// Processes one of whose arguments is exactly `argument`.
pub(crate) fn with_argument(argument: &str) -> Vec<Process> {
    holding("cmdline", argument)
}

/// Processes whose environment holds exactly `entry` (`NAME=value`).
pub(crate) fn with_environment(entry: &str) -> Vec<Process> {
    holding("environ", entry)
}

fn holding(file: &str, wanted: &str) -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let found = pids().into_iter().filter(|pid| *pid != own).filter(|pid| {
        let bytes = fs::read(Path::new("/proc").join(pid.to_string()).join(file));
        bytes.is_ok_and(|b| b.split(|c| *c == 0).any(|part| part == wanted.as_bytes()))
    });
    found.filter_map(Process::find).collect()
}
