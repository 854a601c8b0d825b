//! Reads what the other balancers have in flight, as long as there are others.

use crate::Shared;
use crate::control::SharedWorld;
use chassis::Shutdown;
use scoreboard::Board;
use std::sync::Arc;
use std::time::Duration;

/// How often: as often as each of them tells.
const READ_EVERY: Duration = crate::demand::TELL_EVERY;
/// After a reading the board is left alone for so many times as long as the reading took, so that
/// a fleet of balancers with many services does not keep it busy.
const REST_PER_READ: u32 = 9;

/// Follows them until the shutdown starts. What was read last stays in use while the board is
/// away, and fades.
pub async fn follow(
    board: Arc<dyn Board>,
    shared: Arc<Shared>,
    world: SharedWorld,
    shutdown: Shutdown,
) {
    let mut rest = READ_EVERY;
    let mut knew_others = false;
    while !shutdown.has_started() {
        tokio::select! {
            () = shutdown.started() => return,
            () = tokio::time::sleep(rest) => {}
        }
        rest = READ_EVERY;
        let began = shared.clock.monotonic();
        let others = world.lock().balancers(began) > 1;
        // The last of them left: what they had in flight is taken back once.
        if !others && !std::mem::take(&mut knew_others) {
            continue;
        }
        match board.demand().await {
            Ok(demand) => {
                knew_others = others;
                let now = shared.clock.monotonic();
                world.lock().take_demand(&shared, &demand, now);
                rest = rest.max(now.since(began).saturating_mul(REST_PER_READ));
            }
            Err(error) => tracing::debug!(%error, "the others' demand was not read"),
        }
    }
}
