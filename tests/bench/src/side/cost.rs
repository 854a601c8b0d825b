//! Processor time of each proxy per request, and per byte where answers are large: closed loop.
#![expect(clippy::print_stdout, reason = "a measurement talks to the person who started it")]

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::Bench;
use crate::bars::Bar;
use crate::figures::{Figure, Load, ratio};
use crate::machine::{Busy, cpu_micros};
use crate::peer::Peer;
use crate::proxies::Kind;

/// Before the first measured turn of each program, seconds.
const WARM_UP_SECONDS: u32 = 1;
/// Another program on the proxies' core spoils a turn beyond this share of it.
const DISTURBED_SHARE: f64 = 0.05;
/// A generator's core busier than this, while the proxy's is not, bounds the rate.
const SATURATED_SHARE: f64 = 0.97;
/// Large answers, from which on bytes are what costs.
const LARGE_BYTES: usize = 64 << 10;

/// One measured turn.
struct Turn {
    micros_per_request: f64,
    rate: f64,
    p99_ms: f64,
    requests: u64,
    errors: u64,
    disturbed: bool,
    bound: bool,
}

/// Measures answers of so many bytes. `name` is the scenario's.
///
/// # Errors
/// When something does not start, or requests fail.
pub fn cost(bench: &Bench, name: &str, bytes: usize) -> Result<Value> {
    let (_instances, upstreams) = bench.instances(bytes)?;
    let proxies = bench.proxies(&upstreams)?;
    println!("\n{name}: answers of {bytes} bytes, {} instances", upstreams.len());
    println!("turn  proxy     us CPU/request  requests/s    p99 ms");
    for proxy in &proxies {
        generate(bench, proxy.address, WARM_UP_SECONDS)?;
    }
    let mut turns: Vec<Vec<Turn>> = proxies.iter().map(|_| Vec::new()).collect();
    for (turn, index) in bench.turns() {
        let measured = measure(bench, turn, &proxies[index])?;
        turns[index].push(measured);
    }
    tell(bench, name, bytes, &turns)
}

fn generate(bench: &Bench, address: SocketAddr, seconds: u32) -> Result<Load> {
    let output = Command::new("taskset")
        .args(["-c", &bench.cores.generator])
        .arg(&bench.wrk)
        .args(["--latency", "-t", "1"])
        .args(["-c", &bench.connections.to_string()])
        .args(["-d", &format!("{seconds}s")])
        .arg(format!("http://{address}/"))
        .output()
        .context("start wrk")?;
    Load::of_wrk(&String::from_utf8_lossy(&output.stdout))
}

fn measure(bench: &Bench, turn: usize, proxy: &Peer) -> Result<Turn> {
    let (before, busy) = (cpu_micros(proxy.pid())?, Busy::now()?);
    let load = generate(bench, proxy.address, bench.seconds)?;
    let (used, now) = (cpu_micros(proxy.pid())? - before, Busy::now()?);
    if load.requests == 0 {
        bail!("{} answered nothing", proxy.name);
    }
    let whole = f64::from(bench.seconds) * 1e6;
    let cores = 0..bench.cores.proxy_count;
    let busy_cores: f64 = cores.map(|core| now.core_since(&busy, core)).sum();
    let own = ratio(used, 1) / whole;
    let generator = now.core_since(&busy, bench.cores.generator_first);
    let measured = Turn {
        micros_per_request: ratio(used, load.requests),
        rate: load.rate,
        p99_ms: load.p99_ms,
        requests: load.requests,
        errors: load.errors,
        disturbed: busy_cores - own > DISTURBED_SHARE,
        bound: generator > SATURATED_SHARE && own < SATURATED_SHARE,
    };
    println!(
        "{:>4}  {:8}  {:>14.2}  {:>10.0}  {:>8.2}{}{}",
        turn + 1,
        proxy.name,
        measured.micros_per_request,
        measured.rate,
        measured.p99_ms,
        if measured.disturbed { "  void: another program ran on the proxy's core" } else { "" },
        if measured.bound { "  the generator's core is full" } else { "" },
    );
    Ok(measured)
}

/// Turns that count: those that nothing disturbed, or all, if none was left alone.
fn counted(turns: &[Turn]) -> impl Iterator<Item = &Turn> {
    let any = turns.iter().any(|turn| !turn.disturbed);
    turns.iter().filter(move |turn| !any || !turn.disturbed)
}

