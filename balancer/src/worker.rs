//! One core's own state: its pickers, retry budgets and idle connections, reached without a lock.

use crate::conn::{Conn, Tick};
use crate::pool::Pool;
use crate::upstream::READ_BYTES;
use crate::view::Service;
use crate::{Shared, route::Table};
use domain::Mono;
use picker::{Budget, Picker};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

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
}

/// One worker. Lives on its thread.
pub struct Worker {
    /// Which one, from 0.
    pub index: usize,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// The coarse clock.
    pub tick: Arc<Tick>,
    /// For reads of answers' heads, one at a time.
    pub scratch: RefCell<Box<[u8]>>,
    locals: RefCell<Vec<Option<Rc<Local>>>>,
    conns: RefCell<Vec<Weak<Conn>>>,
    open: Cell<usize>,
}

impl Worker {
    /// A worker without anything yet.
    #[must_use]
    pub fn new(index: usize, shared: Arc<Shared>) -> Worker {
        Worker {
            index,
            shared,
            tick: Arc::new(Tick::default()),
            scratch: RefCell::new(vec![0; READ_BYTES].into_boxed_slice()),
            locals: RefCell::default(),
            conns: RefCell::default(),
            open: Cell::new(0),
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
        });
        *place = Some(Rc::clone(&local));
        local
    }

    /// The service a request is for.
    #[must_use]
    pub fn find(&self, host: &[u8], path: &str) -> Option<Rc<Local>> {
        let table: arc_swap::Guard<Arc<Table>> = self.shared.table.load();
        table.find(host, path).map(|service| self.local(service))
    }

    /// Adds a connection to those that are swept.
    pub fn opened(&self, conn: &Arc<Conn>) {
        self.open.set(self.open.get() + 1);
        self.conns.borrow_mut().push(Arc::downgrade(conn));
    }

    /// A tunnel took a connection over: it counts on.
    pub fn held_open(&self) {
        self.open.set(self.open.get() + 1);
    }

    /// A connection ended.
    pub fn closed(&self) {
        self.open.set(self.open.get().saturating_sub(1));
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
        self.tick.0.store(now, Relaxed);
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
            let snapshot = service.snapshot.load();
            local.pool.borrow_mut().sweep(now, |serial| {
                snapshot.entries.iter().any(|e| e.ready && e.instance.serial == serial)
            });
        }
    }
}
