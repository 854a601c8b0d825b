//! How soon a load counts: from a report to the load-receiver until requests through each of two
//! balancers, processes of their own, go where the report says; and the same for a change of routes.
#![expect(clippy::print_stdout, reason = "a measurement talks to the person who started it")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use balancer::{Balancer, Config, Deps};
use bench::args::Args;
use bench::bars::Bar;
use bench::peer::{Peer, Start, free_address};
use bench::receiver::{self, Redis};
use chassis::{Shutdown, SystemClock};
use domain::{PolicyName, RouteState, RouteTable};
use scoreboard::testing::kinds::on_a_socket;
use scoreboard::testing::{front, instance, report, routes, service};
use scoreboard::{Board, RedisBoard};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout};

/// A report is with every balancer within this, milliseconds, median.
const REPORT_MS_MAX: f64 = 10.0;
/// And a change of routes within this.
const ROUTES_MS_MAX: f64 = 100.0;
/// And one reading over a local socket takes no longer than this, at the 99th percentile.
const READ_MS_MAX: f64 = 0.2;

const USAGE: &str = "freshness --out FILE [--rounds N] [--pause-ms N]
Starts a Redis, a load-receiver and two balancers of its own. Each round makes the other of two
instances the least loaded and waits until both balancers send requests there.";

/// Tells a copy of this program to be a balancer: the board's address, and where it listens.
const BE_BALANCER: &str = "BENCH_BALANCER_REDIS";
const LISTEN: &str = "BENCH_BALANCER_LISTEN";
/// A change that has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two requests of a watcher on one balancer: the grain of what is measured.
const GRAIN: Duration = Duration::from_micros(200);

#[expect(clippy::disallowed_methods, reason = "a measuring program reads its own environment")]
fn main() -> Result<()> {
    if let Some(url) = receiver::asked_to_be() {
        return receiver::run(&url);
    }
    if let Ok(url) = std::env::var(BE_BALANCER) {
        return balance(&url, std::env::var(LISTEN).context(LISTEN)?.parse()?);
    }
    let mut args = Args::of_process(USAGE, &[])?;
    let out: PathBuf = args.must("out")?;
    let rounds = args.or("rounds", 200)?;
    let pause = Duration::from_millis(args.or("pause-ms", 20)?);
    args.finish()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(measure(rounds, pause))?;
    std::fs::write(&out, serde_json::to_string_pretty(&report)? + "\n")?;
    Ok(())
}

/// Is a balancer until the process ends.
fn balance(url: &str, listen: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let clock: Arc<dyn domain::Clock> = Arc::new(SystemClock::new());
        let mut config = Config::new(format!("fresh-{}", listen.port()).parse()?);
        config.listen = vec![listen];
        config.admin = None;
        config.workers = 1;
        let board = Arc::new(RedisBoard::connect(url, Arc::clone(&clock))?);
        Balancer::bind(config, Deps { board, clock, manager: None })
            .await?
            .run(Shutdown::new())
            .await?;
        Ok(())
    })
}

/// Answers every request with one letter.
async fn instance_of(letter: u8) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0u8; 8192];
                while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{}",
                        char::from(letter)
                    );
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}

/// Asks a balancer again and again, and keeps which instance answered last.
async fn watch(balancer: SocketAddr, last: Arc<AtomicU8>) -> Result<()> {
    let mut stream = TcpStream::connect(balancer).await?;
    stream.set_nodelay(true)?;
    let ask = b"GET / HTTP/1.1\r\nhost: shop.example.com\r\n\r\n";
    let mut buffer = [0u8; 8192];
    loop {
        stream.write_all(ask).await?;
        let count = stream.read(&mut buffer).await?;
        ensure!(count > 0, "the balancer closed the connection");
        last.store(buffer[count - 1], Ordering::SeqCst);
        sleep(GRAIN).await;
    }
}

