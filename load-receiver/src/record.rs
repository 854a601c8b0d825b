//! Writes admitted reports to the board: the newest of each instance, together, every few
//! milliseconds at most; keeps them while the board is away.

use crate::metrics::Counts;
use chassis::Shutdown;
use chassis::backoff::Backoff;
use domain::{Clock, InstanceId, LoadReport, Mono};
use scoreboard::board::LOAD_TTL;
use scoreboard::{Board, BoardError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Shortest time between two writes. A report that comes alone is written at once; among many it
/// waits half of this, so that it counts within ten milliseconds. Each write wakes Redis and every
/// balancer, which costs more than the reports in it: twice the time is half the cost.
pub const WRITE_EVERY: Duration = Duration::from_millis(8);
/// Instances whose newest report waits: the size of a cell.
pub const WAITING_MAX: usize = 150_000;
/// Reports in one write; what is more goes in the next.
pub const WRITE_MAX: usize = 10_000;
/// Pauses while the board is away.
const RETRY_MIN: Duration = Duration::from_millis(20);
/// The board is noticed within a quarter of a second of its return.
const RETRY_MAX: Duration = Duration::from_millis(250);
/// For the last write at the end.
const LAST_WRITE: Duration = Duration::from_secs(1);

type Waiting = BTreeMap<InstanceId, (LoadReport, Mono)>;

/// Reports on their way to the board.
pub struct Recorder {
    board: Arc<dyn Board>,
    clock: Arc<dyn Clock>,
    counts: Counts,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

impl Recorder {
    /// Nothing waits yet.
    #[must_use]
    pub fn new(board: Arc<dyn Board>, clock: Arc<dyn Clock>, counts: Counts) -> Recorder {
        Recorder { board, clock, counts, waiting: Mutex::default(), arrived: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a report in line, in place of an older one of its instance. False: the line is full.
    #[must_use]
    pub fn put(&self, report: LoadReport) -> bool {
        let now = self.clock.monotonic();
        let mut waiting = self.lock();
        if waiting.len() >= WAITING_MAX && !waiting.contains_key(&report.instance) {
            return false;
        }
        waiting.insert(report.instance.clone(), (report, now));
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    /// Takes the next reports out of line. One that is too old would look fresh on the board, so it
    /// is dropped.
    fn take(&self) -> Vec<(LoadReport, Mono)> {
        let now = self.clock.monotonic();
        let mut waiting = self.lock();
        let before = waiting.len();
        waiting.retain(|_, (_, at)| now.since(*at) < LOAD_TTL);
        self.counts.add("expired", before - waiting.len());
        let rest = waiting.keys().nth(WRITE_MAX).cloned();
        let rest = rest.map(|first| waiting.split_off(&first)).unwrap_or_default();
        std::mem::replace(&mut *waiting, rest).into_values().collect()
    }

    /// Puts back what could not be written, where nothing newer came.
    fn put_back(&self, reports: Vec<(LoadReport, Mono)>) {
        let mut waiting = self.lock();
        for (report, at) in reports {
            waiting.entry(report.instance.clone()).or_insert((report, at));
        }
    }

    /// One write; false when the board did not take it.
    async fn write(&self) -> bool {
        let taken = self.take();
        if taken.is_empty() {
            return true;
        }
        let reports: Vec<LoadReport> = taken.iter().map(|(report, _)| report.clone()).collect();
        match self.board.record(&reports).await {
            Ok(new) => {
                self.counts.wrote(new);
                true
            }
            Err(BoardError::Partly { services, .. }) => {
                // What was written is not written again later, when it would look fresh.
                self.counts.failed();
                let away = |report: &LoadReport| services.contains(&report.instance.service());
                self.put_back(taken.into_iter().filter(|(report, _)| away(report)).collect());
                false
            }
            Err(why) => {
                self.counts.failed();
                tracing::debug!(why = %chassis::telemetry::Chain(&why), "the board took no loads");
                self.put_back(taken);
                false
            }
        }
    }

    /// Writes until the shutdown starts, then once more.
    pub async fn run(&self, shutdown: &Shutdown) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        let mut away = false;
        loop {
            tokio::select! {
                () = shutdown.started() => break,
                () = self.arrived.notified() => {}
            }
            let pause = if self.write().await {
                if std::mem::take(&mut away) {
                    tracing::info!("the scoreboard takes loads again");
                }
                backoff.reset();
                WRITE_EVERY
            } else {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!(
                        "the scoreboard takes no loads; the newest of each instance are kept"
                    );
                }
                backoff.wait()
            };
            // What came meanwhile, or could not be written, goes next.
            if !self.lock().is_empty() {
                self.arrived.notify_one();
            }
            tokio::select! {
                () = shutdown.started() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        if tokio::time::timeout(LAST_WRITE, self.write()).await.is_err() {
            tracing::debug!("the last loads were not written in time");
        }
    }
}
