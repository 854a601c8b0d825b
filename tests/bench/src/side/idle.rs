//! Memory of a proxy per client connection that made one request and stays open.
#![expect(clippy::print_stdout, reason = "a measurement talks to the person who started it")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::Bench;
use crate::answer::{Answer, Progress};
use crate::bars::Bar;
use crate::machine::resident_bytes;
use crate::peer::Peer;
use crate::proxies::Kind;

/// The promise, KiB.
const KIB_MAX: f64 = 20.0;
/// Connections made before the first look, so that pools and caches are there.
const FIRST: usize = 64;
/// After the last request; a proxy puts away what it used.
const SETTLE: Duration = Duration::from_millis(500);
/// One answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Measures [`Bench::idle_connections`] of them.
///
/// # Errors
/// When a proxy does not take them.
pub fn idle(bench: &Bench) -> Result<Value> {
    let count = bench.idle_connections;
    println!("\nidle: {count} connections that made one request each");
    let (_instances, upstreams) = bench.instances(12)?;
    let mut peers = Map::new();
    let mut bars = Vec::new();
    for kind in &bench.kinds {
        // Fresh, so that nothing remembers another scenario.
        let proxy = bench.proxy(*kind, &upstreams)?;
        let mut open = Vec::new();
        connect(&proxy, FIRST, &mut open).with_context(|| kind.as_str().to_owned())?;
        let before = resident_bytes(proxy.pid())?;
        connect(&proxy, count, &mut open).with_context(|| kind.as_str().to_owned())?;
        std::thread::sleep(SETTLE);
        let after = resident_bytes(proxy.pid())?;
        let each = kib(after.saturating_sub(before), count);
        println!(
            "{:8}  {each:>7.2} KiB each   {:>8.1} MiB in all",
            kind.as_str(),
            kib(after, 1024)
        );
        peers.insert(
            kind.as_str().to_owned(),
            json!({"kib_per_connection": each, "resident_bytes": after}),
        );
        if *kind == Kind::Tally {
            bars.push(Bar::at_most("idle: KiB per idle client connection", each, KIB_MAX));
        }
    }
    for bar in &bars {
        println!("{}", bar.line());
    }
    let bars: Vec<Value> = bars.iter().map(Bar::json).collect();
    Ok(json!({"connections": count, "peers": peers, "bars": bars}))
}

#[expect(clippy::cast_precision_loss, reason = "bytes of one machine are far below 2^53")]
fn kib(bytes: u64, count: usize) -> f64 {
    bytes as f64 / 1024.0 / count as f64
}

fn connect(proxy: &Peer, count: usize, open: &mut Vec<TcpStream>) -> Result<()> {
    let mut bytes = vec![0; 16 << 10];
    for _ in 0..count {
        let mut stream = TcpStream::connect(proxy.address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")?;
        let mut answer = Answer::default();
        loop {
            let got = stream.read(&mut bytes)?;
            match answer.take(&bytes[..got]) {
                Progress::More if got > 0 => {}
                Progress::Whole { status: 200, keep: true } => break,
                other @ (Progress::More | Progress::Whole { .. } | Progress::Nonsense) => {
                    bail!("the answer was {other:?}")
                }
            }
        }
        open.push(stream);
    }
    Ok(())
}
