//! Tally's balancer beside HAProxy's `leastconn`: the same machine, the same run, turn by turn.
//!
//! Started by `cargo xtask bench`, which builds the programs and installs the peers.
#![expect(clippy::print_stdout, reason = "a measurement talks to the person who started it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use bench::figures::{Figure, Load, cpu_micros};
use bench::peer::{Peer, free_address};
use serde_json::json;

const USAGE: &str = "side-by-side --out FILE --haproxy PATH --haproxy-config FILE --wrk PATH
  [--seconds N] [--repetitions N] [--connections N] [--threads N]
Both proxies keep and share connections, log nothing, have equal threads and tell instances of the
client in the same three headers (X-Forwarded-For, -Proto, -Host).";

/// Warm-up before the first measured turn of each program, seconds.
const WARM_UP_SECONDS: u32 = 2;

struct Plan {
    out: PathBuf,
    haproxy: PathBuf,
    haproxy_config: PathBuf,
    wrk: PathBuf,
    seconds: u32,
    repetitions: usize,
    connections: u32,
    threads: usize,
    cores: Cores,
}

/// Who runs where: the measured program shares its cores with nobody.
#[derive(Debug, Clone)]
struct Cores {
    proxy: String,
    upstreams: String,
    generator: String,
}

/// What one program did in all its turns.
#[derive(Default)]
struct Samples {
    cpu_micros_per_request: Vec<f64>,
    requests_per_second: Vec<f64>,
    p99_ms: Vec<f64>,
    requests: u64,
    errors: u64,
}

fn main() -> Result<()> {
    let plan = parse(std::env::args().skip(1))?;
    let here = std::env::current_exe()?;
    let here = here.parent().context("the program has no folder")?;
    let mut upstreams = Vec::new();
    for name in ["upstream a", "upstream b"] {
        let address = free_address()?;
        let args = [address.clone()];
        let cores = &plan.cores.upstreams;
        upstreams.push(Peer::start(name, cores, &here.join("responder"), &args, &[], &address)?);
    }
    let proxies = [start_tally(&plan, here, &upstreams)?, start_haproxy(&plan, &upstreams)?];
    let mut samples = [Samples::default(), Samples::default()];
    for proxy in &proxies {
        generate(&plan, &proxy.address, WARM_UP_SECONDS)?;
    }
    println!("turn  program   us CPU/request  requests/s    p99 ms");
    for turn in 0..plan.repetitions {
        // Who goes first changes with each turn, so that a drift of the machine favours nobody.
        let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            measure(&plan, turn, &proxies[which], &mut samples[which])?;
        }
    }
    tell(&plan, &samples)
}

fn start_tally(plan: &Plan, here: &Path, upstreams: &[Peer]) -> Result<Peer> {
    let address = free_address()?;
    let mut args = vec![address.clone(), plan.threads.to_string()];
    args.extend(upstreams.iter().map(|upstream| upstream.address.clone()));
    let program = here.join("bench-balancer");
    Peer::start("tally", &plan.cores.proxy, &program, &args, &[], &address)
}

fn start_haproxy(plan: &Plan, upstreams: &[Peer]) -> Result<Peer> {
    let address = free_address()?;
    let config = plan.haproxy_config.to_string_lossy().into_owned();
    let args = ["-db".to_owned(), "-f".to_owned(), config];
    let [a, b] = upstreams else { bail!("two upstreams are compared") };
    let env = [
        ("BENCH_LISTEN", address.clone()),
        ("BENCH_THREADS", plan.threads.to_string()),
        ("BENCH_UPSTREAM_A", a.address.clone()),
        ("BENCH_UPSTREAM_B", b.address.clone()),
    ];
    Peer::start("haproxy", &plan.cores.proxy, &plan.haproxy, &args, &env, &address)
}

fn generate(plan: &Plan, address: &str, seconds: u32) -> Result<Load> {
    let output = Command::new("taskset")
        .args(["-c", &plan.cores.generator])
        .arg(&plan.wrk)
        .args(["--latency", "-t", "1"])
        .args(["-c", &plan.connections.to_string()])
        .args(["-d", &format!("{seconds}s")])
        .arg(format!("http://{address}/"))
        .output()
        .context("start wrk")?;
    Load::of_wrk(&String::from_utf8_lossy(&output.stdout))
}

