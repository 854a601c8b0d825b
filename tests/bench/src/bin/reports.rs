//! What a load report costs: processor time of the load-receiver and of Redis, by each way in,
//! beside the same number of plain `ZADD`s piped by a client in the same run.
#![expect(clippy::print_stdout, reason = "a measurement talks to the person who started it")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench::args::Args;
use bench::bars::Bar;
use bench::peer::{Peer, free_address};
use bench::receiver::{self, Redis, cpu_nanos};
use chassis::{Identity, SystemClock};
use scoreboard::testing::{front, instance, routes, service};
use scoreboard::{Board, RedisBoard};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

const USAGE: &str = "reports --out FILE [--instances N] [--period-ms N] [--seconds N]
Starts a Redis and a load-receiver of its own. Every instance reports once a period: by datagram, by
datagram with its token, as transmitters do (fifty reports a request) and one report a request.";

/// Reports of one request where several are sent together: a node's worth.
const TOGETHER: usize = 50;
/// Listeners on the channel of changes while it is measured: as two balancers.
const WATCHERS: usize = 2;
/// Everything settles, and every sorted set has all members, before it counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// Plain commands sent at once by the client that is compared with.
const PIPED: usize = 1000;

#[derive(Clone)]
struct Plan {
    instances: u32,
    period: Duration,
    seconds: u64,
    receiver: SocketAddr,
    tokens: Arc<Vec<String>>,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Datagram,
    DatagramWithToken,
    Together,
    Alone,
}

impl Way {
    const ALL: [Way; 4] = [Way::Datagram, Way::DatagramWithToken, Way::Together, Way::Alone];

    fn name(self) -> &'static str {
        match self {
            Way::Datagram => "datagram",
            Way::DatagramWithToken => "datagram with token",
            Way::Together => "HTTP, 50 a request",
            Way::Alone => "HTTP, one a request",
        }
    }
}

/// Processor time and counts at one moment.
struct Mark {
    receiver: u64,
    redis: f64,
    recorded: u64,
    writes: u64,
}

fn main() -> Result<()> {
    if let Some(url) = receiver::asked_to_be() {
        return receiver::run(&url);
    }
    let mut args = Args::of_process(USAGE, &[])?;
    let out: PathBuf = args.must("out")?;
    let instances = args.or("instances", 1000)?;
    let period = Duration::from_millis(args.or("period-ms", 50)?);
    let seconds = args.or("seconds", 5)?;
    args.finish()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&out, instances, period, seconds))
}

async fn measure(out: &Path, instances: u32, period: Duration, seconds: u64) -> Result<()> {
    let redis = Redis::start().await?;
    let board = RedisBoard::connect(&redis.url, Arc::new(SystemClock::new()))?;
    board.publish_front(&front("shop")).await?;
    board.publish_routes(&service("shop"), &routes("shop", "1.1", instances)).await?;
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let watcher = RedisBoard::connect(&redis.url, Arc::new(SystemClock::new()))?;
        let mut changes = watcher.watch();
        watchers.push(tokio::spawn(async move {
            while changes.next().await.is_some() {}
            drop(watcher);
        }));
    }
    let data = tempfile::tempdir()?;
    let identity = Identity::load_or_create(data.path())?;
    let token = |n| identity.load_token(&service("shop"), &instance("shop", n));
    let address = free_address()?;
    let peer = receiver::start(&redis.url, address, data.path())?;
    let plan = Plan {
        instances,
        period,
        seconds,
        receiver: address,
        tokens: Arc::new((0..instances).map(token).collect()),
    };
    let mut results = Vec::new();
    println!("way                   reports/s  us receiver  us Redis  reports/write");
    for way in Way::ALL {
        results.push(one(&plan, way, &peer, &redis).await?);
    }
    let zadd = baseline(&redis, instances, PIPED, Duration::ZERO).await?;
    let share = instances / u32::try_from(plan.period.as_millis())?.max(1) * 8;
    let at_once = usize::try_from(share.max(1))?;
    let paced = baseline(&redis, instances, at_once, Duration::from_millis(8)).await?;
    println!("one ZADD: {zadd:.3} us Redis ({PIPED} at once), {paced:.3} ({at_once} every 8 ms)");
    for result in &mut results {
        let redis = result["redis_micros_per_report"].as_f64().unwrap_or(0.0);
        result["redis_times_one_zadd"] = json!(redis / zadd);
        result["redis_times_one_zadd_at_this_pace"] = json!(redis / paced);
        let way = result["way"].as_str().unwrap_or("");
        println!("{way:20} {:.2}x, {:.2}x at this pace", redis / zadd, redis / paced);
    }
    watchers.iter().for_each(tokio::task::JoinHandle::abort);
    let bars: Vec<Value> = results.iter().flat_map(bars).map(|bar| bar.json()).collect();
    let report = json!({
        "instances": instances, "period_ms": u64::try_from(period.as_millis())?,
        "seconds": seconds, "watchers": WATCHERS, "zadd_redis_micros": zadd, "paced_zadd_redis_micros": paced, "ways": results,
        "bars": bars,
    });
    std::fs::write(out, serde_json::to_string_pretty(&report)? + "\n")?;
    Ok(())
}

/// The promises, for one way.
fn bars(result: &Value) -> Vec<Bar> {
    let way = result["way"].as_str().unwrap_or("");
    let bar = |what: &str, name: &str, bar| {
        let figure = result[name].as_f64().unwrap_or(f64::INFINITY);
        Bar::at_most(format!("reports, {way}: {what}"), figure, bar)
    };
    vec![
        bar("us of receiver CPU per report", "receiver_micros_per_report", 5.0),
        bar("Redis CPU over one piped ZADD's", "redis_times_one_zadd", 3.0),
    ]
}

