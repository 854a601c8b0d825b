//! Routes at registration: nobody takes another service's, and none is accepted that no balancer
//! can serve.

use super::Api;
use chassis::ApiError;
use domain::{Ability, BalancerId, RouteMode, ServiceSpec};
use std::collections::BTreeMap;
use std::time::Duration;
use wire::problem::Kind;

/// A balancer says what it can do within moments of its first heartbeat; one that has not by then
/// is given the benefit of the doubt.
const ABILITY_MAX: Duration = Duration::from_secs(1);
/// Between two looks at what balancers say.
const ABILITY_LOOK: Duration = Duration::from_millis(20);

/// Refuses a route that another service has: one of the two would never get a request.
pub fn unclaimed(api: &Api, spec: &ServiceSpec) -> Result<(), ApiError> {
    if !spec.load_balanced {
        return Ok(());
    }
    let world = api.shared.world();
    let others = world.services.iter().filter(|(name, other)| {
        **name != spec.name && !other.row.deleting && other.spec.load_balanced
    });
    for (name, other) in others {
        let claimed = match (spec.route.mode, other.spec.route.mode) {
            (RouteMode::Http, RouteMode::Http) => {
                let route = &other.spec.route;
                let host = spec.route.hosts.iter().find(|host| route.hosts.contains(host));
                let path = spec.route.paths.iter().find(|path| route.paths.contains(path));
                host.zip(path).map(|(host, path)| ("/route/hosts", format!("{host}{path}")))
            }
            (RouteMode::Tcp | RouteMode::Nat, RouteMode::Tcp | RouteMode::Nat) => {
                let port = spec.route.port.filter(|port| other.spec.route.port == Some(*port));
                port.map(|port| ("/route/port", format!("port {port}")))
            }
            (RouteMode::Http, _) | (_, RouteMode::Http) => None,
        };
        if let Some((pointer, what)) = claimed {
            let detail = format!("service {name} has {what} already; choose another route");
            return Err(ApiError::new(Kind::Conflict, detail.clone()).with_error(pointer, detail));
        }
    }
    Ok(())
}

/// Refuses mode `nat` where every live balancer says that it cannot, with what each lacks.
pub async fn servable(api: &Api, spec: &ServiceSpec) -> Result<(), ApiError> {
    if !spec.load_balanced || spec.route.mode != RouteMode::Nat {
        return Ok(());
    }
    let until = api.clock.monotonic().plus(ABILITY_MAX);
    loop {
        let said = match api.board.abilities().await {
            Ok(said) => said,
            Err(error) => {
                let error = chassis::telemetry::Chain(&error).to_string();
                tracing::warn!(error, "what balancers can do was not read");
                return Ok(());
            }
        };
        if said.values().any(|ability| ability.nat_lacks.is_none()) {
            return Ok(());
        }
        if !said.is_empty() {
            return Err(lacking(&said));
        }
        if api.clock.monotonic() >= until {
            return Ok(());
        }
        tokio::time::sleep(ABILITY_LOOK).await;
    }
}

fn lacking(said: &BTreeMap<BalancerId, Ability>) -> ApiError {
    let each = said.iter().filter_map(|(balancer, ability)| {
        ability.nat_lacks.as_ref().map(|why| format!("{balancer}: {why}"))
    });
    let each: Vec<String> = each.collect();
    let detail = format!(
        "no live balancer can serve mode nat ({}); put that right, or declare mode tcp",
        each.join("; ")
    );
    ApiError::new(Kind::Invalid, detail.clone()).with_error("/route/mode", detail)
}
