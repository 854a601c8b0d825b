//! The seam to executors: what they shall run, what they see. Calls are idempotent and bounded.

use async_trait::async_trait;
use chassis::{Client, Identity, PeerError, PeerUrl};
use domain::{Clock, InstanceId, NodeId};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wire::assignment::{Accepted, Assignment, ExecutorEvent, Inventory, Newer};
use wire::operation::Logs;

/// An executor syncs an assignment to disk before it answers; slow disks take their time.
pub const ASSIGN_DEADLINE: Duration = Duration::from_secs(5);
/// An inventory comes from memory.
pub const INVENTORY_DEADLINE: Duration = Duration::from_secs(3);
/// The head of an event stream.
pub const STREAM_DEADLINE: Duration = Duration::from_secs(3);
/// Reading the end of a log.
pub const LOGS_DEADLINE: Duration = Duration::from_secs(5);
/// Longest line of an event stream: one instance's state is far below.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Where an executor answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExecutorAt {
    /// Which node.
    pub node: NodeId,
    /// `http://host:port` or `unix:/path`.
    pub url: String,
}

/// Why a call to an executor failed. Trying again is worthwhile except for `Address`.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The node's address is not one.
    #[error("the executor of {node} has no usable address: {detail}")]
    Address {
        /// Which node.
        node: NodeId,
        /// What is wrong.
        detail: String,
    },
    /// The call failed.
    #[error("the executor of {node} could not be asked")]
    Call {
        /// Which node.
        node: NodeId,
        /// Why.
        #[source]
        source: Box<PeerError>,
    },
    /// The stream broke off or held something else.
    #[error("the events of {node} ended: {detail}")]
    Stream {
        /// Which node.
        node: NodeId,
        /// Why.
        detail: String,
    },
}

/// An executor's answer to an assignment. Both are normal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assigned {
    /// It is on disk.
    Accepted,
    /// A newer one was there already.
    Newer(Newer),
}

/// Events of one executor.
pub type Events = BoxStream<'static, Result<ExecutorEvent, ExecutorError>>;

/// All executors.
#[async_trait]
pub trait Executors: Send + Sync + 'static {
    /// Hands over the whole wanted state; the same one twice changes nothing.
    async fn assign(
        &self,
        at: &ExecutorAt,
        assignment: &Assignment,
    ) -> Result<Assigned, ExecutorError>;

    /// What the executor sees now.
    async fn inventory(&self, at: &ExecutorAt) -> Result<Inventory, ExecutorError>;

    /// What it sees from event `after` on, with a beat each second.
    async fn events(&self, at: &ExecutorAt, after: u64) -> Result<Events, ExecutorError>;

    /// The end of what an instance wrote.
    async fn logs(
        &self,
        at: &ExecutorAt,
        instance: &InstanceId,
        lines: usize,
    ) -> Result<Logs, ExecutorError>;
}

/// Executors over HTTP, each call signed.
pub struct HttpExecutors {
    identity: Identity,
    epoch: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    clients: Mutex<BTreeMap<ExecutorAt, Client>>,
}

impl std::fmt::Debug for HttpExecutors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpExecutors").finish_non_exhaustive()
    }
}

/// Clients kept at most; beyond, all are made anew: addresses of gone nodes must not pile up.
const CLIENTS_MAX: usize = 10_000;

impl HttpExecutors {
    /// Signs with `identity` under the term that `epoch` holds.
    #[must_use]
    pub fn new(identity: Identity, epoch: Arc<AtomicU64>, clock: Arc<dyn Clock>) -> HttpExecutors {
        HttpExecutors { identity, epoch, clock, clients: Mutex::default() }
    }

    fn client(&self, at: &ExecutorAt) -> Result<Client, ExecutorError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(at) {
            return Ok(client.clone());
        }
        let url: PeerUrl = at
            .url
            .parse()
            .map_err(|detail| ExecutorError::Address { node: at.node.clone(), detail })?;
        let signer =
            self.identity.signer(at.node.clone(), Arc::clone(&self.epoch), Arc::clone(&self.clock));
        let client = Client::new(url).with_signer(signer);
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(at.clone(), client.clone());
        Ok(client)
    }
}

