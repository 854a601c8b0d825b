//! Health checks: every instance, however it was discovered, is asked by this balancer whether it is
//! there for it.

use crate::control::SharedWorld;
use crate::view::Instance;
use crate::{Shared, ask};
use chassis::{Shutdown, dial};
use domain::{Health, Mono, ServiceName};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked who is due: so many times in the shortest interval, as looking wakes a
/// processor that others may be using.
const LOOKS_PER_INTERVAL: u32 = 8;
/// See [`LOOKS_PER_INTERVAL`].
const LOOK_MAX: Duration = Duration::from_millis(250);
/// Checks under way at most: a thousand instances that time out must not take all descriptors.
pub const CHECKS_AT_ONCE: usize = 128;
/// No instance is checked more often, whatever was declared.
pub const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// A check has at least so long.
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// Intervals are drawn from this far to either side, so that balancers do not come all at once.
pub const JITTER: f64 = 0.1;

/// What is known of an instance by checks.
#[derive(Debug, Default)]
pub struct Check {
    /// It failed as many in a row as were declared.
    pub unwell: bool,
    /// Failures in a row.
    pub failures: u32,
    /// When the next one is due; `None` before the first was planned.
    pub due: Option<Mono>,
    /// Requests it had answered at the last one.
    pub answered: u64,
    /// One is under way.
    pub under_way: bool,
}

/// A check to be made.
pub struct Due {
    /// The instance's service.
    pub service: ServiceName,
    /// Whom to ask.
    pub instance: Arc<Instance>,
    /// How.
    pub health: Health,
}

/// How it went.
pub struct Checked {
    /// The instance's service.
    pub service: ServiceName,
    /// Who was asked.
    pub instance: Arc<Instance>,
    /// Whether it is well; `None`: the check could not be made.
    pub well: Option<bool>,
}

/// Until it is looked again who is due; `shortest`: of all services' intervals.
fn pause(shortest: Option<Duration>) -> Duration {
    shortest.map_or(LOOK_MAX, |s| (s.max(INTERVAL_MIN) / LOOKS_PER_INTERVAL).min(LOOK_MAX))
}

async fn check(due: Due) -> Checked {
    let Due { service, instance, health } = due;
    let outcome = ask_once(&instance, &health).await;
    if let Err(error) = &outcome {
        tracing::debug!(instance = %instance.id, %error, "a health check failed");
    }
    let well = match outcome {
        Ok(well) => Some(well),
        Err(error) => (!dial::is_our_lack(&error)).then_some(false),
    };
    Checked { service, well, instance }
}

async fn ask_once(instance: &Instance, health: &Health) -> std::io::Result<bool> {
    let limit = health.timeout.max(TIMEOUT_MIN);
    let line = ask::connect(instance.address, limit).await?;
    let Some(path) = &health.path else { return Ok(true) };
    let heard = line.get(&instance.address.to_string(), path, false, limit).await?;
    Ok((200..400).contains(&heard.status))
}

/// Checks until the shutdown starts.
pub async fn watch(shared: Arc<Shared>, world: SharedWorld, shutdown: Shutdown) {
    let mut under_way = FuturesUnordered::new();
    let mut look = Instant::now();
    loop {
        tokio::select! {
            () = shutdown.started() => return,
            () = tokio::time::sleep_until(look) => {
                let free = CHECKS_AT_ONCE.saturating_sub(under_way.len());
                let (due, shortest) = {
                    let mut world = world.lock();
                    let due = world.due_checks(free, shared.clock.monotonic());
                    (due, world.shortest_interval())
                };
                under_way.extend(due.into_iter().map(check));
                look = Instant::now() + pause(shortest);
            }
            Some(checked) = under_way.next(), if !under_way.is_empty() => {
                world.lock().checked(&checked, shared.clock.monotonic());
            }
        }
    }
}
