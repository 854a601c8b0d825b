//! Installing missing Debian packages, when the person allows it, saying what and why.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process;

/// A slow mirror and a large package fit; a mirror that never answers does not hold up the rest.
const APT_DEADLINE: Duration = Duration::from_secs(600);
/// `sudo -n true` only asks whether sudo needs a password.
const SUDO_DEADLINE: Duration = Duration::from_secs(10);

/// A program some chore needs, the package that brings it, and what for.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    pub program: &'static str,
    pub package: &'static str,
    pub why: &'static str,
}

/// Makes sure the programs are there. Gives those that are still missing, each with the reason.
pub fn ensure(needs: &[Need], may_install: bool) -> Vec<(Need, String)> {
    let missing: Vec<Need> =
        needs.iter().copied().filter(|need| process::find(need.program).is_none()).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    for need in &missing {
        println!("  missing: {} (package {}), {}", need.program, need.package, need.why);
    }
    let failed = if may_install {
        install(&missing).err().map(|error| format!("{error:#}"))
    } else {
        Some("--no-install was given".to_owned())
    };
    missing
        .into_iter()
        .filter(|need| process::find(need.program).is_none())
        .map(|need| {
            let why = failed.as_deref().unwrap_or("its package does not bring the program");
            (need, format!("{} is not installed: {why}", need.program))
        })
        .collect()
}

fn install(missing: &[Need]) -> Result<()> {
    if process::find("apt-get").is_none() {
        bail!("this is no Debian system; install it by hand");
    }
    let prefix = as_root()?;
    let mut packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    println!("  installing with apt: {}", packages.join(" "));
    apt(prefix, &["update", "-q"])?;
    let mut args = vec!["install", "-y", "-q", "--no-install-recommends"];
    args.extend(packages);
    apt(prefix, &args)
}

/// The words before `apt-get`: none for root, `sudo -n` where that asks for no password.
fn as_root() -> Result<&'static [&'static str]> {
    if is_root() {
        return Ok(&[]);
    }
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "true"]);
    if process::find("sudo").is_some() && process::quiet(sudo, SUDO_DEADLINE)?.ok() {
        return Ok(&["sudo", "-n"]);
    }
    bail!("neither root nor sudo without a password; run `apt-get install` yourself, or as root")
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

fn apt(prefix: &[&str], args: &[&str]) -> Result<()> {
    let words: Vec<&str> = prefix
        .iter()
        .copied()
        // Packages bring daemons that nobody asked to start; two of them want the same port.
        .chain(["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get"])
        .collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(args);
    let bounds = process::Bounds {
        name: "apt-get",
        log: None,
        deadline: APT_DEADLINE,
        heartbeat: true,
        interruptible: true,
    };
    let ran = process::run(command, &bounds, &mut |_| {}).context("run apt-get")?;
    if !ran.ok() {
        bail!("`apt-get {}` failed:\n{}", args.join(" "), ran.tail(5));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_SUCH: Need =
        Need { program: "tally-no-such-program", package: "tally-no-such", why: "a test asks" };

    #[test]
    fn what_is_missing_and_may_not_be_installed_is_told() {
        let shell = Need { program: "sh", package: "dash", why: "everything" };
        let missing = ensure(&[shell, NO_SUCH], false);
        assert_eq!(missing.len(), 1);
        assert!(missing[0].1.contains("tally-no-such-program"));
        assert!(missing[0].1.contains("--no-install"));
    }
}
