//! Nanoseconds of one pick, of every policy, among 8, 100 and 1,000 instances, by one thread and by
//! two at once over the same instances: `cargo run --release -p bench --bin picks`.
//!
//! A pick counts the request in and lets an older one end, as the request path does; nothing is
//! connected to. Time is the thread's own processor time, so that other work on the machine does not
//! count. Ends with 1 when a policy misses its bar.

use anyhow::{Context, Result, bail};
use balancer::measure::Made;
use bench::args::Args;
use bench::bars::Bar;
use domain::{Mono, PolicyName};
use rustix::time::{ClockId, clock_gettime};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

const INSTANCES: [u32; 3] = [8, 100, 1000];
/// Microseconds that a pick may take among so many.
const BARS: [f64; 3] = [1.0, 1.0, 5.0];
const PICKS: u32 = 100_000;
const REPETITIONS: usize = 5;
/// Simulated time between two picks: a thread that serves a hundred thousand requests a second.
const STEP: Duration = Duration::from_micros(10);

/// Processor time of this thread so far, in seconds.
#[expect(clippy::cast_precision_loss, reason = "seconds of one measurement")]
fn own_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Nanoseconds of a pick, of the slowest of `threads`.
fn time(policy: PolicyName, instances: u32, threads: u64) -> Result<f64> {
    let begin = Mono(Duration::from_secs(100));
    let made = Made::new(policy, instances, begin).context("made-up names are names")?;
    let gate = std::sync::Barrier::new(usize::try_from(threads)?);
    let results = std::thread::scope(|scope| {
        let each = |seed: u64| {
            let (made, gate) = (&made, &gate);
            scope.spawn(move || {
                let mut picks = made.picks(seed);
                let mut now = begin;
                let mut failed = 0u32;
                let warm = instances * 4;
                (0..warm).for_each(|n| failed += u32::from(!picks.once(u64::from(n), now)));
                gate.wait();
                let began = own_time();
                for n in 0..PICKS {
                    now = now.plus(STEP);
                    failed += u32::from(!picks.once(u64::from(n) * 31 + seed, now));
                }
                let took = own_time() - began;
                (took * 1e9 / f64::from(PICKS), failed)
            })
        };
        let running: Vec<_> = (0..threads).map(each).collect();
        running.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut slowest = 0.0_f64;
    for result in results {
        let Ok((nanos, failed)) = result else { bail!("a thread ended early") };
        if failed > 0 {
            bail!("{failed} picks found nobody");
        }
        slowest = slowest.max(nanos);
    }
    Ok(slowest)
}

fn median(policy: PolicyName, instances: u32, threads: u64) -> Result<f64> {
    let mut all: Vec<f64> =
        (0..REPETITIONS).map(|_| time(policy, instances, threads)).collect::<Result<_>>()?;
    all.sort_by(f64::total_cmp);
    Ok(all[REPETITIONS / 2])
}

fn main() -> Result<()> {
    let mut args = Args::of_process("picks [--out FILE]", &[])?;
    let path: Option<PathBuf> = args.option("out")?;
    args.finish()?;
    let mut out = std::io::stdout();
    writeln!(out, "ns per pick, medians of {REPETITIONS}; one thread / two threads")?;
    let sizes = INSTANCES.map(|n| format!("{n:>17}"));
    writeln!(out, "{:16}{}", "policy", sizes.concat())?;
    let (mut missed, mut bars) = (Vec::new(), Vec::new());
    for policy in PolicyName::ALL {
        write!(out, "{:16}", policy.as_str())?;
        for (instances, bar) in INSTANCES.into_iter().zip(BARS) {
            let (one, two) = (median(policy, instances, 1)?, median(policy, instances, 2)?);
            write!(out, "{:>17}", format!("{one:.0} / {two:.0}"))?;
            let what = format!("picks: us, {} among {instances}", policy.as_str());
            bars.push(Bar::at_most(what, one / 1000.0, bar).json());
            if one > bar * 1000.0 {
                missed.push(format!("{} among {instances}", policy.as_str()));
            }
        }
        writeln!(out)?;
    }
    if let Some(path) = path {
        std::fs::write(path, serde_json::to_string_pretty(&serde_json::json!({"bars": bars}))?)?;
    }
    if !missed.is_empty() {
        bail!("over the bar of 1 us (5 us among 1,000): {}", missed.join(", "));
    }
    Ok(())
}
