//! One step of the loop: observe, plan, ask for places, check, commit, act, tell.

use crate::assignment::LoadEnds;
use crate::executors::ExecutorAt;
use crate::link::{Links, Running};
use crate::placements::Placements;
use crate::status::Status;
use crate::world::Shared;
use crate::{act, observe, places};
use chassis::telemetry::Chain;
use chassis::{Halt, Identity, Shutdown, Woke};
use container_planner::{Grant, Memory, Plan, Policy, Snapshot, WaitWhy, Waiting, check, plan};
use domain::{Clock, Event, EventKind, IdSource, Instance, InstanceId, NodeState};
use registry::{InstanceCommit, Lease, Registry, RegistryError, Role};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Declarations are read this often however many nudges come: another manager's API writes too.
const SERVICES_EVERY: Duration = Duration::from_secs(1);

/// An alarm rings this much after its deadline, so that the step surely finds it passed.
const ALARM_LATE: Duration = Duration::from_millis(2);

/// How a step ended. Alerts hang on `Refused` and `Failed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepResult {
    /// Nothing was decided: why.
    Skipped(String),
    /// The check threw the plan away: our bug.
    Refused(String),
    /// Another manager leads.
    Superseded,
    /// Done; how many instance records changed.
    Done(usize),
    /// The registry could not be read or written.
    Failed(String),
}

/// Owns the seams, the policy, the clock, the ids; keeps no facts about the world.
pub struct Reconciler {
    /// The world and its bells.
    pub shared: Shared,
    /// The durable record.
    pub registry: Arc<dyn Registry>,
    /// Where instances go.
    pub placements: Arc<dyn Placements>,
    /// What links share.
    pub links: Links,
    /// Links that run.
    pub running: Running,
    /// Constants.
    pub policy: Policy,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// New ids.
    pub ids: Box<dyn IdSource>,
    /// Secrets.
    pub identity: Identity,
    /// What instances are told.
    pub load: LoadEnds,
    /// Once set, nothing is wanted.
    pub halt: Halt,
    /// The term that calls are signed under.
    pub epoch: Arc<AtomicU64>,
    /// Who we are, among managers.
    pub holder: String,
    /// How long a lease lasts.
    pub lease_ttl: Duration,
    /// What is told.
    pub status: Status,
    /// For links.
    pub shutdown: Shutdown,
    /// When the lease was last renewed.
    pub renewed: Option<domain::Mono>,
    /// When declarations were last read.
    pub read_at: Option<domain::Mono>,
}

impl Reconciler {
    /// One step; `woke` says why, and a beat reads what is read seldom.
    pub async fn step(&mut self, woke: Woke) -> StepResult {
        let begun = self.clock.monotonic();
        let result = match self.try_step(woke).await {
            Ok(result) => result,
            Err(RegistryError::Superseded { .. }) => StepResult::Superseded,
            Err(error) => StepResult::Failed(Chain(&error).to_string()),
        };
        if result == StepResult::Superseded {
            self.stand_down("another manager leads");
        }
        self.status.stepped(woke, self.clock.monotonic().since(begun), &result);
        result
    }

    async fn try_step(&mut self, woke: Woke) -> Result<StepResult, RegistryError> {
        let Some(lease) = self.lead(woke).await? else {
            return Ok(StepResult::Skipped("another manager leads".to_owned()));
        };
        self.refresh(woke).await?;
        let mut snapshot = observe::snapshot(&self.shared.world(), &*self.clock, lease.epoch);
        if self.halt.is_set() {
            observe::halt(&mut snapshot);
        }
        let plans = match self.decide(&mut snapshot).await {
            Ok(plans) => plans,
            Err(violation) => return Ok(StepResult::Refused(violation)),
        };
        let merged = match plans {
            (first, Some(second)) => merge(first, second),
            (only, None) => only,
        };
        let changed = merged.rows.len();
        self.commit(&lease, &merged).await?;
        act::remember(&mut self.shared.world(), &merged);
        act::show(&self.shared, &merged);
        act::assign(&self.shared, &self.identity, &self.load, lease.epoch);
        self.set_alarm(&merged);
        self.status.planned(&merged);
        Ok(StepResult::Done(changed))
    }

