//! The loop: lease, observe, plan, check, commit, act, tell.

use crate::act;
use crate::observe;
use crate::record::{enact, take_outcomes};
use crate::{LEASE_TTL, Manager};
use chassis::periodic::Woke;
use chassis::telemetry::Chain;
use chassis::{Shutdown, periodic};
use domain::{Money, Node, NodeId, Timestamp};
use machine_planner::{Order, Plan, Refusal, Requested, check, plan};
use registry::{Lease, NodeCommit, RegistryError, Role};
use std::sync::Arc;
use std::time::Duration;

/// No two planned wake-ups are nearer than this: a deadline in the past must not spin the loop.
const AGAIN_MIN: Duration = Duration::from_millis(20);

/// How a step ended; alerts hang on `Refused` and on `Failed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepResult {
    /// Too little is known, or another leads.
    Skipped(&'static str),
    /// The second reader threw the plan away: our bug.
    Refused,
    /// Another manager leads now.
    Superseded,
    /// Done.
    Done,
}

/// Runs the loop until the shutdown starts.
pub(crate) async fn run(manager: &Arc<Manager>, beat: Duration, shutdown: &Shutdown) {
    periodic::run(beat, &manager.nudge, shutdown, |woke| {
        let manager = Arc::clone(manager);
        async move { one(&manager, woke).await }
    })
    .await;
}

async fn one(manager: &Arc<Manager>, woke: Woke) {
    let begun = manager.clock.monotonic();
    let result = step(manager, Vec::new()).await;
    let took = manager.clock.monotonic().since(begun);
    manager.meters.stepped(took);
    let text = match &result {
        Ok((result, _)) => format!("{result:?}"),
        Err(error) => Chain(error).to_string(),
    };
    if let Err(error) = &result {
        tracing::warn!(error = %Chain(error), "a step failed; the next one tries again");
        let mut world = manager.world();
        world.loaded = false;
    }
    let again = {
        let mut world = manager.world();
        world.steps += 1;
        world.last_result = text;
        world.plan.plan_again_at
    };
    tracing::trace!(?woke, ?took, "step");
    if let Some(at) = again {
        wake_at(manager, at);
    }
}

/// Nudges the loop at `at`, when that is before the next beat.
fn wake_at(manager: &Arc<Manager>, at: Timestamp) {
    let wait = at.since(manager.clock.now()).max(AGAIN_MIN);
    if wait >= manager.config.beat {
        return;
    }
    let manager = Arc::clone(manager);
    let shutdown = manager.shutdown.clone();
    shutdown.clone().spawn(async move {
        tokio::select! {
            () = shutdown.started() => {}
            () = tokio::time::sleep(wait) => manager.nudge.nudge(),
        }
    });
}

/// One step. `requested` are nodes an operator asks for; their refusals, and all orders, come back.
pub(crate) async fn step(
    manager: &Arc<Manager>,
    requested: Vec<Requested>,
) -> Result<(StepResult, Plan), RegistryError> {
    let mut writer = manager.writer.lock().await;
    if !lead(manager, &mut writer).await? {
        return Ok((StepResult::Skipped("another machine-manager leads"), Plan::default()));
    }
    let Some(lease) = writer.clone() else {
        return Ok((StepResult::Skipped("no lease"), Plan::default()));
    };
    if !manager.world().loaded {
        observe::load(manager).await?;
    }
    declare_first_type(manager).await?;
    observe::refresh(manager).await?;
    act::compare_lists(manager).await;

    let (now, mono) = (manager.clock.now(), manager.clock.monotonic());
    let mut commit = NodeCommit::default();
    take_outcomes(manager, now, &mut commit);
    let snapshot = {
        let world = manager.world();
        let mut requested = requested;
        requested.extend(first_node(manager, &world.nodes));
        world.snapshot(now, mono, requested, Vec::new())
    };
    let mut made = {
        let mut ids = manager.ids();
        plan(&snapshot, &manager.config.policy, ids.as_mut())
    };
    if let Err(violation) = check(&snapshot, &made) {
        tracing::error!(%violation, "a plan was thrown away; this is a fault of Tally");
        manager.meters.refused();
        made = Plan { memory: snapshot.memory.clone(), ..Plan::default() };
        let written = commit_all(manager, &lease, commit).await;
        return finish(written, StepResult::Refused, made);
    }
    enact(manager, now, &mut made, &mut commit);
    let written = commit_all(manager, &lease, commit).await;
    if written.is_ok() {
        act::act(manager);
        tell(manager, &made).await;
    }
    finish(written, StepResult::Done, made)
}

fn finish(
    written: Result<(), RegistryError>,
    result: StepResult,
    made: Plan,
) -> Result<(StepResult, Plan), RegistryError> {
    match written {
        Ok(()) => Ok((result, made)),
        Err(RegistryError::Superseded { .. }) => Ok((StepResult::Superseded, Plan::default())),
        Err(error) => Err(error),
    }
}

