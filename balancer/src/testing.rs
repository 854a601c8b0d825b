//! Small worlds for unit tests.

use crate::Shared;
use crate::route::Table;
use arc_swap::ArcSwap;
use chassis::Nudge;
use domain::{HashRule, Health, Hold, PolicyName, Revision, RouteMode, ServiceFront};
use std::sync::Arc;
use std::time::Duration;

/// A front for any host and path.
pub fn front(name: &str) -> ServiceFront {
    ServiceFront {
        service: name.parse().unwrap(),
        hosts: Vec::new(),
        paths: vec!["/".to_owned()],
        mode: RouteMode::Http,
        port: None,
        policy: PolicyName::Feedback,
        hash: HashRule::default(),
        sticky: None,
        probe: None,
        body_max: None,
        hold: Hold::default(),
        health: Health::default(),
        agent: None,
        concurrency: None,
        max_in_flight: 100,
        slow_start: Duration::ZERO,
        source: None,
        load_balanced: true,
        revision: Revision(1),
        startable: true,
    }
}

/// What workers share, with one worker and nothing published.
pub fn shared() -> Shared {
    Shared {
        id: "b1".parse().unwrap(),
        workers: 1,
        seed: 1,
        clock: Arc::new(chassis::SystemClock::new()),
        table: ArcSwap::from_pointee(Table::default()),
        limits: crate::Limits::default(),
        access: None,
        doors: crate::doors::Doors::default(),
        demand_nudge: Nudge::new(),
        wake_nudge: Nudge::new(),
        ports: crate::tcp::Ports::default(),
        nat: crate::nat::State::default(),
        able_nudge: Nudge::new(),
    }
}

/// A report of this load, from the beginning of time.
pub fn reported(load: f64) -> picker::Reported {
    let at = domain::Mono::default();
    picker::Reported { load, in_flight: None, at, own_in_flight: 0, others_in_flight: None }
}