    /// The lease in force; taken, renewed or found lost.
    async fn lead(&mut self, woke: Woke) -> Result<Option<Lease>, RegistryError> {
        let now = self.clock.monotonic();
        let held = self.shared.world().lease.clone();
        let due = self.renewed.is_none_or(|at| now.since(at) >= self.lease_ttl / 3);
        if let Some(lease) = held {
            // Off the path of a wake while there is time; nudges alone must not let it run out.
            let late = self.renewed.is_none_or(|at| now.since(at) >= self.lease_ttl / 2);
            if late || (due && woke != Woke::Nudge) {
                if !self.registry.renew_lease(&lease, self.lease_ttl).await? {
                    return Err(RegistryError::Superseded {
                        ours: lease.epoch,
                        newer: lease.epoch,
                    });
                }
                self.renewed = Some(now);
            }
            return Ok(Some(lease));
        }
        let role = Role::ContainerManager;
        let Some(lease) = self.registry.take_lease(role, &self.holder, self.lease_ttl).await?
        else {
            return Ok(None);
        };
        self.renewed = Some(now);
        self.begin_term(lease).await.map(Some)
    }

    /// Everything the last leader left is read; nothing is restarted.
    async fn begin_term(&mut self, lease: Lease) -> Result<Lease, RegistryError> {
        let services = self.registry.services().await?;
        let instances = self.registry.instances().await?;
        self.epoch.store(lease.epoch.0, Ordering::Release);
        let mut memories = BTreeMap::new();
        for row in services.iter().filter(|row| !row.memory.is_empty()) {
            match Memory::from_text(&row.memory) {
                Ok(memory) => {
                    memories.insert(row.name.clone(), memory);
                }
                Err(error) => {
                    tracing::error!(service.id = %row.name, %error, "what was remembered cannot be read");
                }
            }
        }
        let event = Event {
            at: self.clock.now(),
            kind: EventKind::Control,
            subject: "container-manager".to_owned(),
            what: "leads".to_owned(),
            detail: format!("{} leads with epoch {}", self.holder, lease.epoch),
            values: format!("epoch={}", lease.epoch),
        };
        self.registry.add_events(vec![event]).await?;
        let mut world = self.shared.world();
        world.services = observe::services_of(services, &world.services);
        world.rows = instances.into_iter().map(|row| (row.id.clone(), row)).collect();
        world.memories = memories;
        world.generations.clear();
        world.leader_since = self.clock.now();
        world.lease = Some(lease.clone());
        drop(world);
        tracing::info!(epoch = %lease.epoch, "this container-manager leads");
        Ok(lease)
    }

    fn stand_down(&mut self, why: &str) {
        tracing::warn!(why, "this container-manager stands down");
        let mut world = self.shared.world();
        world.lease = None;
        world.rows.clear();
        world.memories.clear();
        drop(world);
        self.running.end();
        self.shared.assignments.send_replace(BTreeMap::new());
        self.shared.board.send_replace(crate::publish::Wanted::default());
        self.renewed = None;
    }

    /// Reads what others write: declarations when one was written, nodes each time.
    async fn refresh(&mut self, woke: Woke) -> Result<(), RegistryError> {
        let now = self.clock.monotonic();
        let stale = std::mem::take(&mut self.shared.world().services_stale);
        let old = self.read_at.is_none_or(|at| now.since(at) >= SERVICES_EVERY);
        if stale || old || woke != Woke::Nudge {
            let read = self.registry.services().await;
            if read.is_err() {
                self.shared.world().services_stale = true;
            }
            let rows = read?;
            self.read_at = Some(now);
            let mut world = self.shared.world();
            world.services = observe::services_of(rows, &world.services);
        }
        let nodes = self.registry.nodes().await?;
        let followed: Vec<ExecutorAt> = nodes
            .iter()
            .filter(|node| followed(node.state))
            .filter_map(|node| {
                let url = node.executor_url.clone()?;
                Some(ExecutorAt { node: node.id.clone(), url })
            })
            .collect();
        self.shared.world().nodes = nodes.into_iter().map(|n| (n.id.clone(), n)).collect();
        self.running.follow(&self.links, followed, &self.shutdown);
        let needed = observe::former_needed(&self.shared.world());
        for (name, revision) in needed {
            let spec = observe::read_former(&*self.registry, &name, revision).await?;
            if let Some(spec) = spec {
                self.shared.world().former.insert((name, revision), spec);
            }
        }
        Ok(())
    }

