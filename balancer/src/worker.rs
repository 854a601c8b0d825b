//! One core's own state: its pickers, retry budgets and idle connections, reached without a lock.

use crate::conn::{Conn, Ending, Phase, Tick};
use crate::http::access::Seen;
use crate::http::client::Buffers;
use crate::limited::Limit;
use crate::limits::Limits;
use crate::pool::Pool;
use crate::tcp::flow::Tools;
use crate::view::Service;
use crate::{Shared, route::Table};
use domain::Mono;
use picker::{Budget, Picker};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes read at once, from clients and from instances: a large body needs few system calls, and
/// the memory stays in the processor's cache, since all connections of a worker share it.
const SCRATCH_BYTES: usize = 64 << 10;

/// One in so many connections is closed at once when all places are taken.
const EVICTED_SHARE: usize = 64;
/// A head that is not there after this may be given up for a new connection.
const HEAD_PATIENCE_MS: u64 = 1000;

/// What one worker keeps of one service.
#[derive(Debug)]
pub struct Local {
    /// The service.
    pub service: Arc<Service>,
    /// Its chance and turn.
    pub picker: RefCell<Picker>,
    /// Its retries.
    pub budget: RefCell<Budget>,
    /// Its idle connections.
    pub pool: RefCell<Pool>,
    /// Answers to probes taken so far.
    pub probes_seen: Cell<u32>,
    /// When a pick was last explained.
    pub explained: Cell<Option<Mono>>,
}

/// One worker. Lives on its thread.
pub struct Worker {
    /// Which one, from 0.
    pub index: usize,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// The coarse clock.
    pub tick: Rc<Tick>,
    /// What protects it.
    pub limits: Rc<Limits>,
    /// For reads, one at a time.
    pub scratch: RefCell<Box<[u8]>>,
    /// For what is passed on without being read.
    pub tools: Rc<Tools>,
    /// Memory of requests that are over.
    pub buffers: RefCell<Buffers>,
    locals: RefCell<Vec<Option<Rc<Local>>>>,
    conns: RefCell<Vec<Weak<Conn>>>,
    open: Cell<usize>,
    ids: Cell<u64>,
    /// Bytes of bodies that are being read whole.
    bodies: Cell<u64>,
    /// Bytes of heads that are being read.
    heads: Cell<u64>,
}

/// Room in a worker's memory, of which there is so much; dropping it gives the room back.
pub struct Room<'a> {
    all: &'a Cell<u64>,
    bytes: u64,
}

impl Room<'_> {
    /// Makes it larger; false if `most` would be passed.
    #[must_use]
    pub fn grow(&mut self, bytes: u64, most: u64) -> bool {
        let all = self.all.get().saturating_add(bytes);
        if all > most {
            return false;
        }
        self.all.set(all);
        self.bytes += bytes;
        true
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.all.set(self.all.get().saturating_sub(self.bytes));
    }
}

impl Worker {
    /// A worker without anything yet.
    #[must_use]
    pub fn new(index: usize, shared: Arc<Shared>) -> Worker {
        let ids = shared.seed ^ (index as u64).rotate_right(8);
        let limits = Rc::new(shared.limits.clone());
        Worker {
            index,
            shared,
            tick: Rc::new(Tick::default()),
            tools: Rc::new(Tools::new(limits.port_splice)),
            limits,
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            buffers: RefCell::default(),
            locals: RefCell::default(),
            conns: RefCell::default(),
            open: Cell::new(0),
            ids: Cell::new(ids),
            bodies: Cell::new(0),
            heads: Cell::new(0),
        }
    }

    /// Monotonic time.
    #[must_use]
    pub fn now(&self) -> Mono {
        self.shared.clock.monotonic()
    }

    /// The worker's part of a service, made when first needed.
    #[must_use]
    pub fn local(&self, service: &Arc<Service>) -> Rc<Local> {
        let mut locals = self.locals.borrow_mut();
        if locals.len() <= service.slot {
            locals.resize(service.slot + 1, None);
        }
        let place = &mut locals[service.slot];
        if let Some(local) = place.as_ref().filter(|l| l.service.serial == service.serial) {
            return Rc::clone(local);
        }
        let workers = u32::try_from(self.shared.workers).unwrap_or(u32::MAX);
        let local = Rc::new(Local {
            service: Arc::clone(service),
            picker: RefCell::new(Picker::new(
                self.shared.seed ^ service.serial.rotate_left(32) ^ self.index as u64,
            )),
            budget: RefCell::new(Budget::new(workers, self.now())),
            pool: RefCell::default(),
            probes_seen: Cell::new(0),
            explained: Cell::new(None),
        });
        *place = Some(Rc::clone(&local));
        local
    }

    /// The service a request is for.
    #[must_use]
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<Rc<Local>> {
        let table: arc_swap::Guard<Arc<Table>> = self.shared.table.load();
        table.find(host, path).map(|service| self.local(service))
    }

