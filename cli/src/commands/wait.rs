//! Waiting until an applied service stands: ready instances of its revision, up to its minimum.

use crate::client::{Api, Failure, encode};
use crate::show::Progress;
use serde_json::Value;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Between looks: quick enough that waiting feels immediate, rare enough to cost the API nothing.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How a service stands against what was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// As applied.
    Satisfied,
    /// Not yet, in words.
    Waiting(String),
}

/// Waits until `min` instances of `revision` (or a newer one) are ready.
///
/// # Errors
/// `Unsatisfied` after `limit`, saying what it waits for; `Unreachable` when the API was away then.
pub async fn service(
    api: &Api,
    name: &str,
    min: u64,
    revision: u64,
    limit: Duration,
) -> Result<(), Failure> {
    let mut progress = Progress::default();
    let mut last: Result<String, Failure> = Ok(String::new());
    let wait = async {
        let mut beat = interval(LOOK_EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            match look(api, name, min, revision).await {
                Ok(Standing::Satisfied) => return Ok(()),
                Ok(Standing::Waiting(words)) => {
                    progress.show(&format!("{name}: {words}"));
                    last = Ok(words);
                }
                // A manager that restarts is away for a moment: that is what waiting is for.
                Err(away @ Failure::Unreachable(_)) => {
                    progress.show(&format!("{name}: {away}"));
                    last = Err(away);
                }
                Err(failure) => return Err(failure),
            }
        }
    };
    let waited = timeout(limit, wait).await;
    progress.end();
    match waited {
        Ok(ended) => ended,
        Err(_elapsed) => Err(match last {
            Ok(words) => Failure::Unsatisfied(format!(
                "service {name} was accepted, but after {} it is not satisfied: {words}; see \
                 `tally explain service {name}`",
                domain::units::show_duration(limit)
            )),
            Err(away) => away,
        }),
    }
}

async fn look(api: &Api, name: &str, min: u64, revision: u64) -> Result<Standing, Failure> {
    let path = format!("/v1/services/{}", encode(name));
    let body = api.get(&path).await?;
    let number = |pointer: &str| body.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let mut ready = number("/state/ready");
    if ready >= min && min > 0 {
        // Ready instances may still be those of the revision before.
        let instances = api.list(&format!("{path}/instances")).await?;
        let current = |i: &Value| {
            i.get("state").and_then(Value::as_str) == Some("ready")
                && i.get("revision").and_then(Value::as_u64).is_none_or(|r| r >= revision)
        };
        let items = instances.get("items").and_then(Value::as_array);
        let count = items.map_or(0, |items| items.iter().filter(|i| current(i)).count());
        ready = u64::try_from(count).unwrap_or(u64::MAX);
    }
    if ready >= min {
        return Ok(Standing::Satisfied);
    }
    let mut words = format!("{ready} of {min} ready, {} starting", number("/state/starting"));
    if let Some(cause) = body.pointer("/state/waiting_for").and_then(Value::as_str) {
        words = format!("{words}, waits for {}", crate::show::printable(cause));
    }
    Ok(Standing::Waiting(words))
}
