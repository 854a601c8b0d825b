//! What the suites publish on the board, in the managers' stead.

use domain::{
    Bytes, Epoch, Generation, HashRule, Health, Hold, InstanceId, PolicyName, Revision, RouteEntry,
    RouteGen, RouteMode, RouteState, RouteTable, ServiceFront,
};
use std::net::SocketAddr;
use std::time::Duration;

/// More than any suite has open at once.
pub const MAX_IN_FLIGHT: u32 = 10_000;

/// Larger than any honest body here, smaller than what a hostile one claims.
pub const BODY_MAX: Bytes = Bytes(1 << 30);

/// A front of `name` for any host and path.
///
/// # Panics
/// When `name` is none.
#[must_use]
pub fn front(name: &str, max_in_flight: u32) -> ServiceFront {
    ServiceFront {
        service: name.parse().expect("a service's name"),
        hosts: Vec::new(),
        paths: vec!["/".to_owned()],
        mode: RouteMode::Http,
        port: None,
        policy: PolicyName::Feedback,
        hash: HashRule::default(),
        sticky: None,
        probe: None,
        body_max: Some(BODY_MAX),
        health: Health::default(),
        agent: None,
        hold: Hold::default(),
        concurrency: None,
        max_in_flight,
        slow_start: Duration::ZERO,
        source: None,
        load_balanced: true,
        revision: Revision(1),
        startable: true,
    }
}

/// The instance of `service` at an address: another address is another instance.
///
/// # Panics
/// When the id is none.
#[must_use]
pub fn instance(service: &str, address: SocketAddr) -> InstanceId {
    format!("{service}-{:010}", address.port()).parse().expect("an id")
}

/// A route to a ready instance.
#[must_use]
pub fn entry(service: &str, address: SocketAddr, max_in_flight: u32) -> RouteEntry {
    RouteEntry {
        instance: instance(service, address),
        address,
        state: RouteState::Ready,
        weight: 100,
        max_in_flight,
        revision: Revision(1),
    }
}

/// A route table of ready instances.
#[must_use]
pub fn table(service: &str, generation: u64, to: &[SocketAddr], max_in_flight: u32) -> RouteTable {
    let entries = to.iter().map(|address| entry(service, *address, max_in_flight)).collect();
    let generation = RouteGen { epoch: Epoch(1), generation: Generation(generation) };
    RouteTable { generation, entries }
}
