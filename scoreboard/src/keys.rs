//! Every Redis key of the board, its type and its expiry, in one place.
//!
//! | key | type | holds | expiry |
//! |---|---|---|---|
//! | `tally:{S}:board` | sorted set | instance -> load, 1.0 = fully used | [`BOARD_EXPIRY`] after the last write; members [`LOAD_TTL`] |
//! | `tally:{S}:seen` | sorted set | instance -> server time of the last report, ms | same |
//! | `tally:{S}:report` | hash | instance -> `in_flight rps eps seq at_ms source` | same |
//! | `tally:{S}:load` | hash | instance -> `load in_flight rps eps seq at_ms source`, for services without a balancer | [`PLAIN_EXPIRY`] |
//! | `tally:{S}:routes` | hash | instance -> `address state weight max_in_flight revision`; `_gen` | none |
//! | `tally:{S}:demand` | hash | balancer -> JSON | [`DEMAND_EXPIRY`]; fields older than [`BALANCER_LIVE`] are ignored |
//! | `tally:{S}:writer` | string | `WRITER KIND AT_MS`: who wrote loads last; whoever writes them otherwise deletes it | as the loads' |
//! | `tally:services` | hash | service -> JSON | none |
//! | `tally:balancers` | sorted set | balancer -> heartbeat, ms of the server's time | members [`HEARTBEAT_TTL`] |
//! | `tally:balancers:abilities` | hash | balancer -> JSON | dead balancers' fields leave when read |
//! | `tally:terms` | hash | instance -> `weight max_in_flight at_ms`, where its agent changed them | [`LOAD_TTL`] after the last word |
//! | `tally:changes` | channel | lines `front S`, `routes S`, `loads S`, `demand S`; `told S N` and N lines `INSTANCE LOAD in_flight rps eps seq at_ms source` | - |
//!
//! `{S}` is the service's name in braces: a hash tag, so that its keys share a cluster slot.

use crate::board::LOAD_TTL;
#[expect(unused_imports, reason = "named in the table above")]
use crate::board::{BALANCER_LIVE, HEARTBEAT_TTL};
use domain::ServiceName;
use std::time::Duration;

/// A service nobody reports for loses its whole board soon after its last member; renewed every
/// second while there are writes.
pub const BOARD_EXPIRY: Duration = Duration::from_secs(LOAD_TTL.as_secs() + 2);
/// Kept longer than read, as the contract says: for people who look.
pub const PLAIN_EXPIRY: Duration = Duration::from_secs(60);
/// Demand nobody renews is of no use to anybody; ten heartbeats' worth is left for people.
pub const DEMAND_EXPIRY: Duration = Duration::from_secs(60);

/// Hash of fronts, and the list of services.
pub const SERVICES: &str = "tally:services";
/// Sorted set of heartbeats.
pub const BALANCERS: &str = "tally:balancers";
/// Hash of what each balancer can do.
pub const ABILITIES: &str = "tally:balancers:abilities";
/// Hash of the terms that agents changed.
pub const TERMS: &str = "tally:terms";
/// Channel of changes.
pub const CHANGES: &str = "tally:changes";
/// Field of a route hash that holds its version; no instance id has an underscore.
pub const ROUTES_GEN: &str = "_gen";

/// Sorted set of loads.
#[must_use]
pub fn board(service: &ServiceName) -> String {
    format!("tally:{{{service}}}:board")
}

/// Sorted set of report times.
#[must_use]
pub fn seen(service: &ServiceName) -> String {
    format!("tally:{{{service}}}:seen")
}

/// Hash of the rest of each report.
#[must_use]
pub fn report(service: &ServiceName) -> String {
    format!("tally:{{{service}}}:report")
}

/// Hash of reports of a service without a balancer.
#[must_use]
pub fn load(service: &ServiceName) -> String {
    format!("tally:{{{service}}}:load")
}

/// Hash of routes.
#[must_use]
pub fn routes(service: &ServiceName) -> String {
    format!("tally:{{{service}}}:routes")
}

/// Hash of demand by balancer.
#[must_use]
pub fn demand(service: &ServiceName) -> String {
    format!("tally:{{{service}}}:demand")
}

/// Text that tells a writer of loads whether another one wrote.
#[must_use]
pub fn writer(service: &ServiceName) -> String {
    format!("tally:{{{service}}}:writer")
}

/// All keys that belong to one service alone.
#[must_use]
pub fn of_service(service: &ServiceName) -> [String; 7] {
    [
        board(service),
        seen(service),
        report(service),
        load(service),
        routes(service),
        demand(service),
        writer(service),
    ]
}
