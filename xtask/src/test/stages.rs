//! The stages of `cargo xtask test`, cheapest first.

use std::time::Duration;

use anyhow::Result;

use super::{World, compose, fuzz, readme, torture, valkey};
use crate::apt::Need;
use crate::process::{self, Bounds, End};
use crate::score::{self, Score};
use crate::{root, tidy};

/// A cold build of all dependencies on two slow cores.
const BUILD_DEADLINE: Duration = Duration::from_secs(1800);
/// Ten times what the tests of one stage take.
pub(super) const TEST_DEADLINE: Duration = Duration::from_secs(1800);
/// Where property tests find their seed.
const PROPERTY_SEED: &str = "PROPTEST_RNG_SEED";
/// Formatting reads files only.
const SHORT_DEADLINE: Duration = Duration::from_secs(120);

const REDIS: Need = Need {
    program: "redis-server",
    package: "redis-server",
    why: "because the scoreboard is tested on a real Redis",
};
const DOCKERD: Need = Need {
    program: "dockerd",
    package: "docker.io",
    why: "because the Docker engine is tested with real containers",
};
const IP: Need = Need {
    program: "ip",
    package: "iproute2",
    why: "because a Docker daemon of the tests' own gets a bridge of its own",
};
const BUSYBOX: Need = Need {
    program: "busybox",
    package: "busybox-static",
    why: "because images of the tests' own are made of it",
};
const NFT: Need = Need {
    program: "nft",
    package: "nftables",
    why: "because mode nat is tried on the real kernel, in namespaces",
};
const DOCKER: Need = Need {
    program: "docker",
    package: "docker.io",
    why: "because the tests' images are imported with it",
};
const CURL: Need =
    Need { program: "curl", package: "curl", why: "because the README calls the API with it" };
const PYTHON: Need = Need {
    program: "python3",
    package: "python3",
    why: "because the README's first service is its web server",
};
const NGINX: Need = Need { program: "nginx", package: "nginx", why: BEHIND };
const HAPROXY: Need = Need { program: "haproxy", package: "haproxy", why: BEHIND };
const ASKER: Need = Need {
    program: "haproxy",
    package: "haproxy",
    why: "because it follows services' loads by its agent checks",
};
const CADDY: Need = Need { program: "caddy", package: "caddy", why: BEHIND };
const APACHE: Need = Need { program: "apache2", package: "apache2", why: BEHIND };
const BEHIND: &str = "because framing is compared with it behind the front door";
const SLOW: Need = Need {
    program: "slowhttptest",
    package: "slowhttptest",
    why: "because slow clients must harm nobody",
};
const CXX: Need =
    Need { program: "c++", package: "g++", why: "because libFuzzer is compiled with it" };
const COMPOSE: Need = Need {
    program: "docker-compose",
    package: "docker-compose",
    why: "because deploy/compose.yaml is tried out",
};

/// One stage.
pub struct Stage {
    pub name: &'static str,
    pub about: &'static str,
    /// Programs to install first.
    pub programs: &'static [Need],
    /// Whether Redis and Docker are started for it.
    pub needs_services: bool,
    /// Whether it starts `target/debug/tally`.
    pub needs_binary: bool,
    pub by_default: bool,
    pub run: fn(&mut World) -> Result<Score>,
}

