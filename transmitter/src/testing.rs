//! What tests measure: a real process that is busy.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A child that uses a processor until it is dropped.
pub(crate) struct Busy(Child);

impl Drop for Busy {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Busy {
    /// Starts it.
    pub(crate) fn start() -> Busy {
        let shell =
            Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn();
        Busy(shell.unwrap())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Run time by the scheduler's own count, which our reading does not use.
    pub(crate) fn scheduled(&self) -> Duration {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.pid())).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    /// Waits until the scheduler gave it `more`.
    pub(crate) fn run_for(&self, more: Duration) {
        let until = self.scheduled() + more;
        while self.scheduled() < until {
            std::thread::yield_now();
        }
    }
}
