//! Requests from outside, one or many: what a user of the front door sees.

use http::StatusCode;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: String,
    /// The instance that answered, where it says so.
    pub instance: Option<String>,
}

/// One request for `host`.
///
/// # Errors
/// When there was no whole answer.
pub async fn get(front: SocketAddr, host: &str) -> Result<Reply, reqwest::Error> {
    request(&reqwest::Client::builder().no_proxy().build()?, front, host).await
}

async fn request(
    client: &reqwest::Client,
    front: SocketAddr,
    host: &str,
) -> Result<Reply, reqwest::Error> {
    let response = client
        .get(format!("http://{front}/"))
        .header(http::header::HOST, host)
        .timeout(Duration::from_secs(40))
        .send()
        .await?;
    let status = response.status();
    let instance = response.headers().get("demo-instance").and_then(|v| v.to_str().ok());
    let instance = instance.map(str::to_owned);
    Ok(Reply { status, instance, body: response.text().await? })
}

/// A steady open-loop load: requests leave when they are due, whatever becomes of earlier ones.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    why: Arc<std::sync::Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl Load {
    /// Begins `rate` requests a second.
    #[must_use]
    pub fn start(front: SocketAddr, host: &'static str, rate: u32) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let (sent, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let why = Arc::new(std::sync::Mutex::new(None));
        let task = {
            let (stop, sent, failed, why) =
                (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&failed), Arc::clone(&why));
            tokio::spawn(async move {
                let client = reqwest::Client::builder().no_proxy().build().expect("a client");
                let mut beat = tokio::time::interval(Duration::from_secs(1) / rate);
                let mut tasks = tokio::task::JoinSet::new();
                while !stop.load(Ordering::Relaxed) {
                    beat.tick().await;
                    let (client, failed, why) =
                        (client.clone(), Arc::clone(&failed), Arc::clone(&why));
                    sent.fetch_add(1, Ordering::Relaxed);
                    tasks.spawn(async move {
                        let bad = match request(&client, front, host).await {
                            Ok(reply) if reply.status.is_success() => return,
                            Ok(reply) => format!("{}: {}", reply.status, reply.body),
                            Err(error) => format!("{error:?}"),
                        };
                        failed.fetch_add(1, Ordering::Relaxed);
                        *why.lock().expect("the reason") = Some(bad);
                    });
                    while tasks.try_join_next().is_some() {}
                }
                while tasks.join_next().await.is_some() {}
            })
        };
        Load { stop, sent, failed, why, task }
    }

    /// How many were sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How many failed so far.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Ends it and waits for the last answer; how many were sent, how many failed, and how.
    ///
    /// # Panics
    /// When the load itself broke.
    pub async fn stop(self) -> (u64, u64, Option<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the load's end");
        let why = self.why.lock().expect("the reason").clone();
        (self.sent.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed), why)
    }
}
