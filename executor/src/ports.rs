//! Ports of instances: from the configured range, tested by binding, left alone after use.

use crate::store::FreedPort;
use domain::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, TcpListener};
use std::ops::RangeInclusive;
use std::time::Duration;

/// A freed port is not used again for this long: no stale view of a balancer, on disk or in
/// memory, may lead to another service.
pub const QUARANTINE: Duration = Duration::from_secs(600);

/// A port that was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub port: u16,
    /// Whether its quarantine was cut short because no other was left.
    pub early: bool,
}

/// The ports of one node.
#[derive(Debug)]
pub struct Ports {
    range: RangeInclusive<u16>,
    address: IpAddr,
    next: u16,
    used: BTreeSet<u16>,
    freed: BTreeMap<u16, Timestamp>,
}

impl Ports {
    /// The ports of `range` on `address`, with those freed before.
    #[must_use]
    pub fn new(range: RangeInclusive<u16>, address: IpAddr, freed: &[FreedPort]) -> Ports {
        let next = *range.start();
        let freed = freed.iter().filter(|f| range.contains(&f.port)).map(|f| (f.port, f.at));
        let freed = freed.collect();
        Ports { range, address, next, used: BTreeSet::new(), freed }
    }

    /// Begins at a place of the range that `name` determines: two executors on one host that were
    /// given the same range do not both begin at its first port, and seldom test the same port at
    /// the same moment.
    #[must_use]
    pub fn beginning_by(mut self, name: &str) -> Ports {
        let (start, end) = (*self.range.start(), *self.range.end());
        // FNV-1a: any even spread does.
        let mix = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(16_777_619);
        let hash = name.bytes().fold(2_166_136_261, mix);
        let length = u32::from(end.saturating_sub(start)).saturating_add(1);
        let offset = u16::try_from(hash % length).unwrap_or(0);
        self.next = start.saturating_add(offset);
        self
    }

    /// Gives out a port; `None` when every one is in use.
    pub fn take(&mut self, now: Timestamp) -> Option<Taken> {
        self.freed.retain(|_, at| now.since(*at) < QUARANTINE);
        let (start, end) = (*self.range.start(), *self.range.end());
        let first = self.next.clamp(start, end);
        // In a circle from behind the last one given out.
        for port in (first..=end).chain(start..first) {
            if self.used.contains(&port) || self.freed.contains_key(&port) || !self.free_now(port) {
                continue;
            }
            self.give(port);
            return Some(Taken { port, early: false });
        }
        let mut resting: Vec<(Timestamp, u16)> = self.freed.iter().map(|(p, t)| (*t, *p)).collect();
        resting.sort_unstable();
        let port = resting.into_iter().map(|(_, p)| p).find(|p| self.free_now(*p))?;
        self.freed.remove(&port);
        self.give(port);
        Some(Taken { port, early: true })
    }

    fn give(&mut self, port: u16) {
        self.used.insert(port);
        self.next = if port == *self.range.end() { *self.range.start() } else { port + 1 };
    }

    /// Whether nobody listens on `port` now.
    #[must_use]
    pub fn free_now(&self, port: u16) -> bool {
        TcpListener::bind((self.address, port)).is_ok()
    }

    /// Notes that a running instance has `port`.
    pub fn claim(&mut self, port: u16) {
        self.freed.remove(&port);
        self.used.insert(port);
    }

    /// Takes `port` back and lets it rest.
    pub fn free(&mut self, port: u16, now: Timestamp) {
        if self.used.remove(&port) && self.range.contains(&port) {
            self.freed.insert(port, now);
        }
    }

    /// What rests, to be kept over a restart.
    #[must_use]
    pub fn freed(&self) -> Vec<FreedPort> {
        self.freed.iter().map(|(port, at)| FreedPort { port: *port, at: *at }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// A few neighbouring ports nobody uses, below the range the kernel gives out by itself.
    fn free_range(count: u16) -> RangeInclusive<u16> {
        let mut start = 14_000;
        while (start..start + count).any(|p| TcpListener::bind((HERE, p)).is_err()) {
            start += count;
        }
        start..=start + count - 1
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1000)
    }

    #[test]
    fn two_nodes_begin_at_different_places_within_the_range() {
        let range = free_range(40);
        let first = |name: &str| {
            let mut ports = Ports::new(range.clone(), HERE, &[]).beginning_by(name);
            ports.take(at(0)).unwrap().port
        };
        let begins: BTreeSet<u16> = (0..40).map(|i| first(&format!("n-{i:010}"))).collect();
        assert!(begins.iter().all(|port| range.contains(port)));
        assert!(begins.len() > 15, "{begins:?}");
        assert_eq!(first("n-0000000007"), first("n-0000000007"));
    }

    #[test]
    fn a_freed_port_rests_for_ten_minutes() {
        let range = free_range(3);
        let start = *range.start();
        let mut ports = Ports::new(range.clone(), HERE, &[]);
        let first = ports.take(at(0)).unwrap();
        assert_eq!(first, Taken { port: start, early: false });
        ports.free(start, at(1));
        assert_eq!(ports.take(at(2)).unwrap().port, start + 1);
        assert_eq!(ports.take(at(3)).unwrap().port, start + 2);
        // The range is exhausted: the one that rested longest, and it is said.
        assert_eq!(ports.take(at(4)).unwrap(), Taken { port: start, early: true });
        assert_eq!(ports.take(at(5)), None);
        ports.free(start + 1, at(10));
        ports.free(start + 2, at(9));
        assert_eq!(ports.take(at(11)).unwrap(), Taken { port: start + 2, early: true });
        // After its rest a port is as good as new, also over a restart.
        let kept = ports.freed();
        let mut again = Ports::new(range, HERE, &kept);
        again.claim(start);
        again.claim(start + 2);
        assert_eq!(again.take(at(610)).unwrap(), Taken { port: start + 1, early: false });
    }

    #[test]
    fn a_port_somebody_else_listens_on_is_passed_over() {
        let range = free_range(2);
        let taken = TcpListener::bind((HERE, *range.start())).unwrap();
        let mut ports = Ports::new(range.clone(), HERE, &[]);
        assert_eq!(ports.take(at(0)).unwrap().port, *range.end());
        drop(taken);
    }

    #[test]
    fn ports_of_another_range_are_forgotten() {
        let range = free_range(2);
        let mut ports = Ports::new(range, HERE, &[FreedPort { port: 1, at: at(0) }]);
        assert!(ports.freed().is_empty());
        ports.claim(2);
        ports.free(2, at(0));
        assert!(ports.freed().is_empty());
    }
}
