//! A Redis of the tests' own: a free port, nothing kept on disk, stopped at the end.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{self, Server};

/// Redis answers within milliseconds of its start; a busy machine gets much more.
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// One `PING`.
const PING_DEADLINE: Duration = Duration::from_secs(5);
/// A free port can be taken by another program before Redis has it; three in a row cannot be
/// chance.
const PORT_TRIES: usize = 3;

/// A running Redis.
#[derive(Debug)]
pub struct Redis {
    _server: Server,
    /// For `TALLY_TEST_REDIS_URL`.
    pub url: String,
}

/// Starts Redis with its files in `dir`.
pub fn start(dir: &Path) -> Result<Redis> {
    let program = process::find("redis-server").context("redis-server is not installed")?;
    start_as(&program, dir)
}

/// The same with a program of that kind.
pub fn start_as(program: &Path, dir: &Path) -> Result<Redis> {
    std::fs::create_dir_all(dir)?;
    let mut last = None;
    for _ in 0..PORT_TRIES {
        match start_on(program, process::free_port()?, dir) {
            Ok(redis) => return Ok(redis),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no port was tried")))
}

fn start_on(program: &Path, port: u16, dir: &Path) -> Result<Redis> {
    let args = [
        "--port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--daemonize",
        "no",
        "--dir",
        &dir.to_string_lossy(),
    ]
    .map(str::to_owned);
    let mut server = Server::start("redis-server", program, &args, &dir.join("redis.log"))?;
    server.wait(READY_DEADLINE, || answers(port))?;
    Ok(Redis { _server: server, url: format!("redis://127.0.0.1:{port}/") })
}

fn answers(port: u16) -> bool {
    use std::io::{Read, Write};
    let ping = || -> std::io::Result<[u8; 5]> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PING_DEADLINE))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    ping().is_ok_and(|answer| &answer == b"+PONG")
}

/// The version, for the log.
pub fn version() -> String {
    let ran = process::find("redis-server").map(|program| {
        let mut command = Command::new(program);
        command.arg("--version");
        process::quiet(command, PING_DEADLINE)
    });
    match ran {
        Some(Ok(ran)) => ran.output.split_whitespace().take(3).collect::<Vec<_>>().join(" "),
        Some(Err(_)) | None => "unknown version".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_of_our_own_answers_and_is_gone_at_the_end() {
        if process::find("redis-server").is_none() {
            println!("SKIPPED: a_redis_of_our_own: redis-server is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let redis = start(dir.path()).unwrap();
        let port: u16 =
            redis.url.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
        assert!(answers(port));
        drop(redis);
        assert!(!answers(port));
    }
}
