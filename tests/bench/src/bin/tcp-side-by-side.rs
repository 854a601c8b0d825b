//! Mode `tcp` beside HAProxy and nginx: processor time per byte of bulk, and per connection.
//!
//! `tcp-side-by-side --balancer PATH [--repetitions N] [--mebibytes N] [--connections N] [--out FILE]`

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench::args::Args;
use bench::bars::Bar;
use bench::figures::Figure;
use bench::machine::cpu_micros;
use bench::peer::{Peer, Start, free_addresses};
use serde_json::{Value, json};

const USAGE: &str = "tcp-side-by-side --balancer PATH
  --repetitions N   interleaved (5)
  --mebibytes N     of bulk in each (4096)
  --connections N   in each, one after the other on each of four threads (8000)
  --answer BYTES    of each such connection (1024)
  --out FILE        the result as JSON";

/// Bulk goes over so many connections at once, and short connections come from so many threads.
const STREAMS: usize = 4;
/// The instance writes and the client reads so much at once.
const CHUNK_BYTES: usize = 256 << 10;
/// nginx' module for bytes, where Debian puts it.
const NGINX_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
/// No run takes this long unless it hangs.
const STALL: Duration = Duration::from_secs(60);

struct Plan {
    balancer: PathBuf,
    repetitions: usize,
    bytes: usize,
    connections: usize,
    answer: usize,
    out: Option<PathBuf>,
}

/// One that is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tally,
    TallyCopying,
    HaProxy,
    HaProxySplicing,
    Nginx,
}

impl Kind {
    const ALL: [Kind; 5] =
        [Kind::Tally, Kind::TallyCopying, Kind::HaProxy, Kind::HaProxySplicing, Kind::Nginx];

    fn name(self) -> &'static str {
        match self {
            Kind::Tally => "tally",
            Kind::TallyCopying => "tally, copying",
            Kind::HaProxy => "haproxy",
            Kind::HaProxySplicing => "haproxy, option splice-auto",
            Kind::Nginx => "nginx stream",
        }
    }

    fn is_here(self) -> bool {
        let there = |program: &str| {
            ["/usr/sbin", "/usr/bin"].iter().any(|dir| Path::new(dir).join(program).exists())
        };
        match self {
            Kind::Tally | Kind::TallyCopying => true,
            Kind::HaProxy | Kind::HaProxySplicing => there("haproxy"),
            Kind::Nginx => there("nginx") && Path::new(NGINX_MODULE).exists(),
        }
    }

    fn start(self, plan: &Plan, upstream: SocketAddr, folder: &Path) -> Result<Peer> {
        let address = free_addresses(1)?[0];
        let fill = |text: &str, options: &str| {
            text.replace("@LISTEN@", &address.to_string())
                .replace("@UPSTREAM@", &upstream.to_string())
                .replace("@OPTIONS@", options)
                .replace("@MODULE@", NGINX_MODULE)
                .replace("@FOLDER@", &folder.to_string_lossy())
        };
        let file = folder.join(format!("{}.conf", self.name().replace([',', ' '], "-")));
        let haproxy = include_str!("../../peers/haproxy-tcp.cfg");
        let nginx = include_str!("../../peers/nginx-tcp.conf");
        let (program, args) = match self {
            Kind::Tally | Kind::TallyCopying => {
                let mut args = vec![address.to_string(), "1".into(), upstream.to_string()];
                args.extend(["--mode", "tcp", "--report-every", "0"].map(str::to_owned));
                if self == Kind::TallyCopying {
                    args.push("--no-splice".into());
                }
                (plan.balancer.clone(), args)
            }
            Kind::HaProxy | Kind::HaProxySplicing => {
                let options = if self == Kind::HaProxy { "" } else { "option splice-auto" };
                fs::write(&file, fill(haproxy, options))?;
                let args = vec!["-db".into(), "-f".into(), file.to_string_lossy().into_owned()];
                (PathBuf::from("/usr/sbin/haproxy"), args)
            }
            Kind::Nginx => {
                fs::write(&file, fill(nginx, ""))?;
                let args = vec!["-c".into(), file.to_string_lossy().into_owned()];
                (PathBuf::from("/usr/sbin/nginx"), args)
            }
        };
        Peer::start(self.name(), &program, &Start { args: &args, ..Start::default() }, address)
    }
}

/// An instance: told a number of bytes, eight in big-endian order, it sends as many and ends.
fn instance() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        let chunk = vec![b'x'; CHUNK_BYTES];
        for stream in listener.incoming().flatten() {
            let chunk = chunk.clone();
            thread::spawn(move || {
                // A client that leaves early ends it.
                let _early = serve(stream, &chunk);
            });
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream, chunk: &[u8]) -> std::io::Result<()> {
    let mut wanted = [0; 8];
    stream.read_exact(&mut wanted)?;
    let mut left = usize::try_from(u64::from_be_bytes(wanted)).unwrap_or(usize::MAX);
    while left > 0 {
        let n = left.min(chunk.len());
        stream.write_all(&chunk[..n])?;
        left -= n;
    }
    Ok(())
}

