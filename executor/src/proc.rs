//! What `/proc` says about processes: parents, start times, environments.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Pause before a process is looked at again when no descriptor could be had to wait on it.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The parts of `/proc/PID/stat` that are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// State letter; `Z` and `X` are dead.
    pub state: char,
    /// Parent.
    pub parent: i32,
    /// Session.
    pub session: i32,
    /// Start, clock ticks since boot: with the id, unique within a boot.
    pub start_time: u64,
}

impl Stat {
    /// Reads the text of a `stat` file. The command in brackets may hold anything, brackets too.
    #[must_use]
    pub fn parse(text: &str) -> Option<Stat> {
        let after = text.rsplit_once(')')?.1;
        let mut fields = after.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        let start_time = fields.nth(15)?.parse().ok()?;
        Some(Stat { state, parent, session, start_time })
    }

    /// Whether the process still runs.
    #[must_use]
    pub fn alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// A process's `stat`; `None` when it is gone.
#[must_use]
pub fn stat(pid: i32) -> Option<Stat> {
    Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether the very process that started at `start_time` under `pid` still runs.
#[must_use]
pub fn runs(pid: i32, start_time: u64) -> bool {
    stat(pid).is_some_and(|s| s.alive() && s.start_time == start_time)
}

/// All processes.
#[must_use]
pub fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Living descendants of `root`, itself not included. None of 0 and 1: everything descends from
/// them, and what is found here is killed.
#[must_use]
pub fn descendants(root: i32) -> BTreeSet<i32> {
    if root <= 1 {
        return BTreeSet::new();
    }
    let parents: Vec<(i32, i32)> = pids()
        .into_iter()
        .filter_map(|pid| Some((pid, stat(pid).filter(Stat::alive)?.parent)))
        .collect();
    let mut found = BTreeSet::new();
    let mut front = vec![root];
    while let Some(parent) = front.pop() {
        for (child, of) in &parents {
            if *of == parent && found.insert(*child) {
                front.push(*child);
            }
        }
    }
    found
}

/// Value of `name` in a process's environment; `None` when absent or not readable.
#[must_use]
pub fn environment(pid: i32, name: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    variable(&bytes, name)
}

/// Value of `name` in the bytes of an `environ` file.
#[must_use]
pub fn variable(environ: &[u8], name: &str) -> Option<String> {
    environ.split(|b| *b == 0).find_map(|pair| {
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// Names this boot of the host: process ids of another boot mean nothing.
#[must_use]
pub fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Signals exactly the process that started at `start_time`, never one that got its number later.
/// `false`: it is gone.
#[must_use]
pub fn signal(pid: i32, start_time: u64, signal: Signal) -> bool {
    let Some(fd) = Pid::from_raw(pid).and_then(|p| pidfd_open(p, PidfdFlags::empty()).ok()) else {
        return false;
    };
    // Looked at after the descriptor is held: from here on the number cannot be another's.
    runs(pid, start_time) && pidfd_send_signal(&fd, signal).is_ok()
}

/// Ends when the process that started at `start_time` under `pid` has ended.
pub async fn until_gone(pid: i32, start_time: u64) {
    while let Some(fd) = Pid::from_raw(pid)
        .and_then(|p| pidfd_open(p, PidfdFlags::NONBLOCK).ok())
        .filter(|_| runs(pid, start_time))
    {
        #[expect(deprecated, reason = "sound for an OwnedFd; the successor would need `unsafe`")]
        let watched = AsyncFd::with_interest(fd, Interest::READABLE);
        match watched {
            Ok(watched) => {
                let _ready_or_runtime_ends = watched.readable().await;
            }
            // Out of descriptors: look again instead.
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_any_command_name() {
        let text = "42 (a) b (c)) S 7 42 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat, Stat { state: 'S', parent: 7, session: 41, start_time: 987_654 });
        for bad in ["", "42 (a", "42 (a) S", "42 (a) S x y z"] {
            assert_eq!(Stat::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn we_run_and_know_our_environment() {
        let me = i32::try_from(std::process::id()).unwrap();
        let stat = stat(me).unwrap();
        assert!(runs(me, stat.start_time));
        assert!(!runs(me, stat.start_time + 1));
        assert!(environment(me, "PATH").is_some());
        assert!(!boot_id().is_empty());
        assert!(pids().contains(&me));
        assert!(descendants(stat.parent).contains(&me));
        assert!(descendants(1).is_empty() && descendants(0).is_empty());
    }

    #[test]
    fn variables_match_whole_names() {
        let environ = b"XTALLY_INSTANCE=no\0TALLY_INSTANCE=shop-0123456789\0A=\0";
        assert_eq!(variable(environ, "TALLY_INSTANCE").as_deref(), Some("shop-0123456789"));
        assert_eq!(variable(environ, "A").as_deref(), Some(""));
        assert_eq!(variable(environ, "TALLY"), None);
    }
}
