//! `cargo xtask bench balancer`: the data path beside its peers, scenario by scenario.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use super::peers::{self, Wish};
use super::{build, run, take_switch, take_value};
use crate::apt::{self, Need};
use crate::{process, root};

/// Scenarios of the program `side-by-side`.
const SIDE_BY_SIDE: [&str; 4] = ["http-small", "http-large", "latency", "idle"];
/// Scenarios with programs of their own, each of which takes `--out FILE`; with the words that make
/// it quick.
const OWN_PROGRAM: [(&str, &str, &[&str]); 5] = [
    ("tcp", "tcp-side-by-side", &["--repetitions", "1", "--mebibytes", "256"]),
    ("nat", "nat-side-by-side", &["--repetitions", "1", "--seconds", "1"]),
    ("picks", "picks", &[]),
    ("reports", "reports", &["--seconds", "1"]),
    ("reports", "freshness", &["--rounds", "20"]),
];
/// Programs that start others of ours are told where those are: the word, and the program.
const TOLD: [(&str, &str, &str); 3] = [
    ("tcp-side-by-side", "--balancer", "bench-balancer"),
    ("nat-side-by-side", "--balancer", "bench-balancer"),
    ("nat-side-by-side", "--responder", "responder"),
];
/// What mode `nat` is measured with.
const NAT_NEEDS: [Need; 3] = [
    Need { program: "nft", package: "nftables", why: "because mode nat is a table of it" },
    Need { program: "ip", package: "iproute2", why: "because nat is measured in namespaces" },
    Need { program: "iperf3", package: "iperf3", why: "because it streams through mode nat" },
];
/// What `--quick` stands for.
const QUICK: [&str; 8] =
    ["--seconds", "1", "--repetitions", "2", "--idle-connections", "1000", "--rate", "2000"];

/// Runs the chore.
pub fn main(args: &[String]) -> Result<ExitCode> {
    let mut args = args.to_vec();
    let may_install = !take_switch(&mut args, "--no-install");
    let quick = take_switch(&mut args, "--quick");
    let profile = take_value(&mut args, "--profile")?.unwrap_or_else(|| "dist".to_owned());
    let only = take_value(&mut args, "--only")?.map(|text| words(&text)).unwrap_or_default();
    let names = take_value(&mut args, "--peers")?.map(|text| words(&text)).unwrap_or_default();
    let known = |name: &String| {
        SIDE_BY_SIDE.contains(&name.as_str())
            || OWN_PROGRAM.iter().any(|(known, _, _)| known == name)
    };
    if let Some(unknown) = only.iter().find(|name| !known(name)) {
        bail!("there is no scenario {unknown:?}; see `cargo xtask bench --help`");
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|n| n == name);
    let found = peers::ensure(&Wish { names: &names, may_install })?;
    if wanted("nat")
        && let Some((_, why)) = apt::ensure(&NAT_NEEDS, may_install).first()
    {
        bail!("{why}");
    }
    build(&profile, &["-p", "bench", "--bins"])?;
    let programs = root::target().join(&profile);
    let mut all_ok = true;
    let mut results = Vec::new();

    let scenarios: Vec<&str> = SIDE_BY_SIDE.into_iter().filter(|name| wanted(name)).collect();
    if !scenarios.is_empty() {
        let out = root::output("bench")?.join("balancer.json");
        let mut measure = Command::new(programs.join("side-by-side"));
        measure.arg("--out").arg(&out).args(["--scenarios", &scenarios.join(",")]);
        measure.arg("--templates").arg(root::repo().join("tests/bench/peers"));
        measure.arg("--folder").arg(root::output("bench")?.join("peers"));
        measure.arg("--wrk").arg(process::find("wrk").context("wrk is gone")?);
        for (name, path) in &found {
            measure.arg(format!("--{name}")).arg(path);
        }
        if quick {
            measure.args(QUICK);
        }
        measure.args(&args);
        all_ok &= run(measure)?;
        results.push(out);
    }
    for (name, program, quickly) in OWN_PROGRAM {
        if wanted(name) {
            let words = if quick { quickly } else { &[] };
            all_ok &= own_program(name, program, words, &programs, &mut results)?;
        }
    }
    println!();
    let mut bars = Command::new(programs.join("bars"));
    bars.args(results.iter().filter(|path| path.is_file()));
    all_ok &= run(bars)?;
    Ok(if all_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A program that measures one thing. One that is not there yet is told, and no failure.
fn own_program(
    name: &str,
    program: &str,
    words: &[&str],
    programs: &Path,
    results: &mut Vec<PathBuf>,
) -> Result<bool> {
    let path = programs.join(program);
    if !path.is_file() {
        println!("\n{name}: there is no program `{program}`");
        return Ok(true);
    }
    println!("\n{name}: {program}");
    let out = root::output("bench")?.join(format!("{program}.json"));
    let mut measure = Command::new(path);
    measure.arg("--out").arg(&out).args(words);
    for (_, word, told) in TOLD.iter().filter(|(to, _, _)| *to == program) {
        measure.arg(word).arg(programs.join(told));
    }
    results.push(out);
    run(measure)
}

fn words(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}
