//! One instance's life: started or taken over, watched, restarted, paused, stopped, forgotten.

use crate::core::{Core, Order, Runs};
use crate::diff::needs_new_start;
use crate::engine::{Engine, Found, Running, Start};
use crate::error::EngineError;
use crate::health;
use crate::metrics;
use crate::operations::Outcome;
use crate::store::Record;
use domain::{InstanceId, Mono};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wire::assignment::{AssignedInstance, InstanceSeen, RunState, Want};
use wire::operation::Verb;

/// After this many failures the executor gives up and lets the manager decide.
pub const FAILURES_MAX: usize = 3;
/// Failures older than this do not count.
pub const FAILURES_SPAN: Duration = Duration::from_secs(300);
/// The first pause before a restart; it doubles.
const RESTART_PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause before a restart.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);
/// An instance that does not answer is given this long to end by itself before it is killed.
const UNWELL_GRACE: Duration = Duration::from_secs(5);

/// How one run of an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// Because it was told to; it has been stopped.
    Asked,
    /// It was told to be something that needs a new start; it has been stopped.
    Replaced,
    /// By itself or because it was not well. With why, and whether trying again is pointless.
    Failed(String, bool),
}

/// The task of one instance.
pub(crate) struct Life {
    pub(crate) core: Arc<Core>,
    pub(crate) id: InstanceId,
    pub(crate) orders: watch::Receiver<Order>,
    pub(crate) instance: Arc<AssignedInstance>,
    pub(crate) port: u16,
    failures: VecDeque<Mono>,
    restarts: u32,
    exit: Option<String>,
    spawn_ms: Option<u64>,
    ready_ms: Option<u64>,
    was_ready: bool,
    want_done: Want,
}

/// One run as it is watched.
struct Watch {
    began: Mono,
    ready: bool,
    paused: bool,
    bad: u32,
    last_word: String,
}

/// Runs an instance until it is no longer wanted. `record` is what a former executor wrote.
pub(crate) async fn supervise(
    core: Arc<Core>,
    orders: watch::Receiver<Order>,
    record: Option<Record>,
    found: Option<Found>,
) {
    // What runs is what was recorded; what is ordered may differ, and is heeded as a change.
    let instance = match &record {
        Some(record) if found.is_some() => Arc::new(record.instance.clone()),
        _ => Arc::clone(&orders.borrow().instance),
    };
    let id = instance.id.clone();
    let shutdown = core.shutdown.clone();
    let mut life = Life {
        core,
        id,
        orders,
        want_done: if found.is_some() { instance.want } else { Want::Running },
        instance,
        port: record.as_ref().map_or(0, |r| r.port),
        failures: VecDeque::new(),
        restarts: record.as_ref().map_or(0, |r| r.restarts),
        exit: record.as_ref().and_then(|r| r.failed.clone()),
        spawn_ms: None,
        ready_ms: None,
        was_ready: record.as_ref().is_some_and(|r| r.ready),
    };
    if life.port != 0 {
        life.core.claim_port(life.port);
    }
    // When the executor ends, its instances go on without it.
    tokio::select! {
        () = shutdown.started() => {}
        () = life.live(found) => {}
    }
}

