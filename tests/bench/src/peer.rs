//! Programs under measurement: started on a core of their own, stopped when the value goes.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Everything measured here listens within a fraction of a second.
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// A program that was asked to end has this long.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// Lines of a failed program's log that are shown.
const COMPLAINT_LINES: usize = 5;

/// A running program.
#[derive(Debug)]
pub struct Peer {
    /// For people and for the result.
    pub name: String,
    /// Where it takes requests.
    pub address: SocketAddr,
    child: Child,
}

/// How a program is started.
#[derive(Debug, Default)]
pub struct Start<'a> {
    /// Its command line.
    pub args: &'a [String],
    /// Added to its environment.
    pub env: &'a [(&'a str, String)],
    /// The cores it may run on, as `taskset` writes them; `None`: all.
    pub cores: Option<&'a str>,
    /// Whether it is told things later ([`Peer::tell`]).
    pub input: bool,
    /// Where its complaints go; `None`: to ours.
    pub log: Option<&'a Path>,
}

impl Start<'_> {
    fn complaint(&self) -> String {
        let text = self.log.and_then(|log| std::fs::read_to_string(log).ok()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(COMPLAINT_LINES)..].join("\n")
    }
}

impl Peer {
    /// Starts `program` and waits until `address` accepts.
    ///
    /// # Errors
    /// When it cannot be started, ends at once, or does not listen in time.
    #[expect(clippy::disallowed_methods, reason = "a harness waits on the real clock")]
    pub fn start(
        name: &str,
        program: &Path,
        start: &Start<'_>,
        address: SocketAddr,
    ) -> Result<Peer> {
        // `taskset` becomes the program, so the child's id is the program's.
        let mut command = match start.cores {
            Some(cores) => {
                let mut command = Command::new("taskset");
                command.args(["-c", cores]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let child = command
            .args(start.args)
            .envs(start.env.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(if start.input { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::null())
            .stderr(match start.log {
                Some(log) => Stdio::from(File::create(log).context("open its log")?),
                None => Stdio::inherit(),
            })
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let mut peer = Peer { name: name.to_owned(), address, child };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = peer.child.try_wait()? {
                bail!("{name} ended with {status}: {}", start.complaint());
            }
            if started.elapsed() > READY_DEADLINE {
                bail!("{name} does not listen on {address}: {}", start.complaint());
            }
            std::thread::sleep(LOOK);
        }
        Ok(peer)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    /// When it does not read.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("it was started without input")?;
        writeln!(input, "{line}").with_context(|| format!("tell {}", self.name))
    }
}

impl Drop for Peer {
    #[expect(clippy::disallowed_methods, reason = "a harness waits on the real clock")]
    fn drop(&mut self) {
        // Some have processes of their own, which they end when they are asked politely.
        let asked =
            rustix::process::Pid::from_raw(self.child.id().cast_signed()).is_some_and(|pid| {
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok()
            });
        let since = Instant::now();
        while asked && since.elapsed() < END_DEADLINE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        // Nothing measured keeps state, and a corpse is no error.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Below the ports that the system gives to clients: between a look and the server's start no
/// client takes one, keeps it, and so leaves an instance out of the measurement.
const PORTS: std::ops::Range<u16> = 30_000..32_700;

/// Free loopback addresses, all different.
///
/// # Errors
/// When there are no more.
pub fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    (0..count).map(|_| free_address()).collect()
}

/// A free loopback address, and another one each time.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Result<SocketAddr> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    let first = std::process::id().wrapping_mul(311);
    for _ in 0..count {
        let offset = first.wrapping_add(TAKEN.fetch_add(1, Relaxed)) % count;
        let port = PORTS.start + u16::try_from(offset)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port is free from {} to {}", PORTS.start, PORTS.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_differ_and_are_no_clients() {
        let addresses = free_addresses(50).unwrap();
        let distinct: std::collections::BTreeSet<_> = addresses.iter().collect();
        assert_eq!(distinct.len(), 50);
        assert!(addresses.iter().all(|address| PORTS.contains(&address.port())));
    }
}