fn measure(plan: &Plan, turn: usize, proxy: &Peer, samples: &mut Samples) -> Result<()> {
    let before = cpu_micros(proxy.pid())?;
    let load = generate(plan, &proxy.address, plan.seconds)?;
    let used = cpu_micros(proxy.pid())? - before;
    if load.requests == 0 {
        bail!("{} answered nothing", proxy.name);
    }
    let per_request = ratio(used, load.requests);
    println!(
        "{:>4}  {:8}  {per_request:>14.2}  {:>10.0}  {:>8.2}",
        turn + 1,
        proxy.name,
        load.rate,
        load.p99_ms
    );
    samples.cpu_micros_per_request.push(per_request);
    samples.requests_per_second.push(load.rate);
    samples.p99_ms.push(load.p99_ms);
    samples.requests += load.requests;
    samples.errors += load.errors;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a run's counts are far below 2^53")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

fn tell(plan: &Plan, [tally, haproxy]: &[Samples; 2]) -> Result<()> {
    let mut peers = serde_json::Map::new();
    println!("\n          us CPU/request: median (least-most)   requests/s: median (least-most)");
    for (name, samples) in [("tally", tally), ("haproxy", haproxy)] {
        let cpu = Figure::of(&samples.cpu_micros_per_request)?;
        let rate = Figure::of(&samples.requests_per_second)?;
        let p99 = Figure::of(&samples.p99_ms)?;
        println!(
            "{name:8}  {:>8.2} ({:.2}-{:.2})   {:>8.0} ({:.0}-{:.0})   {} errors in {} requests",
            cpu.median,
            cpu.min,
            cpu.max,
            rate.median,
            rate.min,
            rate.max,
            samples.errors,
            samples.requests
        );
        let shown =
            |figure: Figure| json!({"median": figure.median, "min": figure.min, "max": figure.max});
        let entry = json!({
            "cpu_micros_per_request": shown(cpu),
            "requests_per_second": shown(rate),
            "p99_ms": shown(p99),
            "requests": samples.requests,
            "errors": samples.errors,
            "samples_cpu_micros_per_request": samples.cpu_micros_per_request,
        });
        peers.insert(name.to_owned(), entry);
    }
    // Turn by turn: what disturbed a turn disturbed both.
    let turns = tally.cpu_micros_per_request.iter().zip(&haproxy.cpu_micros_per_request);
    let ratios: Vec<f64> = turns.map(|(ours, theirs)| ours / theirs).collect();
    let ratio = Figure::of(&ratios)?;
    println!(
        "\nCPU per request, tally / haproxy: {:.2} ({:.2}-{:.2})",
        ratio.median, ratio.min, ratio.max
    );
    let result = json!({
        "what": "CPU per request of the proxy process, 2 upstreams, keep-alive, closed loop, \
            the same forwarding headers added by both",
        "seconds_per_turn": plan.seconds,
        "repetitions": plan.repetitions,
        "connections": plan.connections,
        "proxy_threads": plan.threads,
        "cores": {
            "proxy": plan.cores.proxy,
            "upstreams": plan.cores.upstreams,
            "generator": plan.cores.generator,
        },
        "peers": peers,
        "cpu_ratio_tally_to_haproxy":
            {"median": ratio.median, "min": ratio.min, "max": ratio.max},
    });
    std::fs::write(&plan.out, serde_json::to_string_pretty(&result)?)
        .with_context(|| format!("write {}", plan.out.display()))?;
    println!("written to {}", plan.out.display());
    if tally.errors + haproxy.errors > 0 {
        bail!("some requests failed: the figures above do not count");
    }
    Ok(())
}

fn parse(args: impl Iterator<Item = String>) -> Result<Plan> {
    let mut given = std::collections::BTreeMap::new();
    let mut args = args;
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} needs a value\n{USAGE}"))?;
        given.insert(name, value);
    }
    let mut take = |name: &str| given.remove(name);
    let path = |value: Option<String>| value.map(PathBuf::from).context(USAGE);
    let threads: usize = number(take("--threads"), 1)?;
    let plan = Plan {
        out: path(take("--out"))?,
        haproxy: path(take("--haproxy"))?,
        haproxy_config: path(take("--haproxy-config"))?,
        wrk: path(take("--wrk"))?,
        seconds: number(take("--seconds"), 8)?,
        repetitions: number(take("--repetitions"), 5)?,
        connections: number(take("--connections"), 64)?,
        threads,
        cores: cores(threads)?,
    };
    if let Some(unknown) = given.keys().next() {
        bail!("unknown argument {unknown}\n{USAGE}");
    }
    Ok(plan)
}

fn number<T: std::str::FromStr>(value: Option<String>, default: T) -> Result<T> {
    value.map_or(Ok(default), |text| {
        text.parse().ok().with_context(|| format!("`{text}` is no number\n{USAGE}"))
    })
}

/// One core per proxy thread, first; the rest for the others, apart if there are two.
fn cores(threads: usize) -> Result<Cores> {
    let count = std::thread::available_parallelism()?.get();
    if threads == 0 || count < threads + 1 {
        bail!("{threads} proxy threads need {} cores; there are {count}", threads + 1);
    }
    let proxy = format!("0-{}", threads - 1);
    let (upstreams, generator) = if count > threads + 1 {
        (threads.to_string(), format!("{}-{}", threads + 1, count - 1))
    } else {
        (threads.to_string(), threads.to_string())
    };
    Ok(Cores { proxy, upstreams, generator })
}
