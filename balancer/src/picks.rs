//! Explained picks: a few a second of each service are written down as they are made, for people who
//! ask why a request went where it went.

use crate::view::{Entry, Service, Snapshot};
use crate::worker::Local;
use domain::{Mono, Timestamp};
use picker::{Candidates, Field, Picker, score};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use wire::picks::{CandidateView, FieldView, NotEligibleView, PickView, PicksView};
use wire::stamp::Stamp;

/// Picks kept of each service.
pub const KEPT: usize = 32;
/// A worker explains a service's picks no more often: the others pay one comparison.
const EXPLAIN_EVERY: Duration = Duration::from_millis(100);
/// Instances named among those that could not be picked.
const NOT_ELIGIBLE_MAX: usize = 16;

/// The last explained picks of one service, oldest first.
#[derive(Debug, Default)]
pub struct Kept(Mutex<VecDeque<PickView>>);

impl Kept {
    /// Keeps one, unless somebody reads just now: the request path does not wait.
    fn keep(&self, pick: PickView) {
        let Ok(mut kept) = self.0.try_lock() else { return };
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(pick);
    }

    fn newest(&self, limit: usize) -> Vec<PickView> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().take(limit).cloned().collect()
    }
}

/// Explains the pick that was just made, now and then. The request is not counted there yet.
pub fn explain(
    local: &Local,
    picker: &Picker,
    snapshot: &Snapshot,
    chosen: usize,
    clock: (&dyn Fn() -> Timestamp, Mono),
) {
    let (wall, now) = clock;
    let last = local.explained.get();
    if last.is_some_and(|at| now.since(at) < EXPLAIN_EVERY) {
        return;
    }
    local.explained.set(Some(now));
    let candidates = picker.seen().iter();
    let candidates =
        candidates.map(|(index, cost)| candidate(snapshot, *index, *cost, now)).collect();
    local.service.picks.keep(PickView {
        at: Stamp(wall()),
        policy: snapshot.policy.as_str().to_owned(),
        chosen: snapshot.entries[chosen].instance.id.clone(),
        candidates,
        not_eligible: not_eligible(snapshot),
    });
}

fn candidate(snapshot: &Snapshot, index: usize, policy_cost: f64, now: Mono) -> CandidateView {
    let view = snapshot.view(index);
    let parts = score::Parts::of(&view, &snapshot.field, now);
    CandidateView {
        instance: snapshot.entries[index].instance.id.clone(),
        policy_cost,
        in_flight: view.in_flight,
        load: view.reported.map(|r| r.load),
        reported_in_flight: view.reported.and_then(|r| r.in_flight),
        report_age_seconds: view.reported.map(|r| now.since(r.at).as_secs_f64()),
        report_say: parts.say,
        estimate: parts.estimate,
        load_factor: parts.load_factor,
        weight: parts.weight,
        ramp: parts.ramp,
        success: parts.success,
        cost: parts.cost(),
    }
}

fn why_not(entry: &Entry) -> Option<&'static str> {
    if !entry.ready {
        Some("draining")
    } else if !entry.healthy {
        Some("unwell")
    } else if entry.ejected {
        Some("ejected")
    } else if entry.weight <= 0.0 {
        Some("without_weight")
    } else if entry.instance.in_flight() >= entry.max_in_flight {
        Some("full")
    } else {
        None
    }
}

fn not_eligible(snapshot: &Snapshot) -> Vec<NotEligibleView> {
    let named = snapshot.entries.iter().filter_map(|entry| {
        let why = why_not(entry)?.to_owned();
        Some(NotEligibleView { instance: entry.instance.id.clone(), why })
    });
    named.take(NOT_ELIGIBLE_MAX).collect()
}

/// What is answered to who asks.
#[must_use]
pub fn view(service: &Service, limit: usize) -> PicksView {
    let Field { balancers, published, others_in_flight, concurrency, median_load, .. } =
        service.snapshot.load().field;
    let Field { standing, all_new, .. } = service.snapshot.load().field;
    PicksView {
        service: service.name.clone(),
        field: FieldView {
            balancers,
            published,
            others_in_flight,
            concurrency,
            median_load,
            standing,
            all_new,
        },
        items: service.picks.newest(limit),
    }
}