fn call(at: &ExecutorAt) -> impl FnOnce(PeerError) -> ExecutorError {
    let node = at.node.clone();
    move |source| ExecutorError::Call { node, source: Box::new(source) }
}

#[async_trait]
impl Executors for HttpExecutors {
    async fn assign(
        &self,
        at: &ExecutorAt,
        assignment: &Assignment,
    ) -> Result<Assigned, ExecutorError> {
        let sent: Result<Accepted, PeerError> =
            self.client(at)?.post("/v1/assignment", assignment, ASSIGN_DEADLINE).await;
        match sent {
            Ok(_) => Ok(Assigned::Accepted),
            Err(PeerError::Refused { status, body, .. }) if status.as_u16() == 409 => {
                match serde_json::from_slice::<Newer>(&body) {
                    Ok(newer) => Ok(Assigned::Newer(newer)),
                    Err(error) => Err(ExecutorError::Stream {
                        node: at.node.clone(),
                        detail: format!("an unreadable refusal: {error}"),
                    }),
                }
            }
            Err(error) => Err(call(at)(error)),
        }
    }

    async fn inventory(&self, at: &ExecutorAt) -> Result<Inventory, ExecutorError> {
        self.client(at)?.get("/v1/inventory", INVENTORY_DEADLINE).await.map_err(call(at))
    }

    async fn events(&self, at: &ExecutorAt, after: u64) -> Result<Events, ExecutorError> {
        let path = format!("/v1/events?after={after}");
        let response = self.client(at)?.stream(&path, STREAM_DEADLINE).await.map_err(call(at))?;
        let node = at.node.clone();
        let bytes = response.bytes_stream().boxed();
        let lines = Lines { bytes, pending: Vec::new() };
        let events = futures_util::stream::unfold((lines, node), |(mut lines, node)| async move {
            let event = lines.next_event().await?;
            let event =
                event.map_err(|detail| ExecutorError::Stream { node: node.clone(), detail });
            Some((event, (lines, node)))
        });
        Ok(events.boxed())
    }

    async fn logs(
        &self,
        at: &ExecutorAt,
        instance: &InstanceId,
        lines: usize,
    ) -> Result<Logs, ExecutorError> {
        let path = format!("/v1/logs?instance={instance}&lines={lines}");
        self.client(at)?.get(&path, LOGS_DEADLINE).await.map_err(call(at))
    }
}

struct Lines {
    bytes: BoxStream<'static, Result<bytes::Bytes, reqwest::Error>>,
    pending: Vec<u8>,
}

impl Lines {
    /// The next `data:` line; comments, ids and event names are passed over (the data says all).
    async fn next_event(&mut self) -> Option<Result<ExecutorEvent, String>> {
        loop {
            while let Some(end) = self.pending.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let text = String::from_utf8_lossy(&line);
                if let Some(data) = text.trim_end().strip_prefix("data:") {
                    let event = serde_json::from_str(data.trim_start());
                    return Some(event.map_err(|e| format!("an unreadable event: {e}")));
                }
            }
            if self.pending.len() > LINE_BYTES_MAX {
                return Some(Err(format!("a line longer than {LINE_BYTES_MAX} bytes")));
            }
            match self.bytes.next().await? {
                Ok(chunk) => self.pending.extend_from_slice(&chunk),
                Err(error) => return Some(Err(error.to_string())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    #[tokio::test]
    async fn events_are_read_across_chunks_and_between_comments() {
        let chunks = [
            ": hi\nid: 1\nda",
            "ta: {\"seq\":1}\n\ndata: {\"seq\":2,\"inst",
            "ance\":\"shop-0123456789\",\"state\":\"ready\"}\n\n",
        ];
        let bytes = stream::iter(chunks.map(|c| Ok(bytes::Bytes::from(c)))).boxed();
        let mut lines = Lines { bytes, pending: Vec::new() };
        let beat = lines.next_event().await.unwrap().unwrap();
        assert_eq!((beat.seq, beat.seen.is_some()), (1, false));
        let event = lines.next_event().await.unwrap().unwrap();
        assert_eq!(event.seen.unwrap().instance.as_str(), "shop-0123456789");
        assert!(lines.next_event().await.is_none());
    }
}
