//! `tally demo`: the whole loop on this host, under real load, with a verdict at the end.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the summary is this command's output, progress goes to stderr"
)]

mod load;
mod script;
mod service;
mod show;
mod summary;
mod watch;

pub use service::run as run_service;

use crate::args::DemoArgs;
use crate::settings::Settings;
use crate::up::{self, Pace, Running};
use anyhow::{Context, bail};
use chassis::{Client, Shutdown, SystemClock};
use domain::{Clock, EventKind, Mono};
use load::{Sample, Samples};
use script::{SERVICE, Script};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use summary::{HeldBack, Summary, p99_ms};
use watch::{Seen, Watch};
use wire::manifest::{Format, Manifest, parse_text};

/// One call of the API.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Events of one demo at most.
const EVENTS_MAX: usize = 100_000;
/// Between two looks while something is awaited.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the demo; exit code 0 only if everything happened and no request failed.
///
/// # Errors
/// When the demo cannot be run at all.
pub async fn run(args: DemoArgs, json: bool) -> anyhow::Result<ExitCode> {
    let folder = tempfile_folder()?;
    let settings = Settings {
        data: folder.display().to_string(),
        log: if args.keep { "info".to_owned() } else { "error".to_owned() },
        ..Settings::loopback()
    };
    let shutdown = Shutdown::new();
    let signal = shutdown.clone();
    tokio::spawn(async move { signal.on_signal().await });
    let mut running = up::start(&settings, Pace::Demo).await.context("starting every role")?;
    let result = match running.ready().await {
        Ok(()) => story(&args, &running, &shutdown).await,
        Err(error) => Err(error),
    };
    let cleaned = running.down().await.context("stopping everything");
    if args.keep {
        eprintln!("the demo's folder is left at {}", folder.display());
    } else {
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("removing {}", folder.display()))?;
    }
    let summary = result?;
    cleaned?;
    if json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        println!("\n{}", summary.text());
    }
    Ok(if summary.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A new folder with a short path: unix socket paths are limited to 107 bytes.
fn tempfile_folder() -> anyhow::Result<std::path::PathBuf> {
    let name = format!("tally-demo-{}", &chassis::ids::secret()[..8]);
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

struct Stage<'a> {
    running: &'a Running,
    shutdown: &'a Shutdown,
    clock: SystemClock,
    began: Mono,
    seen: Arc<Mutex<Seen>>,
    samples: Arc<Samples>,
}

async fn story(args: &DemoArgs, running: &Running, shutdown: &Shutdown) -> anyhow::Result<Summary> {
    let clock = SystemClock::new();
    let stage = Stage {
        running,
        shutdown,
        clock,
        began: clock.monotonic(),
        seen: Arc::default(),
        samples: Arc::default(),
    };
    eprintln!("{}", script::PACE);
    stage.declare().await?;
    let shows = shutdown.branch();
    let watching = shows.spawn(stage.watch().run(shows.clone()));
    let showing = shows.spawn(stage.show(args.plain).run(shows.clone()));
    let played = stage.play(args.seconds).await;
    shows.start();
    let _ended = (watching.await, showing.await);
    let mut summary = played?;
    stage.finish(&mut summary).await?;
    Ok(summary)
}

impl Stage<'_> {
    fn watch(&self) -> Watch {
        Watch {
            api: self.running.api_client(),
            registry: self.running.registry(),
            clock: self.clock,
            began: self.began,
            seen: Arc::clone(&self.seen),
        }
    }

    fn show(&self, plain: bool) -> show::Show {
        show::Show {
            // A picture is drawn over itself, which only a terminal can do.
            plain: plain || !std::io::stderr().is_terminal(),
            seen: Arc::clone(&self.seen),
            samples: Arc::clone(&self.samples),
            clock: self.clock,
            began: self.began,
        }
    }

    fn tell(&self, event: &str, detail: impl Into<String>) {
        let at = self.clock.monotonic().since(self.began).as_secs_f64();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).tell(at, event, detail);
    }

    fn now_seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn declare(&self) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("finding this program")?;
        let text = script::manifests(&program.display().to_string());
        let api = self.running.api_client();
        for manifest in parse_text(&text, Format::Yaml)? {
            let path = match &manifest {
                Manifest::Service(_) => format!("/v1/services/{SERVICE}"),
                Manifest::NodeType(m) => {
                    format!("/v1/node-types/{}", m.name.as_deref().unwrap_or_default())
                }
                Manifest::Budget(_) => "/v1/budget".to_owned(),
            };
            api.json::<_, serde_json::Value>(
                http::Method::PUT,
                &path,
                Some(&manifest.to_value()),
                CALL_LIMIT,
            )
            .await
            .with_context(|| format!("declaring {path}"))?;
        }
        Ok(())
    }

    async fn play(&self, seconds: u32) -> anyhow::Result<Summary> {
        let script = Script::of(seconds);
        let mut summary = Summary { wake_ms: self.wake().await?, ..Summary::default() };
        let load = tokio::spawn(load::run(
            format!("http://{}/", self.running.front()),
            script::HOST,
            script.legs.clone(),
            self.clock,
            Arc::clone(&self.samples),
            self.shutdown.clone(),
        ));
        let load_began = self.clock.monotonic();
        let slowed = self.slowness(&script, load_began, &mut summary).await;
        load.await.context("the load ended badly")??;
        slowed?;
        self.tell("demo.load_over", "the load is over; everything should go now");
        self.until_empty().await;
        summary.seconds = self.clock.monotonic().since(self.began).as_secs_f64();
        Ok(summary)
    }

    /// The first request: nothing runs, and it is answered.
    async fn wake(&self) -> anyhow::Result<f64> {
        self.settled("the first node", |seen| seen.nodes.iter().any(|n| n.state == "ready"))
            .await?;
        if self.now_seen().instances_now() > 0 {
            bail!("an instance runs before the first request");
        }
        let client = reqwest::Client::builder().no_proxy().timeout(CALL_LIMIT).build()?;
        let url = format!("http://{}/", self.running.front());
        let at = self.clock.monotonic();
        let instance = load::one(&client, &url, script::HOST).await;
        let latency = self.clock.monotonic().since(at);
        self.samples.add(Sample { at, latency, instance: instance.clone() });
        let Some(instance) = instance else { return Ok(0.0) };
        let ms = latency.as_secs_f64() * 1000.0;
        self.tell(
            "demo.first_request",
            format!("answered by {instance} after {ms:.0} ms, from zero instances"),
        );
        Ok(ms)
    }

    async fn settled(&self, what: &str, done: impl Fn(&Seen) -> bool) -> anyhow::Result<()> {
        let until = self.clock.monotonic().plus(Duration::from_secs(20));
        while !done(&self.now_seen()) {
            if self.shutdown.has_started() {
                bail!("interrupted");
            }
            if self.clock.monotonic() >= until {
                bail!(
                    "{what} was not there within 20 s; run `tally demo --keep` and read the logs"
                );
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Makes one instance slower and measures its share of the requests before and after.
    async fn slowness(
        &self,
        script: &Script,
        load_began: Mono,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        self.sleep_until(load_began.plus(script.slow_at)).await?;
        let at = self.clock.monotonic();
        let ready: Vec<_> =
            self.now_seen().instances.into_iter().filter(|i| i.state == "ready").collect();
        let before = self.samples.between(Mono(at.0.saturating_sub(script::SLOW_BEFORE)), at);
        // The one that has served most is certainly warm.
        let slow = ready.iter().max_by_key(|i| served(&before, i.id.as_str()));
        let Some((slow, address)) = slow.and_then(|i| Some((i, i.address.clone()?))) else {
            bail!("no instance was ready when one should have become slow");
        };
        let id = slow.id.to_string();
        summary.equal_share = 1.0 / count(ready.len());
        summary.slow_instance_share_before = share(&before, &id);
        summary.p99_ms_before = p99(&before);
        make_slow(&address, script::SLOW_FACTOR).await?;
        self.tell("demo.slow", format!("{id} is {} times slower from now on", script::SLOW_FACTOR));
        let from = at.plus(script::SLOW_PATIENCE);
        let until = from.plus(script::SLOW_AFTER);
        self.sleep_until(until).await?;
        let after = self.samples.between(from, until);
        summary.slow_instance_share_after = share(&after, &id);
        summary.p99_ms_after = p99(&after);
        self.tell(
            "demo.slow_share",
            format!(
                "its share went from {:.1} % to {:.1} % (equal: {:.1} %)",
                summary.slow_instance_share_before * 100.0,
                summary.slow_instance_share_after * 100.0,
                summary.equal_share * 100.0
            ),
        );
        self.sleep_until(load_began.plus(script.slow_until)).await?;
        make_slow(&address, 1).await
    }

    async fn sleep_until(&self, until: Mono) -> anyhow::Result<()> {
        tokio::select! {
            () = tokio::time::sleep(until.since(self.clock.monotonic())) => Ok(()),
            () = self.shutdown.started() => bail!("interrupted"),
        }
    }

    /// Waits until nothing runs and the extra nodes are gone, or patience ends (then the verdict
    /// says what is left).
    async fn until_empty(&self) {
        let until = self.clock.monotonic().plus(script::PATIENCE_AFTER_LOAD);
        let empty = |seen: &Seen| seen.instances_now() == 0 && seen.nodes.len() <= 1;
        while !empty(&self.now_seen())
            && self.clock.monotonic() < until
            && !self.shutdown.has_started()
        {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn finish(&self, summary: &mut Summary) -> anyhow::Result<()> {
        self.watch().look().await.context("the last look")?;
        let seen = self.now_seen();
        let (requests, failed) = self.samples.totals();
        summary.requests = requests;
        summary.failed_requests = failed;
        summary.instances_max = seen.instances_max;
        summary.nodes_max = seen.nodes_max;
        summary.instances_end = seen.instances_now();
        summary.nodes_end = u32::try_from(seen.nodes.len())?;
        if let Some(budget) = &seen.budget {
            summary.spent.clone_from(&budget.spent);
            summary.obligations.clone_from(&budget.obligations);
            summary.cap.clone_from(&budget.monthly_cap);
        }
        summary.held_back = self.held_back().await?;
        summary.timeline = seen.timeline;
        summary.judge();
        Ok(())
    }

    /// Orders the cap held back, out of the events' values.
    async fn held_back(&self) -> anyhow::Result<Vec<HeldBack>> {
        let events = self.running.registry().events_after(0, EVENTS_MAX).await?;
        let held = events.into_iter().map(|stored| stored.event);
        let held = held.filter(|e| e.kind == EventKind::Budget && e.what == "held_back");
        Ok(held.map(|e| held_back(&e.values)).collect())
    }
}

/// `needs_micros=3537 until=2026-12-01`, in words for people.
fn held_back(values: &str) -> HeldBack {
    let value = |name: &str| {
        let words = values.split(' ').filter_map(|word| word.split_once('='));
        words.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next()
    };
    let needs = value("needs_micros").and_then(|micros| micros.parse().ok()).map_or_else(
        || "an unknown amount".to_owned(),
        |micros| format!("{} EUR", domain::Money(micros)),
    );
    HeldBack { needs, until: value("until").unwrap_or_default() }
}

async fn make_slow(address: &str, factor: u32) -> anyhow::Result<()> {
    let peer = format!("http://{address}").parse().map_err(anyhow::Error::msg)?;
    let path = format!("/demo/slow?factor={factor}");
    let client = Client::new(peer);
    let headers = http::HeaderMap::new();
    let answer = client
        .call(http::Method::POST, &path, headers, bytes::Bytes::new(), CALL_LIMIT)
        .await
        .context("making an instance slow")?;
    client.success(answer).context("making an instance slow")?;
    Ok(())
}

fn served(samples: &[Sample], instance: &str) -> usize {
    samples.iter().filter(|s| s.instance.as_deref() == Some(instance)).count()
}

fn share(samples: &[Sample], instance: &str) -> f64 {
    count(served(samples, instance)) / count(samples.len().max(1))
}

fn p99(samples: &[Sample]) -> f64 {
    let mut latencies: Vec<Duration> = samples.iter().map(|s| s.latency).collect();
    p99_ms(&mut latencies)
}

#[expect(clippy::cast_precision_loss, reason = "a share for display")]
fn count(n: usize) -> f64 {
    n as f64
}
