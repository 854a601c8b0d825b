//! Waiting for a level: again and again until it is so, or something hangs.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

/// Nothing here takes this long unless it never comes.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Looks until `look` answers something.
///
/// # Panics
/// When it does not within [`PATIENCE`], telling what was awaited and the last word of `look`.
pub async fn until<T, E, F>(what: &str, look: impl FnMut() -> F) -> T
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    until_within(PATIENCE, what, look).await
}

/// The same with a patience of its own.
///
/// # Panics
/// As [`until`].
pub async fn until_within<T, E, F>(patience: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(why) if tokio::time::Instant::now() >= deadline => {
                panic!("{what} did not come within {patience:?}: {why:?}")
            }
            Err(_not_yet) => tokio::time::sleep(LOOK).await,
        }
    }
}
