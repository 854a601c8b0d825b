//! Tally's balancer alone, for the suites: `front [--listen A] [--to A]... [--redis URL] [--save P]
//! [--max-in-flight N] [--connections N] [--mode tcp|nat --port N]`. Says its addresses in one line, and ends with its input.

use anyhow::{Context, Result, bail};
use balancer::{Balancer, Config, Deps};
use chassis::{Listen, Shutdown, SystemClock};
use domain::RouteMode;
use scoreboard::{Board, MemoryBoard, RedisBoard};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use torture::board;

struct Args {
    listen: SocketAddr,
    to: Vec<SocketAddr>,
    redis: Option<String>,
    save: Option<String>,
    max_in_flight: u32,
    connections: usize,
    mode: RouteMode,
    port: Option<u16>,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Args> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let many = board::MAX_IN_FLIGHT;
    let mut parsed = Args {
        listen: any,
        to: vec![],
        redis: None,
        save: None,
        max_in_flight: many,
        connections: 0,
        mode: RouteMode::Http,
        port: None,
    };
    while let Some(flag) = args.next() {
        let value = args.next().with_context(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--listen" => parsed.listen = value.parse()?,
            "--to" => parsed.to.push(value.parse()?),
            "--redis" => parsed.redis = Some(value),
            "--save" => parsed.save = Some(value),
            "--connections" => parsed.connections = value.parse()?,
            "--max-in-flight" => parsed.max_in_flight = value.parse()?,
            "--mode" if value == "tcp" => parsed.mode = RouteMode::Tcp,
            "--mode" if value == "nat" => parsed.mode = RouteMode::Nat,
            "--port" => parsed.port = Some(value.parse()?),
            other => bail!("there is no {other}"),
        }
    }
    Ok(parsed)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<()> {
    let args = parse(std::env::args().skip(1))?;
    let clock = Arc::new(SystemClock::new());
    let board: Arc<dyn Board> = match &args.redis {
        Some(url) => Arc::new(RedisBoard::connect(url, clock.clone())?),
        None => Arc::new(MemoryBoard::new(clock.clone())),
    };
    if args.redis.is_none() {
        let mut front = board::front("torture", args.max_in_flight);
        (front.mode, front.port) = (args.mode, args.port);
        board.publish_front(&front).await?;
        let table = board::table("torture", 1, &args.to, args.max_in_flight);
        board.publish_routes(&"torture".parse()?, &table).await?;
    }
    let mut config = Config::new("front".parse()?);
    config.listen = vec![args.listen];
    config.admin = Some(Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))));
    config.save = args.save.map(Into::into);
    if args.connections > 0 {
        config.limits.connections = args.connections;
    }
    config.workers = 2;
    config.grace = Duration::from_secs(5);
    let balancer = Balancer::bind(config, Deps { board, clock, manager: None }).await?;
    let front = balancer.addresses()[0];
    let Some(Listen::Tcp(admin)) = balancer.admin() else { bail!("no admin address") };
    let front = args.port.map_or(front, |port| SocketAddr::new(front.ip(), port));
    let said = serde_json::json!({"front": front.to_string(), "admin": admin.to_string()});
    let mut out = std::io::stdout();
    writeln!(out, "{said}")?;
    out.flush()?;
    let shutdown = Shutdown::new();
    let ending = shutdown.clone();
    std::thread::spawn(move || {
        // Nothing is ever said: the end of the input is the end of whoever started this.
        let _ended = std::io::stdin().read_to_end(&mut Vec::new());
        ending.start();
    });
    balancer.run(shutdown).await?;
    Ok(())
}
