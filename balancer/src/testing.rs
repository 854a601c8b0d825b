//! Small worlds for unit tests.

use domain::service::Hold;
use domain::{PolicyName, Revision, RouteMode, ServiceFront};
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
        hold: Hold::default(),
        concurrency: None,
        max_in_flight: 100,
        slow_start: Duration::ZERO,
        source: None,
        load_balanced: true,
        revision: Revision(1),
        startable: true,
    }
}
