//! Follows the terms that agents changed: weights, bounds, and who takes nothing new.

use crate::Shared;
use crate::control::SharedWorld;
use chassis::Shutdown;
use scoreboard::Board;
use std::sync::Arc;
use std::time::Duration;

/// How often they are read: agents are asked every two seconds or so, and most services have none.
const READ_EVERY: Duration = Duration::from_millis(500);

/// Reads the terms until the shutdown starts. While the board is away the last ones stand, as routes
/// do.
pub async fn follow(
    board: Arc<dyn Board>,
    shared: Arc<Shared>,
    world: SharedWorld,
    shutdown: Shutdown,
) {
    let mut any_before = false;
    while !shutdown.has_started() {
        match board.terms().await {
            Ok(terms) => {
                let any = !terms.is_empty();
                // Instances may have come since, so that the same terms are taken again.
                if any || any_before {
                    world.lock().take_terms(&terms, shared.clock.monotonic());
                }
                any_before = any;
            }
            Err(error) => tracing::debug!(%error, "the terms of instances cannot be read"),
        }
        tokio::select! {
            () = shutdown.started() => return,
            () = tokio::time::sleep(READ_EVERY) => {}
        }
    }
}
