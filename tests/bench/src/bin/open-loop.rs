//! Requests at a constant rate, whatever the answers do: what they felt like, as JSON.
#![expect(clippy::print_stdout, reason = "the result is this program's output")]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use bench::args::Args;
use bench::openloop::{self, Course, Shot};
use serde_json::json;

const USAGE: &str = "open-loop --to ADDRESS [--rate PER_SECOND] [--seconds N] [--connections N]";
/// The first part of a run warms connections and caches.
const WARM_UP: Duration = Duration::from_millis(500);
/// Longer than any of these answers takes.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let mut args = Args::of_process(USAGE, &[])?;
    let to: SocketAddr = args.must("to")?;
    let rate: f64 = args.or("rate", 5000.0)?;
    let seconds: f64 = args.or("seconds", 5.0)?;
    let connections_max = args.or("connections", 64)?;
    args.finish()?;
    if rate <= 0.0 || seconds <= 0.0 {
        bail!("rate and seconds are above zero\n{USAGE}");
    }
    let end = WARM_UP + Duration::from_secs_f64(seconds);
    let gap = 1.0 / rate;
    let shots = (0_u32..).map(|n| Shot {
        at: Duration::from_secs_f64(f64::from(n) * gap),
        door: 0,
        party: 0,
        demand_micros: 0,
    });
    let course =
        Course { doors: &[to], connections_max, parties: 1, warm_up: WARM_UP, patience: PATIENCE };
    let seen = openloop::run(&course, shots.take_while(|shot| shot.at < end))?;
    let record = &seen.records[0];
    let at = |quantile: f64| record.latency.value_at_quantile(quantile);
    println!(
        "{}",
        json!({
            "good": record.good,
            "failed": record.failed,
            "unfinished": record.unfinished,
            "p50_us": at(0.5),
            "p90_us": at(0.9),
            "p99_us": at(0.99),
            "p999_us": at(0.999),
            "max_us": record.latency.max(),
            "late_p99_us": seen.lateness.value_at_quantile(0.99),
        })
    );
    Ok(())
}
