//! The managers' part, played by a suite: it publishes on a board in Redis, and waits until what it
//! published is in use.

use crate::board::{self, MAX_IN_FLIGHT};
use crate::wait::until;
use domain::{RouteState, RouteTable, ServiceName};
use scoreboard::{Board, RedisBoard};
use std::net::SocketAddr;
use std::sync::Arc;

/// The managers' part: what they publish, and how they know that it is in use.
#[expect(missing_debug_implementations, reason = "a board has none")]
pub struct Manager {
    board: RedisBoard,
    service: ServiceName,
    generation: u64,
}

impl Manager {
    /// The manager of one service, whose board is at `url`.
    ///
    /// # Panics
    /// When it can be no address.
    #[must_use]
    pub fn new(url: &str, service: &str) -> Manager {
        let clock = Arc::new(chassis::SystemClock::new());
        let board = RedisBoard::connect(url, clock).expect("an address");
        Manager { board, service: service.parse().expect("a name"), generation: 0 }
    }

    /// Publishes the service's own terms.
    pub async fn publish_front(&self, max_in_flight: u32) {
        self.publish_front_for(max_in_flight, &[]).await;
    }

    /// The same, for these hosts alone.
    pub async fn publish_front_for(&self, max_in_flight: u32, hosts: &[&str]) {
        let mut front = board::front(self.service.as_str(), max_in_flight);
        front.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        until("the board takes it", || self.board.publish_front(&front)).await;
    }

    /// Publishes a table with these instances, some of them draining.
    pub async fn publish(&mut self, ready: &[SocketAddr], draining: &[SocketAddr]) {
        self.publish_with(ready, draining, MAX_IN_FLIGHT).await;
    }

    /// The same, with a bound on what one instance takes at once.
    pub async fn publish_with(
        &mut self,
        ready: &[SocketAddr],
        draining: &[SocketAddr],
        max_in_flight: u32,
    ) {
        let name = self.service.as_str();
        self.generation += 1;
        let mut table = board::table(name, self.generation, ready, max_in_flight);
        for address in draining {
            let mut entry = board::entry(name, *address, max_in_flight);
            entry.state = RouteState::Draining;
            table.entries.push(entry);
        }
        let RouteTable { entries, .. } = &mut table;
        entries.sort_by(|a, b| a.instance.cmp(&b.instance));
        until("the board takes it", || self.board.publish_routes(&self.service, &table)).await;
    }

    /// Waits until the balancer uses the last table and has nothing in flight at `address`.
    pub async fn drained(&self, address: Option<SocketAddr>) {
        let gone = address.map(|a| board::instance(self.service.as_str(), a));
        until("the last table is in use", || async {
            let all = self.board.demand().await.map_err(|e| e.to_string())?;
            let said = all.get(&self.service).and_then(|said| said.first());
            let Some((_, demand, _)) = said else { return Err("no word yet".to_owned()) };
            let newest = demand.routes_gen.generation.0 >= self.generation;
            let left = gone.as_ref().and_then(|id| demand.in_flight.get(id)).copied().unwrap_or(0);
            if newest && left == 0 { Ok(()) } else { Err(format!("{demand:?}")) }
        })
        .await;
    }
}
