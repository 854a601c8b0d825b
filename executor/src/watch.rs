//! One run of an instance: probed until well and ever after, changed and paused as ordered.
//!
//! Our probe and the instance's own check (a container's HEALTHCHECK) both must be content. One that
//! does not answer our probe is started anew; one whose own check fails gets no requests until it
//! passes again, for as long as a start may take.

use crate::core::Order;
use crate::diff::needs_new_start;
use crate::engine::{OwnCheck, Running};
use crate::health;
use crate::operations::Outcome;
use crate::supervise::{End, Life, millis};
use domain::Mono;
use std::sync::Arc;
use std::time::Duration;
use wire::assignment::{RunState, Want};
use wire::operation::Verb;

/// An instance that does not answer is given this long to end by itself before it is killed.
const UNWELL_GRACE: Duration = Duration::from_secs(5);

/// One run as it is watched.
struct Watch {
    began: Mono,
    ready: bool,
    paused: bool,
    bad: u32,
    last_word: String,
    checked: bool,
    /// Was ready and is set aside by its own check; with how it ended before.
    aside: Option<Option<String>>,
}

/// What one look at an instance found.
enum Seen {
    Well,
    /// It did not answer our probe.
    Silent(String),
    /// Its own check is not content.
    Unwell(String),
    /// Its own check could not be read: what was, stays.
    Unknown(String),
}

impl Life {
    /// Watches a running instance to its end.
    pub(crate) async fn watch(&mut self, running: &Running) -> End {
        let engine = self.engine();
        let id = self.id.clone();
        let mut exit = engine.wait(&id, running);
        let mut now = Watch {
            began: self.core.clock.monotonic(),
            ready: self.was_ready,
            paused: self.want_done == Want::Paused,
            bad: 0,
            last_word: "it was not probed".to_owned(),
            checked: running.checked,
            aside: None,
        };
        loop {
            // Orders given while nobody listened, such as before a restart, are heeded first.
            if let Some(end) = self.heed(running, &mut now).await {
                return end;
            }
            let Some(pause) = self.pause(&now) else {
                self.stop(running).await;
                let limit = self.instance.start_deadline_ms;
                let since = if now.aside.is_some() { "being set aside" } else { "its start" };
                let why = format!("not well within {limit} ms of {since}: {}", now.last_word);
                return End::Failed(why, false);
            };
            let declared = self.instance.health.clone();
            let probe = async {
                tokio::time::sleep(pause).await;
                match health::probe(running.probe, &declared).await {
                    Ok(()) if !running.checked => Seen::Well,
                    Ok(()) => match engine.own_check(&id).await {
                        OwnCheck::Well => Seen::Well,
                        OwnCheck::Unwell(why) => Seen::Unwell(why),
                        OwnCheck::Unknown(why) => Seen::Unknown(why),
                    },
                    Err(why) => Seen::Silent(why),
                }
            };
            let result = tokio::select! {
                biased;
                ended = &mut exit => return End::Failed(ended.text, ended.permanent),
                changed = self.orders.changed() => match changed {
                    Ok(()) => continue,
                    // Its handle is gone: only at the executor's end.
                    Err(_closed) => return End::Asked,
                },
                result = probe, if !now.paused => result,
            };
            match result {
                Seen::Well => self.well(&mut now),
                Seen::Silent(why) => {
                    now.bad += 1;
                    now.last_word = why;
                    if now.ready && now.bad >= self.instance.health.failures.max(1) {
                        return self.unwell(running, now.last_word).await;
                    }
                }
                Seen::Unwell(why) if now.ready => self.set_aside(&mut now, why),
                // Docker itself counts failures in a row; ours are those of our probe.
                Seen::Unwell(why) | Seen::Unknown(why) => {
                    now.bad = if now.ready { 0 } else { now.bad.saturating_add(1) };
                    now.last_word = why;
                }
            }
        }
    }

    /// The pause before the next probe; `None`: the start has taken too long.
    fn pause(&self, now: &Watch) -> Option<Duration> {
        if now.ready || now.paused {
            return Some(health::ready_pause(&self.instance.health));
        }
        let since = self.core.clock.monotonic().since(now.began);
        let left = Duration::from_millis(self.instance.start_deadline_ms).checked_sub(since)?;
        // The first probe of a start comes at once.
        let pause =
            if now.bad == 0 { Duration::ZERO } else { health::start_pause(since).min(left) };
        // The engine is asked with each probe, and its checks are seconds apart.
        Some(if now.checked && now.bad > 0 { pause.max(health::INTERVAL_MIN) } else { pause })
    }

