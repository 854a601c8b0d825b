//! The connection for commands: made when first needed, dropped when it fails, made anew with
//! back-off; and the subscription, which does the same by itself.

use super::scripts::Scripts;
use crate::board::BoardError;
use crate::codec;
use crate::keys;
use ::redis::aio::MultiplexedConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::{AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, IntoConnectionInfo};
use ::redis::{Pipeline, RedisError, ServerErrorKind};
use domain::{Change, Clock, Mono};
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, broadcast};
use tokio::time::timeout;

/// A call that changes or reads one thing must be done by then: ten times what a slow network
/// needs, short enough that a role's beat is not held up.
pub const CALL_DEADLINE: Duration = Duration::from_secs(1);
/// A read of everything: thousands of services in several pipelines.
pub const READ_DEADLINE: Duration = Duration::from_secs(3);
/// Making a connection; less than a call's deadline, so that the call can say what failed.
const CONNECT_DEADLINE: Duration = Duration::from_millis(800);
/// First pause after a failed attempt; doubled up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause: the board is noticed within a second of its return.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A subscription proves every so often that it lives; silence is else no sign of death.
const PULSE: Duration = Duration::from_secs(2);
/// Bytes sent and not acknowledged for this long end a connection whose peer is gone.
const TCP_GIVE_UP: Duration = Duration::from_secs(3);

pub(super) fn unreachable_board(doing: &'static str, source: RedisError) -> BoardError {
    BoardError::Unreachable { doing, source: Box::new(source) }
}

/// Opens nothing; says whether the address can be one.
pub(super) fn client(url: &str) -> Result<Client, BoardError> {
    let doing = "read its address (redis://HOST:PORT/DB or unix:///PATH)";
    let open = || {
        let settings = TcpSettings::default().set_nodelay(true).set_user_timeout(TCP_GIVE_UP);
        Client::open(url.into_connection_info()?.set_tcp_settings(settings))
    };
    open().map_err(|source| unreachable_board(doing, source))
}

/// Why there is no connection now.
#[derive(Debug, thiserror::Error)]
#[error("the last attempt failed ({why}); the next one comes within {BACKOFF_MAX:?}")]
struct Waiting {
    why: String,
}

#[derive(Default)]
struct State {
    live: Option<MultiplexedConnection>,
    /// Counts connections, so that a late failure of an old one does not end the present one.
    number: u64,
    failures: u32,
    next_attempt: Mono,
    last_failure: String,
}

/// The connection for commands.
pub(super) struct Link {
    client: Client,
    clock: Arc<dyn Clock>,
    pub(super) scripts: Scripts,
    state: Mutex<State>,
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX)
}

impl Link {
    pub(super) fn new(client: Client, clock: Arc<dyn Clock>) -> Link {
        Link { client, clock, scripts: Scripts::new(), state: Mutex::new(State::default()) }
    }

