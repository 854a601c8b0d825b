//! `cargo xtask images`: container images from host binaries, where no registry can be reached.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::apt::{self, Need};
use crate::process::{self, Bounds};
use crate::root::{self, Scratch};

const HELP: &str = "\
Makes the images deploy/compose.yaml starts, from binaries of this host and the libraries they
load. Nothing is pulled. Needs a Docker daemon that answers (DOCKER_HOST is obeyed).

  cargo xtask images [--no-install] [--debug]

  --debug   takes target/debug/tally instead of building a release

  tally:dev         the `tally` binary, a shell, curl's certificates, and what runs plain services
  tally-redis:dev   redis-server of this host";

/// Tags as in `deploy/compose.yaml`.
pub const TALLY: &str = "tally:dev";
pub const REDIS: &str = "tally-redis:dev";

/// What a service in plain form may expect on a node, besides `tally` itself.
const NODE_PROGRAMS: [&str; 5] = ["sh", "sleep", "cat", "mv", "sed"];
/// Files programs read at run time; copied where the host has them.
const FILES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/nsswitch.conf"];
/// Name resolution loads these when it is first used, so `ldd` does not name them.
const LOADED_LATE: [&str; 2] = ["libnss_dns.so.2", "libnss_files.so.2"];

const NEEDS: [Need; 2] = [
    Need {
        program: "redis-server",
        package: "redis-server",
        why: "because it goes into the image of the scoreboard",
    },
    Need {
        program: "docker",
        package: "docker.io",
        why: "because the images are imported with it",
    },
];

/// A release build on two slow cores.
const BUILD_DEADLINE: Duration = Duration::from_secs(1800);
/// Copying some tens of megabytes into the daemon.
const IMPORT_DEADLINE: Duration = Duration::from_secs(300);
/// `ldd` of one program.
const LDD_DEADLINE: Duration = Duration::from_secs(20);

/// Runs the chore.
pub fn main(args: &[String]) -> Result<ExitCode> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = args.iter().find(|arg| *arg != "--no-install" && *arg != "--debug") {
        println!("error: unknown argument `{unknown}`\n\n{HELP}");
        return Ok(ExitCode::from(crate::USAGE));
    }
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if let Some((_, why)) = apt::ensure(&NEEDS, !has("--no-install")).first() {
        bail!("{why}");
    }
    let tally =
        if has("--debug") { build("debug", &[])? } else { build("release", &["--release"])? };
    make(&tally, None)?;
    println!("{TALLY} and {REDIS} are ready:\n  docker-compose -f deploy/compose.yaml up -d");
    Ok(ExitCode::SUCCESS)
}

fn build(folder: &str, flags: &[&str]) -> Result<PathBuf> {
    println!("building tally ({folder}) ...");
    let mut command = process::cargo();
    command.args(["build", "-p", "tally", "--locked"]).args(flags);
    let bounds = Bounds {
        name: "build",
        log: None,
        deadline: BUILD_DEADLINE,
        heartbeat: true,
        interruptible: true,
    };
    let ran = process::run(command, &bounds, &mut |_| {})?;
    if !ran.ok() {
        bail!("the build failed:\n{}", ran.tail(60));
    }
    Ok(root::target().join(folder).join("tally"))
}

/// Makes both images on the daemon at `host` (that of the environment if none is named).
pub fn make(tally: &Path, host: Option<&str>) -> Result<()> {
    let scratch = Scratch::new("images")?;
    let tree = scratch.path().join("tally");
    plant(&tree, tally, Path::new("/usr/bin/tally"))?;
    for program in NODE_PROGRAMS {
        let found = process::find(program).with_context(|| format!("no `{program}` here"))?;
        plant(&tree, &found, &Path::new("/bin").join(program))?;
    }
    let scripts = root::repo().join("deploy/image");
    for entry in std::fs::read_dir(&scripts).context("read deploy/image")? {
        let entry = entry?;
        copy(&entry.path(), &tree, &Path::new("/usr/share/tally").join(entry.file_name()))?;
    }
    import(&tree, TALLY, "ENTRYPOINT [\"/usr/bin/tally\"]", host)?;

    let tree = scratch.path().join("redis");
    let redis = process::find("redis-server").context("redis-server is not installed")?;
    plant(&tree, &redis, Path::new("/usr/bin/redis-server"))?;
    import(&tree, REDIS, "ENTRYPOINT [\"/usr/bin/redis-server\"]", host)
}

/// Copies a program to `place` in the tree, with every library it loads.
fn plant(tree: &Path, program: &Path, place: &Path) -> Result<()> {
    copy(program, tree, place)?;
    for library in libraries(program)? {
        copy(&library, tree, &library)?;
    }
    for file in FILES.map(Path::new) {
        if file.exists() {
            copy(file, tree, file)?;
        }
    }
    for folder in ["tmp", "var/lib/tally", "run", "proc", "sys", "dev"] {
        std::fs::create_dir_all(tree.join(folder))?;
    }
    Ok(())
}

fn copy(from: &Path, tree: &Path, place: &Path) -> Result<()> {
    let to = tree.join(place.strip_prefix("/").unwrap_or(place));
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Follows links: the tree holds files only.
    std::fs::copy(from, &to).with_context(|| format!("copy {}", from.display()))?;
    Ok(())
}

/// The shared libraries a program loads, and those the C library loads later.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut command = Command::new("ldd");
    command.arg(program);
    let ran = process::quiet(command, LDD_DEADLINE).context("run ldd")?;
    let mut found = parse_ldd(&ran.output);
    let c_library = found.iter().find(|path| path.ends_with("libc.so.6")).cloned();
    if let Some(folder) = c_library.as_deref().and_then(Path::parent) {
        let late = LOADED_LATE.map(|name| folder.join(name));
        found.extend(late.into_iter().filter(|path| path.exists()));
    }
    Ok(found)
}

/// Lines such as `libc.so.6 => /lib/libc.so.6 (0x..)` and `/lib64/ld-linux.so.2 (0x..)`.
fn parse_ldd(output: &str) -> BTreeSet<PathBuf> {
    output
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

fn import(tree: &Path, tag: &str, change: &str, host: Option<&str>) -> Result<()> {
    let archive = tree.with_extension("tar");
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--owner=0", "--group=0", "-cf"]).arg(&archive);
    tar.arg("-C").arg(tree).arg(".");
    process::must(tar, "tar", IMPORT_DEADLINE)?;
    let mut docker = Command::new("docker");
    docker.args(["import", "--change", change]).arg(&archive).arg(tag);
    docker.envs(host.map(|host| ("DOCKER_HOST", host)));
    process::must(docker, "docker import", IMPORT_DEADLINE)?;
    println!("  image {tag}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let output = "\tlinux-vdso.so.1 (0x0)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x1)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x2)\n";
        let found: Vec<PathBuf> = parse_ldd(output).into_iter().collect();
        assert_eq!(
            found,
            [Path::new("/lib/x/libc.so.6"), Path::new("/lib64/ld-linux-x86-64.so.2")]
        );
    }

    #[test]
    fn a_planted_tree_holds_program_and_loader() {
        let tree = tempfile::tempdir().unwrap();
        plant(tree.path(), Path::new("/bin/sh"), Path::new("/bin/sh")).unwrap();
        assert!(tree.path().join("bin/sh").is_file());
        assert!(tree.path().join("lib").is_dir() || tree.path().join("lib64").is_dir());
    }
}
