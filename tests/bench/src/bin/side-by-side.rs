//! Tally's balancer and its peers: the same machine, the same run, turn by turn.
//!
//! Started by `cargo xtask bench balancer`, which builds the programs and installs the peers.
#![expect(clippy::print_stdout, reason = "a measurement talks to the person who started it")]

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use bench::args::Args;
use bench::proxies::Programs;
use bench::side::{self, Bench};
use serde_json::{Map, Value};

const USAGE: &str = "side-by-side --out FILE --scenarios NAME,NAME ...
Scenarios: http-small, http-large, latency, idle.";

fn main() -> Result<()> {
    let mut args = Args::of_process(USAGE, &[])?;
    let out: PathBuf = args.must("out")?;
    let scenarios = args.list("scenarios");
    let bench = Bench::read(&mut args)
        .with_context(|| format!("{USAGE}\n{}\n{}", Programs::USAGE, Bench::USAGE))?;
    args.finish()?;
    bench::machine::raise_descriptors()?;
    let names: Vec<&str> = bench.kinds.iter().map(|kind| kind.as_str()).collect();
    println!(
        "{}; {} threads each, {} turns of {} s, {} connections",
        names.join(", "),
        bench.threads,
        bench.repetitions,
        bench.seconds,
        bench.connections
    );
    let mut results = Map::new();
    let mut failed = Vec::new();
    for name in &scenarios {
        let result = match name.as_str() {
            "http-small" => side::cost(&bench, name, 12),
            "http-large" => side::cost(&bench, name, 100 << 10),
            "latency" => side::felt(&bench),
            "idle" => side::idle(&bench),
            other => bail!("there is no scenario {other:?}\n{USAGE}"),
        };
        match result {
            Ok(value) => {
                results.insert(name.clone(), value);
            }
            Err(error) => {
                println!("{name}: {error:#}");
                failed.push(name.as_str());
            }
        }
    }
    std::fs::write(&out, serde_json::to_string_pretty(&Value::Object(results))?)
        .with_context(|| format!("write {}", out.display()))?;
    if !failed.is_empty() {
        bail!("without a result: {}", failed.join(", "));
    }
    Ok(())
}