    /// Plans; asks for places where they are needed and plans on with the answer.
    async fn decide(&mut self, snapshot: &mut Snapshot) -> Result<(Plan, Option<Plan>), String> {
        snapshot.awaiting_stops = true;
        let first = self.plan_checked(snapshot)?;
        if first.starts.is_empty() && first.stops.is_empty() {
            return Ok((first, None));
        }
        let request = places::question(snapshot, &first);
        first.apply_to(snapshot);
        match self.placements.ask(&request).await {
            Ok(answer) => places::take_answer(snapshot, answer),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the machine-manager cannot be asked for places");
                for start in &first.starts {
                    let detail = "the machine-manager does not answer".to_owned();
                    let waiting = Waiting { why: WaitWhy::Away, detail };
                    snapshot.grants.insert(start.instance.clone(), Grant::Waiting(waiting));
                }
            }
        }
        snapshot.awaiting_stops = false;
        let second = self.plan_checked(snapshot)?;
        Ok((first, Some(second)))
    }

    /// A deadline that passes before the next beat is kept to the moment.
    fn set_alarm(&self, merged: &Plan) {
        let next = merged.next_at.map(|at| {
            let wait = at.since(merged.at) + ALARM_LATE;
            self.clock.monotonic().plus(wait)
        });
        self.shared.alarm.send_replace(next);
    }

    fn plan_checked(&mut self, snapshot: &Snapshot) -> Result<Plan, String> {
        let made = plan(snapshot, &self.policy, &mut *self.ids);
        match check(snapshot, &made, &self.policy) {
            Ok(()) => Ok(made),
            Err(violation) => {
                tracing::error!(%violation, "a plan was thrown away");
                Err(violation.to_string())
            }
        }
    }

    /// One transaction under our term; a quiet plan writes nothing.
    async fn commit(&mut self, lease: &Lease, merged: &Plan) -> Result<(), RegistryError> {
        if merged.is_quiet() {
            return Ok(());
        }
        let due = merged.services.iter().filter(|s| s.memory_due && !s.removed);
        let commit = InstanceCommit {
            instances: merged.rows.clone(),
            decisions: merged.decisions.clone(),
            memories: due.map(|s| (s.service.clone(), s.memory.to_text())).collect(),
            purged: merged
                .services
                .iter()
                .filter(|s| s.removed)
                .map(|s| s.service.clone())
                .collect(),
            events: merged.events.clone(),
        };
        let rings = !commit.events.is_empty();
        self.registry.commit_instances(lease, commit).await?;
        if rings {
            self.shared.ring_events();
        }
        Ok(())
    }
}

/// Executors of nodes in these states are followed.
fn followed(state: NodeState) -> bool {
    match state {
        NodeState::Ready | NodeState::Suspect | NodeState::Lost | NodeState::Draining => true,
        NodeState::Ordered | NodeState::Booting | NodeState::Stopping | NodeState::Stopped => false,
    }
}

/// Two plans of one step as one: the later word on each record and service counts. Both speak of
/// the same services, in the same order.
fn merge(first: Plan, second: Plan) -> Plan {
    let mut rows: BTreeMap<InstanceId, Instance> =
        first.rows.into_iter().map(|row| (row.id.clone(), row)).collect();
    rows.extend(second.rows.into_iter().map(|row| (row.id.clone(), row)));
    let mut services = second.services;
    for (known, later) in first.services.iter().zip(&mut services) {
        debug_assert_eq!(known.service, later.service, "both plans are of one snapshot");
        later.memory_due |= known.memory_due;
        later.routes_changed |= known.routes_changed;
        later.report.from = known.report.from;
        if known.report.why != "steady" {
            later.report.why = known.report.why;
        }
    }
    Plan {
        rows: rows.into_values().collect(),
        services,
        decisions: [first.decisions, second.decisions].concat(),
        events: [first.events, second.events].concat(),
        ..second
    }
}
