//! `cargo xtask bench`: installs the peers, builds with the `dist` profile, measures side by side.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::apt::{self, Need};
use crate::process::{self, Bounds};
use crate::root;

const HELP: &str = "\
Measures Tally's balancer beside HAProxy's `leastconn`: processor time of the proxy per request,
two upstreams, kept-alive connections, on the same machine in the same run, turn by turn. Proxy and
generator are pinned to different cores. Both tell instances of the client in the same three
headers: the same work. The result is also written to target/bench/.

  cargo xtask bench [balancer] [--no-install] [--seconds N] [--repetitions N] [--connections N] [--threads N]

  --seconds N       length of one turn (8)
  --repetitions N   turns of each program (5)
  --connections N   connections of the generator (64)
  --threads N       threads of each proxy (1)

  cargo xtask bench platform

measures the binary as a whole: the first request to an empty service (median of 20, beside the
process's own start), memory of `tally up` at rest, 2.2 times one instance's capacity until a third
instance serves, and `kill -9` until a request is answered again.

Let nothing else run meanwhile: a busy machine measures itself.";

const NEEDS: [Need; 3] = [
    Need {
        program: "haproxy",
        package: "haproxy",
        why: "because it is what Tally is held against",
    },
    Need { program: "wrk", package: "wrk", why: "because it generates the load" },
    Need { program: "taskset", package: "util-linux", why: "because cores are kept apart with it" },
];

/// One whole-program optimised build on two slow cores.
const BUILD_DEADLINE: Duration = Duration::from_secs(3600);
/// The longest measurement anybody has asked for, and some.
const MEASURE_DEADLINE: Duration = Duration::from_secs(3600);

/// Runs the chore.
pub fn main(args: &[String]) -> Result<ExitCode> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    match args.split_first() {
        Some((word, rest)) if word == "platform" => platform(rest),
        Some((word, rest)) if word == "balancer" => balancer(rest),
        Some(_) | None => balancer(args),
    }
}

/// Waking, memory at rest, scaling out, coming back: of the binary that users build.
fn platform(args: &[String]) -> Result<ExitCode> {
    if let Some(word) = args.first() {
        bail!("`bench platform` takes no {word:?}");
    }
    build("release", &["-p", "tally", "-p", "bench", "--bin", "tally", "--bin", "platform"])?;
    let mut measure = Command::new(root::target().join("release/platform"));
    measure
        .arg(root::target().join("release/tally"))
        .arg(root::output("bench")?.join("platform.json"));
    run(measure)
}

fn balancer(args: &[String]) -> Result<ExitCode> {
    let may_install = !args.iter().any(|arg| arg == "--no-install");
    let passed_on: Vec<&String> = args.iter().filter(|arg| *arg != "--no-install").collect();
    if let Some((_, why)) = apt::ensure(&NEEDS, may_install).first() {
        bail!("{why}");
    }
    build("dist", &["-p", "bench", "--bins"])?;
    let program = |name: &str| process::find(name).unwrap_or_default();
    let peers = root::repo().join("tests/bench/peers");
    let mut measure = Command::new(root::target().join("dist/side-by-side"));
    measure
        .arg("--out")
        .arg(root::output("bench")?.join("balancer.json"))
        .arg("--haproxy")
        .arg(program("haproxy"))
        .arg("--haproxy-config")
        .arg(peers.join("haproxy.cfg"))
        .arg("--wrk")
        .arg(program("wrk"))
        .args(passed_on);
    run(measure)
}

fn build(profile: &str, what: &[&str]) -> Result<()> {
    println!("building with the `{profile}` profile ...");
    let mut build = process::cargo();
    build.args(["build", "--profile", profile, "--locked"]).args(what);
    let bounds = Bounds {
        name: "build",
        log: None,
        deadline: BUILD_DEADLINE,
        heartbeat: true,
        interruptible: true,
    };
    let ran = process::run(build, &bounds, &mut |_| {})?;
    if !ran.ok() {
        bail!("the build failed:\n{}", ran.tail(60));
    }
    Ok(())
}

fn run(measure: Command) -> Result<ExitCode> {
    let bounds = Bounds {
        name: "bench",
        log: None,
        deadline: MEASURE_DEADLINE,
        heartbeat: false,
        interruptible: true,
    };
    let ran = process::run(measure, &bounds, &mut |line| println!("{line}"))?;
    Ok(if ran.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
