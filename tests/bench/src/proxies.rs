//! The proxies that are measured: how each is started, with which configuration.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::args::Args;
use crate::peer::{Peer, Start, free_address};
use crate::template::{self, Filling};

/// A kind of proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Ours.
    Tally,
    /// Debian's.
    Haproxy,
    /// Debian's.
    Nginx,
    /// Debian's.
    Caddy,
    /// From the Python package.
    Envoy,
    /// The small one in `peers/pingora`.
    Pingora,
}

impl Kind {
    /// All, ours first.
    pub const ALL: [Kind; 6] =
        [Kind::Tally, Kind::Haproxy, Kind::Nginx, Kind::Caddy, Kind::Envoy, Kind::Pingora];

    /// Its name in arguments and figures.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Tally => "tally",
            Kind::Haproxy => "haproxy",
            Kind::Nginx => "nginx",
            Kind::Caddy => "caddy",
            Kind::Envoy => "envoy",
            Kind::Pingora => "pingora",
        }
    }
}

/// Where the programs are, and where their configurations come from and go.
#[derive(Debug)]
pub struct Programs {
    found: BTreeMap<Kind, PathBuf>,
    templates: PathBuf,
    folder: PathBuf,
}

/// How one proxy is wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted<'a> {
    /// The name of this one among several.
    pub name: &'a str,
    /// Its cores; `None`: all.
    pub cores: Option<&'a str>,
    /// Its threads.
    pub threads: usize,
    /// Its policy, in its own words: Tally's name, HAProxy's `balance`, the chosen word of nginx's
    /// and Envoy's templates. Caddy and pingora have one each.
    pub policy: &'a str,
    /// Whether it may try again elsewhere.
    pub retries: bool,
    /// More words for Tally, or chosen words of the template.
    pub extra: &'a [String],
    /// Whether Tally's routes are changed through its input.
    pub input: bool,
}

impl Programs {
    /// The arguments that [`Programs::read`] takes.
    pub const USAGE: &'static str = "--templates FOLDER --folder FOLDER [--haproxy PATH] \
         [--nginx PATH] [--caddy PATH] [--envoy PATH] [--pingora PATH]";

    /// Reads them from the command line; Tally is beside the measuring program.
    ///
    /// # Errors
    /// When something is missing.
    pub fn read(args: &mut Args) -> Result<Programs> {
        let here = std::env::current_exe()?;
        let tally = here.parent().context("the program has no folder")?.join("bench-balancer");
        let mut found = BTreeMap::from([(Kind::Tally, tally)]);
        for kind in Kind::ALL {
            if let Some(path) = args.option::<PathBuf>(kind.as_str())? {
                found.insert(kind, path);
            }
        }
        let (templates, folder) = (args.must("templates")?, args.must::<PathBuf>("folder")?);
        fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        Ok(Programs { found, templates, folder })
    }

    /// Whether the proxy is at hand.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.found.contains_key(&kind)
    }

    /// The kinds at hand, ours first.
    #[must_use]
    pub fn kinds(&self) -> Vec<Kind> {
        self.found.keys().copied().collect()
    }

    /// Starts one in front of `upstreams`, at a free address.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(&self, kind: Kind, wanted: &Wanted<'_>, upstreams: &[SocketAddr]) -> Result<Peer> {
        let Some(program) = self.found.get(&kind) else {
            bail!("{} is not at hand", kind.as_str());
        };
        let listen = free_address()?;
        let folder = self.folder.join(wanted.name);
        fs::create_dir_all(&folder)?;
        let (args, env) = match kind {
            Kind::Tally | Kind::Pingora => (direct(kind, wanted, listen, upstreams), Vec::new()),
            Kind::Haproxy | Kind::Nginx | Kind::Caddy | Kind::Envoy => {
                self.configured(kind, wanted, listen, upstreams, &folder)?
            }
        };
        let log = folder.join("log");
        let start = Start {
            args: &args,
            env: &env,
            cores: wanted.cores,
            input: wanted.input,
            log: Some(&log),
        };
        Peer::start(wanted.name, program, &start, listen)
    }

    #[expect(clippy::type_complexity, reason = "words and environment, used once")]
    fn configured(
        &self,
        kind: Kind,
        wanted: &Wanted<'_>,
        listen: SocketAddr,
        upstreams: &[SocketAddr],
        folder: &Path,
    ) -> Result<(Vec<String>, Vec<(&'static str, String)>)> {
        let name = match kind {
            Kind::Haproxy => "haproxy.cfg",
            Kind::Nginx => "nginx.conf",
            Kind::Caddy => "Caddyfile",
            Kind::Envoy | Kind::Tally | Kind::Pingora => "envoy.yaml",
        };
        let shown = folder.display().to_string();
        let values = [
            ("LISTEN", listen.to_string()),
            ("LISTEN_HOST", listen.ip().to_string()),
            ("LISTEN_PORT", listen.port().to_string()),
            ("THREADS", wanted.threads.to_string()),
            ("BALANCE", wanted.policy.to_owned()),
            ("FOLDER", shown.clone()),
        ];
        let mut chosen = vec![wanted.policy];
        chosen.extend(wanted.extra.iter().map(String::as_str));
        if !wanted.retries {
            chosen.push("no-retries");
        }
        let config = folder.join(name);
        let filling = Filling { values: &values, chosen: &chosen, upstreams };
        template::write(&self.templates.join(name), &filling, &config)?;
        let config = config.display().to_string();
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let args = match kind {
            Kind::Haproxy => words(&["-db", "-f", &config]),
            Kind::Nginx => words(&["-p", &shown, "-c", &config]),
            Kind::Caddy => words(&["run", "--adapter", "caddyfile", "--config", &config]),
            Kind::Envoy | Kind::Tally | Kind::Pingora => {
                let threads = wanted.threads.to_string();
                let quiet = ["-l", "error", "--disable-hot-restart", "--concurrency", &threads];
                [words(&["-c", &config]), words(&quiet)].concat()
            }
        };
        // Where Caddy keeps what it keeps, and its number of threads.
        let env = vec![("HOME", shown), ("GOMAXPROCS", wanted.threads.to_string())];
        Ok((args, env))
    }
}

/// Ours and pingora's take everything on the command line.
fn direct(
    kind: Kind,
    wanted: &Wanted<'_>,
    listen: SocketAddr,
    upstreams: &[SocketAddr],
) -> Vec<String> {
    let mut args = vec![listen.to_string(), wanted.threads.to_string()];
    args.extend(upstreams.iter().map(SocketAddr::to_string));
    if kind == Kind::Tally {
        args.extend(["--policy".to_owned(), wanted.policy.to_owned()]);
        args.extend(wanted.extra.iter().cloned());
    }
    args
}

/// The policy of each kind where only the cost of passing on is measured: least loaded, where it
/// has such a policy.
#[must_use]
pub fn usual_policy(kind: Kind) -> &'static str {
    match kind {
        Kind::Tally => "feedback",
        Kind::Haproxy => "leastconn",
        Kind::Nginx => "least-conn",
        Kind::Caddy => "least_conn",
        Kind::Envoy => "least-request",
        Kind::Pingora => "round-robin",
    }
}
