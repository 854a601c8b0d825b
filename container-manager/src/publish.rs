//! Board work beside the loop: shows routes and fronts, reads loads and demand, mends what is lost.

use crate::world::{BoardSeen, Shared, World};
use chassis::Shutdown;
use chassis::telemetry::Chain;
use domain::{
    Change, Clock, InstanceId, InstanceState, RouteGen, RouteTable, ServiceFront, ServiceName,
};
use scoreboard::{Board, Changes};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The board is read this often at least: balancers write their demand as often.
const READ_EVERY: Duration = Duration::from_millis(250);
/// Changes are read after this pause, so that a storm of reports is one reading.
const READ_PAUSE: Duration = Duration::from_millis(20);
/// After a failed write the next try waits this long.
const RETRY: Duration = Duration::from_millis(250);

/// What the board shall show.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// Per service; a service missing here is not touched.
    pub services: BTreeMap<ServiceName, (ServiceFront, RouteTable)>,
    /// Services that ended: taken off the board.
    pub removed: Vec<ServiceName>,
    /// Instances that ended: their loads are taken off.
    pub ended: Vec<InstanceId>,
}

/// Services and instances that ended and are remembered for the board at most.
pub const ENDED_MAX: usize = 10_000;

/// Shows what is wanted until the shutdown; whatever differs from what stands there is written.
pub async fn show(board: Arc<dyn Board>, shared: Shared, shutdown: Shutdown) {
    let mut wanted = shared.board.subscribe();
    let mut shown: BTreeMap<ServiceName, (ServiceFront, RouteGen)> = BTreeMap::new();
    let mut seen_mended = 0u64;
    while !shutdown.has_started() {
        let now = wanted.borrow_and_update().clone();
        let mended = shared.world().board_lost;
        if mended != seen_mended {
            seen_mended = mended;
            shown.clear();
        }
        let whole = write(&*board, &now, &mut shown).await;
        if whole {
            shared.board.send_if_modified(|w| {
                w.removed.retain(|s| !now.removed.contains(s));
                w.ended.retain(|i| !now.ended.contains(i));
                false
            });
        }
        // Every arm only waits: what changed meanwhile is still marked as changed.
        tokio::select! {
            () = shutdown.started() => return,
            changed = wanted.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if !whole => {}
        }
    }
}

/// Writes the difference; false when something must be tried again.
async fn write(
    board: &dyn Board,
    wanted: &Wanted,
    shown: &mut BTreeMap<ServiceName, (ServiceFront, RouteGen)>,
) -> bool {
    let mut whole = true;
    for (name, (front, routes)) in &wanted.services {
        let (same_front, same_routes) =
            shown.get(name).map_or((false, false), |(f, g)| (f == front, *g >= routes.generation));
        let mut failed = None;
        // Routes first: a balancer that learns of a service learns of its instances at once.
        if !same_routes {
            failed = board.publish_routes(name, routes).await.err();
        }
        if failed.is_none() && !same_front {
            failed = board.publish_front(front).await.err();
        }
        match failed {
            None => {
                shown.insert(name.clone(), (front.clone(), routes.generation));
            }
            Some(error) => {
                tracing::warn!(service.id = %name, error = %Chain(&error), "the board was not written");
                whole = false;
            }
        }
    }
    for name in wanted.removed.iter().filter(|name| !wanted.services.contains_key(*name)) {
        shown.remove(name);
        whole &= board.remove_service(name).await.is_ok();
    }
    if !wanted.ended.is_empty() {
        whole &= board.forget(&wanted.ended).await.is_ok();
    }
    whole
}

/// Reads the board into the world until the shutdown, and wakes the loop when it should look.
pub async fn read(board: Arc<dyn Board>, shared: Shared, clock: Arc<dyn Clock>, end: Shutdown) {
    let mut changes = board.watch();
    while !end.has_started() {
        let ported = {
            let world = shared.world();
            world.services.values().any(|s| s.spec.route.mode != domain::RouteMode::Http)
        };
        let seen = look(&*board, &clock, ported).await;
        let wanted = shared.board.borrow().clone();
        let missing = seen.at.is_some() && is_missing(&seen, &wanted);
        let nudge = {
            let mut world = shared.world();
            world.board_lost += u64::from(missing);
            world.board = seen;
            wants_step(&world)
        };
        if missing {
            shared.board.send_modify(|_same| {});
        }
        if nudge {
            shared.nudge.nudge();
        }
        // Dropping a change in hand loses nothing: the board is read whole.
        tokio::select! {
            () = end.started() => return,
            () = tokio::time::sleep(READ_EVERY) => {}
            () = worth_reading(&mut changes) => tokio::time::sleep(READ_PAUSE).await,
        }
    }
}

/// Waits for a change that is worth a reading before the beat. Loads come all the time, and windows
/// are far longer than a beat.
async fn worth_reading(changes: &mut Changes) {
    while matches!(changes.next().await, Some(Change::Told(..) | Change::Loads(_))) {}
}

async fn look(board: &dyn Board, clock: &Arc<dyn Clock>, ported: bool) -> BoardSeen {
    let read = async {
        let (view, demand) = (board.view().await?, board.demand().await?);
        let abilities = if ported { board.abilities().await? } else { BTreeMap::new() };
        Ok::<_, scoreboard::BoardError>((view, demand, abilities))
    };
    match read.await {
        Ok((view, demand, abilities)) => {
            BoardSeen { at: Some(clock.monotonic()), view, demand, abilities }
        }
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "the board was not read");
            BoardSeen::default()
        }
    }
}

/// Whether something we showed is not there (any more): a wiped board is shown everything anew.
fn is_missing(seen: &BoardSeen, wanted: &Wanted) -> bool {
    wanted.services.iter().any(|(name, (_, routes))| match seen.view.services.get(name) {
        None => true,
        Some(view) => {
            let there = view.routes.as_ref().map(|there| there.generation);
            view.front.is_none() || there.is_none_or(|there| there < routes.generation)
        }
    })
}

/// Somebody waits, or something drains: the next beat would be too late.
fn wants_step(world: &World) -> bool {
    if world.rows.values().any(|row| row.state == InstanceState::Draining) {
        return true;
    }
    world.demand_waits()
}
