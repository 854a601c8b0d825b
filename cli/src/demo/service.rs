//! The service that `tally demo` runs: it works by waiting, has a known capacity, says how loaded
//! it is, and can be made slower.

use crate::args::DemoServiceArgs;
use anyhow::Context;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use chassis::config::env;
use chassis::{Client, Listen, Listener, ServerLimits, Shutdown, SystemClock};
use domain::Clock;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use wire::report::{Report, ReportsAnswer};

/// Says which instance answered, so that shares can be counted.
pub const INSTANCE_HEADER: HeaderName = HeaderName::from_static("demo-instance");
/// Time between looks at the own load.
const PERIOD: Duration = Duration::from_millis(200);
/// Looks without a change after which it is told all the same (1 s).
const PERIODS_QUIET: u32 = 5;
/// A change worth telling at once (2 %).
const CHANGE: f64 = 0.02;

struct Work {
    slots: Semaphore,
    concurrency: usize,
    work_ms: u64,
    /// How many times slower than declared.
    factor: AtomicU64,
    /// In service and waiting.
    present: AtomicUsize,
    /// Microseconds of presence, summed over requests that ended.
    presence_us: AtomicU64,
    answered: AtomicU64,
    instance: String,
    clock: SystemClock,
}

/// Runs until SIGTERM.
///
/// # Errors
/// When the port cannot be had.
pub async fn run(args: DemoServiceArgs) -> anyhow::Result<()> {
    let listen = Listen::Tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, args.port)));
    let listener = Listener::bind(&listen).await.map_err(anyhow::Error::msg)?;
    let work = Arc::new(Work {
        slots: Semaphore::new(args.concurrency),
        concurrency: args.concurrency,
        work_ms: args.work_ms,
        factor: AtomicU64::new(1),
        present: AtomicUsize::new(0),
        presence_us: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        instance: env("TALLY_INSTANCE").unwrap_or_else(|| "unnamed".to_owned()),
        clock: SystemClock::new(),
    });
    let shutdown = Shutdown::new();
    let reports = Reports::from_env(Arc::clone(&work))?;
    if let Some(reports) = reports {
        let shutdown = shutdown.clone();
        tokio::spawn(async move { reports.run(&shutdown).await });
    }
    let signal = shutdown.clone();
    tokio::spawn(async move { signal.on_signal().await });
    let router =
        Router::new().route("/", get(answer)).route("/demo/slow", post(slow)).with_state(work);
    chassis::serve(listener, router, ServerLimits::default(), &shutdown).await;
    Ok(())
}

async fn answer(State(work): State<Arc<Work>>) -> impl IntoResponse {
    let began = work.clock.monotonic();
    work.present.fetch_add(1, Ordering::Relaxed);
    let slot = work.slots.acquire().await;
    let factor = work.factor.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(work.work_ms * factor)).await;
    drop(slot);
    work.present.fetch_sub(1, Ordering::Relaxed);
    let spent = work.clock.monotonic().since(began);
    work.presence_us
        .fetch_add(u64::try_from(spent.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    work.answered.fetch_add(1, Ordering::Relaxed);
    ([(INSTANCE_HEADER, work.instance.clone())], format!("answered by {}\n", work.instance))
}

#[derive(Deserialize)]
struct Slow {
    factor: u64,
}

async fn slow(State(work): State<Arc<Work>>, Query(slow): Query<Slow>) -> impl IntoResponse {
    if !(1..=100).contains(&slow.factor) {
        return (StatusCode::UNPROCESSABLE_ENTITY, "factor must be 1 to 100\n");
    }
    work.factor.store(slow.factor, Ordering::Relaxed);
    (StatusCode::OK, "done\n")
}

/// Tells the load-receiver how loaded this instance is.
struct Reports {
    work: Arc<Work>,
    client: Client,
    service: String,
    seq: u64,
}

impl Reports {
    fn from_env(work: Arc<Work>) -> anyhow::Result<Option<Reports>> {
        let (Some(url), Some(service), Some(token)) =
            (env("TALLY_LOAD_URL"), env("TALLY_SERVICE"), env("TALLY_LOAD_TOKEN"))
        else {
            return Ok(None);
        };
        let base = url.trim_end_matches("/v1/load");
        let peer = base.parse().map_err(anyhow::Error::msg).context("TALLY_LOAD_URL")?;
        Ok(Some(Reports { work, client: Client::new(peer).with_token(&token), service, seq: 0 }))
    }

    async fn run(mut self, shutdown: &Shutdown) {
        let (mut told, mut quiet) = (-1.0_f64, 0);
        let mut last = (self.work.clock.monotonic(), 0, 0);
        while !shutdown.has_started() {
            tokio::time::sleep(PERIOD).await;
            let now = self.work.clock.monotonic();
            let presence = self.work.presence_us.load(Ordering::Relaxed);
            let answered = self.work.answered.load(Ordering::Relaxed);
            let seconds = now.since(last.0).as_secs_f64().max(0.001);
            let present = self.work.present.load(Ordering::Relaxed);
            // What ended in the period plus what is still there: neither alone sees slow requests.
            let ended = micros(presence.saturating_sub(last.1)) / seconds;
            let in_service = ended.max(count(present));
            let load = in_service / count(self.work.concurrency);
            let rps = count_u64(answered.saturating_sub(last.2)) / seconds;
            last = (now, presence, answered);
            quiet += 1;
            if (load - told).abs() < CHANGE && quiet < PERIODS_QUIET {
                continue;
            }
            (told, quiet) = (load, 0);
            self.send(load, present, rps).await;
        }
    }

    async fn send(&mut self, load: f64, present: usize, rps: f64) {
        self.seq += 1;
        let report = Report {
            service: self.service.clone(),
            instance: self.work.instance.clone(),
            load,
            in_flight: u32::try_from(present).ok(),
            rps: Some(rps),
            eps: None,
            seq: Some(self.seq),
            token: None,
            source: None,
        };
        let limit = Duration::from_secs(1);
        let sent = self.client.post::<_, ReportsAnswer>("/v1/load", &report, limit).await;
        if let Err(error) = sent {
            // The next report is the retry.
            eprintln!("load not reported: {error}");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate for display and feedback")]
fn micros(us: u64) -> f64 {
    us as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "an estimate for display and feedback")]
fn count(n: usize) -> f64 {
    n as f64
}

#[expect(clippy::cast_precision_loss, reason = "an estimate for display and feedback")]
fn count_u64(n: u64) -> f64 {
    n as f64
}
