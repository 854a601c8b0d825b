//! The torture and soak stages: hostile bytes, slow clients, lost parts, change without end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::World;
use super::stages::{TEST_DEADLINE, cargo_test_within};
use crate::process::{self, Bounds};
use crate::root;
use crate::score::Score;

/// The suites of `tests/torture`; named one by one, so that dependencies are not built anew with
/// other features.
const SUITES: [&str; 8] =
    ["framing", "answers", "connections", "differential", "changes", "slow", "websocket", "soak"];
/// Those that have a long form.
const LONG: [&str; 4] = ["differential", "changes", "websocket", "soak"];
/// They take about an hour together.
const LONG_DEADLINE: Duration = Duration::from_secs(2 * 3600);
/// Where the WebSocket suite is, for the tests: the interpreter and the folder, with a blank.
const AUTOBAHN: &str = "TALLY_TEST_AUTOBAHN";
/// The suite's last version; it is written for Python 2.7.
const AUTOBAHN_PACKAGE: &str = "autobahntestsuite==0.8.2";
/// Some thirty packages, without compiling any.
const PIP_DEADLINE: Duration = Duration::from_secs(300);

/// Every suite in its short form.
pub fn run(world: &mut World) -> Result<Score> {
    suites(world, "torture", &SUITES, TEST_DEADLINE)
}

/// The suites that have a long form, in it.
pub fn soak(world: &mut World) -> Result<Score> {
    world.env.insert("TALLY_TORTURE_LONG", "1".to_owned());
    let score = suites(world, "soak", &LONG, LONG_DEADLINE);
    world.env.remove("TALLY_TORTURE_LONG");
    score
}

fn suites(world: &mut World, stage: &str, suites: &[&str], deadline: Duration) -> Result<Score> {
    if suites.contains(&"websocket") {
        match autobahn(world) {
            Ok((python, folder)) => {
                let place = format!("{} {}", python.display(), folder.display());
                world.env.insert(AUTOBAHN, place);
            }
            // The test itself skips, for this reason.
            Err(why) => println!("  no WebSocket suite: {why:#}"),
        }
    }
    let select: Vec<&str> = suites.iter().flat_map(|suite| ["--test", suite]).collect();
    cargo_test_within(world, stage, &select, deadline)
}

/// Installs the WebSocket suite below `target/` once, and gives its interpreter and folder.
fn autobahn(world: &World) -> Result<(PathBuf, PathBuf)> {
    let Some(python) = python2() else {
        anyhow::bail!("the suite needs Python 2.7, which is not installed");
    };
    let folder = root::output("autobahn")?;
    if !folder.join("autobahntestsuite").is_dir() {
        let mut command = Command::new(&python);
        command
            .args(["-m", "pip", "install", "--disable-pip-version-check", "--only-binary"])
            .args(["cryptography,cffi,zope.interface", "--target"])
            .arg(&folder)
            .arg(AUTOBAHN_PACKAGE);
        let log = world.logs.join("autobahn-pip.log");
        let bounds = Bounds {
            name: "pip",
            log: Some(&log),
            deadline: PIP_DEADLINE,
            heartbeat: true,
            interruptible: true,
        };
        let ran = process::run(command, &bounds, &mut |_| {})?;
        if !ran.ok() {
            anyhow::bail!("PyPI did not give it:\n{}", ran.tail(3));
        }
    }
    Ok((python, folder))
}

/// Python 2.7, from PATH or from where version managers keep it.
fn python2() -> Option<PathBuf> {
    let works = |python: &Path| {
        let mut command = Command::new(python);
        command.args(["-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"]);
        process::quiet(command, Duration::from_secs(10)).is_ok_and(|ran| ran.ok())
    };
    let kept = std::env::home_dir().map(|home| home.join(".pyenv/versions"));
    let kept = kept.and_then(|folder| std::fs::read_dir(folder).ok());
    let kept = kept.into_iter().flatten().flatten().map(|entry| entry.path().join("bin/python2.7"));
    kept.chain(process::find("python2.7")).filter(|p| p.exists()).find(|p| works(p))
}
