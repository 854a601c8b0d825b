//! The control tasks: they read the board, judge, tell demand, wake services and save the view.

use crate::learn::World;
use crate::{Config, Deps, Shared, demand, health, others, probe, save, terms};
use chassis::{Readiness, Shutdown};
use domain::{Change, LoadReading, Mono, ServiceName};
use scoreboard::Board;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The whole board is read this often whatever was told: a lost message heals within it.
const READ_EVERY: Duration = Duration::from_secs(1);
/// Changes that come within this are read together: a fleet's reports are one reading, and a pick
/// is still informed well within a report's useful life.
const GATHER: Duration = Duration::from_millis(5);
/// After a reading the board is left alone for so many times as long as the reading took: a large
/// board, always changing, takes a fifth of one processor at most.
const REST_PER_READ: u32 = 4;
/// How often failing instances are judged and waiting requests looked after.
const JUDGE_EVERY: Duration = Duration::from_millis(50);
/// Changed services read one by one; more are read as a whole.
const SINGLE_READS_MAX: usize = 16;
/// Messages of loads taken in at once; who is that far behind reads everything.
const TOLD_MAX: usize = 1024;
const BOARD_MISSING: &str = "board";

/// The world, locked for moments by control tasks alone.
#[derive(Clone)]
pub struct SharedWorld(Arc<Mutex<World>>);

impl SharedWorld {
    /// Shares a world.
    #[must_use]
    pub fn new(world: World) -> SharedWorld {
        SharedWorld(Arc::new(Mutex::new(world)))
    }

