//! What requests feel like at a constant rate, and what they cost the proxy there: open loop.
#![expect(clippy::print_stdout, reason = "a measurement talks to the person who started it")]

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::Bench;
use crate::figures::{Figure, ratio};
use crate::machine::cpu_micros;
use crate::peer::Peer;

/// A generator that was later than this with one request in a hundred measured itself.
const LATE_MICROS_MAX: f64 = 1000.0;
/// The answer's size.
const BYTES: usize = 12;

#[derive(Default)]
struct Samples {
    p50: Vec<f64>,
    p99: Vec<f64>,
    p999: Vec<f64>,
    cost: Vec<f64>,
    failed: u64,
    void: usize,
}

/// Measures latency and cost at [`Bench::rate`].
///
/// # Errors
/// When something does not start, or requests fail.
pub fn felt(bench: &Bench) -> Result<Value> {
    let (_instances, upstreams) = bench.instances(BYTES)?;
    let proxies = bench.proxies(&upstreams)?;
    println!("\nlatency: {} requests/s, open loop", bench.rate);
    println!("turn  proxy       p50 us    p99 us  p99.9 us  us CPU/request");
    let mut samples: Vec<Samples> = proxies.iter().map(|_| Samples::default()).collect();
    for (turn, index) in bench.turns() {
        measure(bench, turn, &proxies[index], &mut samples[index])?;
    }
    let mut peers = Map::new();
    println!("\n            p50 us    p99 us  p99.9 us  us CPU/request (medians)");
    for (kind, samples) in bench.kinds.iter().zip(&samples) {
        if samples.p50.is_empty() {
            println!("{:8}  every turn was void", kind.as_str());
            continue;
        }
        let all = [&samples.p50, &samples.p99, &samples.p999, &samples.cost];
        let all = all.map(|values| Figure::of(values));
        let [p50, p99, p999, cost] = all;
        let (p50, p99, p999, cost) = (p50?, p99?, p999?, cost?);
        println!(
            "{:8}  {:>8.0}  {:>8.0}  {:>8.0}  {:>8.2}   {} failed, {} void",
            kind.as_str(),
            p50.median,
            p99.median,
            p999.median,
            cost.median,
            samples.failed,
            samples.void
        );
        let entry = json!({
            "p50_us": p50.json(), "p99_us": p99.json(), "p999_us": p999.json(),
            "cpu_micros_per_request": cost.json(),
            "failed": samples.failed, "turns_void": samples.void,
        });
        peers.insert(kind.as_str().to_owned(), entry);
    }
    if let Some(first) = samples.first().filter(|s| s.failed > 0) {
        bail!("latency: {} of our requests failed", first.failed);
    }
    Ok(json!({"rate": bench.rate, "seconds_per_turn": bench.seconds, "peers": peers}))
}

fn measure(bench: &Bench, turn: usize, proxy: &Peer, samples: &mut Samples) -> Result<()> {
    let here = std::env::current_exe()?;
    let program = here.parent().context("the program has no folder")?.join("open-loop");
    let before = cpu_micros(proxy.pid())?;
    let output = Command::new("taskset")
        .args(["-c", &bench.cores.generator])
        .arg(program)
        .args(["--to", &proxy.address.to_string()])
        .args(["--rate", &bench.rate.to_string()])
        .args(["--seconds", &bench.seconds.to_string()])
        .args(["--connections", &bench.connections.to_string()])
        .output()
        .context("start the generator")?;
    let used = cpu_micros(proxy.pid())? - before;
    let said: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the generator: {}", String::from_utf8_lossy(&output.stderr)))?;
    let number = |name: &str| said[name].as_f64().unwrap_or(f64::NAN);
    let failed = said["failed"].as_u64().unwrap_or(0) + said["unfinished"].as_u64().unwrap_or(0);
    let good = said["good"].as_u64().unwrap_or(0);
    let void = number("late_p99_us") > LATE_MICROS_MAX;
    println!(
        "{:>4}  {:8}  {:>8.0}  {:>8.0}  {:>8.0}  {:>8.2}{}",
        turn + 1,
        proxy.name,
        number("p50_us"),
        number("p99_us"),
        number("p999_us"),
        ratio(used, good),
        if void { "  void: the generator was late" } else { "" }
    );
    samples.failed += failed;
    if void {
        samples.void += 1;
    } else {
        samples.p50.push(number("p50_us"));
        samples.p99.push(number("p99_us"));
        samples.p999.push(number("p999_us"));
        samples.cost.push(ratio(used, good));
    }
    Ok(())
}
