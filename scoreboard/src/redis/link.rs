//! One connection for commands: made when first needed, dropped when it fails, made anew with
//! back-off.

use super::origin::Origin;
use super::scripts::Scripts;
use crate::board::BoardError;
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, ErrorKind, FromRedisValue};
use ::redis::{Pipeline, RedisError, ServerErrorKind};
use domain::{Clock, Mono};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// A call that changes or reads one thing must be done by then: ten times what a slow network
/// needs, short enough that a role's beat is not held up.
pub const CALL_DEADLINE: Duration = Duration::from_secs(1);
/// A read of everything: thousands of services in several pipelines.
pub const READ_DEADLINE: Duration = Duration::from_secs(3);
/// Making a connection; less than a call's deadline, so that the call can say what failed.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_millis(800);
/// First pause after a failed attempt; doubled up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause: the board is noticed within a second of its return.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

pub(super) fn unreachable_board(doing: &'static str, source: RedisError) -> BoardError {
    BoardError::Unreachable { doing, source: Box::new(source) }
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
    /// Where it leads.
    to: String,
    /// Counts connections, so that a late failure of an old one does not end the present one.
    number: u64,
    failures: u32,
    next_attempt: Mono,
    last_failure: String,
}

/// The connection for commands.
pub(super) struct Link {
    origin: Origin,
    clock: Arc<dyn Clock>,
    scripts: Arc<Scripts>,
    state: Mutex<State>,
}

/// A connection in hand, and which one it is.
pub(super) struct Live(pub(super) MultiplexedConnection, u64);

impl Live {
    /// Which connection it is.
    pub(super) fn number(&self) -> u64 {
        self.1
    }
}

pub(super) fn backoff(failures: u32) -> Duration {
    BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX)
}

/// Whether a connection is of no use after this: it broke, or it leads to a server that takes no
/// writes (any more).
fn ends_connection(why: &RedisError) -> bool {
    let wrong_server = matches!(
        why.kind(),
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
    );
    wrong_server || why.is_unrecoverable_error() || why.is_io_error()
}

impl Link {
    pub(super) fn new(origin: Origin, clock: Arc<dyn Clock>, scripts: Arc<Scripts>) -> Link {
        Link { origin, clock, scripts, state: Mutex::default() }
    }

    /// Where it leads.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The present connection, or a new one. Only one attempt at a time; others wait for it.
    pub(super) async fn connection(&self, doing: &'static str) -> Result<Live, BoardError> {
        let mut state = self.state.lock().await;
        if let Some(live) = &state.live {
            return Ok(Live(live.clone(), state.number));
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
            let client = self.origin.server().await?;
            let to = client.get_connection_info().addr().to_string();
            let mut live = client.get_multiplexed_async_connection_with_config(&settings).await?;
            self.origin.greet(&mut live).await?;
            self.scripts.load().exec_async(&mut live).await?;
            Ok::<_, RedisError>((live, to))
        };
        let outcome = timeout(CONNECT_DEADLINE, attempt).await;
        state.next_attempt = self.clock.monotonic().plus(backoff(state.failures));
        match outcome {
            Ok(Ok((live, to))) => {
                state.failures = 0;
                state.number += 1;
                state.live = Some(live.clone());
                state.to = to;
                Ok(Live(live, state.number))
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

    /// Ends a connection that leads elsewhere than `to`.
    pub(super) async fn only_to(&self, to: &str) {
        let mut state = self.state.lock().await;
        if state.live.is_some() && state.to != to {
            tracing::info!(from = state.to, to, "the scoreboard is elsewhere now");
            state.live = None;
        }
    }

    async fn drop_connection(&self, number: u64) {
        let mut state = self.state.lock().await;
        if state.number == number {
            state.live = None;
        }
    }

    /// One pipeline on a connection in hand. Scripts that Redis forgot are loaded again, once.
    pub(super) async fn query<T: FromRedisValue>(
        &self,
        live: &mut Live,
        pipe: &Pipeline,
        doing: &'static str,
    ) -> Result<T, BoardError> {
        let mut outcome = pipe.query_async(&mut live.0).await;
        if let Err(why) = &outcome
            && why.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
        {
            let loaded = self.scripts.load().exec_async(&mut live.0).await;
            outcome = match loaded {
                Ok(()) => pipe.query_async(&mut live.0).await,
                Err(why) => Err(why),
            };
        }
        if let Err(why) = &outcome
            && ends_connection(why)
        {
            self.drop_connection(live.1).await;
        }
        outcome.map_err(|source| unreachable_board(doing, source))
    }

    /// Does `work` within `limit`; a connection that does not answer is given up: a new one may
    /// reach a new server.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        doing: &'static str,
        work: impl Future<Output = Result<T, BoardError>>,
    ) -> Result<T, BoardError> {
        match timeout(limit, work).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                let mut state = self.state.lock().await;
                state.live = None;
                state.next_attempt = self.clock.monotonic().plus(BACKOFF_MIN);
                Err(BoardError::Deadline { doing, limit })
            }
        }
    }

    /// Sends `pipe` and reads its answers, all within `limit`.
    pub(super) async fn send<T: FromRedisValue>(
        &self,
        pipe: &Pipeline,
        doing: &'static str,
        limit: Duration,
    ) -> Result<T, BoardError> {
        let whole = async {
            let mut live = self.connection(doing).await?;
            self.query(&mut live, pipe, doing).await
        };
        self.within(limit, doing, whole).await
    }
}
