//! Programs under measurement: started on a core of their own, stopped when the value goes.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Everything measured here listens within a fraction of a second.
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A running program.
#[derive(Debug)]
pub struct Peer {
    /// For people and for the result.
    pub name: &'static str,
    /// Where it takes requests.
    pub address: String,
    child: Child,
}

impl Peer {
    /// Starts `program` on the given cores and waits until `address` accepts.
    ///
    /// # Errors
    /// When it cannot be started, ends at once, or does not listen in time.
    #[expect(clippy::disallowed_methods, reason = "a harness waits on the real clock")]
    pub fn start(
        name: &'static str,
        cores: &str,
        program: &Path,
        args: &[String],
        env: &[(&str, String)],
        address: &str,
    ) -> Result<Peer> {
        // `taskset` becomes the program, so the child's id is the program's.
        let child = Command::new("taskset")
            .args(["-c", cores])
            .arg(program)
            .args(args)
            .envs(env.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let mut peer = Peer { name, address: address.to_owned(), child };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = peer.child.try_wait()? {
                bail!("{name} ended with {status}");
            }
            if started.elapsed() > READY_DEADLINE {
                bail!("{name} does not listen on {address}");
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
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Nothing measured keeps state: no need to be gentle, and a corpse is no error.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A free loopback address.
///
/// # Errors
/// When the system has none.
pub fn free_address() -> Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?.to_string())
}
