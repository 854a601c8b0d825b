//! The question for places and what its answer means: where starts go, which instances stop.

use container_planner::{Grant, Plan, Snapshot, StartAsk, WaitWhy, Waiting};
use domain::{ServiceGroup, Timestamp};
use std::time::Duration;
use wire::placement::{
    PlacementAnswer, PlacementRequest, WANTED_MAX, WantedStart, WantedStops, Why,
};

/// What a plan asks of the machine-manager.
#[must_use]
pub fn question(snapshot: &Snapshot, plan: &Plan) -> PlacementRequest {
    let wanted = plan.starts.iter().take(WANTED_MAX).filter_map(|ask| wanted(snapshot, ask));
    PlacementRequest {
        wire: wire::WIRE_VERSION,
        epoch: snapshot.epoch,
        wanted: wanted.collect(),
        stops: plan
            .stops
            .iter()
            .map(|ask| WantedStops {
                service: ask.service.clone(),
                count: ask.count,
                candidates: ask.candidates.clone(),
            })
            .collect(),
    }
}

fn wanted(snapshot: &Snapshot, ask: &StartAsk) -> Option<WantedStart> {
    let service = snapshot.services.iter().find(|s| s.name == ask.service)?;
    let group = match service.spec.group {
        ServiceGroup::NodeSpecific => "node-specific",
        ServiceGroup::SelfContained => "self-contained",
        ServiceGroup::System => "system",
    };
    Some(WantedStart {
        instance: ask.instance.clone(),
        service: ask.service.clone(),
        revision: ask.revision,
        cpu_millis: ask.resources.cpu.0,
        memory_bytes: ask.resources.memory.0,
        needs: (&service.spec.needs).into(),
        group: group.to_owned(),
        not_on: ask.not_on.clone(),
        wake: ask.wake,
        deadline_ms: ms(service.spec.lifecycle.start_deadline),
        priority: service.spec.priority,
    })
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Puts an answer into the snapshot, for the plan that goes on from it.
pub fn take_answer(snapshot: &mut Snapshot, answer: PlacementAnswer) {
    for granted in answer.granted {
        snapshot.grants.insert(granted.instance, Grant::On(granted.node));
    }
    for waiting in answer.waiting {
        let why = match waiting.why {
            Why::Node => WaitWhy::Node,
            Why::Cap => WaitWhy::Cap,
            Why::TypeMax => WaitWhy::TypeMax,
            Why::NoType => WaitWhy::NoType,
            Why::Impossible => WaitWhy::Impossible,
        };
        let until = waiting.until.map(|at| format!(", until {}", wire::stamp::show(Timestamp(at))));
        let detail = format!("{}{}", waiting.detail, until.unwrap_or_default());
        snapshot.grants.insert(waiting.instance, Grant::Waiting(Waiting { why, detail }));
    }
    for id in answer.stops {
        snapshot.stop_answers.entry(id.service()).or_default().push(id);
    }
}
