//! Tells the others what this balancer sees: demand on the board, wakes straight to the manager.

use crate::stats::Sum;
use crate::view::{Entry, Service};
use crate::{Shared, orca};
use chassis::periodic;
use chassis::{Client, Shutdown};
use domain::{Demand, LoadReport, Mono, RouteGen, ServiceName};
use futures_util::StreamExt;
use scoreboard::Board;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wire::operator::WakeRequest;

/// How often demand is written while something happens; also the heartbeat.
pub const TELL_EVERY: Duration = Duration::from_millis(250);
/// A quiet service is written this often, well within the 3 s that demand lives.
const TELL_QUIET_EVERY: Duration = Duration::from_secs(1);
/// Rates and quantiles are over this span.
const SPAN: Duration = Duration::from_secs(2);
/// A service that waits is woken again this often.
const WAKE_EVERY: Duration = Duration::from_secs(1);
/// A wake is answered from memory; later it is asked again anyway.
const WAKE_DEADLINE: Duration = Duration::from_secs(2);
/// A pick ends within this: a table in use for so long is the only one in use.
const SETTLE: Duration = Duration::from_millis(20);
/// Services woken at once.
const WAKES_AT_ONCE: usize = 8;

/// What was told of one service before.
#[derive(Default)]
struct Told {
    sums: VecDeque<(Mono, Sum)>,
    at: Option<Mono>,
    generation: RouteGen,
    active: bool,
}

/// Writes demand, with the heartbeat, and records loads that came in answers' headers.
pub async fn tell(board: Arc<dyn Board>, shared: Arc<Shared>, shutdown: Shutdown) {
    let told: Mutex<BTreeMap<ServiceName, Told>> = Mutex::default();
    let step = |_woke| async {
        let (demand, loads) = {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            collect(&shared, &mut told)
        };
        // A lost board loses the demand of this beat alone; the reader tells about the loss.
        if let Err(error) = board.write_demand(&shared.id, &demand).await {
            tracing::debug!(%error, "demand was not written");
        }
        if !loads.is_empty()
            && let Err(error) = board.record(&loads).await
        {
            tracing::debug!(%error, "loads from answers were not recorded");
        }
    };
    periodic::run(TELL_EVERY, &shared.demand_nudge, &shutdown, step).await;
}

fn collect(
    shared: &Shared,
    told: &mut BTreeMap<ServiceName, Told>,
) -> (Vec<(ServiceName, Demand)>, Vec<LoadReport>) {
    let now = shared.clock.monotonic();
    let table = shared.table.load();
    let (mut demands, mut loads) = (Vec::new(), Vec::new());
    for service in table.services() {
        let told = told.entry(service.name.clone()).or_default();
        let mut demand = demand_of(service, told, now);
        demand.at = shared.clock.now();
        let active = demand.queued > 0 || !demand.in_flight.is_empty() || demand.rps_milli > 0;
        let due = active
            || told.active
            || demand.routes_gen != told.generation
            || told.at.is_none_or(|at| now.since(at) >= TELL_QUIET_EVERY);
        told.active = active;
        if due {
            told.at = Some(now);
            told.generation = demand.routes_gen;
            demands.push((service.name.clone(), demand));
        }
        let snapshot = service.snapshot.load();
        // Of others a louder voice is recorded already.
        let heard = snapshot.entries.iter().filter(|e| e.hears);
        loads.extend(heard.filter_map(|e| orca::take(&e.instance)));
    }
    told.retain(|name, _| table.services().binary_search_by(|s| s.name.cmp(name)).is_ok());
    (demands, loads)
}

