//! Picks as the request path makes them, over made-up instances, for those who time them.

use crate::view::{Entry, Instance, Service, Snapshot};
use domain::{Hold, Mono, PolicyName, Revision, RouteMode, ServiceFront};
use picker::{Ask, Candidates, Field, Others, Picker, Reported};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Requests one thread keeps in flight at each instance, on average.
const IN_FLIGHT_EACH: usize = 2;
/// Reports are this old, the oldest of them: every instance reports ten times a second.
const OLDEST_REPORT: Duration = Duration::from_millis(100);

/// A service with instances that nobody runs.
#[derive(Debug, Clone)]
pub struct Made(Arc<Service>);

impl Made {
    /// A service of so many instances, all of which reported lately and unlike each other.
    #[must_use]
    pub fn new(policy: PolicyName, instances: u32, now: Mono) -> Option<Made> {
        let entries =
            (0..instances).map(|n| entry(n, instances, now)).collect::<Option<Vec<_>>>()?;
        let mut snapshot = Snapshot {
            keys: entries.iter().map(|entry| entry.instance.key).collect(),
            entries,
            policy,
            ..Snapshot::empty()
        };
        let field = Field { balancers: 3, slow_start: Duration::from_secs(10), ..Field::default() };
        snapshot.field = field.surveyed(&snapshot, now, &mut Vec::new());
        let service = Service::new(front(policy)?, 1, 0, 1);
        service.snapshot.store(Arc::new(snapshot));
        Some(Made(Arc::new(service)))
    }

    /// What one thread needs to pick.
    #[must_use]
    pub fn picks(&self, seed: u64) -> Picks {
        let service = Arc::clone(&self.0);
        let room = service.snapshot.load().count() * IN_FLIGHT_EACH;
        Picks { service, picker: Picker::new(seed), flying: VecDeque::with_capacity(room), room }
    }
}

fn front(policy: PolicyName) -> Option<ServiceFront> {
    Some(ServiceFront {
        service: "made".parse().ok()?,
        hosts: Vec::new(),
        paths: Vec::new(),
        mode: RouteMode::Http,
        port: None,
        policy,
        hash: domain::HashRule::default(),
        sticky: None,
        probe: None,
        body_max: None,
        hold: Hold::default(),
        health: domain::Health::default(),
        agent: None,
        concurrency: None,
        max_in_flight: u32::MAX,
        slow_start: Duration::ZERO,
        source: None,
        load_balanced: true,
        revision: Revision(1),
        startable: true,
    })
}

fn entry(n: u32, of: u32, now: Mono) -> Option<Entry> {
    let id = format!("made-{n:010}").parse().ok()?;
    let address = SocketAddr::from(([127, 0, 0, 1], 9));
    let share = f64::from(n) / f64::from(of.max(1));
    let at = Mono(now.0.saturating_sub(OLDEST_REPORT.mul_f64(share)));
    let instance = Arc::new(Instance::new(id, address, u64::from(n) + 1));
    instance.record(true, Duration::from_micros(500 + u64::from(n)), at);
    Some(Entry {
        instance,
        ready: true,
        ejected: false,
        healthy: true,
        unwell: false,
        weight: 1.0,
        max_in_flight: u32::MAX,
        others: Others::default(),
        reported: Some(Reported {
            load: 0.3 + share / 2.0,
            in_flight: Some(n % 5),
            at,
            own_in_flight: 0,
            others_in_flight: None,
        }),
        hears: true,
        ready_since: Mono::default(),
    })
}

/// The picks of one thread.
#[derive(Debug)]
pub struct Picks {
    service: Arc<Service>,
    picker: Picker,
    flying: VecDeque<Arc<Instance>>,
    room: usize,
}

impl Picks {
    /// Picks an instance for a request of this key, counts it in, and lets the oldest one end.
    /// False: nobody could take it.
    pub fn once(&mut self, key: u64, now: Mono) -> bool {
        let snapshot = self.service.snapshot.load();
        let ask = Ask { policy: snapshot.policy, key: Some(key), ..Ask::default() };
        let Ok(index) = self.picker.pick(&ask, &**snapshot, &snapshot.field, now) else {
            return false;
        };
        let entry = &snapshot.entries[index];
        if !entry.instance.enter(entry.max_in_flight, now) {
            return false;
        }
        self.flying.push_back(Arc::clone(&entry.instance));
        if self.flying.len() > self.room
            && let Some(over) = self.flying.pop_front()
        {
            over.leave();
        }
        true
    }
}