/// All stages, in the order they run.
pub const STAGES: &[Stage] = &[
    Stage {
        name: "fmt",
        about: "rustfmt has nothing to change",
        programs: &[],
        needs_services: false,
        needs_binary: false,
        by_default: true,
        run: fmt,
    },
    Stage {
        name: "tidy",
        about: "house rules: floors, file heads, bans",
        programs: &[],
        needs_services: false,
        needs_binary: false,
        by_default: true,
        run: |_| Ok(tidy::score()),
    },
    Stage {
        name: "deny",
        about: "licences and sources by cargo-deny, where it is installed",
        programs: &[],
        needs_services: false,
        needs_binary: false,
        by_default: true,
        run: deny,
    },
    Stage {
        name: "build",
        about: "everything compiles; makes the binary the tests start",
        programs: &[],
        needs_services: false,
        needs_binary: false,
        by_default: true,
        run: build,
    },
    Stage {
        name: "clippy",
        about: "clippy, warnings denied",
        programs: &[],
        needs_services: false,
        needs_binary: false,
        by_default: true,
        run: clippy,
    },
    Stage {
        name: "unit",
        about: "unit and property tests of every package",
        programs: &[REDIS, DOCKER, DOCKERD, IP],
        needs_services: true,
        needs_binary: false,
        by_default: true,
        run: |world| cargo_test(world, "unit", &["--lib", "--bins"]),
    },
    Stage {
        name: "system",
        about: "contract suites and system tests: real processes, Redis, containers",
        programs: &[ASKER, REDIS, DOCKER, DOCKERD, IP, NFT, BUSYBOX],
        needs_services: true,
        needs_binary: true,
        by_default: true,
        run: system,
    },
    Stage {
        name: "valkey",
        about: "the scoreboard's suites on Valkey instead of Redis",
        programs: &[],
        needs_services: true,
        needs_binary: true,
        by_default: true,
        run: valkey::run,
    },
    Stage {
        name: "torture",
        about: "the front door under hostile bytes, slow clients, lost parts and change",
        programs: &[REDIS, NGINX, HAPROXY, CADDY, APACHE, SLOW, IP, NFT],
        needs_services: true,
        needs_binary: false,
        by_default: true,
        run: torture::run,
    },
    Stage {
        name: "soak",
        about: "the long forms of the same: twenty minutes of mixed traffic, five without managers",
        programs: &[REDIS],
        needs_services: true,
        needs_binary: false,
        by_default: false,
        run: torture::soak,
    },
    Stage {
        name: "doc",
        about: "examples in the documentation",
        programs: &[],
        needs_services: false,
        needs_binary: false,
        by_default: true,
        run: |world| cargo_test(world, "doc", &["--doc"]),
    },
    Stage {
        name: "fuzz",
        about: "each parser that faces the network under libFuzzer, a minute each",
        programs: &[CXX],
        needs_services: true,
        needs_binary: false,
        by_default: true,
        run: fuzz::run,
    },
    Stage {
        name: "readme",
        about: "the README's quick-start blocks",
        programs: &[CURL, PYTHON],
        needs_services: true,
        needs_binary: true,
        by_default: true,
        run: run_readme,
    },
    Stage {
        name: "compose",
        about: "deploy/compose.yaml with images from host binaries",
        programs: &[REDIS, CURL, DOCKER, DOCKERD, IP, COMPOSE],
        needs_services: true,
        needs_binary: true,
        by_default: true,
        run: compose::run,
    },
];

/// Runs one cargo command of a stage.
fn cargo(world: &World, stage: &str, args: &[&str], deadline: Duration) -> Result<process::Ran> {
    let mut command = process::cargo();
    command.args(args).envs(&world.env).env("CARGO_TERM_COLOR", "never");
    if std::env::var_os(PROPERTY_SEED).is_none() {
        // The same cases in every run: what passed yesterday fails today only by a change. Other
        // seeds are for whoever looks for trouble: PROPTEST_RNG_SEED=7 cargo xtask test.
        command.env(PROPERTY_SEED, "1");
    }
    let log = world.logs.join(format!("{stage}.log"));
    let bounds =
        Bounds { name: stage, log: Some(&log), deadline, heartbeat: true, interruptible: true };
    process::run(command, &bounds, &mut |line| show_progress(line))
}

/// Of a test run's thousands of lines, those a waiting person wants at once.
fn show_progress(line: &str) {
    let trimmed = line.trim_start();
    if trimmed.starts_with("Running ") || line.ends_with("... FAILED") {
        println!("  {trimmed}");
    }
}

/// A stage that either passes or fails as a whole.
fn whole(stage: &str, ran: &process::Ran) -> Score {
    if ran.ok() {
        return Score::pass();
    }
    println!("{}", errors_of(&ran.output));
    Score::fail(format!("{stage}: {}", told(&ran.end)))
}

fn told(end: &End) -> String {
    match end {
        End::Ok => "ended well".to_owned(),
        End::Failed(why) => why.clone(),
        End::TimedOut(after) => format!("stopped after {} s", after.as_secs()),
        End::Interrupted => "interrupted".to_owned(),
    }
}

/// From the first error on, without cargo's progress lines.
fn errors_of(output: &str) -> String {
    const MOST: usize = 400;
    let noise = ["Compiling ", "Checking ", "Downloaded ", "Downloading ", "Fresh "];
    let lines =
        output.lines().filter(|line| !noise.iter().any(|n| line.trim_start().starts_with(n)));
    lines.take(MOST).collect::<Vec<_>>().join("\n")
}