impl Life {
    async fn live(&mut self, found: Option<Found>) {
        let gave_up = self.exit.is_some();
        let known_before = self.port != 0;
        let mut adopted = self.take_over(found).await;
        if gave_up && adopted.is_none() {
            self.wait_failed().await;
        } else if known_before && adopted.is_none() && !self.stop_asked() {
            self.restarts += 1;
            self.exit = Some("it ended while the executor was away".to_owned());
        }
        loop {
            if !self.stop_asked() {
                let end = match adopted.take() {
                    Some(running) => self.run(running).await,
                    None => match self.start().await {
                        Ok(running) => self.run(running).await,
                        Err(error) => End::Failed(error.text, error.permanent),
                    },
                };
                match end {
                    End::Failed(why, permanent) => self.after_failure(why, permanent).await,
                    End::Replaced => self.engine().clear(&self.id).await,
                    End::Asked => {}
                }
            } else if let Some(running) = adopted.take() {
                self.stop(&running).await;
            }
            if self.stop_asked() && self.forget().await {
                return;
            }
        }
    }

    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        Arc::clone(self.core.engines.of(self.instance.engine))
    }

    pub(crate) fn stop_asked(&self) -> bool {
        self.orders.borrow().stop
    }

    /// What the engine needs to know.
    pub(crate) fn start_of<'a>(&self, instance: &'a AssignedInstance) -> Start<'a> {
        Start { instance, port: self.port, env: self.core.tally_env(instance) }
    }

    /// Takes over what a former executor left running; what cannot be is ended first.
    async fn take_over(&mut self, found: Option<Found>) -> Option<Running> {
        let Found { running, whole } = found?;
        if whole && self.port != 0 {
            let began = self.core.clock.monotonic();
            self.core.note(began, &self.id, Verb::Adopt, Outcome::done());
            return Some(running);
        }
        let began = self.core.clock.monotonic();
        let outcome = match self.engine().kill(&self.id, &running).await {
            Ok(()) => Outcome::done(),
            Err(error) => Outcome::failed(error.text),
        };
        self.core.note(began, &self.id, Verb::StopStray, outcome);
        None
    }

    /// Tells where it stands.
    pub(crate) fn tell(&self, state: RunState) {
        tracing::debug!(instance.id = %self.id, ?state, exit = ?self.exit, "an instance changed");
        self.core.board.tell(InstanceSeen {
            instance: self.id.clone(),
            state,
            address: Some(self.core.config.address).filter(|_| self.port != 0),
            port: Some(self.port).filter(|p| *p != 0),
            exit: self.exit.clone(),
            restarts: self.restarts,
            spawn_ms: self.spawn_ms,
            ready_ms: self.ready_ms,
        });
    }

    fn keep_record(&self, ready: bool, failed: Option<String>) -> Result<(), EngineError> {
        let record = Record {
            instance: (*self.instance).clone(),
            port: self.port,
            ready,
            restarts: self.restarts,
            failed,
        };
        self.core.store.keep_record(&record).map_err(|e| {
            EngineError::fleeting(format!("cannot write its record on the node's disk: {e}"))
        })
    }

    async fn start(&mut self) -> Result<Running, EngineError> {
        let began = self.core.clock.monotonic();
        self.instance = Arc::clone(&self.orders.borrow_and_update().instance);
        self.was_ready = false;
        self.want_done = Want::Running;
        self.spawn_ms = None;
        self.ready_ms = None;
        let started = self.start_inner().await;
        let outcome = match &started {
            Ok(_) => Outcome::done(),
            Err(error) => Outcome::failed(error.text.clone()),
        };
        let took = self.core.clock.monotonic().since(began);
        self.core.note(began, &self.id, Verb::Start, outcome);
        if started.is_ok() {
            self.spawn_ms = Some(millis(took));
            self.core.metrics.spawn.observe(took.as_secs_f64());
        } else {
            self.core.metrics.started(metrics::Result::Failed);
        }
        started
    }

    async fn start_inner(&mut self) -> Result<Running, EngineError> {
        // A restart keeps its port, so that routes stay right; unless somebody else took it.
        if self.port != 0 && !self.core.port_is_free(self.port) {
            self.core.free_port(self.port);
            self.port = 0;
        }
        if self.port == 0 {
            self.port = self.core.take_port().ok_or_else(|| {
                EngineError::fleeting("no port of executor.ports is free; widen the range")
            })?;
        }
        self.keep_record(false, None)?;
        self.tell(RunState::Starting);
        let instance = Arc::clone(&self.instance);
        let limit = Duration::from_millis(self.instance.start_deadline_ms);
        let engine = self.engine();
        let start = self.start_of(&instance);
        let Ok(started) = tokio::time::timeout(limit, engine.start(&start)).await else {
            engine.clear(&self.id).await;
            return Err(EngineError::fleeting(format!("not started within {limit:?}")));
        };
        started
    }

    /// Watches a running instance to its end.
    async fn run(&mut self, running: Running) -> End {
        self.core.say_missing(&running.missing, &self.id);
        let runs = Runs { cgroups: running.cgroups.clone(), pid: running.pid };
        self.core.set_runs(&self.id, Some(runs));
        let end = self.watch(&running).await;
        self.core.set_runs(&self.id, None);
        end
    }

    async fn watch(&mut self, running: &Running) -> End {
        let engine = self.engine();
        let id = self.id.clone();
        let mut exit = engine.wait(&id, running);
        let mut now = Watch {
            began: self.core.clock.monotonic(),
            ready: self.was_ready,
            paused: self.want_done == Want::Paused,
            bad: 0,
            last_word: "it was not probed".to_owned(),
        };
        if now.ready && !now.paused {
            self.tell(RunState::Ready);
        }
        loop {
            // Orders given while nobody listened, such as before a restart, are heeded first.
            if let Some(end) = self.heed(running, &mut now).await {
                return end;
            }
            let Some(pause) = self.pause(&now) else {
                self.stop(running).await;
                let limit = self.instance.start_deadline_ms;
                let why = format!("not well within {limit} ms of its start: {}", now.last_word);
                return End::Failed(why, false);
            };
            let declared = self.instance.health.clone();
            let probe = async {
                tokio::time::sleep(pause).await;
                health::probe(running.probe, &declared).await
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
            if let Err(why) = result {
                now.bad += 1;
                now.last_word = why;
                if now.ready && now.bad >= self.instance.health.failures.max(1) {
                    return self.unwell(running, now.last_word).await;
                }
            } else {
                self.well(&mut now);
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
        Some(if now.bad == 0 { Duration::ZERO } else { health::start_pause(since).min(left) })
    }

    fn well(&mut self, now: &mut Watch) {
        now.bad = 0;
        if now.ready {
            return;
        }
        now.ready = true;
        let took = self.core.clock.monotonic().since(now.began);
        let took = took + Duration::from_millis(self.spawn_ms.unwrap_or(0));
        self.ready_ms = Some(millis(took));
        self.core.metrics.became_ready(took);
        self.was_ready = true;
        // Told before it is written: who waits for it waits for nothing else.
        self.tell(RunState::Ready);
        if let Err(error) = self.keep_record(true, None) {
            tracing::warn!(instance.id = %self.id, %error, "readiness is not on disk");
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

    /// Pauses before the next start, or gives up.
    async fn after_failure(&mut self, why: String, permanent: bool) {
        let now = self.core.clock.monotonic();
        self.failures.push_back(now);
        self.failures.retain(|at| now.since(*at) < FAILURES_SPAN);
        self.exit = Some(why.clone());
        self.was_ready = false;
        if permanent || !self.instance.restart || self.failures.len() >= FAILURES_MAX {
            tracing::info!(instance.id = %self.id, %why, "an instance failed for good");
            if let Err(error) = self.keep_record(false, Some(why)) {
                tracing::warn!(instance.id = %self.id, %error, "a failure is not on disk");
            }
            self.wait_failed().await;
            return;
        }
        self.restarts += 1;
        self.core.metrics.restarts.inc();
        tracing::info!(instance.id = %self.id, %why, "an instance is restarted");
        self.tell(RunState::Restarting);
        let doublings = u32::try_from(self.failures.len() - 1).unwrap_or(0);
        let pause = RESTART_PAUSE_FIRST * 2_u32.saturating_pow(doublings);
        let until_asked = self.orders.wait_for(|order| order.stop);
        let _either_way = tokio::time::timeout(pause.min(RESTART_PAUSE_MAX), until_asked).await;
    }

    /// Gave up: holds no port, and waits to be told to go or to be something else.
    async fn wait_failed(&mut self) {
        if self.port != 0 {
            self.core.free_port(self.port);
            self.port = 0;
        }
        self.tell(RunState::Failed);
        let tried = Arc::clone(&self.instance);
        let other = |order: &Order| order.stop || needs_new_start(&tried, &order.instance);
        if self.orders.wait_for(other).await.is_ok() {
            self.failures.clear();
        }
    }

    /// Removes every trace. `false`: it is wanted again after all.
    async fn forget(&mut self) -> bool {
        self.engine().clear(&self.id).await;
        if self.port != 0 {
            self.core.free_port(self.port);
            self.port = 0;
        }
        {
            // Under the lock by which orders are given, so that none is lost in between.
            let mut instances = self.core.instances();
            if !self.stop_asked() {
                return false;
            }
            self.core.store.forget(&self.id);
            instances.remove(&self.id);
            self.core.metrics.instances.set(i64::try_from(instances.len()).unwrap_or(i64::MAX));
        }
        self.tell(RunState::Stopped);
        self.core.node_file_due.notify_one();
        true
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
