//! Makes the node be what its assignment says: at the executor's start, and at each new one.

use crate::core::{Core, Handle, Order};
use crate::diff::{Act, diff};
use crate::engine::{Engine, Found};
use crate::error::Error;
use crate::operations::Outcome;
use crate::store::Record;
use crate::supervise::supervise;
use domain::InstanceId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use wire::assignment::{AssignedInstance, Assignment, EngineKind};
use wire::operation::Verb;

/// An engine that does not answer at the executor's start is asked again after this.
const FOUND_PAUSE: Duration = Duration::from_secs(5);
/// An engine that does not answer within this is asked later; the rest of the node goes on.
const FOUND_DEADLINE: Duration = Duration::from_secs(3);
/// What nobody assigned gets this long to end by itself.
const STRAY_GRACE: Duration = Duration::from_secs(5);

/// Does all that the difference between what is known and `assignment` asks for; only gives
/// orders, waits for nothing.
pub(crate) fn carry_out(core: &Arc<Core>, assignment: &Assignment) {
    for act in diff(&core.known(), assignment) {
        match act {
            Act::Start(instance) | Act::Change(instance) => {
                order(core, Order { instance: Arc::new(instance), stop: false });
            }
            Act::Stop(id) => {
                if let Some(handle) = core.instances().get(&id) {
                    handle.orders.send_modify(|order| order.stop = true);
                }
            }
        }
    }
}

fn order(core: &Arc<Core>, order: Order) {
    if let Some(handle) = core.instances().get(&order.instance.id) {
        handle.orders.send_replace(order);
        return;
    }
    begin(core, order, None, None);
}

/// Gives an instance its task.
fn begin(core: &Arc<Core>, order: Order, record: Option<Record>, found: Option<Found>) {
    let id = order.instance.id.clone();
    let (sender, receiver) = watch::channel(order);
    {
        let mut instances = core.instances();
        instances.insert(id, Handle { orders: sender, runs: None });
        core.metrics.instances.set(i64::try_from(instances.len()).unwrap_or(i64::MAX));
    }
    core.shutdown.spawn(supervise(Arc::clone(core), receiver, record, found));
}

/// Takes over what a former executor left: what is assigned goes on, all else is stopped.
///
/// # Errors
/// When the kept assignment is not ours or cannot be read.
pub(crate) async fn take_up(core: &Arc<Core>) -> Result<Option<Assignment>, Error> {
    let kept = core.store.assignment()?;
    if let Some(kept) = &kept {
        core.check_ours(kept)?;
    }
    let mut found = found(&core.engines.process).await.unwrap_or_default();
    match self::found(&core.engines.docker).await {
        Some(containers) => found.extend(containers),
        None => {
            core.shutdown.spawn(end_late_strays(Arc::clone(core)));
        }
    }
    let mut records: BTreeMap<InstanceId, Record> =
        core.store.records().into_iter().map(|r| (r.instance.id.clone(), r)).collect();
    for instance in kept.iter().flat_map(|k| &k.instances) {
        let id = &instance.id;
        let order = Order { instance: Arc::new(instance.clone()), stop: false };
        begin(core, order, records.remove(id), found.remove(id));
    }
    for (id, record) in records {
        let instance: Arc<AssignedInstance> = Arc::new(record.instance.clone());
        let found = found.remove(&id);
        begin(core, Order { instance, stop: true }, Some(record), found);
    }
    for (id, found) in found {
        let engine = Arc::clone(engine_of(core, &found));
        core.shutdown.spawn(end_stray(Arc::clone(core), engine, id, found));
    }
    Ok(kept)
}

/// Which engine a find came from: only processes are watched by their start time.
fn engine_of<'a>(core: &'a Core, found: &Found) -> &'a Arc<dyn Engine> {
    let process = found.running.start_time != 0;
    core.engines.of(if process { EngineKind::Process } else { EngineKind::Docker })
}

async fn found(engine: &Arc<dyn Engine>) -> Option<BTreeMap<InstanceId, Found>> {
    match tokio::time::timeout(FOUND_DEADLINE, engine.found()).await {
        Ok(Ok(found)) => Some(found),
        Ok(Err(error)) => {
            tracing::debug!(%error, "an engine does not answer");
            None
        }
        Err(_elapsed) => None,
    }
}

/// Once the container engine answers, stops what nobody assigned meanwhile.
async fn end_late_strays(core: Arc<Core>) {
    let strays = async {
        loop {
            tokio::time::sleep(FOUND_PAUSE).await;
            if let Some(found) = found(&core.engines.docker).await {
                return found;
            }
        }
    };
    let found = tokio::select! {
        () = core.shutdown.started() => return,
        found = strays => found,
    };
    let known = core.known();
    for (id, found) in found.into_iter().filter(|(id, _)| !known.contains_key(id)) {
        let engine = Arc::clone(&core.engines.docker);
        end_stray(Arc::clone(&core), engine, id, found).await;
    }
}

async fn end_stray(core: Arc<Core>, engine: Arc<dyn Engine>, id: InstanceId, found: Found) {
    let began = core.clock.monotonic();
    let _killed_below = engine.terminate(&id, &found.running).await;
    let ends = engine.wait(&id, &found.running);
    let _killed_below = tokio::time::timeout(STRAY_GRACE, ends).await;
    let outcome = match engine.kill(&id, &found.running).await {
        Ok(()) => Outcome::done(),
        Err(error) => Outcome::failed(error.text),
    };
    engine.clear(&id).await;
    core.store.forget(&id);
    core.note(began, &id, Verb::StopStray, outcome);
}