/// Holds the lease, or says no.
async fn lead(manager: &Manager, writer: &mut Option<Lease>) -> Result<bool, RegistryError> {
    if let Some(lease) = writer.as_mut() {
        let now = manager.clock.now();
        if lease.until.since(now) > LEASE_TTL * 2 / 3 {
            return Ok(true);
        }
        if manager.registry.renew_lease(lease, LEASE_TTL).await? {
            lease.until = now.plus(LEASE_TTL);
            return Ok(true);
        }
        tracing::warn!("another machine-manager took the lease");
        *writer = None;
    }
    let holder = &manager.config.holder;
    let taken = manager.registry.take_lease(Role::MachineManager, holder, LEASE_TTL).await?;
    let leads = taken.is_some();
    manager.world().loaded = false;
    if let Some(lease) = &taken {
        tracing::info!(epoch = %lease.epoch, "this machine-manager leads");
        manager.readiness.have("lease");
    } else {
        manager.readiness.missing("lease", "another machine-manager leads");
    }
    *writer = taken;
    Ok(leads)
}

/// Gives the lease back, so that another need not wait for its end.
pub(crate) async fn resign(manager: &Manager) {
    let lease = manager.writer.lock().await.take();
    if let Some(lease) = lease
        && let Err(error) = manager.registry.give_back_lease(&lease).await
    {
        tracing::warn!(error = %Chain(&error), "the lease could not be given back; it will run out");
    }
}

async fn declare_first_type(manager: &Manager) -> Result<(), RegistryError> {
    let (Some(first), Some(node_type)) = (&manager.config.first_node, &manager.first_type) else {
        return Ok(());
    };
    if manager.world().types.contains_key(&node_type.name) {
        return Ok(());
    }
    let document = serde_json::to_string(&first.node_type).unwrap_or_default();
    let expect = registry::Expect::Any;
    let row = manager.registry.put_node_type(node_type.clone(), document, expect).await?;
    manager.world().types.insert(row.name.clone(), row);
    Ok(())
}

/// The first node, while there is none.
fn first_node(
    manager: &Manager,
    nodes: &std::collections::BTreeMap<NodeId, Node>,
) -> Option<Requested> {
    if manager.config.halt.is_set() {
        return None;
    }
    let (first, node_type) = (manager.config.first_node.as_ref()?, manager.first_type.as_ref()?);
    let there = nodes.values().any(|n| n.name == first.name || n.node_type == node_type.name);
    let name = Some(first.name.clone());
    (!there).then(|| Requested { node_type: node_type.name.clone(), name, may_stop: false })
}

/// Writes a step, if there is anything to write.
async fn commit_all(
    manager: &Manager,
    lease: &Lease,
    commit: NodeCommit,
) -> Result<(), RegistryError> {
    if commit == NodeCommit::default() {
        return Ok(());
    }
    let written = manager.registry.commit_nodes(lease, commit).await;
    if written.is_err() {
        // Memory ran ahead of the record: read it again.
        manager.world().loaded = false;
    }
    written
}

/// Measurements, metrics, and a nudge when answers to placements would differ now.
async fn tell(manager: &Arc<Manager>, made: &Plan) {
    crate::stats::flush(manager).await;
    manager.meters.world(&manager.world());
    let changed = {
        let mut world = manager.world();
        let now_answers: std::collections::BTreeMap<_, _> = made
            .waiting
            .iter()
            .map(|w| (w.instance.clone(), crate::placements::waiting_key(w)))
            .chain(made.granted.iter().map(|g| (g.instance.clone(), "granted".to_owned())))
            .collect();
        let differs = now_answers.iter().any(|(id, key)| world.answered.get(id) != Some(key));
        if differs {
            world.answered = now_answers;
        }
        differs
    };
    if changed || !made.transitions.is_empty() {
        nudge_container_manager(manager);
    }
}

/// Tells the container-manager to look again; a nudge that is lost is made up for by its beat.
pub(crate) fn nudge_container_manager(manager: &Arc<Manager>) {
    let Some(client) = manager.container_manager.clone() else { return };
    let limit = Duration::from_secs(1);
    manager.shutdown.spawn(async move {
        let headers = http::HeaderMap::new();
        let body = bytes::Bytes::new();
        let sent = client.call(http::Method::POST, "/v1/nudge", headers, body, limit).await;
        if let Err(error) = sent {
            tracing::debug!(error = %Chain(&error), "the container-manager could not be nudged");
        }
    });
}

/// An order of an operator: the node's id, or why not.
pub(crate) async fn order(
    manager: &Arc<Manager>,
    requested: Requested,
) -> Result<Result<Order, Refusal>, RegistryError> {
    let (result, made) = step(manager, vec![requested]).await?;
    if let Some((_, refusal)) = made.refused.into_iter().find(|(at, _)| *at == 0) {
        return Ok(Err(refusal));
    }
    // Operators' orders come first in a plan, in the order they were asked for.
    match made.orders.into_iter().next() {
        Some(order) if result == StepResult::Done => Ok(Ok(order)),
        Some(_) | None => Ok(Err(Refusal {
            why: machine_planner::Why::Node,
            needs: Money::ZERO,
            until: None,
            detail: "no machine-manager leads at the moment; try again in a few seconds".to_owned(),
        })),
    }
}