fn fmt(world: &mut World) -> Result<Score> {
    Ok(whole("fmt", &cargo(world, "fmt", &["fmt", "--all", "--", "--check"], SHORT_DEADLINE)?))
}

fn deny(world: &mut World) -> Result<Score> {
    if process::find("cargo-deny").is_none() {
        println!("  cargo-deny is not installed; tidy has checked sources and bans in Cargo.lock");
        return Ok(Score::default());
    }
    let args = ["deny", "--offline", "check", "bans", "licenses", "sources"];
    Ok(whole("deny", &cargo(world, "deny", &args, SHORT_DEADLINE)?))
}

/// All targets at once: what `cargo test` runs later is then already built, with the same
/// features, and so is the `tally` binary.
fn build(world: &mut World) -> Result<Score> {
    let args = ["build", "--workspace", "--all-targets", "--locked"];
    let ran = cargo(world, "build", &args, BUILD_DEADLINE)?;
    if !ran.ok() {
        world.lacking.insert("build", "the workspace does not compile".to_owned());
    }
    Ok(whole("build", &ran))
}

fn clippy(world: &mut World) -> Result<Score> {
    let args = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    Ok(whole("clippy", &cargo(world, "clippy", &args, BUILD_DEADLINE)?))
}

pub(super) fn cargo_test(world: &mut World, stage: &str, select: &[&str]) -> Result<Score> {
    cargo_test_within(world, stage, select, TEST_DEADLINE)
}

/// The same for tests that take longer.
pub(super) fn cargo_test_within(
    world: &mut World,
    stage: &str,
    select: &[&str],
    deadline: Duration,
) -> Result<Score> {
    if let Some(why) = world.lacking.get("build") {
        return Ok(Score::skip(format!("stage {stage}"), why));
    }
    let mut args = vec!["test", "--workspace", "--no-fail-fast", "--locked"];
    args.extend(select);
    // Tests that skip themselves say so on stdout, which libtest hides without this.
    args.extend(["--", "--show-output"]);
    let ran = cargo(world, stage, &args, deadline)?;
    let score = score::of_cargo_test(stage, &ran.output, ran.ok());
    if !ran.ok() {
        println!("{}", failures_of(&ran.output));
        println!("  the whole output: {}", world.logs.join(format!("{stage}.log")).display());
    }
    Ok(score)
}

fn system(world: &mut World) -> Result<Score> {
    // The torture suites are a stage of their own.
    cargo_test(world, "system", &["--test", "*", "--exclude", "torture"])
}

/// The parts of a test run's output that tell about failures; all errors if nothing was run.
fn failures_of(output: &str) -> String {
    let mut shown = Vec::new();
    let mut inside = false;
    for line in output.lines() {
        inside = match line.trim() {
            "failures:" => true,
            other => inside && !other.starts_with("test result:"),
        };
        if inside || line.starts_with("error") {
            shown.push(line);
        }
    }
    if output.contains("test result:") { shown.join("\n") } else { errors_of(output) }
}

fn run_readme(world: &mut World) -> Result<Score> {
    if !world.tally.exists() || world.lacking.contains_key("build") {
        let why = "target/debug/tally is not built; run the stage `build` too";
        return Ok(Score::skip("README quick-start", why));
    }
    if let Some(why) = ["curl", "python3"].iter().find_map(|tool| world.lacking.get(*tool)) {
        return Ok(Score::skip("README quick-start", why));
    }
    let scratch = world.scratch.path().join("readme");
    let log = world.logs.join("readme.log");
    readme::run(&root::repo().join("README.md"), &scratch, &world.tally, &log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_run_shows_its_failures_and_not_its_successes() {
        let output = "test a ... ok\nsuccesses:\nnoise\nfailures:\n---- b stdout ----\nboom\n\
                      test result: FAILED. 1 passed; 1 failed\nerror: test failed\n";
        let shown = failures_of(output);
        assert!(shown.contains("boom") && shown.contains("error: test failed"));
        assert!(!shown.contains("noise"));
    }

    #[test]
    fn a_run_that_did_not_compile_shows_the_compiler() {
        let shown = failures_of("   Compiling x v0.1.0\nerror[E0001]: no\n --> x.rs:1\n");
        assert!(shown.contains("x.rs:1") && !shown.contains("Compiling"));
    }

    #[test]
    fn stage_names_are_unique() {
        for (index, stage) in STAGES.iter().enumerate() {
            assert!(STAGES[index + 1..].iter().all(|other| other.name != stage.name));
        }
    }
}
