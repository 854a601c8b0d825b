//! How an instance is ended: its own stop command, then SIGTERM, then SIGKILL of all of it.

use crate::engine::Running;
use crate::operations::Outcome;
use crate::supervise::Life;
use domain::Mono;
use std::sync::Arc;
use std::time::Duration;
use wire::assignment::RunState;
use wire::operation::Verb;

/// Longest time anything gets to end by itself, whatever was declared: a stop must end.
pub const DRAIN_MAX: Duration = Duration::from_secs(3600);

impl Life {
    /// Ends a run: nothing of it is left when this returns.
    pub(crate) async fn stop(&mut self, running: &Running) {
        self.tell(RunState::Stopping);
        let grace = Duration::from_millis(self.instance.drain_deadline_ms).min(DRAIN_MAX);
        self.stop_within(running, grace).await;
    }

    /// The same with `grace` from the stop command to SIGKILL. Half of it belongs to the stop
    /// command and what that sets going; SIGTERM follows at once where there is none or it fails.
    pub(crate) async fn stop_within(&mut self, running: &Running, grace: Duration) {
        let began = self.core.clock.monotonic();
        let engine = self.engine();
        let _not_frozen = match self.instance.want {
            wire::assignment::Want::Running => Ok(()),
            wire::assignment::Want::Paused | wire::assignment::Want::Checkpointed => {
                engine.freeze(&self.id, false).await
            }
        };
        if !self.instance.run.stop_command.is_empty()
            && self.run_stop_command(running, grace / 2).await
            && self.ended_within(running, self.left(began, grace / 2)).await
        {
            self.finish(running, began, "by its stop command").await;
            return;
        }
        // It may have ended meanwhile; then there is nobody to ask.
        let _gone = engine.terminate(&self.id, running).await;
        if self.ended_within(running, self.left(began, grace)).await {
            self.finish(running, began, "after SIGTERM").await;
        } else {
            self.finish(running, began, "by SIGKILL, as it did not end in time").await;
        }
    }

    fn left(&self, began: Mono, of: Duration) -> Duration {
        of.saturating_sub(self.core.clock.monotonic().since(began))
    }

    async fn ended_within(&self, running: &Running, limit: Duration) -> bool {
        let engine = self.engine();
        tokio::time::timeout(limit, engine.wait(&self.id, running)).await.is_ok()
    }

    /// `true`: the command was run and says that it worked.
    async fn run_stop_command(&mut self, running: &Running, limit: Duration) -> bool {
        let began = self.core.clock.monotonic();
        let instance = Arc::clone(&self.instance);
        let start = self.start_of(&instance);
        let argv = &instance.run.stop_command;
        let end = self.engine().stop_command(&start, running, argv, limit).await;
        let ok = end.code == Some(0);
        let outcome = Outcome { ok, exit_status: end.code, output: end.output };
        self.core.note(began, &self.id, Verb::StopCommand, outcome);
        ok
    }

    async fn finish(&mut self, running: &Running, began: Mono, how: &str) {
        // Also after a proper end: what it left in the background goes as well.
        let outcome = match self.engine().kill(&self.id, running).await {
            Ok(()) => Outcome { ok: true, output: format!("ended {how}"), ..Outcome::default() },
            Err(error) => Outcome::failed(error.text),
        };
        self.core.note(began, &self.id, Verb::Stop, outcome);
    }
}