struct Stage {
    board: RedisBoard,
    receiver: SocketAddr,
    addresses: [SocketAddr; 2],
    seen: Vec<Arc<AtomicU8>>,
    pause: Duration,
}

const LETTERS: [u8; 2] = *b"AB";

impl Stage {
    /// The time until each balancer sends requests to `wanted`, from `began`.
    async fn until(&self, wanted: usize, began: Instant) -> Result<f64> {
        let all = async {
            while self.seen.iter().any(|last| last.load(Ordering::SeqCst) != LETTERS[wanted]) {
                sleep(GRAIN / 2).await;
            }
        };
        timeout(PATIENCE, all).await.context("the change did not come to both balancers")?;
        Ok(began.elapsed().as_secs_f64() * 1000.0)
    }

    fn loads(wanted: usize) -> [(u32, f64); 2] {
        if wanted == 0 { [(0, 0.1), (1, 0.9)] } else { [(0, 0.9), (1, 0.1)] }
    }

    async fn by_datagram(&self, rounds: usize) -> Result<Vec<f64>> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.connect(self.receiver).await?;
        let mut spans = Vec::new();
        for round in 0..rounds {
            let wanted = round % 2;
            sleep(self.pause).await;
            let lines = Self::loads(wanted)
                .map(|(n, load)| format!("shop/{} {load}\n", instance("shop", n)))
                .concat();
            let began = Instant::now();
            socket.send(lines.as_bytes()).await?;
            spans.push(self.until(wanted, began).await?);
        }
        Ok(spans)
    }

    async fn by_http(&self, rounds: usize) -> Result<Vec<f64>> {
        let mut stream = TcpStream::connect(self.receiver).await?;
        stream.set_nodelay(true)?;
        let mut spans = Vec::new();
        let mut answer = [0u8; 4096];
        for round in 0..rounds {
            let wanted = round % 2;
            sleep(self.pause).await;
            let reports = Self::loads(wanted).map(|(n, load)| {
                json!({"service": "shop", "instance": instance("shop", n), "load": load})
            });
            let body = json!({"reports": reports}).to_string();
            let head = format!(
                "POST /v1/load HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let began = Instant::now();
            stream.write_all((head + &body).as_bytes()).await?;
            let count = stream.read(&mut answer).await?;
            ensure!(answer[..count].starts_with(b"HTTP/1.1 202"), "the receiver refuses");
            spans.push(self.until(wanted, began).await?);
        }
        Ok(spans)
    }

    fn table(&self, generation: usize, wanted: Option<usize>) -> RouteTable {
        let mut table = routes("shop", &format!("1.{generation}"), 2);
        for (n, entry) in table.entries.iter_mut().enumerate() {
            entry.address = self.addresses[n];
            let ready = wanted.is_none_or(|wanted| wanted == n);
            entry.state = if ready { RouteState::Ready } else { RouteState::Draining };
        }
        table
    }

    async fn by_routes(&self, rounds: usize) -> Result<Vec<f64>> {
        let mut spans = Vec::new();
        for round in 0..rounds {
            let wanted = round % 2;
            sleep(self.pause).await;
            let table = self.table(10 + round, Some(wanted));
            let began = Instant::now();
            self.board.publish_routes(&service("shop"), &table).await?;
            spans.push(self.until(wanted, began).await?);
        }
        Ok(spans)
    }
}

/// What the paper's balancer would read for each request: the least loaded of a thousand, over a
/// socket of this host.
async fn reads_over_a_socket() -> Result<Vec<f64>> {
    const READS: usize = 10_000;
    let redis = on_a_socket().context("redis-server is not installed")?;
    let board = RedisBoard::connect(&redis.url, Arc::new(SystemClock::new()))?;
    let reports: Vec<_> = (0..1000).map(|n| report(&instance("shop", n), n, None)).collect();
    board.record(&reports).await?;
    let client = redis::Client::open(redis.url.as_str())?;
    let mut live = client.get_multiplexed_async_connection().await?;
    let mut read = redis::cmd("ZRANGE");
    read.arg(scoreboard::keys::board(&service("shop"))).arg(0).arg(0).arg("WITHSCORES");
    let mut spans = Vec::with_capacity(READS);
    for _ in 0..READS {
        let began = Instant::now();
        let least: Vec<(String, f64)> = read.query_async(&mut live).await?;
        spans.push(began.elapsed().as_secs_f64() * 1000.0);
        ensure!(least.len() == 1, "nobody is the least loaded");
    }
    Ok(spans)
}