async fn mark(plan: &Plan, peer: &Peer, redis: &Redis) -> Result<Mark> {
    let metrics = receiver::metrics(plan.receiver).await?;
    let count = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    Ok(Mark {
        receiver: cpu_nanos(peer.pid())?,
        redis: redis.cpu_micros().await?,
        recorded: count("tally_load_recorded_reports_total"),
        writes: count("tally_load_board_writes_total"),
    })
}

async fn one(plan: &Plan, way: Way, peer: &Peer, redis: &Redis) -> Result<Value> {
    let sending = tokio::spawn(send(plan.clone(), way));
    sleep(WARM_UP).await;
    let (before, began) = (mark(plan, peer, redis).await?, Instant::now());
    sleep(Duration::from_secs(plan.seconds)).await;
    let (after, took) = (mark(plan, peer, redis).await?, began.elapsed());
    sending.abort();
    if let Err(why) = sending.await {
        ensure!(why.is_cancelled(), "the sender ended: {why}");
    }
    let reports = after.recorded - before.recorded;
    ensure!(reports > 0, "no report was recorded by {}", way.name());
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let each = |total: u64| total as f64 / reports as f64;
    let receiver = each(after.receiver - before.receiver) / 1000.0;
    let redis = (after.redis - before.redis) * each(1);
    let per_write = 1.0 / each(after.writes - before.writes);
    let rate = 1.0 / (each(1) * took.as_secs_f64());
    println!("{:20} {rate:10.0} {receiver:12.2} {redis:9.2} {per_write:14.1}", way.name());
    Ok(json!({
        "way": way.name(), "reports": reports, "reports_per_second": rate,
        "receiver_micros_per_report": receiver, "redis_micros_per_report": redis,
        "reports_per_write": per_write,
    }))
}

/// Sends until it is stopped: each instance once a period, evenly spread over it.
async fn send(plan: Plan, way: Way) -> Result<()> {
    let together = matches!(way, Way::Together);
    let (step, at_once) = if together {
        (plan.period * u32::try_from(TOGETHER)? / plan.instances.max(1), TOGETHER)
    } else {
        let step = Duration::from_millis(1);
        let steps = u32::try_from(plan.period.as_millis())?.max(1);
        (step, usize::try_from(plan.instances.div_ceil(steps))?)
    };
    let mut beat = interval(step);
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(plan.receiver).await?;
    let mut connection = TcpStream::connect(plan.receiver).await?;
    connection.set_nodelay(true)?;
    let mut from = 0u32;
    loop {
        beat.tick().await;
        let who: Vec<u32> = (0..at_once)
            .map(|_| {
                from = (from + 1) % plan.instances;
                from
            })
            .collect();
        match way {
            Way::Datagram | Way::DatagramWithToken => {
                for n in who {
                    let line = line(&plan, n, matches!(way, Way::DatagramWithToken))?;
                    socket.send(line.as_bytes()).await?;
                }
            }
            Way::Together => {
                let all: Vec<Value> = who.into_iter().map(report).collect();
                post(&mut connection, plan.receiver, &json!({"reports": all})).await?;
            }
            Way::Alone => {
                for n in who {
                    post(&mut connection, plan.receiver, &report(n)).await?;
                }
            }
        }
    }
}

fn load() -> f64 {
    f64::from(fastrand::u32(0..10_000)) / 10_000.0
}

fn line(plan: &Plan, n: u32, with_token: bool) -> Result<String> {
    let who = instance("shop", n);
    let mut line = format!("shop/{who} {} in_flight=3 rps=12.5", load());
    if with_token {
        let token = plan.tokens.get(usize::try_from(n)?).context("every instance has a token")?;
        line.push_str(" token=");
        line.push_str(token);
    }
    Ok(line)
}

fn report(n: u32) -> Value {
    json!({"service": "shop", "instance": instance("shop", n), "load": load(), "in_flight": 3, "rps": 12.5})
}

/// One request on a connection that is kept.
async fn post(connection: &mut TcpStream, to: SocketAddr, body: &Value) -> Result<()> {
    let body = body.to_string();
    let head = format!(
        "POST /v1/load HTTP/1.1\r\nhost: {to}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all((head + &body).as_bytes()).await?;
    let mut answer = vec![0u8; 16 << 10];
    let count = connection.read(&mut answer).await?;
    ensure!(
        answer[..count].starts_with(b"HTTP/1.1 202"),
        "the receiver answers {}",
        String::from_utf8_lossy(&answer[..count])
    );
    Ok(())
}

/// Redis' time for one `ZADD` among as many members, `at_once` piped together, with a pause between.
async fn baseline(redis: &Redis, instances: u32, at_once: usize, pause: Duration) -> Result<f64> {
    let commands: u32 = if pause.is_zero() { 200_000 } else { 20_000 };
    let client = redis::Client::open(redis.url.as_str())?;
    let mut live = client.get_multiplexed_async_connection().await?;
    let mut pipes = Vec::new();
    let mut n = 0;
    while n < commands {
        let mut pipe = redis::Pipeline::with_capacity(at_once);
        for _ in 0..at_once {
            let who = instance("bench", n % instances);
            pipe.zadd("bench", who.as_str(), load()).ignore();
            n += 1;
        }
        pipes.push(pipe);
    }
    // The set has all its members before it counts.
    for pipe in pipes.iter().take(usize::try_from(instances)? / at_once + 1) {
        pipe.exec_async(&mut live).await?;
    }
    let before = redis.cpu_micros().await?;
    for pipe in &pipes {
        pipe.exec_async(&mut live).await?;
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }
    Ok((redis.cpu_micros().await? - before) / f64::from(n))
}
