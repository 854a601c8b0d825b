//! Mode `nat` against the same way without it: a client's, a router's and the instances' network
//! namespace, streaming by iperf3, small requests by wrk.
//!
//! `nat-side-by-side --balancer PATH --responder PATH [--repetitions N] [--seconds N] [--out FILE]`

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench::args::Args;
use bench::bars::Bar;
use bench::figures::{Figure, Load};
use serde_json::{Value, json};

const USAGE: &str = "nat-side-by-side --balancer PATH --responder PATH; as root
  --repetitions N   interleaved (7)
  --seconds N       of each run (3)
  --out FILE        the result as JSON";

const FRONT: &str = "10.77.1.1";
const INSTANCES: [&str; 4] = ["10.77.2.2", "10.77.2.3", "10.77.2.4", "10.77.2.5"];
const PORT: u16 = 5201;
const BALANCER_ID: &str = "nat-bench";
/// The kernel's table is there within milliseconds.
const READY: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

struct Plan {
    balancer: PathBuf,
    responder: PathBuf,
    repetitions: usize,
    seconds: u32,
    out: Option<PathBuf>,
}

/// A program that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Three namespaces in a row; they go with the value.
struct Row {
    name: String,
}

impl Row {
    fn new() -> Result<Row> {
        let row = Row { name: format!("nb{}", std::process::id()) };
        for place in ["c", "r", "i"] {
            run(&format!("ip netns add {}{place}", row.name))?;
            row.ip(place, "link set lo up")?;
        }
        for (place, near, far) in [("c", "10.77.1.2", FRONT), ("i", INSTANCES[0], "10.77.2.1")] {
            let peer = format!("peer name to{place} netns {}r", row.name);
            row.ip(place, &format!("link add wire type veth {peer}"))?;
            row.ip(place, &format!("addr add {near}/24 dev wire"))?;
            row.ip(place, "link set wire up")?;
            row.ip("r", &format!("addr add {far}/24 dev to{place}"))?;
            row.ip("r", &format!("link set to{place} up"))?;
            row.ip(place, &format!("route add default via {far}"))?;
        }
        for more in &INSTANCES[1..] {
            row.ip("i", &format!("addr add {more}/24 dev wire"))?;
        }
        run(&format!("ip netns exec {}r sysctl -qw net.ipv4.ip_forward=1", row.name))?;
        Ok(row)
    }

    fn ip(&self, place: &str, words: &str) -> Result<String> {
        run(&format!("ip -n {}{place} {words}", self.name))
    }

    fn within(&self, place: &str, words: &str) -> Result<String> {
        run(&format!("ip netns exec {}{place} {words}", self.name))
    }

    fn start(&self, place: &str, words: &str) -> Result<Running> {
        let line = format!("netns exec {}{place} {words}", self.name);
        let mut command = Command::new("ip");
        command
            .args(line.split(' '))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Running(command.spawn().with_context(|| words.to_owned())?))
    }

    /// Starts a balancer in the router, and waits until the kernel has its rules.
    #[expect(clippy::disallowed_methods, reason = "a harness waits on the real clock")]
    fn balancer(&self, plan: &Plan, upstreams: &[&str]) -> Result<Running> {
        let upstreams: Vec<String> = upstreams.iter().map(|ip| format!("{ip}:{PORT}")).collect();
        let words = format!(
            "{} {FRONT}:{PORT} 1 {} --mode nat --report-every 0 --id {BALANCER_ID}",
            plan.balancer.display(),
            upstreams.join(" ")
        );
        let balancer = self.start("r", &words)?;
        let began = Instant::now();
        let table = format!("nft list table inet tally-{BALANCER_ID}");
        while !self.within("r", &table).is_ok_and(|text| text.contains(INSTANCES[0])) {
            if began.elapsed() > READY {
                bail!("the kernel never got the rules");
            }
            thread::sleep(LOOK);
        }
        Ok(balancer)
    }

    /// Where to go: through the kernel's table, or past it, without any.
    fn way(
        &self,
        plan: &Plan,
        nat: bool,
        upstreams: &[&'static str],
    ) -> Result<(Option<Running>, &'static str)> {
        self.no_table();
        if nat {
            Ok((Some(self.balancer(plan, upstreams)?), FRONT))
        } else {
            Ok((None, INSTANCES[0]))
        }
    }

    fn no_table(&self) {
        let _absent = self.within("r", &format!("nft delete table inet tally-{BALANCER_ID}"));
    }

    fn stream(&self, to: &str, seconds: u32) -> Result<f64> {
        let text = self.within("c", &format!("iperf3 -c {to} -p {PORT} -t {seconds} -J"))?;
        let result: Value = serde_json::from_str(&text).context("iperf3 speaks JSON")?;
        let rate = result["end"]["sum_received"]["bits_per_second"].as_f64();
        rate.context("iperf3 says no rate").map(|bits| bits / 8e9)
    }

    fn requests(&self, to: &str, seconds: u32) -> Result<Load> {
        let url = format!("http://{to}:{PORT}/");
        Load::of_wrk(&self.within("c", &format!("wrk -t1 -c16 -d{seconds}s --latency {url}"))?)
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        for place in ["c", "r", "i"] {
            let _gone = run(&format!("ip netns del {}{place}", self.name));
        }
    }
}