fn demand_of(service: &Service, told: &mut Told, now: Mono) -> Demand {
    let mut sum = Sum::default();
    service.stats.iter().for_each(|stats| sum.add(stats));
    // The newest sum that is at least a span old, else the oldest there is.
    while told.sums.len() > 1 && told.sums.get(1).is_some_and(|(at, _)| now.since(*at) >= SPAN) {
        told.sums.pop_front();
    }
    let (then, before) = told.sums.front().cloned().unwrap_or_else(|| (now, sum.clone()));
    let span = now.since(then).as_secs_f64();
    let rate_milli = |new: u64, old: u64| {
        if span <= 0.0 {
            return 0;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate of counted requests, never negative"
        )]
        let milli = (new.saturating_sub(old) as f64 * 1000.0 / span) as u64;
        milli
    };
    let mut in_flight = BTreeMap::new();
    let snapshot = service.snapshot.load();
    let mut departed = service.departed.lock().unwrap_or_else(PoisonError::into_inner);
    departed.retain(|instance| instance.in_flight() + instance.aside() > 0);
    // What stepped aside takes no place, but whoever ends an instance waits for it too.
    let mut aside = 0;
    let count = |entry: &Entry| {
        let instance = &entry.instance;
        instance.in_flight() + if entry.ready { 0 } else { instance.aside() }
    };
    let present = snapshot.entries.iter().map(|e| (&e.instance, count(e)));
    let gone = departed.iter().map(|i| (i, i.in_flight() + i.aside()));
    for (instance, n) in present.chain(gone) {
        aside += instance.aside();
        if n > 0 {
            *in_flight.entry(instance.id.clone()).or_insert(0) += n;
        }
    }
    // Only then are all picks from the table before counted among the requests in flight.
    let settled = now.since(snapshot.generation_since) >= SETTLE;
    let routes_gen = if settled { snapshot.generation } else { Some(told.generation) };
    let kernel_rate = service.kernel.rate_milli.load(Relaxed);
    let tunnels = service.tunnels.load(Relaxed).saturating_add(aside);
    let open = tunnels.saturating_add(service.kernel.open.load(Relaxed));
    let demand = Demand {
        at: domain::Timestamp::default(),
        queued: service.queue.held(),
        oldest_wait: service.queue.oldest_wait(now),
        in_flight,
        set_aside: snapshot
            .entries
            .iter()
            .filter(|e| e.ejected)
            .map(|e| e.instance.id.clone())
            .collect(),
        rps_milli: rate_milli(sum.requests(), before.requests()) + kernel_rate,
        eps_milli: rate_milli(sum.errors(), before.errors()),
        p50: sum.quantile_since(&before, 0.5),
        p95: sum.quantile_since(&before, 0.95),
        last_request_ago: service.last_request_ago(now),
        open_connections: open,
        routes_gen: routes_gen.unwrap_or_default(),
    };
    let last = told.sums.back().map(|(at, _)| *at);
    if last.is_none_or(|at| now.since(at) >= TELL_EVERY)
        && told.sums.back().map(|(_, s)| s) != Some(&sum)
    {
        told.sums.push_back((now, sum));
    }
    demand
}

/// Wakes services whose requests wait: at once when the first begins to, then every second.
pub async fn wake(manager: Client, shared: Arc<Shared>, shutdown: Shutdown) {
    let step = |_woke| async {
        let waiting: Vec<Arc<Service>> = {
            let table = shared.table.load();
            table.services().iter().filter(|s| s.queue.held() > 0).cloned().collect()
        };
        let calls =
            futures_util::stream::iter(waiting).for_each_concurrent(WAKES_AT_ONCE, |service| {
                let (manager, id) = (manager.clone(), shared.id.as_str().to_owned());
                async move {
                    let request = WakeRequest { balancer: Some(id), queued: service.queue.held() };
                    let path = format!("/v1/services/{}/wake", service.name);
                    let answer =
                        manager.post::<_, serde_json::Value>(&path, &request, WAKE_DEADLINE).await;
                    if let Err(error) = answer {
                        tracing::debug!(service = %service.name, %error, "the wake was not heard");
                    }
                }
            });
        calls.await;
    };
    periodic::run(WAKE_EVERY, &shared.wake_nudge, &shutdown, step).await;
}
