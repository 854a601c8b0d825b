//! One question to an agent: connect, read its line.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use wire::agent::{AgentError, AgentLine, LINE_BYTES_MAX};

/// From the connection to the line's end.
const ASK_DEADLINE: Duration = Duration::from_secs(1);

/// Why an agent said nothing.
#[derive(Debug)]
pub(super) enum Silence {
    /// It cannot be reached, or broke off.
    Away(io::Error),
    /// It was too slow.
    Slow,
    /// What it said is no line.
    Unreadable(AgentError),
}

impl Silence {
    /// The value of `result` in the metric.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Silence::Away(_) | Silence::Slow => "silent",
            Silence::Unreadable(_) => "unreadable",
        }
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Silence::Away(why) => write!(f, "{why}"),
            Silence::Slow => write!(f, "no line within {ASK_DEADLINE:?}"),
            Silence::Unreadable(why) => write!(f, "{why}"),
        }
    }
}

/// Asks once.
pub(super) async fn ask(address: SocketAddr) -> Result<AgentLine, Silence> {
    let line = tokio::time::timeout(ASK_DEADLINE, read_line(address));
    let sent = line.await.map_err(|_elapsed| Silence::Slow)?.map_err(Silence::Away)?;
    AgentLine::parse(&sent).map_err(Silence::Unreadable)
}

/// What the agent sends up to its line's end, its own end, or more than any line has.
async fn read_line(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = chassis::dial::connect(address).await?;
    let mut sent = vec![0_u8; LINE_BYTES_MAX + 2];
    let mut have = 0;
    while have < sent.len() && !sent[..have].iter().any(|b| matches!(b, b'\r' | b'\n')) {
        match stream.read(&mut sent[have..]).await? {
            0 => break,
            n => have += n,
        }
    }
    sent.truncate(have);
    Ok(sent)
}
