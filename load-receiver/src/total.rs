//! A service's load as a whole, summed up from the board; asked of it at most ten times a second.

use domain::{Clock, InstanceId, LoadPolicy, Mono, RouteState, ServiceName, Terms};
use scoreboard::{Board, BoardError, ServiceView};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::total::{Part, Total};

/// Who asks more often gets the same sum: reports are seldom closer together.
const TOTAL_LIFE: Duration = Duration::from_millis(100);
/// Demand and terms are read for all services at once, and less often.
const DEMAND_LIFE: Duration = Duration::from_millis(500);
/// Sums kept; more services than a cell has are not asked for.
const TOTALS_MAX: usize = 10_000;

/// What all balancers together say of one service.
#[derive(Debug, Clone, Default)]
struct Asked {
    in_flight: BTreeMap<InstanceId, u32>,
    queued: u32,
    rps: f64,
    eps: f64,
}

#[derive(Debug, Default)]
struct Everywhere {
    demand: BTreeMap<ServiceName, Asked>,
    terms: BTreeMap<InstanceId, Terms>,
}

/// Sums, kept for moments.
pub(crate) struct Totals {
    board: Arc<dyn Board>,
    clock: Arc<dyn Clock>,
    kept: Mutex<BTreeMap<ServiceName, (Mono, Total)>>,
    everywhere: Mutex<Option<(Mono, Arc<Everywhere>)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::cast_precision_loss, reason = "rates are estimates")]
fn rate(milli: u64) -> f64 {
    milli as f64 / 1000.0
}

impl Totals {
    pub(crate) fn new(board: Arc<dyn Board>, clock: Arc<dyn Clock>) -> Totals {
        Totals { board, clock, kept: Mutex::default(), everywhere: Mutex::default() }
    }

    /// A service's sum; `None`: there is no such service.
    pub(crate) async fn of(&self, service: &ServiceName) -> Result<Option<Total>, BoardError> {
        let now = self.clock.monotonic();
        let kept = lock(&self.kept).get(service).copied();
        if let Some((_, total)) = kept.filter(|(at, _)| now.since(*at) < TOTAL_LIFE) {
            return Ok(Some(total));
        }
        let view = self.board.service(service).await?;
        if view.front.is_none() {
            return Ok(None);
        }
        let everywhere = self.everywhere(now).await?;
        let total = sum(service, &view, &everywhere);
        let mut kept = lock(&self.kept);
        if kept.len() >= TOTALS_MAX {
            kept.retain(|_, (at, _)| now.since(*at) < TOTAL_LIFE);
        }
        kept.insert(service.clone(), (now, total));
        Ok(Some(total))
    }

    /// The only service there is, for who does not name one.
    pub(crate) async fn only(&self) -> Result<Option<ServiceName>, BoardError> {
        let mut names = self.board.view().await?.services.into_keys();
        let first = names.next();
        Ok(first.filter(|_| names.next().is_none()))
    }

    async fn everywhere(&self, now: Mono) -> Result<Arc<Everywhere>, BoardError> {
        if let Some((at, known)) = lock(&self.everywhere).as_ref()
            && now.since(*at) < DEMAND_LIFE
        {
            return Ok(Arc::clone(known));
        }
        let mut demand: BTreeMap<ServiceName, Asked> = BTreeMap::new();
        for (service, balancers) in self.board.demand().await? {
            let asked = demand.entry(service).or_default();
            for (_, said, _) in balancers {
                asked.queued = asked.queued.saturating_add(said.queued);
                asked.rps += rate(said.rps_milli);
                asked.eps += rate(said.eps_milli);
                for (instance, n) in said.in_flight {
                    let sum = asked.in_flight.entry(instance).or_default();
                    *sum = sum.saturating_add(n);
                }
            }
        }
        let everywhere = Arc::new(Everywhere { demand, terms: self.board.terms().await? });
        *lock(&self.everywhere) = Some((now, Arc::clone(&everywhere)));
        Ok(everywhere)
    }
}

fn sum(service: &ServiceName, view: &ServiceView, everywhere: &Everywhere) -> Total {
    let mut total = Total::default();
    let Some(front) = &view.front else { return total };
    let asked = everywhere.demand.get(service).cloned().unwrap_or_default();
    (total.held, total.startable) = (asked.queued, front.startable);
    (total.rps, total.eps) = (asked.rps, asked.eps);
    if !everywhere.demand.contains_key(service) {
        // No balancer carries it: what the instances say is all there is.
        let reports = || view.loads.iter().map(|reading| &reading.report);
        total.rps = reports().filter_map(|r| r.rps_milli).map(rate).sum();
        total.eps = reports().filter_map(|r| r.eps_milli).map(rate).sum();
    }
    for entry in view.routes.iter().flat_map(|table| &table.entries) {
        let terms = everywhere.terms.get(&entry.instance).copied().unwrap_or_default();
        let report = view.loads.iter().map(|r| &r.report).find(|r| r.instance == entry.instance);
        let seen = asked.in_flight.get(&entry.instance).copied();
        let weight = f64::from(entry.weight) * f64::from(terms.weight) / 10_000.0;
        let bound = entry.max_in_flight.min(terms.max_in_flight.unwrap_or(u32::MAX));
        total.add(&Part {
            ready: entry.state == RouteState::Ready && weight > 0.0,
            weight,
            load: report.map(|r| r.load.ratio()),
            in_flight: report.and_then(|r| r.in_flight).or(seen).unwrap_or(0),
            concurrency: front.concurrency.unwrap_or(LoadPolicy::CONCURRENCY_DEFAULT),
            max_in_flight: bound,
        });
    }
    total
}