    /// The present connection, or a new one. Only one attempt at a time; others wait for it.
    async fn connection(
        &self,
        doing: &'static str,
    ) -> Result<(MultiplexedConnection, u64), BoardError> {
        let mut state = self.state.lock().await;
        if let Some(live) = &state.live {
            return Ok((live.clone(), state.number));
        }
        if self.clock.monotonic() < state.next_attempt {
            let source = Box::new(Waiting { why: state.last_failure.clone() });
            return Err(BoardError::Unreachable { doing, source });
        }
        // Counted before the attempt: who gives up while waiting has failed too.
        state.failures = state.failures.saturating_add(1);
        state.next_attempt = self.clock.monotonic().plus(backoff(state.failures));
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_DEADLINE))
            .set_response_timeout(Some(READ_DEADLINE));
        let attempt = async {
            let mut live =
                self.client.get_multiplexed_async_connection_with_config(&settings).await?;
            self.scripts.load().exec_async(&mut live).await?;
            Ok::<_, RedisError>(live)
        };
        let outcome = timeout(CONNECT_DEADLINE, attempt).await;
        state.next_attempt = self.clock.monotonic().plus(backoff(state.failures));
        match outcome {
            Ok(Ok(live)) => {
                state.failures = 0;
                state.number += 1;
                state.live = Some(live.clone());
                Ok((live, state.number))
            }
            Ok(Err(source)) => {
                state.last_failure = source.to_string();
                Err(unreachable_board(doing, source))
            }
            Err(_elapsed) => {
                state.last_failure = "no answer".to_owned();
                Err(BoardError::Deadline { doing, limit: CONNECT_DEADLINE })
            }
        }
    }

    async fn drop_connection(&self, number: u64) {
        let mut state = self.state.lock().await;
        if state.number == number {
            state.live = None;
        }
    }

    /// Sends `pipe` and reads its answers, all within `limit`. Scripts that Redis forgot are loaded
    /// again, once.
    pub(super) async fn send<T: FromRedisValue>(
        &self,
        pipe: &Pipeline,
        doing: &'static str,
        limit: Duration,
    ) -> Result<T, BoardError> {
        let whole = async {
            let (mut live, number) = self.connection(doing).await?;
            match pipe.query_async(&mut live).await {
                Err(why) if why.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    let load = self.scripts.load();
                    load.exec_async(&mut live).await.map_err(|s| unreachable_board(doing, s))?;
                    pipe.query_async(&mut live).await.map_err(|s| unreachable_board(doing, s))
                }
                Err(source) => {
                    if source.is_unrecoverable_error() || source.is_io_error() {
                        self.drop_connection(number).await;
                    }
                    Err(unreachable_board(doing, source))
                }
                Ok(answer) => Ok(answer),
            }
        };
        match timeout(limit, whole).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                // A connection that does not answer is given up: a new one may reach a new server.
                let mut state = self.state.lock().await;
                state.live = None;
                state.next_attempt = self.clock.monotonic().plus(BACKOFF_MIN);
                Err(BoardError::Deadline { doing, limit })
            }
        }
    }
}

/// Listens to the channel until the process ends, and passes on what it says. Each new
/// subscription begins with [`Change::All`]: what was said in between is lost.
pub(super) async fn listen(
    client: Client,
    changes: broadcast::Sender<Change>,
    mut heard: impl FnMut(&Change) + Send,
) {
    let mut failures = 0;
    loop {
        let subscription = async {
            let (mut sink, stream) = client.get_async_pubsub().await?.split();
            sink.subscribe(keys::CHANGES).await?;
            Ok::<_, RedisError>((sink, stream))
        };
        match timeout(CONNECT_DEADLINE, subscription).await {
            Ok(Ok((mut sink, mut stream))) => {
                failures = 0;
                tracing::info!(channel = keys::CHANGES, "subscribed to the scoreboard's changes");
                let mut tell = |change: Change| {
                    heard(&change);
                    // An error means that nobody watches.
                    drop(changes.send(change));
                };
                tell(Change::All);
                let mut pulse = tokio::time::interval(PULSE);
                loop {
                    tokio::select! {
                        message = stream.next() => match message {
                            Some(message) => {
                                let text = String::from_utf8_lossy(message.get_payload_bytes());
                                codec::read_changes(&text).into_iter().for_each(&mut tell);
                            }
                            None => break,
                        },
                        _ = pulse.tick() => {
                            let alive = timeout(CALL_DEADLINE, sink.ping::<::redis::Value>()).await;
                            if !matches!(alive, Ok(Ok(_))) {
                                break;
                            }
                        }
                    }
                }
                tracing::info!(channel = keys::CHANGES, "the scoreboard's changes broke off");
            }
            Ok(Err(why)) => tracing::debug!(%why, "cannot subscribe to the scoreboard's changes"),
            Err(_elapsed) => tracing::debug!("the scoreboard does not answer a subscription"),
        }
        failures = (failures + 1u32).min(10);
        tokio::time::sleep(backoff(failures)).await;
    }
}
