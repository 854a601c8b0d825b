//! A request that cannot go on now: it waits within the service's bounds, or is told when to come
//! again.

use crate::conn::Phase;
use crate::forward::Passage;
use crate::http::client::Client;
use crate::http::request::Request;
use crate::http::serve::while_there;
use crate::limited::Limit;
use crate::outcome::AtInstance;
use crate::refuse::{Refusal, problem};
use crate::wait;
use picker::NoPick;
use std::time::Duration;
use wire::problem::Kind;

/// What a held request takes besides its head and body: its task, buffers of both connections.
const HELD_BYTES: u64 = 2048;

impl Passage<'_> {
    /// Waits in the service's queue until an instance has room. `None`: the client went away.
    pub(crate) async fn hold(
        &self,
        client: &mut Client,
        request: &Request,
        why: NoPick,
    ) -> Option<Result<AtInstance, Refusal>> {
        let service = &self.local.service;
        let front = service.front.load_full();
        if !front.startable && service.snapshot.load().entries.is_empty() {
            let detail = "the service has no instance and none may be started; `tally explain service` says why";
            return Some(Err(problem(Kind::Unavailable, detail)));
        }
        self.conn.enter(Phase::Held);
        let now = self.worker.now();
        let bytes = held_bytes(client, request);
        let mut ticket = match service.queue.enter(&front.hold, bytes, now) {
            Ok(ticket) => ticket,
            Err(full) => {
                self.worker.limited(full.into());
                return Some(Err(contended(why, "and as many requests wait as may")));
            }
        };
        self.worker.shared.waits(service);
        wait::pump(service, now);
        let mut why = why;
        loop {
            let left = front.hold.deadline.saturating_sub(self.worker.now().since(self.arrived));
            let turn = tokio::time::timeout(left, ticket.turn());
            if while_there(self.worker, client, turn).await?.is_err() {
                self.worker.limited(Limit::HoldDeadline);
                return Some(Err(contended(why, "and the request waited as long as it may")));
            }
            match self.pick_now(None, self.worker.now()) {
                Ok(at) => return Some(Ok(at)),
                Err(again) => why = again,
            }
            ticket.again();
        }
    }

    /// Waits a little after connect errors, counted among the held. `None`: the client went away.
    pub(crate) async fn pause(
        &self,
        client: &mut Client,
        request: &Request,
        pause: Duration,
    ) -> Option<Result<(), Refusal>> {
        let service = &self.local.service;
        let front = service.front.load_full();
        self.conn.enter(Phase::Held);
        let now = self.worker.now();
        let late = now.since(self.arrived) + pause > front.hold.deadline;
        let stay = service.queue.stay(&front.hold, held_bytes(client, request));
        let stay = stay.map_err(Limit::from);
        let _stay = match if late { Err(Limit::HoldDeadline) } else { stay } {
            Ok(stay) => stay,
            Err(limit) => {
                self.worker.limited(limit);
                return Some(Err(problem(Kind::Unavailable, "no instance accepts connections")));
            }
        };
        self.worker.shared.waits(service);
        while_there(self.worker, client, tokio::time::sleep(pause)).await?;
        Some(Ok(()))
    }
}

fn held_bytes(client: &Client, request: &Request) -> u64 {
    HELD_BYTES + request.head.len() as u64 + client.input().len() as u64
}

fn contended(why: NoPick, and: &str) -> Refusal {
    match why {
        NoPick::Nothing => {
            problem(Kind::Unavailable, format!("no instance of the service is ready, {and}"))
        }
        NoPick::Full => {
            problem(Kind::Contended, format!("all instances of the service are busy, {and}"))
        }
    }
}
