//! Scenarios in which proxies stand side by side in front of the same instances, turn by turn.

mod cost;
mod felt;
mod idle;

pub use cost::cost;
pub use felt::felt;
pub use idle::idle;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::args::Args;
use crate::peer::{Peer, Start, free_addresses};
use crate::proxies::{Kind, Programs, Wanted, usual_policy};

/// Instances behind every proxy.
const INSTANCES: usize = 8;
/// They report so often, milliseconds.
const REPORT_EVERY_MS: u32 = 100;

/// How the scenarios are run.
#[derive(Debug)]
pub struct Bench {
    /// Where the proxies are.
    pub programs: Programs,
    /// Who is measured, ours first.
    pub kinds: Vec<Kind>,
    /// Where wrk is.
    pub wrk: PathBuf,
    /// Length of one turn, seconds.
    pub seconds: u32,
    /// Turns of each.
    pub repetitions: usize,
    /// Connections of the generator.
    pub connections: u32,
    /// Threads of each proxy.
    pub threads: usize,
    /// Idle connections opened to measure their memory.
    pub idle_connections: usize,
    /// Requests a second where latency is measured.
    pub rate: u32,
    /// Who runs where.
    pub cores: Cores,
}

/// Who runs where: the measured program shares its cores with nobody.
#[derive(Debug, Clone)]
pub struct Cores {
    /// Of the proxies, as `taskset` writes them.
    pub proxy: String,
    /// Of instances.
    pub instances: String,
    /// Of the generator.
    pub generator: String,
    /// How many the proxies have, from core 0.
    pub proxy_count: usize,
    /// The generator's first core.
    pub generator_first: usize,
}

impl Bench {
    /// The arguments that [`Bench::read`] takes, besides those of the programs.
    pub const USAGE: &'static str = "--wrk PATH [--peers NAME,NAME] [--seconds N] \
         [--repetitions N] [--connections N] [--threads N] [--idle-connections N] [--rate N]";

    /// Reads the command line.
    ///
    /// # Errors
    /// When something is missing or odd.
    pub fn read(args: &mut Args) -> Result<Bench> {
        let programs = Programs::read(args)?;
        let named = args.list("peers");
        let kinds = programs.kinds();
        let wanted = |kind: &Kind| named.is_empty() || named.iter().any(|n| n == kind.as_str());
        let kinds = kinds.into_iter().filter(|k| *k == Kind::Tally || wanted(k)).collect();
        let threads: usize = args.or("threads", 1)?;
        Ok(Bench {
            programs,
            kinds,
            wrk: args.must("wrk")?,
            seconds: args.or("seconds", 4)?,
            repetitions: args.or("repetitions", 5)?,
            connections: args.or("connections", 64)?,
            threads,
            idle_connections: args.or("idle-connections", 5000)?,
            rate: args.or("rate", 5000)?,
            cores: cores(threads)?,
        })
    }

    /// Instances that answer with so many bytes.
    fn instances(&self, bytes: usize) -> Result<(Peer, Vec<SocketAddr>)> {
        let addresses = free_addresses(INSTANCES)?;
        let mut args = vec![bytes.to_string()];
        args.extend(addresses.iter().map(SocketAddr::to_string));
        let here = std::env::current_exe()?;
        let program = here.parent().context("the program has no folder")?.join("responder");
        let cores = Some(self.cores.instances.as_str());
        let start = Start { args: &args, cores, ..Start::default() };
        let peer = Peer::start("instances", &program, &start, addresses[0])?;
        Ok((peer, addresses))
    }

    /// One proxy of the kind in front of instances.
    fn proxy(&self, kind: Kind, upstreams: &[SocketAddr]) -> Result<Peer> {
        let extra = ["--report-every".to_owned(), REPORT_EVERY_MS.to_string()];
        let wanted = Wanted {
            name: kind.as_str(),
            cores: Some(&self.cores.proxy),
            threads: self.threads,
            policy: usual_policy(kind),
            retries: true,
            extra: if kind == Kind::Tally { &extra } else { &[] },
            input: false,
        };
        self.programs.start(kind, &wanted, upstreams)
    }

    /// All of them.
    fn proxies(&self, upstreams: &[SocketAddr]) -> Result<Vec<Peer>> {
        self.kinds.iter().map(|kind| self.proxy(*kind, upstreams)).collect()
    }

    /// Who has its turn when: the order moves on each time, so that a drift of the machine and the
    /// one who went before favour nobody.
    fn turns(&self) -> impl Iterator<Item = (usize, usize)> {
        let count = self.kinds.len();
        let turn = move |turn| (0..count).map(move |place| (turn, (turn + place) % count));
        (0..self.repetitions).flat_map(turn)
    }
}

/// One core per proxy thread, first; the rest for the others, apart if there are two.
fn cores(threads: usize) -> Result<Cores> {
    let count = std::thread::available_parallelism()?.get();
    if threads == 0 || count < threads + 1 {
        bail!("{threads} proxy threads need {} cores; there are {count}", threads + 1);
    }
    let apart = count > threads + 1;
    let generator_first = if apart { threads + 1 } else { threads };
    let generator =
        if apart { format!("{generator_first}-{}", count - 1) } else { threads.to_string() };
    Ok(Cores {
        proxy: format!("0-{}", threads - 1),
        instances: threads.to_string(),
        generator,
        proxy_count: threads,
        generator_first,
    })
}
