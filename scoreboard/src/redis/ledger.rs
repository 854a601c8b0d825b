//! What a writer of loads remembers from one write to the next, and the look it took with the last.

use super::book::Book;
use super::link::Live;
use super::record::Sheaves;
use ::redis::Pipeline;
use domain::{Mono, ServiceName, Timestamp};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Services that are watched from one write to the next, so that it needs no look.
pub(super) const HELD_MAX: usize = 64;
/// A watch is good for this long: the server's time is reckoned from when it began.
const HELD_FOR: Duration = Duration::from_millis(500);
/// After somebody else's write came between, looks come first again for this long.
const SHY_FOR: Duration = Duration::from_secs(5);

/// What is known from one write to the next.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) books: HashMap<ServiceName, Book>,
    pub(super) held: Option<Held>,
    pub(super) shy_since: Option<Mono>,
}

/// A look that was taken together with the last write; whoever writes since makes the next one fail.
pub(super) struct Held {
    pub(super) connection: u64,
    pub(super) marks: BTreeMap<ServiceName, String>,
    pub(super) now: Timestamp,
    pub(super) at: Mono,
}

impl Ledger {
    pub(super) fn forget(&mut self) {
        self.books.clear();
        self.held = None;
    }

    pub(super) fn is_shy(&self, now: Mono) -> bool {
        self.shy_since.is_some_and(|at| now.since(at) < SHY_FOR)
    }

    /// The look that is held, if it is about all of these services and none is to be tidied up.
    pub(super) fn take_held(
        &mut self,
        live: &Live,
        sheaves: &Sheaves<'_>,
        now: Mono,
    ) -> Option<Look> {
        let held = self.held.take()?;
        let age = now.since(held.at);
        if held.connection != live.number() || age >= HELD_FOR || self.is_shy(now) {
            return None;
        }
        let mark = |service: &ServiceName| {
            let mark = held.marks.get(service)?;
            let book = self.books.get(service)?;
            (book.mark == *mark && !book.is_due(now)).then(|| Some(mark.clone()))
        };
        let marks: Option<Vec<Option<String>>> = sheaves.keys().map(mark).collect();
        Some((held.now.plus(age), marks?))
    }
}

/// The server's time, and each service's mark.
pub(super) type Look = (Timestamp, Vec<Option<String>>);
/// What the server answers to such a look.
pub(super) type Looked = ((i64, i64), Vec<Option<String>>);

pub(super) fn time((secs, micros): (i64, i64)) -> Timestamp {
    Timestamp(secs * 1000 + micros / 1000)
}

pub(super) fn add_look(pipe: &mut Pipeline, keys: &[String]) {
    pipe.cmd("TIME").cmd("WATCH").arg(keys).ignore().cmd("MGET").arg(keys);
}
