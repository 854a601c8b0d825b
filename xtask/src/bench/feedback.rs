//! `cargo xtask bench feedback`: policies side by side, of ours and of the peers.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use super::peers::{self, Wish};
use super::{build, run, take_switch, take_value};
use crate::apt::{self, Need};
use crate::{process, root};

/// Several balancers share a board, which is there.
const REDIS: Need = Need {
    program: "redis-server",
    package: "redis-server",
    why: "because several balancers share a board",
};
/// Peers that have policies worth comparing.
const PEERS: [&str; 3] = ["haproxy", "nginx", "envoy"];
/// What `--quick` stands for: about three minutes.
const QUICK: [&str; 6] = ["--seconds", "5", "--warm-up", "4", "--repetitions", "1"];

/// Runs the chore.
pub fn main(args: &[String]) -> Result<ExitCode> {
    let mut args = args.to_vec();
    let may_install = !take_switch(&mut args, "--no-install");
    let quick = take_switch(&mut args, "--quick");
    let profile = take_value(&mut args, "--profile")?.unwrap_or_else(|| "release".to_owned());
    if let Some((_, why)) = apt::ensure(&[REDIS], may_install).first() {
        bail!("{why}");
    }
    let names = PEERS.map(str::to_owned);
    let found = peers::ensure(&Wish { names: &names, may_install })?;
    build(&profile, &["-p", "bench", "--bins"])?;
    let programs = root::target().join(&profile);
    let out = root::output("bench")?.join("feedback.json");
    let mut measure = Command::new(programs.join("feedback"));
    measure.arg("--out").arg(&out);
    measure.arg("--templates").arg(root::repo().join("tests/bench/peers"));
    measure.arg("--folder").arg(root::output("bench")?.join("peers"));
    for (name, path) in &found {
        measure.arg(format!("--{name}")).arg(path);
    }
    if let Some(redis) = process::find("redis-server") {
        measure.arg("--redis").arg(redis);
    }
    if quick {
        measure.args(QUICK);
    }
    measure.args(&args);
    let mut ok = run(measure)?;
    println!();
    let mut bars = Command::new(programs.join("bars"));
    bars.arg(&out);
    ok &= run(bars)?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
