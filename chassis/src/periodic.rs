//! Loops that wake by a beat or a nudge, one step at a time.

use crate::shutdown::Shutdown;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Wakes a loop. Nudges carry no facts and merge: many before a step are one.
#[derive(Debug, Clone, Default)]
pub struct Nudge(Arc<Notify>);

impl Nudge {
    /// A new one.
    #[must_use]
    pub fn new() -> Nudge {
        Nudge::default()
    }

    /// Wakes the loop, now or as soon as its present step ends.
    pub fn nudge(&self) {
        self.0.notify_one();
    }

    /// Ends at the next nudge, or at once when one is pending.
    pub async fn nudged(&self) {
        self.0.notified().await;
    }
}

/// What woke a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woke {
    /// The loop began.
    Start,
    /// Time passed.
    Beat,
    /// Somebody nudged.
    Nudge,
}

/// Runs `step` at the start, at every beat and at every nudge, never twice at once, until the
/// shutdown starts; the step in hand is finished.
pub async fn run<S, F>(beat: Duration, nudge: &Nudge, shutdown: &Shutdown, mut step: S)
where
    S: FnMut(Woke) -> F,
    F: Future<Output = ()>,
{
    let mut woke = Woke::Start;
    while !shutdown.has_started() {
        step(woke).await;
        // All three arms may be dropped freely: a pending nudge stays pending in `Notify`.
        woke = tokio::select! {
            () = shutdown.started() => return,
            () = nudge.nudged() => Woke::Nudge,
            () = tokio::time::sleep(beat) => Woke::Beat,
        };
    }
}