    fn well(&mut self, now: &mut Watch) {
        now.bad = 0;
        if now.ready {
            return;
        }
        now.ready = true;
        if let Some(exit) = now.aside.take() {
            self.exit = exit;
        } else {
            let took = self.core.clock.monotonic().since(now.began);
            let took = took + Duration::from_millis(self.spawn_ms.unwrap_or(0));
            self.ready_ms = Some(millis(took));
            self.core.metrics.became_ready(took);
        }
        self.was_ready = true;
        // Told before it is written: who waits for it waits for nothing else.
        self.tell(RunState::Ready);
        if let Err(error) = self.keep_record(true, None) {
            tracing::warn!(instance.id = %self.id, %error, "readiness is not on disk");
        }
    }

    /// Its own check fails: no requests until it passes, and no longer than a start may take.
    fn set_aside(&mut self, now: &mut Watch, why: String) {
        tracing::info!(instance.id = %self.id, %why, "an instance is set aside by its own check");
        now.aside = Some(self.exit.replace(format!("unwell: {why}")));
        (now.ready, now.bad, now.last_word) = (false, 1, why);
        now.began = self.core.clock.monotonic();
        self.was_ready = false;
        self.tell(RunState::Unwell);
        if let Err(error) = self.keep_record(false, None) {
            tracing::warn!(instance.id = %self.id, %error, "its state is not on disk");
        }
    }

    async fn unwell(&mut self, running: &Running, why: String) -> End {
        self.exit = Some(format!("unwell: {why}"));
        self.tell(RunState::Unwell);
        self.stop_within(running, UNWELL_GRACE).await;
        End::Failed(format!("it ran, but was unwell: {why}"), false)
    }

    /// Does what was ordered since the last look. `Some`: this run is over.
    async fn heed(&mut self, running: &Running, now: &mut Watch) -> Option<End> {
        let Order { instance, stop } = self.orders.borrow_and_update().clone();
        if stop {
            self.stop(running).await;
            return Some(End::Asked);
        }
        if needs_new_start(&self.instance, &instance) {
            self.stop(running).await;
            return Some(End::Replaced);
        }
        let old = std::mem::replace(&mut self.instance, instance);
        if old.limits != self.instance.limits {
            let began = self.core.clock.monotonic();
            let outcome = match self.engine().limit(&self.id, self.instance.limits).await {
                Ok(()) => Outcome::done(),
                Err(error) => Outcome::failed(error.text),
            };
            self.core.note(began, &self.id, Verb::Limit, outcome);
            self.core.node_file_due.notify_one();
        }
        // Frozen before it was well, it would never be.
        if self.instance.want != self.want_done && now.ready {
            self.become_wanted(now).await;
        }
        if !Arc::ptr_eq(&old, &self.instance)
            && let Err(error) = self.keep_record(self.was_ready, None)
        {
            tracing::warn!(instance.id = %self.id, %error, "a change is not on disk");
        }
        None
    }

    async fn become_wanted(&mut self, now: &mut Watch) {
        self.want_done = self.instance.want;
        match self.instance.want {
            Want::Paused => now.paused = self.freeze(true).await,
            Want::Running => now.paused = now.paused && !self.freeze(false).await,
            Want::Checkpointed => {
                let outcome = Outcome::failed(
                    "this executor writes no checkpoints yet; the instance goes on as it is",
                );
                self.core.note(self.core.clock.monotonic(), &self.id, Verb::Checkpoint, outcome);
            }
        }
    }

    async fn freeze(&mut self, frozen: bool) -> bool {
        let began = self.core.clock.monotonic();
        let result = self.engine().freeze(&self.id, frozen).await;
        let verb = if frozen { Verb::Pause } else { Verb::Resume };
        let ok = result.is_ok();
        let outcome = match result {
            Ok(()) => Outcome::done(),
            Err(error) => Outcome::failed(error.text),
        };
        self.core.note(began, &self.id, verb, outcome);
        if ok {
            // A thawed one is what it was before; the next probe says if it is not.
            let before = if self.was_ready { RunState::Ready } else { RunState::Starting };
            self.tell(if frozen { RunState::Paused } else { before });
        }
        ok
    }
}
