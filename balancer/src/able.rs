//! Says on the board what this balancer can do and what it cannot serve as declared.

use crate::Shared;
use chassis::{Shutdown, periodic};
use domain::Ability;
use scoreboard::Board;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// News are told within this.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// And everything again after this: an emptied board knows it soon.
const TELL_EVERY: u32 = 8;

#[derive(Default)]
struct Told {
    ability: Option<Ability>,
    looks: u32,
}

/// Tells until the shutdown starts.
pub async fn tell(board: Arc<dyn Board>, shared: Arc<Shared>, shutdown: Shutdown) {
    let told: Mutex<Told> = Mutex::default();
    let step = |_woke| async {
        let ability = Ability { nat_lacks: shared.nat.lacks(), troubles: shared.troubles() };
        {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            told.looks += 1;
            if told.ability.as_ref() == Some(&ability) && told.looks < TELL_EVERY {
                return;
            }
            told.looks = 0;
            told.ability = Some(ability.clone());
        }
        if let Err(error) = board.write_ability(&shared.id, &ability).await {
            tracing::debug!(%error, "what this balancer can do was not written");
            told.lock().unwrap_or_else(PoisonError::into_inner).ability = None;
        }
    };
    periodic::run(LOOK_EVERY, &shared.able_nudge, &shutdown, step).await;
}
