//! The subscription to the channel of changes: kept for the life of the process, wherever the
//! board is.

use super::link::{CALL_DEADLINE, CONNECT_DEADLINE, backoff};
use super::nodes::Nodes;
use crate::{codec, keys};
use ::redis::RedisError;
use domain::Change;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::timeout;

/// A subscription proves every so often that it lives, and that it is where the board is; silence
/// is else no sign of death.
const PULSE: Duration = Duration::from_secs(2);

/// Tells the watchers of this process.
#[derive(Clone)]
pub(super) struct Voice {
    /// For those who want loads whole.
    pub(super) whole: broadcast::Sender<Change>,
    /// For those who want to know what changed.
    pub(super) names: broadcast::Sender<Change>,
}

impl Voice {
    fn tell(&self, change: Change) {
        let name = if let Change::Told(service, _) = &change {
            Change::Loads(service.clone())
        } else {
            change.clone()
        };
        // An error means that nobody watches.
        drop(self.names.send(name));
        drop(self.whole.send(change));
    }

    /// Reads a message no further than somebody wants to know.
    fn read(&self, text: &str) -> Vec<Change> {
        if self.whole.receiver_count() > 0 {
            codec::read_changes(text)
        } else {
            codec::read_changed_names(text)
        }
    }
}

/// Listens to the channel until the process ends, and passes on what it says. Each new
/// subscription begins with [`Change::All`]: what was said in between is lost.
pub(super) async fn listen(nodes: Arc<Nodes>, voice: Voice, heard: impl Fn(&Change) + Send) {
    let tell = |change: Change| {
        heard(&change);
        voice.tell(change);
    };
    let (mut failures, mut turn) = (0u32, 0u32);
    loop {
        match timeout(CONNECT_DEADLINE, subscribe(&nodes, turn)).await {
            Ok(Ok(subscription)) => {
                failures = 0;
                tracing::info!(channel = keys::CHANGES, "subscribed to the scoreboard's changes");
                tell(Change::All);
                pass_on(subscription, &nodes, &voice, &tell).await;
                tracing::info!(channel = keys::CHANGES, "the scoreboard's changes broke off");
            }
            Ok(Err(why)) => tracing::debug!(%why, "cannot subscribe to the scoreboard's changes"),
            Err(_elapsed) => tracing::debug!("the scoreboard does not answer a subscription"),
        }
        failures = (failures + 1).min(10);
        turn = turn.wrapping_add(1);
        tokio::time::sleep(backoff(failures)).await;
    }
}

struct Subscription {
    sink: ::redis::aio::PubSubSink,
    stream: ::redis::aio::PubSubStream,
    at: String,
}

async fn subscribe(nodes: &Nodes, turn: u32) -> Result<Subscription, RedisError> {
    let (client, at) = nodes.ear(turn).await?;
    let (mut sink, stream) = client.get_async_pubsub().await?.split();
    sink.subscribe(keys::CHANGES).await?;
    Ok(Subscription { sink, stream, at })
}

/// Until the subscription breaks, does not answer, or is no longer where the board is.
async fn pass_on(subscription: Subscription, nodes: &Nodes, voice: &Voice, tell: &impl Fn(Change)) {
    let Subscription { mut sink, mut stream, at } = subscription;
    let read = async {
        while let Some(message) = stream.next().await {
            let text = String::from_utf8_lossy(message.get_payload_bytes());
            voice.read(&text).into_iter().for_each(tell);
        }
    };
    // Beside the reading, which a slow answer does not hold up.
    let lives = async {
        loop {
            tokio::time::sleep(PULSE).await;
            let alive = timeout(CALL_DEADLINE, sink.ping::<::redis::Value>()).await;
            if !matches!(alive, Ok(Ok(_))) || !nodes.still_has(&at).await {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = lives => {}
    }
}
