//! `cargo xtask test`: sets up what the tests need, runs them all, and counts.

pub mod compose;
pub mod docker;
mod fuzz;
pub mod readme;
pub mod redis;
mod stages;
mod torture;
mod valkey;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::apt::{self, Need};
use crate::root::{self, Scratch};
use crate::score::Score;
use crate::{USAGE, process};
use stages::{STAGES, Stage};

const HELP: &str = "\
Sets up what the tests need and runs them all. What CI runs.

  cargo xtask test [--no-install] [--only STAGE[,STAGE]]

  --no-install   never installs a package; what cannot run without one is skipped, with the reason
  --only STAGE   runs only these stages, and sets up only what they need

Programs that are missing are installed with apt (as root, or with sudo where it asks for no
password). A Redis is started on a free port, and a Docker daemon if none answers; both are
stopped at the end. Each stage's whole output is in target/xtask/STAGE.log.

The last line is `N passed, N failed`, with `, N skipped` if something was; exit code 1 if
anything failed.

Stages:";

/// What the tests are handed.
#[derive(Debug)]
pub struct World {
    /// Where each stage's output goes.
    pub logs: PathBuf,
    /// The binary under test.
    pub tally: PathBuf,
    /// Environment for the tests.
    pub env: BTreeMap<&'static str, String>,
    /// What could not be set up, and why.
    pub lacking: BTreeMap<&'static str, String>,
    pub docker: Option<docker::Docker>,
    /// Whether packages may be installed.
    pub may_install: bool,
    _redis: Option<redis::Redis>,
    /// Last, since fields go in order: the servers' files are removed after the servers ended.
    pub scratch: Scratch,
}

struct Asked {
    may_install: bool,
    stages: Vec<&'static Stage>,
}

/// Runs the chore.
pub fn main(args: &[String]) -> Result<ExitCode> {
    let asked = match parse(args) {
        Ok(Some(asked)) => asked,
        Ok(None) => {
            println!("{HELP}\n{}", stage_list());
            return Ok(ExitCode::SUCCESS);
        }
        Err(why) => {
            println!("error: {why}\n\n{HELP}\n{}", stage_list());
            return Ok(ExitCode::from(USAGE));
        }
    };
    let started = Instant::now();
    let mut total = Score::default();
    let mut world = World::bare()?;
    let mut served = false;
    for stage in &asked.stages {
        if process::interrupted() {
            total.add(Score::fail(format!("{}: interrupted before it ran", stage.name)));
            continue;
        }
        if stage.needs_services && !served {
            served = true;
            world.set_up(&asked);
        }
        total.add(run_stage(stage, &mut world)?);
    }
    drop(world); // stops what was started, before the last line is said
    for (what, why) in &total.skipped {
        println!("skipped: {what}: {why}");
    }
    for what in &total.failures {
        println!("FAILED: {what}");
    }
    println!("took {} s", started.elapsed().as_secs());
    println!("{}", total.line());
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_stage(stage: &Stage, world: &mut World) -> Result<Score> {
    println!("{} ({}) ...", stage.name, stage.about);
    let began = Instant::now();
    let score = (stage.run)(world).unwrap_or_else(|error| {
        println!("{error:#}");
        Score::fail(format!("{}: {error:#}", stage.name))
    });
    println!("{}: {} ({:.1} s)", stage.name, score.line(), began.elapsed().as_secs_f64());
    Ok(score)
}

fn parse(args: &[String]) -> Result<Option<Asked>, String> {
    let mut asked = Asked {
        may_install: true,
        stages: STAGES.iter().filter(|stage| stage.by_default).collect(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--help" | "-h" => return Ok(None),
            "--no-install" => asked.may_install = false,
            "--only" => {
                let names = args.next().ok_or("--only needs a stage")?;
                asked.stages = only(names)?;
            }
            other => match other.strip_prefix("--only=") {
                Some(names) => asked.stages = only(names)?,
                None => return Err(format!("unknown argument `{other}`")),
            },
        }
    }
    Ok(Some(asked))
}

/// The named stages, in the order they are always run.
fn only(names: &str) -> Result<Vec<&'static Stage>, String> {
    let names: Vec<&str> = names.split(',').collect();
    if let Some(unknown) = names.iter().find(|name| STAGES.iter().all(|stage| stage.name != **name))
    {
        return Err(format!("there is no stage `{unknown}`"));
    }
    let wanted = |stage: &Stage| names.contains(&stage.name);
    // A stage that starts the binary must not start an old one.
    let with_build = STAGES.iter().any(|stage| wanted(stage) && stage.needs_binary);
    let taken = |stage: &&Stage| wanted(stage) || (with_build && stage.name == "build");
    Ok(STAGES.iter().filter(taken).collect())
}

