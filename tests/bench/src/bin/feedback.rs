//! The policies side by side: real proxies, instances that sleep, paired arrivals.
//!
//! Started by `cargo xtask bench feedback`, which builds the programs and installs the peers.
#![expect(clippy::print_stdout, reason = "a measurement talks to the person who started it")]
#![expect(clippy::disallowed_methods, reason = "progress is told by the real clock")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench::args::Args;
use bench::bars::Bar;
use bench::feedback::table::Table;
use bench::feedback::{Contender, Field, Workload, run, workload};
use bench::proxies::Programs;
use serde_json::{Map, Value, json};

const USAGE: &str = "feedback --out FILE [--only WORKLOAD,...] [--contenders KIND:POLICY,...]
  [--seconds N] [--warm-up N] [--repetitions N] [--seed N] [--at-once PROXIES]
  [--redis PATH] ...";

struct Course {
    out: PathBuf,
    workloads: Vec<Workload>,
    contenders: Vec<Contender>,
    repetitions: u64,
    seed: u64,
}

fn main() -> Result<()> {
    let mut args = Args::of_process(USAGE, &[])?;
    let programs =
        Programs::read(&mut args).with_context(|| format!("{USAGE}\n{}", Programs::USAGE))?;
    let redis: Option<PathBuf> = args.option("redis")?;
    let field = Field {
        programs: &programs,
        redis: redis.as_deref(),
        warm_up: Duration::from_secs_f64(args.or("warm-up", 8.0)?),
        at_once: args.or("at-once", 15)?,
        measured: Duration::from_secs_f64(args.or("seconds", 15.0)?),
    };
    let course = Course {
        out: args.must("out")?,
        workloads: workloads(&args.list("only"))?,
        contenders: contenders(&args.list("contenders"), &programs)?,
        repetitions: args.or("repetitions", 3)?,
        seed: args.or("seed", 1)?,
    };
    args.finish()?;
    bench::machine::raise_descriptors()?;
    measure(&field, &course)
}

fn workloads(names: &[String]) -> Result<Vec<Workload>> {
    if let Some(name) = names.iter().find(|n| workload::ALL.iter().all(|w| w.name != **n)) {
        let known: Vec<&str> = workload::ALL.iter().map(|w| w.name).collect();
        bail!("there is no workload {name:?}; there are {}", known.join(", "));
    }
    let wanted = |w: &Workload| names.is_empty() || names.iter().any(|n| n == w.name);
    Ok(workload::ALL.into_iter().filter(wanted).collect())
}

fn contenders(names: &[String], programs: &Programs) -> Result<Vec<Contender>> {
    let all = if names.is_empty() {
        Contender::usual()?
    } else {
        names.iter().map(|name| name.parse()).collect::<Result<_>>()?
    };
    let (at_hand, missing): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|contender| programs.has(contender.kind));
    for contender in missing {
        println!("without {contender}: the program is not at hand");
    }
    Ok(at_hand)
}

fn measure(field: &Field<'_>, course: &Course) -> Result<()> {
    let started = Instant::now();
    let cells = course.workloads.len() as u64 * course.repetitions;
    println!(
        "{} workloads, {} runs each of {:.0} s, {} contenders at once",
        course.workloads.len(),
        course.repetitions,
        (field.warm_up + field.measured).as_secs_f64(),
        course.contenders.len()
    );
    let mut results = Map::new();
    let mut bars = Vec::new();
    let mut done = 0;
    let (mut won, mut competed, mut told) = (0_u32, 0_u32, Vec::new());
    for workload in &course.workloads {
        let alone = workload.alone.map(|names| names.map(str::parse::<Contender>));
        let alone = alone.map(|read| read.into_iter().collect::<Result<Vec<_>>>()).transpose()?;
        let contenders = alone.as_ref().unwrap_or(&course.contenders);
        let mut runs = Vec::new();
        for repetition in 0..course.repetitions {
            let ran = run::run(field, workload, contenders, course.seed + repetition)?;
            done += 1;
            println!(
                "[{done}/{cells}, {:.0} s] {}: generator and instances {:.0} %, proxies {:.0} % of the machine{}",
                started.elapsed().as_secs_f64(),
                workload.name,
                ran.own_share * 100.0,
                ran.proxy_share * 100.0,
                ran.void.as_ref().map_or(String::new(), |why| format!("; void: {why}"))
            );
            runs.push(ran);
        }
        let table = Table::of(workload, contenders, &runs)?;
        println!("\n{}: {} ({:.0} requests/s each)", workload.name, workload.what, workload.rate());
        for line in table.lines() {
            println!("{line}");
        }
        println!();
        if workload.alone.is_none() {
            (won, competed) = (won + u32::from(table.won()), competed + 1);
        }
        told.extend(table.verdict());
        bars.extend(table.bars());
        results.insert(workload.name.to_owned(), table.json());
    }
    for line in told {
        println!("{line}");
    }
    if competed > 0 && course.contenders.iter().any(Contender::is_ours) {
        let most = Bar::at_least(
            "workloads in which ours is the best or tied",
            f64::from(won),
            f64::from(competed / 2 + 1),
        );
        println!("{}", most.line());
        results.insert("most".to_owned(), json!({"bars": [most.json()]}));
    }
    std::fs::write(&course.out, serde_json::to_string_pretty(&Value::Object(results))?)
        .with_context(|| format!("write {}", course.out.display()))?;
    Ok(())
}