async fn measure(rounds: usize, pause: Duration) -> Result<Value> {
    let redis = Redis::start().await?;
    let data = tempfile::tempdir()?;
    let receiver = free_address()?;
    let _receiver = receiver::start(&redis.url, receiver, data.path())?;
    let mut balancers = Vec::new();
    for n in 0..2 {
        let listen = free_address()?;
        let env = [(BE_BALANCER, redis.url.clone()), (LISTEN, listen.to_string())];
        let start = Start { env: &env, ..Start::default() };
        let name = format!("balancer {n}");
        balancers.push(Peer::start(&name, &std::env::current_exe()?, &start, listen)?);
    }
    let seen: Vec<_> = balancers.iter().map(|_| Arc::new(AtomicU8::new(0))).collect();
    let board = RedisBoard::connect(&redis.url, Arc::new(SystemClock::new()))?;
    let addresses = [instance_of(LETTERS[0]).await?, instance_of(LETTERS[1]).await?];
    let stage = Stage { board, receiver, addresses, seen, pause };
    let mut front = front("shop");
    front.policy = PolicyName::LowestScore;
    front.slow_start = Duration::ZERO;
    stage.board.publish_routes(&service("shop"), &stage.table(1, None)).await?;
    stage.board.publish_front(&front).await?;
    for (balancer, last) in balancers.iter().zip(&stage.seen) {
        let (address, last) = (balancer.address, Arc::clone(last));
        tokio::spawn(async move {
            // Until the balancer knows the service it answers otherwise, and may close.
            loop {
                let _ended = watch(address, Arc::clone(&last)).await;
                sleep(GRAIN).await;
            }
        });
    }
    stage.by_datagram(4).await.context("while warming up")?;
    let (mut results, mut bars) = (Vec::new(), Vec::new());
    println!("from                     median ms    p99 ms    max ms");
    let all = [
        ("report by datagram", stage.by_datagram(rounds).await?),
        ("report by HTTP", stage.by_http(rounds).await?),
        ("change of routes", stage.by_routes(rounds.min(100)).await?),
    ];
    for (what, mut spans) in all {
        spans.sort_by(f64::total_cmp);
        let at = |percent: usize| spans[(spans.len() - 1) * percent / 100];
        let (median, p99, max) = (at(50), at(99), at(100));
        println!("{what:24} {median:9.2} {p99:9.2} {max:9.2}");
        let bar = if what == "change of routes" { ROUTES_MS_MAX } else { REPORT_MS_MAX };
        bars.push(Bar::at_most(format!("freshness, {what}: median ms"), median, bar).json());
        results.push(json!({"from": what, "rounds": spans.len(), "median_ms": median, "p99_ms": p99, "max_ms": max}));
    }
    let mut reads = reads_over_a_socket().await?;
    reads.sort_by(f64::total_cmp);
    let at = |percent: usize| reads[(reads.len() - 1) * percent / 100];
    let (median, p99, max) = (at(50), at(99), at(100));
    println!("{:24} {median:9.3} {p99:9.3} {max:9.3}", "read over a socket");
    bars.push(Bar::at_most("freshness, read over a socket: p99 ms", p99, READ_MS_MAX).json());
    let read = json!({"reads": reads.len(), "median_ms": median, "p99_ms": p99, "max_ms": max});
    Ok(json!({
        "balancers": 2, "read_over_a_socket": read, "pause_ms": u64::try_from(pause.as_millis())?, "results": results,
        "bars": bars,
    }))
}
