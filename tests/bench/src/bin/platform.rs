//! Measures the platform as a whole: waking from zero, memory at rest, scaling out, coming back
//! after `kill -9`. Prints one line a figure and writes them as JSON.

#![expect(clippy::print_stdout, reason = "the figures are this program's output")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use anyhow::{Context, Result, bail};
use bench::figures::Figure;
use chassis::{Client, PeerUrl};
use serde_json::{Value, json};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Wakes measured (the bar is the median of these).
const WAKES: usize = 20;
/// One call of the API.
const CALL: Duration = Duration::from_secs(10);
/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests a second that are 2.2 times what one demo instance serves (8 at once, 40 ms each).
const OVERLOAD_RPS: u32 = 440;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let tally = PathBuf::from(args.next().context("usage: platform TALLY [OUT.json]")?);
    let folder = std::env::temp_dir().join(format!("tally-b-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let mut up = Up::start(&tally, &folder, None).await?;
    let measured = measure(&tally, &folder, &mut up).await;
    let down = Command::new(&tally).args(["down", "--data"]).arg(folder.join("data")).status();
    up.child.wait()?;
    fs::remove_dir_all(&folder)?;
    let figures = measured?;
    if !down?.success() {
        bail!("`tally down` failed");
    }
    if let Some(out) = args.next() {
        fs::write(out, serde_json::to_string_pretty(&figures)?)?;
    }
    Ok(())
}

async fn measure(tally: &Path, folder: &Path, up: &mut Up) -> Result<Value> {
    up.put("rest", &service(tally, 1, 1, 0)).await?;
    up.answered("rest").await?;
    let rest_mib = rss_mib(up.child.id())?;
    println!("tally up at rest, one service: {rest_mib:.1} MiB");
    let (own, wake) = wakes(tally, up).await?;
    let overhead = wake.median - own.median;
    println!(
        "first request to an empty service: {:.1} ms (median of {WAKES}; {:.1} to {:.1}); the \
         process alone: {:.1} ms; overhead {overhead:.1} ms",
        wake.median, wake.min, wake.max, own.median
    );
    let (third, sent, failed) = overload(tally, up).await?;
    println!(
        "2.2x overload: third instance serving {third:.1} s after the load began; {failed} of {sent} requests failed"
    );
    let back = come_back(tally, folder, up).await?;
    println!("kill -9 and start: first answer {:.0} ms after the start", back * 1000.0);
    Ok(json!({
        "rest_mib": rest_mib,
        "wake_ms": wake.median, "own_start_ms": own.median, "wake_overhead_ms": overhead,
        "third_instance_s": third, "overload_requests": sent, "overload_failed": failed,
        "back_after_kill_ms": back * 1000.0,
    }))
}

/// `tally up` on a folder.
struct Up {
    child: Child,
    front: SocketAddr,
    api: Client,
}

impl Up {
    async fn start(tally: &Path, folder: &Path, front: Option<SocketAddr>) -> Result<Up> {
        let data = folder.join("data");
        let said = data.join("run/addresses.json");
        let _none = fs::remove_file(&said);
        let config = folder.join("tally.toml");
        let any = "127.0.0.1:0";
        let text = format!("[balancer]\nadmin = \"{any}\"\n[load_receiver]\nlisten = \"{any}\"\n");
        fs::write(&config, text)?;
        let listen = front.map_or_else(|| any.to_owned(), |a| a.to_string());
        let child = Command::new(tally)
            .args(["up", "--api", any, "--listen", &listen, "--data"])
            .arg(&data)
            .arg("--config")
            .arg(&config)
            .env("TALLY_LOG", "warn")
            .stdin(Stdio::null())
            .stderr(fs::File::options().create(true).append(true).open(folder.join("log"))?)
            .spawn()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let read = fs::read(&said).ok().and_then(|b| serde_json::from_slice::<Value>(&b).ok());
            if let Some(value) = read {
                let word = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
                let peer: PeerUrl = word("api").parse().map_err(anyhow::Error::msg)?;
                return Ok(Up { child, front: word("front").parse()?, api: Client::new(peer) });
            }
            if Instant::now() > deadline {
                bail!("tally up does not come up; see {}", folder.join("log").display());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn put(&self, name: &str, body: &Value) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let path = format!("/v1/services/{name}");
            let put = self.api.json::<_, Value>(http::Method::PUT, &path, Some(body), CALL).await;
            match put {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn answered(&self, host: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while get(self.front, host).await.is_err() {
            if Instant::now() > deadline {
                bail!("{host} does not answer");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

fn service(tally: &Path, min: u32, max: u32, work_ms: u32) -> Value {
    json!({
        "min_instances": min, "max_instances": max,
        "run": {"command": [tally.display().to_string(), "demo-service", "--port", "{port}",
                            "--work-ms", work_ms.to_string(), "--concurrency", "8"]},
        "resources": {"cpu": "50m", "memory": "16MiB"},
        "load": {"concurrency": 8, "window": "5s"},
    })
}

/// One request; fails unless the answer is 200 and whole.
async fn get(at: SocketAddr, host: &str) -> Result<()> {
    let mut stream = TcpStream::connect(at).await?;
    stream.set_nodelay(true)?;
    let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if answer.starts_with(b"HTTP/1.1 200") {
        return Ok(());
    }
    bail!("{}", String::from_utf8_lossy(&answer));
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// The process's own start, and the first request through the platform, in turns.
async fn wakes(tally: &Path, up: &Up) -> Result<(Figure, Figure)> {
    let (mut own, mut wake) = (Vec::new(), Vec::new());
    for i in 0..WAKES {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let begun = Instant::now();
        let mut child = Command::new(tally)
            .args(["demo-service", "--work-ms", "0", "--port", &free.port().to_string()])
            .spawn()?;
        while get(free, "own").await.is_err() {
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        own.push(ms(begun));
        child.kill()?;
        child.wait()?;

        let name = format!("wake-{i}");
        up.put(&name, &service(tally, 0, 1, 0)).await?;
        // The route must be known before the clock starts: waking is measured, not declaring.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = Instant::now();
        get(up.front, &name).await.with_context(|| format!("waking {name}"))?;
        wake.push(ms(begun));
    }
    Ok((Figure::of(&own)?, Figure::of(&wake)?))
}

/// Seconds from the beginning of 2.2x one instance's capacity until a third instance is ready;
/// requests sent and failed.
async fn overload(tally: &Path, up: &Up) -> Result<(f64, u64, u64)> {
    up.put("busy", &service(tally, 1, 6, 40)).await?;
    up.answered("busy").await?;
    let (sent, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let mut beat = tokio::time::interval(Duration::from_secs(1) / OVERLOAD_RPS);
    let mut tasks = tokio::task::JoinSet::new();
    let mut third = None;
    let mut looked = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        beat.tick().await;
        let (front, failed) = (up.front, Arc::clone(&failed));
        sent.fetch_add(1, Ordering::Relaxed);
        tasks.spawn(async move {
            if get(front, "busy").await.is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        });
        while tasks.try_join_next().is_some() {}
        if third.is_none() && looked.elapsed() > Duration::from_millis(100) {
            looked = Instant::now();
            let view: Value = up.api.get("/v1/services/busy", CALL).await?;
            if view["state"]["ready"].as_u64().unwrap_or(0) >= 3 {
                third = Some(begun.elapsed().as_secs_f64());
            }
        }
    }
    while tasks.join_next().await.is_some() {}
    let third = third.context("no third instance within 30 s")?;
    Ok((third, sent.load(Ordering::Relaxed), failed.load(Ordering::Relaxed)))
}

/// Seconds from the start after `kill -9` until a request is answered.
async fn come_back(tally: &Path, folder: &Path, up: &mut Up) -> Result<f64> {
    up.child.kill()?;
    up.child.wait()?;
    let front = up.front;
    let begun = Instant::now();
    let starting = Up::start(tally, folder, Some(front));
    let answering = async {
        while get(front, "rest").await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        begun.elapsed().as_secs_f64()
    };
    let (started, back) = tokio::join!(starting, answering);
    *up = started?;
    Ok(back)
}

/// Resident memory of a process.
fn rss_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