    /// Counts a client's connection, and adds it to those that are swept.
    #[must_use]
    pub fn admit(&self, peer: SocketAddr) -> Rc<Conn> {
        let conn = Rc::new(Conn::new(peer, Rc::clone(&self.tick), Rc::clone(&self.limits)));
        self.held_open();
        self.conns.borrow_mut().push(Rc::downgrade(&conn));
        conn
    }

    /// A connection of a service port counts among all.
    pub fn held_open(&self) {
        self.open.set(self.open.get() + 1);
        self.shared.doors.open.fetch_add(1, Relaxed);
    }

    /// A connection ended.
    pub fn closed(&self) {
        self.open.set(self.open.get().saturating_sub(1));
        self.shared.doors.open.fetch_sub(1, Relaxed);
    }

    /// The sweep ended a connection.
    pub fn ended(&self, conn: &Conn, why: Ending) {
        self.shared.doors.ended(why);
        if let Some(limit) = conn.limit() {
            self.limited(limit);
        }
    }

    /// An id for a request that has none: sixteen hexadecimal digits, each once in this process and
    /// by chance in the world.
    #[must_use]
    pub fn fresh_id(&self) -> [u8; 16] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        // A step of the golden ratio and a mix (SplitMix64): neighbours look unrelated.
        let state = self.ids.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.ids.set(state);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        let bytes = mixed.to_be_bytes();
        std::array::from_fn(|place| {
            let byte = bytes[place / 2];
            let half = if place % 2 == 0 { byte >> 4 } else { byte & 15 };
            DIGITS[usize::from(half)]
        })
    }

    /// Room to read a body of this length whole, if there is.
    #[must_use]
    pub fn keep(&self, bytes: u64) -> Option<Room<'_>> {
        let mut room = Room { all: &self.bodies, bytes: 0 };
        if room.grow(bytes, Limits::BUFFER_MEMORY) {
            return Some(room);
        }
        self.limited(Limit::BufferMemory);
        None
    }

    /// Room for a head, none of it taken yet.
    #[must_use]
    pub fn head_room(&self) -> Room<'_> {
        Room { all: &self.heads, bytes: 0 }
    }

    /// Something ran into a bound.
    pub fn limited(&self, limit: Limit) {
        self.shared.doors.limited.reached(limit);
    }

    /// Logs a request, if there is a log.
    pub fn log(&self, seen: impl FnOnce() -> Seen) {
        if let Some(log) = &self.shared.access {
            log.tell(seen(), self.now());
        }
    }

    /// Makes room for a new connection where all places are taken: the connections that are idle
    /// longest end. True if there was one.
    #[must_use]
    pub fn evict(&self) -> bool {
        let conns = self.conns.borrow();
        // Who takes long over a head comes after those who are between requests.
        let may = |c: &Rc<Conn>| match c.phase() {
            Phase::Idle => true,
            Phase::Head => c.quiet() >= HEAD_PATIENCE_MS,
            Phase::Body
            | Phase::Held
            | Phase::Upload
            | Phase::Answer
            | Phase::Stream
            | Phase::Tunnel
            | Phase::Linger => false,
        };
        let idle = conns.iter().filter_map(Weak::upgrade).filter(may);
        let mut idle: Vec<_> = idle.filter(|c| c.ending().is_none()).collect();
        idle.sort_unstable_by_key(|c| (c.phase() != Phase::Idle, std::cmp::Reverse(c.quiet())));
        // Some at once, so that a full house does not sort its guests for each newcomer.
        idle.truncate((conns.len() / EVICTED_SHARE).max(1));
        idle.iter().for_each(|conn| conn.end(Ending::Evicted));
        if idle.is_empty() {
            // The other workers' idle ones are theirs to end.
            self.shared.doors.crowded.store(true, Relaxed);
        }
        !idle.is_empty()
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Asks every connection to end.
    pub fn stop_all(&self) {
        for conn in self.conns.borrow().iter().filter_map(Weak::upgrade) {
            conn.stop();
        }
    }

    /// Moves the coarse clock on, checks deadlines, closes idle connections.
    pub fn sweep(&self) {
        let now = u64::try_from(self.now().0.as_millis()).unwrap_or(u64::MAX);
        self.tick.0.set(now);
        if self.shared.doors.crowded.swap(false, Relaxed) {
            let _others_may_have_some = self.evict();
        }
        self.conns.borrow_mut().retain(|conn| match conn.upgrade() {
            Some(conn) => {
                conn.check();
                true
            }
            None => false,
        });
        let table = self.shared.table.load();
        let mut locals = self.locals.borrow_mut();
        for place in locals.iter_mut() {
            let Some(local) = place else { continue };
            let service = &local.service;
            let gone = !table.services().iter().any(|s| s.serial == service.serial);
            if gone {
                *place = None;
                continue;
            }
            service.stats[self.index].retries_left(local.budget.borrow().left());
            let snapshot = service.snapshot.load();
            local.pool.borrow_mut().sweep(now, |serial| {
                snapshot.entries.iter().any(|e| e.ready && e.instance.serial == serial)
            });
        }
    }
}
