//! The fuzz stage: every target of `fuzz/` under libFuzzer for a while, two at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::World;
use crate::process::{self, Bounds, Ran};
use crate::root;
use crate::score::Score;

/// How long each target runs: the bar.
const EACH: Duration = Duration::from_secs(60);
/// libFuzzer ends by itself after [`EACH`]; past this it hangs.
const DEADLINE: Duration = Duration::from_secs(180);
/// libFuzzer itself and our packages, compiled for it.
const BUILD_DEADLINE: Duration = Duration::from_secs(1800);
/// Targets that run at once: the processors of the smallest machine.
const LANES: usize = 2;
/// Longest input: what a head, a line of chunks or a report may have, and then some.
const INPUT_BYTES_MAX: usize = 8192;
/// One input may not take longer, seconds.
const INPUT_SECONDS_MAX: u32 = 10;
/// A target may not hold more memory, MiB.
const MEMORY_MIB_MAX: u32 = 1024;

/// Builds the targets for libFuzzer and runs each.
pub fn run(world: &mut World) -> Result<Score> {
    if process::find("c++").is_none() {
        return Ok(Score::skip("fuzz", "c++ is not installed; libFuzzer is compiled with it"));
    }
    let program = build(world)?;
    let names = names(&root::repo().join("fuzz/corpus"))?;
    let mut lanes: Vec<Vec<String>> = vec![Vec::new(); LANES];
    for (index, name) in names.into_iter().enumerate() {
        lanes[index % LANES].push(name);
    }
    let logs = world.logs.clone();
    let running: Vec<_> = lanes
        .into_iter()
        .map(|lane| {
            let (program, logs) = (program.clone(), logs.clone());
            std::thread::spawn(move || run_lane(&program, &lane, &logs))
        })
        .collect();
    let mut score = Score::default();
    for lane in running {
        match lane.join() {
            Ok(result) => score.add(result),
            Err(_panicked) => score.add(Score::fail("fuzz: a lane ended early")),
        }
    }
    Ok(score)
}

/// A copy of the program: an ordinary build later replaces the one it was made as.
fn build(world: &World) -> Result<PathBuf> {
    let mut command = process::cargo();
    // All members, so that dependencies have the features they were already built with.
    command
        .args(["build", "--workspace", "--bin", "fuzz", "--features", "fuzz/testing", "--locked"])
        .env("RUSTC_WORKSPACE_WRAPPER", root::repo().join("fuzz/instrumented"))
        .env("CARGO_INCREMENTAL", "0");
    let log = world.logs.join("fuzz-build.log");
    let bounds = Bounds {
        name: "fuzz (build)",
        log: Some(&log),
        deadline: BUILD_DEADLINE,
        heartbeat: true,
        interruptible: true,
    };
    let ran = process::run(command, &bounds, &mut |_| {})?;
    if !ran.ok() {
        bail!("the fuzz targets do not compile:\n{}", ran.tail(40));
    }
    let built = root::target().join("debug/fuzz");
    let program = root::output("fuzz")?.join("targets");
    // Taken away first: a running copy of an earlier run cannot be written over.
    if program.exists() {
        std::fs::remove_file(&program).context("remove the last copy")?;
    }
    std::fs::copy(&built, &program).with_context(|| format!("copy {}", built.display()))?;
    Ok(program)
}

/// The targets: each has its folder of kept inputs, as the package's own test makes sure.
fn names(corpus: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(corpus).context("read fuzz/corpus")? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn run_lane(program: &Path, lane: &[String], logs: &Path) -> Score {
    let mut score = Score::default();
    for name in lane {
        if process::interrupted() {
            score.add(Score::fail(format!("fuzz {name}: interrupted before it ran")));
            continue;
        }
        score.add(match run_one(program, name, logs) {
            Ok(ran) => judge(name, &ran),
            Err(error) => Score::fail(format!("fuzz {name}: {error:#}")),
        });
    }
    score
}

fn run_one(program: &Path, name: &str, logs: &Path) -> Result<Ran> {
    // New inputs are kept apart from the committed ones.
    let found = root::output("fuzz")?.join("found").join(name);
    std::fs::create_dir_all(&found).context("make a folder for new inputs")?;
    let prefix = root::output("fuzz")?.join(format!("{name}-"));
    let mut command = Command::new(program);
    command
        .env("TALLY_FUZZ_TARGET", name)
        .arg(format!("-max_total_time={}", EACH.as_secs()))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
        .arg(format!("-artifact_prefix={}", prefix.display()))
        .args(["-print_final_stats=1", "-verbosity=1"])
        .arg(&found)
        .arg(root::repo().join("fuzz/corpus").join(name));
    let log = logs.join(format!("fuzz-{name}.log"));
    let title = format!("fuzz {name}");
    let bounds = Bounds {
        name: &title,
        log: Some(&log),
        deadline: DEADLINE,
        heartbeat: false,
        interruptible: true,
    };
    process::run(command, &bounds, &mut |_| {})
}

fn judge(name: &str, ran: &Ran) -> Score {
    let figures = figures(&ran.output);
    let runs = figures.get("number_of_executed_units").copied().unwrap_or(0);
    if ran.ok() && runs > 0 {
        println!("  {name}: {runs} inputs");
        return Score::pass();
    }
    println!("{name}:\n{}", ran.tail(30));
    Score::fail(format!(
        "fuzz {name} ({runs} inputs): the input is in target/fuzz/{name}-*; mend it and keep the \
         input in fuzz/corpus/{name}"
    ))
}

/// `stat::NAME: N`, as libFuzzer writes at its end.
fn figures(output: &str) -> BTreeMap<&str, u64> {
    let lines = output.lines().filter_map(|line| line.strip_prefix("stat::")?.split_once(':'));
    lines.filter_map(|(name, value)| Some((name, value.trim().parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::End;

    #[test]
    fn a_run_without_a_single_input_is_none() {
        let ran = |end, output: &str| Ran { end, output: output.to_owned() };
        let well = "stat::number_of_executed_units: 852720\nstat::peak_rss_mb:              30\n";
        assert_eq!(judge("a", &ran(End::Ok, well)).passed, 1);
        assert_eq!(judge("a", &ran(End::Ok, "")).failed, 1);
        assert_eq!(judge("a", &ran(End::Failed("77".to_owned()), well)).failed, 1);
    }
}