    /// Locks it.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts all control tasks on the shutdown's branch.
pub fn start(
    config: &Config,
    deps: &Deps,
    shared: &Arc<Shared>,
    readiness: &Readiness,
    control: &Shutdown,
) {
    let world = SharedWorld::new(World::new(shared.seed));
    let mut restored = false;
    if let Some(path) = &config.save {
        restored = save::restore(path, shared, &mut world.lock());
        let saving = save::keep(path.clone(), world.clone(), control.clone());
        control.spawn(saving);
    }
    if !config.known.is_empty() {
        let now = shared.clock.monotonic();
        let mut world = world.lock();
        for (front, table) in &config.known {
            world.take_front(shared, front, now);
            world.take_routes(&front.service, table, now);
        }
        world.refresh(now);
        restored = true;
    }
    shared.nat.known.store(restored, Relaxed);
    if !restored {
        readiness.missing(BOARD_MISSING, "the scoreboard was not read yet");
    }
    control.spawn(read(
        Arc::clone(&deps.board),
        Arc::clone(shared),
        world.clone(),
        readiness.clone(),
        control.clone(),
    ));
    let following = (Arc::clone(&deps.board), Arc::clone(shared), world.clone());
    control.spawn(terms::follow(following.0, following.1, following.2, control.clone()));
    control.spawn(others::follow(
        Arc::clone(&deps.board),
        Arc::clone(shared),
        world.clone(),
        control.clone(),
    ));
    control.spawn(health::watch(Arc::clone(shared), world.clone(), control.clone()));
    control.spawn(probe::watch(Arc::clone(shared), control.clone()));
    control.spawn(judge(Arc::clone(shared), world, control.clone()));
    control.spawn(demand::tell(Arc::clone(&deps.board), Arc::clone(shared), control.clone()));
    if let Some(manager) = deps.manager.clone() {
        control.spawn(demand::wake(manager, Arc::clone(shared), control.clone()));
    }
}

/// Reads the board: whole at the start and every second, single services as they change.
async fn read(
    board: Arc<dyn Board>,
    shared: Arc<Shared>,
    world: SharedWorld,
    readiness: Readiness,
    shutdown: Shutdown,
) {
    let mut changes = board.watch();
    let mut watching = true;
    let mut next = Read::All;
    let mut lost = false;
    let mut whole = shared.clock.monotonic();
    while !shutdown.has_started() {
        let began = shared.clock.monotonic();
        let failed = match take(&*board, &shared, &world, &next).await {
            Ok(()) => {
                readiness.have(BOARD_MISSING);
                shared.nat.known.store(true, Relaxed);
                shared.nat.read.store(true, Release);
                shared.nat.nudge.nudge();
                false
            }
            Err(error) => {
                world.lock().take_balancers(None, shared.clock.monotonic());
                if !lost {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    let error = chassis::telemetry::Chain(error).to_string();
                    tracing::warn!(error, "the scoreboard is lost; the last view stays in use");
                }
                true
            }
        };
        if lost && !failed {
            tracing::info!("the scoreboard is back");
        }
        lost = failed;
        let ended = shared.clock.monotonic();
        if matches!(next, Read::All) {
            whole = ended;
        }
        let rest = ended.since(began).saturating_mul(REST_PER_READ).min(READ_EVERY);
        tokio::select! {
            () = shutdown.started() => return,
            () = tokio::time::sleep(rest) => {}
        }
        let left = left(whole, shared.clock.monotonic());
        next = tokio::select! {
            () = shutdown.started() => return,
            read = news(left, &mut changes, &mut watching, lost) => read,
        };
    }
}

/// How long the whole board may still be left unread.
fn left(whole: Mono, now: Mono) -> Duration {
    READ_EVERY.saturating_sub(now.since(whole))
}

/// What to take in next: changes as they come, and everything once its time is over. That changes
/// never pause does not put it off, for some things are told by none.
async fn news(
    left: Duration,
    changes: &mut scoreboard::Changes,
    watching: &mut bool,
    lost: bool,
) -> Read {
    if left.is_zero() {
        return Read::All;
    }
    let listens = *watching && !lost;
    tokio::select! {
        () = tokio::time::sleep(left) => Read::All,
        read = gather(changes, watching), if listens => read,
    }
}

/// What to take in next.
#[derive(Debug)]
enum Read {
    /// The whole board is read.
    All,
    /// These services are read; those loads were told.
    Some(BTreeSet<ServiceName>, Told),
}

/// Loads that came with the change itself.
type Told = Vec<(ServiceName, Arc<[LoadReading]>)>;

/// Waits for a change that concerns picks, and for those that come with it. Loads that were told
/// wait for nothing.
async fn gather(changes: &mut scoreboard::Changes, watching: &mut bool) -> Read {
    let (mut named, mut told) = (BTreeSet::new(), Told::new());
    // From the first change on: a stream of others' demand must not put off a reading for ever.
    let mut over = std::pin::pin!(tokio::time::sleep(GATHER));
    let mut gathering = false;
    loop {
        if !named.is_empty() && !std::mem::replace(&mut gathering, true) {
            over.set(tokio::time::sleep(GATHER));
        }
        let change = if let Some(change) = changes.at_hand() {
            Some(change)
        } else if !told.is_empty() {
            return Read::Some(named, told);
        } else if named.is_empty() {
            changes.next().await
        } else {
            tokio::select! {
                biased;
                () = &mut over => return Read::Some(named, told),
                change = changes.next() => change,
            }
        };
        match change {
            None => {
                *watching = false;
                return Read::All;
            }
            Some(Change::All) => return Read::All,
            Some(Change::Demand(_)) => {}
            Some(Change::Told(name, readings)) => told.push((name, readings)),
            Some(Change::Front(name) | Change::Routes(name) | Change::Loads(name)) => {
                named.insert(name);
            }
        }
        if named.len() > SINGLE_READS_MAX || told.len() > TOLD_MAX {
            return Read::All;
        }
    }
}

async fn take(
    board: &dyn Board,
    shared: &Shared,
    world: &SharedWorld,
    what: &Read,
) -> Result<(), scoreboard::BoardError> {
    match what {
        Read::All => {
            let view = board.view().await?;
            let now = shared.clock.monotonic();
            world.lock().take_view(shared, &view, now);
        }
        Read::Some(names, told) => {
            world.lock().take_told(told, shared.clock.monotonic());
            for name in names {
                let view = board.service(name).await?;
                world.lock().take_service(shared, name, &view, shared.clock.monotonic());
            }
        }
    }
    Ok(())
}

/// Judges instances, and lets waiting requests go where a ramp made room.
async fn judge(shared: Arc<Shared>, world: SharedWorld, shutdown: Shutdown) {
    while !shutdown.has_started() {
        tokio::select! {
            () = shutdown.started() => return,
            () = tokio::time::sleep(JUDGE_EVERY) => {}
        }
        let now = shared.clock.monotonic();
        world.lock().judge(now);
        for service in shared.table.load().services() {
            crate::wait::pump(service, now);
            shared.look_at_queue(service);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{front, shared};
    use chassis::SystemClock;
    use domain::{
        Clock, Epoch, Generation, Load, LoadReport, LoadSource, RouteGen, RouteTable, Timestamp,
    };
    use scoreboard::MemoryBoard;
    use tokio::sync::broadcast;

    /// Minutes pass in a second.
    struct Swift(SystemClock);

    impl Clock for Swift {
        fn now(&self) -> Timestamp {
            Timestamp::default().plus(self.monotonic().0)
        }
        fn monotonic(&self) -> Mono {
            Mono(self.0.monotonic().0 * 200)
        }
    }

    /// Waits for a state, while loads are told all the time.
    async fn while_told(board: &MemoryBoard, what: &str, state: impl Fn() -> bool) {
        let report = LoadReport {
            instance: "shop-0000000001".parse().unwrap(),
            load: Load::from_reported(0.5).unwrap(),
            in_flight: None,
            rps_milli: None,
            eps_milli: None,
            seq: None,
            source: LoadSource::Pushed,
        };
        let telling = async {
            while !state() {
                board.record(std::slice::from_ref(&report)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(20), telling).await;
        assert!(told.is_ok(), "never: {what}");
    }

    #[tokio::test]
    async fn a_removed_service_is_forgotten_while_loads_stream() {
        let clock = Arc::new(Swift(SystemClock::new()));
        let board = Arc::new(MemoryBoard::new(clock.clone()));
        let shared = Arc::new(Shared { clock, ..shared() });
        let gone: ServiceName = "web".parse().unwrap();
        let generation = RouteGen { epoch: Epoch(1), generation: Generation(1) };
        let empty = RouteTable { generation, entries: Vec::new() };
        for name in ["shop", "web"] {
            board.publish_front(&front(name)).await.unwrap();
            board.publish_routes(&name.parse().unwrap(), &empty).await.unwrap();
        }
        let shutdown = Shutdown::new();
        let world = SharedWorld::new(World::new(1));
        let reading =
            read(board.clone(), shared.clone(), world, Readiness::default(), shutdown.clone());
        let reading = tokio::spawn(reading);
        let known = || shared.table.load().services().len();
        while_told(&board, "both are known", || known() == 2).await;
        board.remove_service(&gone).await.unwrap();
        while_told(&board, "one is left", || known() == 1).await;
        assert_eq!(shared.table.load().services()[0].name.as_str(), "shop");
        shutdown.start();
        reading.await.unwrap();
    }

    #[test]
    fn a_whole_reading_is_due_a_second_after_the_last_one() {
        let at = |millis| Mono(Duration::from_millis(millis));
        assert_eq!(left(at(5000), at(5000)), READ_EVERY);
        assert_eq!(left(at(5000), at(5999)), Duration::from_millis(1));
        assert_eq!(left(at(5000), at(6000)), Duration::ZERO);
        assert_eq!(left(at(5000), at(9000)), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_stream_of_demand_does_not_put_a_reading_off() {
        let (tell, listen) = broadcast::channel(64);
        let name: ServiceName = "shop".parse().unwrap();
        tell.send(Change::Routes(name.clone())).unwrap();
        let other = Change::Demand(name.clone());
        let telling = tokio::spawn(async move {
            while tell.send(other.clone()).is_ok() {
                tokio::time::sleep(GATHER / 4).await;
            }
        });
        let (mut changes, mut watching) = (scoreboard::Changes(listen), true);
        let gathered = gather(&mut changes, &mut watching);
        let read = tokio::time::timeout(Duration::from_secs(20), gathered).await.unwrap();
        let Read::Some(named, told) = read else { panic!("{read:?}") };
        assert_eq!((named, told.len()), ([name].into(), 0));
        telling.abort();
    }
}
