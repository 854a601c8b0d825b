//! A load-receiver and a Redis of a measurement's own, each a process whose time can be told.

use crate::peer::{Peer, Start};
use anyhow::{Context, Result};
use chassis::{Identity, Listen, Metrics, Readiness, Shutdown, SystemClock};
use scoreboard::RedisBoard;
use scoreboard::testing::TestRedis;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Tells a copy of the measuring program to be the receiver: the board's address.
const BE_RECEIVER: &str = "BENCH_RECEIVER_REDIS";
/// Where it listens, and where its secrets are.
const LISTEN: &str = "BENCH_RECEIVER_LISTEN";
const DATA: &str = "BENCH_RECEIVER_DATA";

/// The board's address, if this copy of the program is to be the receiver.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a measuring program reads its own environment")]
pub fn asked_to_be() -> Option<String> {
    std::env::var(BE_RECEIVER).ok()
}

/// Starts this program anew as a load-receiver.
///
/// # Errors
/// When it does not listen in time.
pub fn start(redis: &str, listen: SocketAddr, data: &Path) -> Result<Peer> {
    let env = [
        (BE_RECEIVER, redis.to_owned()),
        (LISTEN, listen.to_string()),
        (DATA, data.display().to_string()),
    ];
    let start = Start { env: &env, ..Start::default() };
    Peer::start("load-receiver", &std::env::current_exe()?, &start, listen)
}

/// Is the load-receiver until the process ends.
///
/// # Errors
/// When it cannot listen.
#[expect(clippy::disallowed_methods, reason = "a measuring program reads its own environment")]
pub fn run(redis: &str) -> Result<()> {
    let listen: SocketAddr = std::env::var(LISTEN).context(LISTEN)?.parse()?;
    let identity = Identity::load_or_create(Path::new(&std::env::var(DATA).context(DATA)?))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let clock: Arc<dyn domain::Clock> = Arc::new(SystemClock::new());
        let bound = load_receiver::bind(&Listen::Tcp(listen)).await.map_err(anyhow::Error::msg)?;
        let deps = load_receiver::Deps {
            board: Arc::new(RedisBoard::connect(redis, Arc::clone(&clock))?),
            clock,
            identity: Arc::new(identity),
            listeners: vec![bound.0],
            sockets: bound.1.into_iter().collect(),
            agents: Vec::new(),
            metrics: Metrics::new(),
            readiness: Readiness::new(),
        };
        load_receiver::run(load_receiver::Config::default(), deps, Shutdown::new()).await;
        Ok(())
    })
}

/// The receiver's `/metrics`.
///
/// # Errors
/// When it does not answer.
pub async fn metrics(receiver: SocketAddr) -> Result<String> {
    let mut connection = TcpStream::connect(receiver).await?;
    let ask = format!("GET /metrics HTTP/1.1\r\nhost: {receiver}\r\nconnection: close\r\n\r\n");
    connection.write_all(ask.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Processor time of a process, all threads that live, nanoseconds.
///
/// # Errors
/// When the process is gone.
pub fn cpu_nanos(pid: u32) -> Result<u64> {
    let mut sum = 0;
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    for task in tasks.with_context(|| format!("process {pid} is gone"))? {
        let stat = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += stat.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// A Redis on a free port, without persistence.
pub struct Redis {
    /// Its address.
    pub url: String,
    live: redis::aio::MultiplexedConnection,
    _server: TestRedis,
}

impl Redis {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no `redis-server`.
    pub async fn start() -> Result<Redis> {
        let server = TestRedis::own("the measurement").context("redis-server is not installed")?;
        let url = server.url().to_owned();
        let client = redis::Client::open(url.as_str())?;
        let live = client.get_multiplexed_async_connection().await?;
        Ok(Redis { url, live, _server: server })
    }

    /// Its processor time since its start, microseconds.
    ///
    /// # Errors
    /// When it does not tell.
    pub async fn cpu_micros(&self) -> Result<f64> {
        let mut ask = redis::cmd("INFO");
        let told: String = ask.arg("cpu").query_async(&mut self.live.clone()).await?;
        let of = |name: &str| -> Option<f64> {
            let line = told.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        let seconds = of("used_cpu_sys:").zip(of("used_cpu_user:")).map(|(sys, user)| sys + user);
        Ok(seconds.context("Redis tells no processor time")? * 1e6)
    }
}
