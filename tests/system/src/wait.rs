//! Waiting for a level: again and again until it is so, or something hangs.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

/// A story that has not moved on after this hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(25);

/// Looks until `look` answers something.
///
/// # Panics
/// When it does not within [`PATIENCE`], telling what was awaited and the last word of `look`.
pub async fn until<T, E, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(why) if tokio::time::Instant::now() >= deadline => {
                panic!("{what} did not come within {PATIENCE:?}: {why:?}")
            }
            Err(_not_yet) => tokio::time::sleep(LOOK).await,
        }
    }
}
