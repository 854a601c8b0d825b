//! The scoreboard on Valkey instead of Redis: what is tried on the one, once more on the other.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::stages::cargo_test;
use super::{World, redis};
use crate::process;
use crate::root;
use crate::score::Score;

const SERVER: &str = "valkey-server";
/// The program and the name it goes by.
const PACKAGES: [&str; 2] = ["valkey-tools", "valkey-server"];
/// Who signed what the packages come from.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// An index and two small packages.
const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(120);
const UNPACK_DEADLINE: Duration = Duration::from_secs(20);
/// Where programs are looked for.
const PATH: &str = "PATH";
const URL: &str = "TALLY_TEST_REDIS_URL";

/// Runs the stage. Tests start `redis-server`: here that name leads to Valkey.
pub fn run(world: &mut World) -> Result<Score> {
    let server = match server(world.may_install) {
        Ok(server) => server,
        Err(why) => return Ok(Score::skip("stage valkey", format!("{why:#}"))),
    };
    let names = world.scratch.path().join("valkey");
    std::fs::create_dir_all(&names)?;
    let name = names.join("redis-server");
    std::os::unix::fs::symlink(&server, &name).context("name Valkey redis-server")?;
    let valkey = redis::start_as(&name, &names)?;
    println!("  {} at {}", version(&server), valkey.url);
    let path = std::env::var(PATH).unwrap_or_default();
    world.env.insert(PATH, format!("{}:{path}", names.display()));
    let before = world.env.insert(URL, valkey.url.clone());
    let mut score = cargo_test(world, "valkey", &["--lib", "redis"])?;
    score.add(cargo_test(world, "valkey-lost", &["--test", "redis_lost"])?);
    world.env.remove(PATH);
    match before {
        Some(url) => world.env.insert(URL, url),
        None => world.env.remove(URL),
    };
    Ok(score)
}

fn version(server: &Path) -> String {
    let mut command = Command::new(server);
    command.arg("--version");
    let ran = process::quiet(command, UNPACK_DEADLINE);
    ran.map_or_else(|why| why.to_string(), |ran| ran.output.trim().to_owned())
}

/// The system's own, or one unpacked below `target/`.
fn server(may_install: bool) -> Result<PathBuf> {
    if let Some(own) = process::find(SERVER) {
        return Ok(own);
    }
    let folder = root::output("valkey")?;
    let unpacked = folder.join("root/usr/bin").join(SERVER);
    if !unpacked.exists() {
        if !may_install {
            bail!("{SERVER} is not installed: --no-install was given");
        }
        fetch(&folder)?;
    }
    if !unpacked.exists() {
        bail!("its packages do not bring {SERVER}");
    }
    Ok(unpacked)
}

/// Downloads its packages with apt, by a list of sources of our own, and unpacks them there.
fn fetch(folder: &Path) -> Result<()> {
    println!("  missing: {SERVER}; fetching {} with apt", PACKAGES.join(", "));
    for part in ["lists/partial", "cache/archives/partial", "packages"] {
        std::fs::create_dir_all(folder.join(part))?;
    }
    let sources = folder.join("sources.list");
    std::fs::write(&sources, sources_of(&indexes()?)?)?;
    let options = [
        format!("Dir::Etc::SourceList={}", sources.display()),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        format!("Dir::State::Lists={}", folder.join("lists").display()),
        format!("Dir::Cache={}", folder.join("cache").display()),
        // Root's own folders are closed to apt's user.
        "APT::Sandbox::User=root".to_owned(),
    ];
    let packages = folder.join("packages");
    for words in [&["update", "-q"][..], &["download", "-q", PACKAGES[0], PACKAGES[1]][..]] {
        let mut apt = Command::new("apt-get");
        apt.args(options.iter().flat_map(|option| ["-o", option.as_str()]));
        apt.args(words).current_dir(&packages);
        process::must(apt, "apt-get", DOWNLOAD_DEADLINE)?;
    }
    for package in std::fs::read_dir(&packages)? {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").arg(package?.path()).arg(folder.join("root"));
        process::must(unpack, "dpkg-deb", UNPACK_DEADLINE)?;
    }
    Ok(())
}

/// What the system's apt reads: a line for each index, with its address and the release's name.
fn indexes() -> Result<String> {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)"]);
    Ok(process::quiet(apt, UNPACK_DEADLINE)?.output)
}

/// The same mirror's release and its backports: Debian 12 has Valkey among these.
fn sources_of(indexes: &str) -> Result<String> {
    let entry = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let (uri, release) = (words.next()?, words.next()?);
        let is_release = uri.ends_with("/debian/") && !release.contains('-');
        is_release.then_some((uri, release))
    };
    let (uri, release) = indexes
        .lines()
        .find_map(entry)
        .context("apt knows no mirror of Debian; install valkey-server by hand")?;
    let line = |suite: &str| format!("deb [signed-by={KEYRING}] {uri} {suite} main\n");
    Ok(format!("{}{}", line(&release), line(&format!("{release}-backports"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_own_mirror_is_asked() {
        let indexes = "http://x.test/debian-security/ bookworm-security main\n\
                       http://x.test/debian/ bookworm-updates main\n\
                       http://x.test/debian/ bookworm main\n";
        let sources = sources_of(indexes).unwrap();
        assert!(sources.contains("http://x.test/debian/ bookworm main\n"), "{sources}");
        assert!(sources.contains("http://x.test/debian/ bookworm-backports main\n"), "{sources}");
        assert!(sources_of("http://x.test/ubuntu/ noble main\n").is_err());
    }
}