fn tell(bench: &Bench, name: &str, bytes: usize, turns: &[Vec<Turn>]) -> Result<Value> {
    println!("\n          us CPU/request: median (least-most)   requests/s: median (least-most)");
    let mut peers = Map::new();
    let mut costs = Vec::new();
    let mut errors = 0;
    for (kind, turns) in bench.kinds.iter().zip(turns) {
        let cost = Figure::of(&counted(turns).map(|t| t.micros_per_request).collect::<Vec<_>>())?;
        let rate = Figure::of(&counted(turns).map(|t| t.rate).collect::<Vec<_>>())?;
        let p99 = Figure::of(&counted(turns).map(|t| t.p99_ms).collect::<Vec<_>>())?;
        let failed: u64 = turns.iter().map(|t| t.errors).sum();
        let void = turns.iter().filter(|t| t.disturbed).count();
        let bound = turns.iter().filter(|t| t.bound).count();
        println!(
            "{:8}  {:>8.2} ({:.2}-{:.2})   {:>8.0} ({:.0}-{:.0})   {failed} errors, {void} void",
            kind.as_str(),
            cost.median,
            cost.min,
            cost.max,
            rate.median,
            rate.min,
            rate.max,
        );
        let entry = json!({
            "cpu_micros_per_request": cost.json(),
            "requests_per_second": rate.json(),
            "p99_ms": p99.json(),
            "requests": turns.iter().map(|t| t.requests).sum::<u64>(),
            "errors": failed,
            "turns_void": void,
            "turns_bound_by_the_generator": bound,
        });
        peers.insert(kind.as_str().to_owned(), entry);
        costs.push((*kind, cost.median));
        errors += failed;
    }
    let bars = bars(name, bytes, &costs, bench, turns);
    for bar in &bars {
        println!("{}", bar.line());
    }
    if errors > 0 {
        bail!("{name}: {errors} requests failed: the figures above do not count");
    }
    Ok(json!({
        "what": "CPU of the proxy process, closed loop, keep-alive, the same three headers",
        "answer_bytes": bytes,
        "seconds_per_turn": bench.seconds,
        "repetitions": bench.repetitions,
        "connections": bench.connections,
        "proxy_threads": bench.threads,
        "peers": peers,
        "bars": bars.iter().map(Bar::json).collect::<Vec<_>>(),
    }))
}

fn bars(
    name: &str,
    bytes: usize,
    costs: &[(Kind, f64)],
    bench: &Bench,
    turns: &[Vec<Turn>],
) -> Vec<Bar> {
    let peers = costs.iter().filter(|(kind, _)| *kind != Kind::Tally);
    let best = peers.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(kind, _)| *kind);
    let (Some(best), unit) = (best, if bytes >= LARGE_BYTES { "byte" } else { "request" }) else {
        return Vec::new();
    };
    let mut bars = Vec::new();
    let mut bar = |peer: Kind, bar: f64, note: &str| {
        if let Some(figure) = against(bench, turns, peer) {
            let peer = peer.as_str();
            let what = format!("{name}: CPU per {unit}, tally / {peer}{note}");
            bars.push(Bar::at_most(what, figure, bar));
        }
    };
    if unit == "request" {
        bar(Kind::Haproxy, 0.85, "");
        bar(best, 1.0, " (best peer)");
        bar(best, 0.7, " (best peer), the aim");
    } else {
        bar(best, 1.0, " (best peer)");
    }
    bars
}

/// Turn by turn: what disturbed a turn disturbed both.
fn against(bench: &Bench, turns: &[Vec<Turn>], peer: Kind) -> Option<f64> {
    let at = |kind: Kind| bench.kinds.iter().position(|k| *k == kind);
    let (ours, theirs) = (&turns[at(Kind::Tally)?], &turns[at(peer)?]);
    let pairs: Vec<(&Turn, &Turn)> = ours.iter().zip(theirs).collect();
    let clean = |pair: &&(&Turn, &Turn)| !pair.0.disturbed && !pair.1.disturbed;
    let quotient = |pair: &(&Turn, &Turn)| pair.0.micros_per_request / pair.1.micros_per_request;
    let mut ratios: Vec<f64> = pairs.iter().filter(clean).map(quotient).collect();
    if ratios.is_empty() {
        ratios = pairs.iter().map(quotient).collect();
    }
    Figure::of(&ratios).ok().map(|figure| figure.median)
}