fn stage_list() -> String {
    let lines = STAGES.iter().map(|stage| {
        let when = if stage.by_default { "" } else { " (only when named)" };
        format!("  {:8} {}{when}", stage.name, stage.about)
    });
    lines.collect::<Vec<_>>().join("\n")
}

impl World {
    fn bare() -> Result<World> {
        Ok(World {
            logs: root::output("xtask")?,
            tally: root::target().join("debug/tally"),
            env: BTreeMap::new(),
            lacking: BTreeMap::new(),
            docker: None,
            may_install: false,
            _redis: None,
            scratch: Scratch::new("test")?,
        })
    }

    /// Installs, then starts, what the asked stages need. What is lacking in the end is told to
    /// the tests by the absence of its variable; they skip themselves, saying so.
    fn set_up(&mut self, asked: &Asked) {
        println!("set-up ...");
        self.may_install = asked.may_install;
        let mut needs: Vec<Need> = Vec::new();
        for need in asked.stages.iter().flat_map(|stage| stage.programs) {
            if needs.iter().all(|known| known.program != need.program) {
                needs.push(*need);
            }
        }
        for (need, why) in apt::ensure(&needs, asked.may_install) {
            println!("  lacking: {why}");
            self.lacking.insert(need.program, why);
        }
        self.env.insert("TALLY_BIN", self.tally.to_string_lossy().into_owned());
        match redis::start(&self.scratch.path().join("redis")) {
            Ok(redis) => {
                println!("  {} at {}", redis::version(), redis.url);
                self.env.insert("TALLY_TEST_REDIS_URL", redis.url.clone());
                self._redis = Some(redis);
            }
            Err(error) => {
                println!("  no Redis: {error:#}");
                self.lacking.insert("Redis", format!("{error:#}"));
            }
        }
        match docker::ready(&self.scratch.path().join("docker")) {
            Ok(docker) => {
                println!("  Docker: {}", docker.told);
                self.env.insert("DOCKER_HOST", docker.host.clone());
                self.env.insert("TALLY_TEST_DOCKER", docker.host.clone());
                self.docker = Some(docker);
            }
            Err(error) => {
                println!("  no Docker: {error:#}");
                self.lacking.insert("Docker", format!("{error:#}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn stages_keep_their_order_however_they_are_named() {
        let asked = parse(&words("--only tidy,fmt --no-install")).unwrap().unwrap();
        let names: Vec<&str> = asked.stages.iter().map(|stage| stage.name).collect();
        assert_eq!(names, ["fmt", "tidy"]);
        assert!(!asked.may_install);
    }

    #[test]
    fn a_stage_that_starts_the_binary_builds_it_first() {
        let asked = parse(&words("--only=readme")).unwrap().unwrap();
        let names: Vec<&str> = asked.stages.iter().map(|stage| stage.name).collect();
        assert_eq!(names, ["build", "readme"]);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        assert!(parse(&words("--only nonsense")).err().unwrap().contains("nonsense"));
        assert!(parse(&words("--fast")).err().unwrap().contains("--fast"));
        assert!(parse(&words("--only")).is_err());
        assert!(parse(&words("--help")).unwrap().is_none());
    }
}