/// One connection: asks for so many bytes and reads to the end.
fn fetch(address: SocketAddr, bytes: usize, buffer: &mut [u8]) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(STALL))?;
    stream.write_all(&(bytes as u64).to_be_bytes())?;
    let mut got = 0;
    loop {
        match stream.read(buffer)? {
            0 if got == bytes => return Ok(()),
            0 => bail!("{got} of {bytes} bytes came"),
            n => got += n,
        }
    }
}

/// What one run cost: processor microseconds of the proxy, and how long it took.
struct Cost {
    micros: u64,
    took: Duration,
}

#[expect(clippy::disallowed_methods, reason = "a harness measures on the real clock")]
fn run(peer: &Peer, fetches: usize, bytes: usize) -> Result<Cost> {
    let (before, began) = (cpu_micros(peer.pid())?, Instant::now());
    let left = AtomicUsize::new(fetches);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..STREAMS)
            .map(|_| {
                scope.spawn(|| {
                    let mut buffer = vec![0; CHUNK_BYTES];
                    while left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok() {
                        fetch(peer.address, bytes, &mut buffer)?;
                    }
                    Ok::<_, anyhow::Error>(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| bail!("a panic")))
    })?;
    Ok(Cost { micros: cpu_micros(peer.pid())? - before, took: began.elapsed() })
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn measure(plan: &Plan) -> Result<Value> {
    let upstream = instance()?;
    let folder = tempfile::tempdir()?;
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.is_here()).collect();
    let mut samples = vec![[const { Vec::new() }; 4]; kinds.len()];
    for repetition in 0..plan.repetitions {
        for (kind, samples) in kinds.iter().zip(&mut samples) {
            let peer = kind.start(plan, upstream, folder.path())?;
            // Until routes are known and caches are warm.
            run(&peer, 64, plan.answer).with_context(|| format!("warm up {}", kind.name()))?;
            let each = plan.bytes / STREAMS;
            let bulk = run(&peer, STREAMS, each).with_context(|| kind.name().to_owned())?;
            let bytes = (each * STREAMS) as f64;
            samples[0].push(bulk.micros as f64 * 1000.0 / bytes);
            samples[1].push(bytes / bulk.took.as_secs_f64() / (1u64 << 30) as f64);
            let short = run(&peer, plan.connections, plan.answer)?;
            samples[2].push(short.micros as f64 / plan.connections as f64);
            samples[3].push(plan.connections as f64 / short.took.as_secs_f64());
            eprintln!(
                "{repetition} {}: {:.4} ns/byte, {:.1} us/connection",
                kind.name(),
                samples[0].last().unwrap_or(&0.0),
                samples[2].last().unwrap_or(&0.0)
            );
        }
    }
    let names = ["cpu_ns_per_byte", "gib_per_s", "cpu_us_per_connection", "connections_per_s"];
    let mut result = serde_json::Map::new();
    for (kind, samples) in kinds.iter().zip(&samples) {
        let mut row = serde_json::Map::new();
        for (name, samples) in names.iter().zip(samples) {
            row.insert((*name).to_owned(), Figure::of(samples)?.json());
        }
        result.insert(kind.name().to_owned(), Value::Object(row));
    }
    let bars: Vec<Value> = bars(&result).iter().map(Bar::json).collect();
    Ok(json!({
        "bars": bars,
        "repetitions": plan.repetitions,
        "bulk_bytes": plan.bytes,
        "connections": plan.connections,
        "answer_bytes": plan.answer,
        "peers": result,
    }))
}

/// The promise: at most `HAProxy`'s processor time per byte, in each of its two ways.
fn bars(result: &serde_json::Map<String, Value>) -> Vec<Bar> {
    let cost = |kind: Kind| result.get(kind.name())?["cpu_ns_per_byte"]["median"].as_f64();
    let Some(ours) = cost(Kind::Tally) else { return Vec::new() };
    let bar = |kind: Kind| {
        let what = format!("tcp: CPU per byte, tally / {}", kind.name());
        cost(kind).map(|theirs| Bar::at_most(what, ours / theirs, 1.0))
    };
    [Kind::HaProxy, Kind::HaProxySplicing].into_iter().filter_map(bar).collect()
}

#[expect(clippy::print_stdout, reason = "the result")]
fn main() -> Result<()> {
    let mut args = Args::of_process(USAGE, &[])?;
    let plan = Plan {
        balancer: args.must("balancer")?,
        repetitions: args.or("repetitions", 5)?,
        bytes: args.or("mebibytes", 4096_usize)? << 20,
        connections: args.or("connections", 8000)?,
        answer: args.or("answer", 1024)?,
        out: args.option("out")?,
    };
    args.finish()?;
    let text = serde_json::to_string_pretty(&measure(&plan)?)?;
    match &plan.out {
        Some(out) => fs::write(out, text).context("write the result")?,
        None => println!("{text}"),
    }
    Ok(())
}
