//! One instance's life: taken over or started, restarted, given up, forgotten.

use crate::core::{Core, Order, Runs};
use crate::diff::needs_new_start;
use crate::engine::{Engine, Found, Running, Start};
use crate::error::EngineError;
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

/// How one run of an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
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
    pub(crate) restarts: u32,
    pub(crate) exit: Option<String>,
    pub(crate) spawn_ms: Option<u64>,
    pub(crate) ready_ms: Option<u64>,
    pub(crate) was_ready: bool,
    pub(crate) want_done: Want,
}

/// Runs an instance until it is no longer wanted. `record` is what a former executor wrote. What
/// that left running is told before this returns, so that no inventory ever lacks it.
pub(crate) fn supervise(
    core: Arc<Core>,
    orders: watch::Receiver<Order>,
    record: Option<Record>,
    found: Option<Found>,
) -> impl Future<Output = ()> + Send + 'static {
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
    if found.as_ref().is_some_and(|f| f.whole) && life.was_ready {
        let paused = life.want_done == Want::Paused;
        life.tell(if paused { RunState::Paused } else { RunState::Ready });
    }
    async move {
        // When the executor ends, its instances go on without it.
        tokio::select! {
            () = shutdown.started() => {}
            () = life.live(found) => {}
        }
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

    pub(crate) fn keep_record(
        &self,
        ready: bool,
        failed: Option<String>,
    ) -> Result<(), EngineError> {
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
        // Never closed; waiting for a turn is not counted against the start's deadline.
        let _turn = self.core.starting.acquire().await;
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

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
