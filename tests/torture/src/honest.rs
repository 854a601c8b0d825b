//! Honest clients: kept connections that ask, check what they get, and count every failure.

use crate::client::Client;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Reasons kept; the first ones say what is wrong.
const REASONS_MAX: usize = 10;

/// How honest clients behave.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Kept connections.
    pub connections: usize,
    /// Pause between an answer and the next request of a connection.
    pub pause: Duration,
    /// Every so many requests one has a body; 0: none.
    pub post_every: u64,
    /// Every so many requests the connection is given up for a new one; 0: never.
    pub renew_every: u64,
}

impl Default for Habits {
    fn default() -> Habits {
        Habits { connections: 16, pause: Duration::ZERO, post_every: 7, renew_every: 1000 }
    }
}

#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    sent: AtomicU64,
    failed: AtomicU64,
    why: Mutex<Vec<String>>,
    micros: Mutex<Vec<u32>>,
}

impl Counts {
    fn fail(&self, why: String) {
        self.failed.fetch_add(1, Relaxed);
        let mut reasons = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if reasons.len() < REASONS_MAX {
            reasons.push(why);
        }
    }
}

/// Running clients.
#[derive(Debug)]
pub struct Honest {
    counts: Arc<Counts>,
    clients: JoinSet<()>,
}

/// What they saw.
#[derive(Debug, Clone)]
pub struct Felt {
    /// Requests.
    pub sent: u64,
    /// Those that were not answered as they should.
    pub failed: u64,
    /// Some reasons.
    pub why: Vec<String>,
    micros: Vec<u32>,
}

impl Felt {
    /// The time below which `share` of the answers came.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among counted answers; the share is within 0 and 1"
    )]
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (self.micros.len() as f64 * share) as usize;
        let found = self.micros.get(rank.min(self.micros.len().saturating_sub(1)));
        Duration::from_micros(found.copied().unwrap_or(0).into())
    }

    /// Fails the test unless everything was answered.
    ///
    /// # Panics
    /// When something was not, or nothing was asked.
    pub fn must_be_whole(&self, when: &str) {
        assert!(self.sent > 0, "{when}: nothing was asked");
        assert_eq!(self.failed, 0, "{when}: of {}: {:#?}", self.sent, self.why);
    }
}

impl Honest {
    /// Starts them.
    #[must_use]
    pub fn start(front: SocketAddr, habits: Habits) -> Honest {
        let counts = Arc::new(Counts::default());
        let mut clients = JoinSet::new();
        for number in 0..habits.connections {
            clients.spawn(ask(front, habits, number, Arc::clone(&counts)));
        }
        Honest { counts, clients }
    }

    /// Requests so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Relaxed)
    }

    /// Failures so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Relaxed)
    }

    /// Waits until so many requests were sent since now.
    pub async fn more(&self, count: u64) {
        let from = self.sent();
        while self.sent() < from + count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends them after the requests in hand.
    pub async fn stop(self) -> Felt {
        self.counts.stop.store(true, Relaxed);
        self.clients.join_all().await;
        let take = |list: &Mutex<Vec<u32>>| {
            std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let mut micros = take(&self.counts.micros);
        micros.sort_unstable();
        let why = self.counts.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (sent, failed) = (self.counts.sent.load(Relaxed), self.counts.failed.load(Relaxed));
        Felt { sent, failed, why, micros }
    }
}

async fn ask(front: SocketAddr, habits: Habits, number: usize, counts: Arc<Counts>) {
    let mut client = Client::connect(front).await;
    let mut micros = Vec::new();
    let every = |every: u64, n: u64| every > 0 && n.is_multiple_of(every);
    for n in 1.. {
        if counts.stop.load(Relaxed) {
            break;
        }
        let target = format!("/honest-{number}-{n}");
        let request = if every(habits.post_every, n) {
            format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
        } else {
            format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
        };
        let began = Instant::now();
        counts.sent.fetch_add(1, Relaxed);
        let sent = client.send(request).await;
        let answer = client.answer(false).await;
        let took = began.elapsed();
        micros.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        let mut renew = every(habits.renew_every, n);
        match answer {
            Ok(Some(a)) if a.status() == 200 && a.field("x-for").as_ref() == Some(&target) => {
                renew |= a.field("connection").as_deref() == Some("close");
            }
            other => {
                counts.fail(format!("{target} (sent: {sent}) after {took:?}: {other:?}"));
                renew = true;
            }
        }
        if renew {
            client = Client::connect(front).await;
        }
        if !habits.pause.is_zero() {
            tokio::time::sleep(habits.pause).await;
        }
    }
    counts.micros.lock().unwrap_or_else(PoisonError::into_inner).append(&mut micros);
}
