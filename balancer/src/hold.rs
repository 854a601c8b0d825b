//! A request that cannot go on now: it waits within the service's bounds, or is told when to come
//! again.

use crate::body::AnswerBody;
use crate::conn::Phase;
use crate::forward::Passage;
use crate::head::Framing;
use crate::outcome::AtInstance;
use crate::refuse::problem;
use crate::wait;
use http::Response;
use picker::NoPick;
use std::time::Duration;
use wire::problem::Kind;

/// What a held request takes besides its head: tasks, buffers of both connections.
const HELD_BYTES: u64 = 2048;
/// Body bytes that may have been read ahead with a held request's head.
const READ_AHEAD_BYTES: u64 = 64 << 10;

impl Passage {
    /// Waits in the service's queue until an instance has room.
    pub(crate) async fn hold(&self, why: NoPick) -> Result<AtInstance, Response<AnswerBody>> {
        let service = &self.local.service;
        let front = service.front.load_full();
        if !front.startable && service.snapshot.load().entries.is_empty() {
            let detail = "the service has no instance and none may be started; `tally explain service` says why";
            return Err(problem(Kind::Unavailable, detail));
        }
        self.conn.enter(Phase::Held);
        let now = self.worker.now();
        let Ok(mut ticket) = service.queue.enter(&front.hold, self.held_bytes(), now) else {
            return Err(contended(why, "and as many requests wait as may"));
        };
        self.worker.shared.waits(service);
        wait::pump(service, now);
        let mut why = why;
        loop {
            let left = front.hold.deadline.saturating_sub(self.worker.now().since(self.arrived));
            if tokio::time::timeout(left, ticket.turn()).await.is_err() {
                return Err(contended(why, "and the request waited as long as it may"));
            }
            match self.pick_now(None, self.worker.now()) {
                Ok(at) => return Ok(at),
                Err(again) => why = again,
            }
            ticket.again();
        }
    }

    /// Waits a little after connect errors, counted among the held.
    pub(crate) async fn pause(&self, pause: Duration) -> Result<(), Response<AnswerBody>> {
        let service = &self.local.service;
        let front = service.front.load_full();
        self.conn.enter(Phase::Held);
        let now = self.worker.now();
        let ticket = service.queue.enter(&front.hold, self.held_bytes(), now);
        if ticket.is_err() || now.since(self.arrived) + pause > front.hold.deadline {
            return Err(problem(Kind::Unavailable, "no instance accepts connections"));
        }
        self.worker.shared.waits(service);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn held_bytes(&self) -> u64 {
        let head: usize =
            self.parts.headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
        let body = match self.framing {
            Framing::None => 0,
            Framing::Length(n) => n.min(READ_AHEAD_BYTES),
            Framing::Chunked | Framing::Close => READ_AHEAD_BYTES,
        };
        HELD_BYTES + body + head as u64
    }
}

fn contended(why: NoPick, and: &str) -> Response<AnswerBody> {
    match why {
        NoPick::Nothing => {
            problem(Kind::Unavailable, &format!("no instance of the service is ready, {and}"))
        }
        NoPick::Full => {
            problem(Kind::Contended, &format!("all instances of the service are busy, {and}"))
        }
    }
}