fn run(line: &str) -> Result<String> {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let output = Command::new(program).args(words).output().with_context(|| line.to_owned())?;
    if !output.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts programs and waits until their ports accept; from the router, as nobody measured is there.
#[expect(clippy::disallowed_methods, reason = "a harness waits on the real clock")]
fn listens(row: &Row, ip: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let said = row.within("i", "ss -Htln")?;
        let any = said.contains(&format!("*:{PORT}")) || said.contains(&format!("0.0.0.0:{PORT}"));
        if any || said.contains(&format!("{ip}:{PORT}")) {
            return Ok(());
        }
        if began.elapsed() > READY {
            bail!("nothing listens at {ip}:{PORT}");
        }
        thread::sleep(LOOK);
    }
}

/// Gigabytes a second of one stream to one instance.
fn stream(plan: &Plan, row: &Row, nat: bool) -> Result<f64> {
    let _instance = row.start("i", &format!("iperf3 -s -p {PORT}"))?;
    listens(row, INSTANCES[0])?;
    let (_balancer, to) = row.way(plan, nat, &INSTANCES[..1])?;
    row.stream(to, plan.seconds)
}

/// Small requests on kept connections, to one instance or spread over all.
fn requests(plan: &Plan, row: &Row, nat: bool) -> Result<Load> {
    let places = INSTANCES.map(|ip| format!("{ip}:{PORT}")).join(" ");
    let _instances = row.start("i", &format!("{} 64 {places}", plan.responder.display()))?;
    for ip in INSTANCES {
        listens(row, ip)?;
    }
    let (_balancer, to) = row.way(plan, nat, &INSTANCES)?;
    let load = row.requests(to, plan.seconds)?;
    if load.errors > 0 {
        bail!("{} requests to {to} failed", load.errors);
    }
    Ok(load)
}

fn measure(plan: &Plan) -> Result<Value> {
    let row = Row::new()?;
    let mut samples = [const { Vec::new() }; 6];
    for repetition in 0..plan.repetitions {
        // Whoever comes first meets a colder machine: they take turns at it.
        let order = if repetition % 2 == 0 { [0, 1] } else { [1, 0] };
        for way in order {
            samples[way].push(stream(plan, &row, way == 1)?);
        }
        for way in order {
            let load = requests(plan, &row, way == 1)?;
            samples[2 + way].push(load.rate);
            samples[4 + way].push(load.p99_ms);
        }
        let last: Vec<f64> = samples.iter().filter_map(|s| s.last().copied()).collect();
        eprintln!("{repetition} GB/s, requests/s, p99 ms; direct, nat: {last:.2?}");
    }
    row.no_table();
    let figures: Vec<Figure> = samples.iter().map(|s| Figure::of(s)).collect::<Result<_>>()?;
    let pair = |at: usize| {
        json!({
            "direct": figures[at].json(), "nat": figures[at + 1].json(),
            "ratio": figures[at + 1].median / figures[at].median,
        })
    };
    let quotient = |at: usize| figures[at + 1].median / figures[at].median;
    let bars = [
        Bar::at_least("nat: bytes a second, nat / direct", quotient(0), 0.95),
        Bar::at_least("nat: requests a second, nat / direct", quotient(2), 0.95),
        Bar::at_most("nat: p99 of requests, nat / direct", quotient(4), 1.2),
    ];
    Ok(json!({
        "bars": bars.iter().map(Bar::json).collect::<Vec<_>>(),
        "repetitions": plan.repetitions,
        "seconds": plan.seconds,
        "instances": INSTANCES.len(),
        "streaming_gb_per_s": pair(0),
        "requests_per_s": pair(2),
        "p99_ms": pair(4),
    }))
}

#[expect(clippy::print_stdout, reason = "the result")]
fn main() -> Result<()> {
    let mut args = Args::of_process(USAGE, &[])?;
    let plan = Plan {
        balancer: args.must("balancer")?,
        responder: args.must("responder")?,
        repetitions: args.or("repetitions", 7)?,
        seconds: args.or("seconds", 3)?,
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
