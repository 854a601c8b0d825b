//! One shutdown tree per process: who is told to end, and who is waited for.

use std::future::Future;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A branch of the shutdown tree. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// A new root.
    #[must_use]
    pub fn new() -> Shutdown {
        Shutdown::default()
    }

    /// A branch that ends with its parent, but can end before it; its tasks are its own.
    #[must_use]
    pub fn branch(&self) -> Shutdown {
        Shutdown { token: self.token.child_token(), tasks: TaskTracker::new() }
    }

    /// Tells everybody on this branch to end.
    pub fn start(&self) {
        self.token.cancel();
    }

    /// Whether the end has been told.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Ends when the end has been told.
    pub async fn started(&self) {
        self.token.cancelled().await;
    }

    /// Spawns a task that [`Shutdown::finished`] waits for. The task itself must watch `started`.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Waits for the branch's tasks, at most `grace`. `false`: some were still running.
    pub async fn finished(&self, grace: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }

    /// Starts the shutdown at the first SIGTERM, SIGINT or SIGHUP; answers the signal's name.
    ///
    /// # Errors
    /// When the process may not set signal handlers.
    pub async fn on_signal(&self) -> std::io::Result<&'static str> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut hup = signal(SignalKind::hangup())?;
        // Each arm only receives: nothing is lost when another one wins.
        let name = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
            _ = hup.recv() => "SIGHUP",
            () = self.started() => "shutdown",
        };
        self.start();
        Ok(name)
    }
}
