//! Which connections the kernel must forget: those of instances that died or left, while the
//! balancer saw it or while it was away.

use super::conntrack::{Conntrack, Flow};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Instances remembered while the kernel refuses: weeks of a busy cell's coming and going.
const DUE_MAX: usize = 1 << 16;

/// Who lives, per service port, and who is to be forgotten. Nothing is struck off before the kernel
/// has done it.
#[derive(Debug, Default)]
pub struct Burials {
    /// Where connections of each service may still be.
    alive: BTreeMap<u16, BTreeSet<SocketAddr>>,
    /// Instances whose connections the kernel may still have.
    due: BTreeSet<(u16, SocketAddr)>,
    /// Ports on which a former life may have left connections of instances that are dead by now.
    unknown: BTreeSet<u16>,
    /// Ports on which it has left none.
    searched: BTreeSet<u16>,
}

/// One service port, as it is now.
#[derive(Debug)]
pub struct Living {
    /// The port.
    pub port: u16,
    /// Whether it is known who lives.
    pub known: bool,
    /// Who lives.
    pub alive: BTreeSet<SocketAddr>,
}

impl Burials {
    /// Takes who lives now: those who did before and do not any more are to be forgotten.
    pub fn take(&mut self, now: Vec<Living>) {
        let ports: BTreeSet<u16> = now.iter().map(|living| living.port).collect();
        self.searched.retain(|port| ports.contains(port));
        self.unknown.retain(|port| ports.contains(port));
        let known = now.iter().filter(|l| l.known && !self.searched.contains(&l.port));
        self.unknown.extend(known.map(|living| living.port));
        let now = now.into_iter().map(|living| (living.port, living.alive)).collect();
        let before = std::mem::replace(&mut self.alive, now);
        for (port, all) in before {
            self.due.extend(all.into_iter().map(|address| (port, address)));
        }
        let alive = &self.alive;
        self.due.retain(|(port, at)| !alive.get(port).is_some_and(|all| all.contains(at)));
        while self.due.len() > DUE_MAX {
            self.due.pop_first();
        }
    }

    /// Whether nothing is to be done.
    #[must_use]
    pub fn are_over(&self) -> bool {
        self.due.is_empty() && self.unknown.is_empty()
    }

    /// What is to be done now, for another thread. `listen`: where the balancer listens.
    #[must_use]
    pub fn work(&self, listen: &[IpAddr]) -> Work {
        let unknown = self.unknown.iter().map(|port| {
            let alive = self.alive.get(port).cloned().unwrap_or_default();
            (*port, alive)
        });
        Work { due: self.due.clone(), unknown: unknown.collect(), listen: listen.to_vec() }
    }

    /// The work was done.
    pub fn done(&mut self, work: &Work) {
        self.due.retain(|one| !work.due.contains(one));
        self.unknown.retain(|port| !work.unknown.contains_key(port));
        self.searched.extend(work.unknown.keys());
    }
}

/// Connections to be forgotten.
#[derive(Debug)]
pub struct Work {
    due: BTreeSet<(u16, SocketAddr)>,
    /// By port those who live there.
    unknown: BTreeMap<u16, BTreeSet<SocketAddr>>,
    listen: Vec<IpAddr>,
}

impl Work {
    /// Does it, and answers how many were forgotten.
    ///
    /// # Errors
    /// What the system said.
    pub fn run(&self, conntrack: &mut Conntrack) -> io::Result<u64> {
        let mut own = HashMap::new();
        let mut flows: Vec<Flow> = Vec::new();
        conntrack.list(|flow| {
            if self.concerns(&flow, |ip| *own.entry(ip).or_insert_with(|| is_of_this_host(ip))) {
                flows.push(flow);
            }
        })?;
        for flow in &flows {
            conntrack.forget(flow)?;
        }
        Ok(flows.len() as u64)
    }

    /// `is_own`: whether an address is one of this host.
    fn concerns(&self, flow: &Flow, is_own: impl FnOnce(IpAddr) -> bool) -> bool {
        let port = flow.asked.port();
        if self.due.contains(&(port, flow.instance)) {
            return true;
        }
        let dead = self.unknown.get(&port).is_some_and(|alive| !alive.contains(&flow.instance));
        // Whoever else sends connections on, for addresses of its own, keeps them.
        let asked = flow.asked.ip();
        let any = |ip: &IpAddr| ip.is_unspecified() && (ip.is_ipv6() || asked.is_ipv4());
        dead && (self.listen.contains(&asked) || (self.listen.iter().any(any) && is_own(asked)))
    }
}

/// Only addresses of this host can be had.
fn is_of_this_host(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::conntrack::Phase;
    use super::*;

    fn at(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 9000))
    }

    fn living(port: u16, alive: &[u8]) -> Living {
        Living { port, known: true, alive: alive.iter().map(|n| at(*n)).collect() }
    }

    fn flow(asked: &str, instance: SocketAddr) -> Flow {
        let client = "10.0.9.9:4000".parse().unwrap();
        Flow { client, asked: asked.parse().unwrap(), instance, phase: Phase::Open }
    }

    /// Takes who lives, with nothing left of a former life.
    fn searched(now: Vec<Living>) -> Burials {
        let mut burials = Burials::default();
        burials.take(now);
        let work = burials.work(&[]);
        burials.done(&work);
        assert!(burials.are_over());
        burials
    }

    #[test]
    fn the_dead_are_due_until_the_kernel_has_forgotten_them() {
        let mut burials = searched(vec![living(1, &[1, 2, 3]), living(2, &[1])]);
        burials.take(vec![living(1, &[1, 3])]);
        let failed = burials.work(&[]);
        assert!(failed.concerns(&flow("10.0.0.9:1", at(2)), |_| false));
        assert!(failed.concerns(&flow("10.0.0.9:2", at(1)), |_| false), "its port is gone");
        assert!(!failed.concerns(&flow("10.0.0.9:1", at(1)), |_| true));
        // The kernel did not do it; meanwhile another one dies.
        burials.take(vec![living(1, &[1])]);
        let work = burials.work(&[]);
        assert_eq!(work.due, [(1, at(2)), (1, at(3)), (2, at(1))].into());
        burials.done(&work);
        assert!(burials.are_over());
    }

    #[test]
    fn who_comes_back_is_not_forgotten_and_who_dies_meanwhile_is() {
        let mut burials = searched(vec![living(1, &[1, 2])]);
        burials.take(vec![living(1, &[2])]);
        let work = burials.work(&[]);
        burials.take(vec![living(1, &[1])]);
        assert_eq!(burials.work(&[]).due, [(1, at(2))].into());
        burials.done(&work);
        assert_eq!(burials.work(&[]).due, [(1, at(2))].into(), "it was not part of the work");
    }

    #[test]
    fn what_a_former_life_left_is_searched_once_per_port_when_it_is_known_who_lives() {
        let mut burials = Burials::default();
        burials.take(vec![Living { known: false, ..living(1, &[]) }]);
        assert!(burials.are_over(), "nobody is known to be dead");
        burials.take(vec![living(1, &[1])]);
        let listen = ["10.0.0.9".parse().unwrap()];
        let work = burials.work(&listen);
        assert!(work.concerns(&flow("10.0.0.9:1", at(2)), |_| false));
        assert!(!work.concerns(&flow("10.0.0.9:1", at(1)), |_| true), "it lives");
        assert!(!work.concerns(&flow("10.0.0.8:1", at(2)), |_| true), "not ours");
        assert!(!work.concerns(&flow("10.0.0.9:2", at(2)), |_| true), "nor this");
        burials.done(&work);
        burials.take(vec![living(1, &[1])]);
        assert!(burials.are_over());
    }

    #[test]
    fn listening_everywhere_is_for_addresses_of_this_host() {
        let mut burials = Burials::default();
        burials.take(vec![living(1, &[])]);
        for (listen, asked, ours) in [
            ("0.0.0.0", "10.0.0.9:1", true),
            ("::", "10.0.0.9:1", true),
            ("::", "[fd00::9]:1", true),
            ("0.0.0.0", "[fd00::9]:1", false),
            ("127.0.0.1", "10.0.0.9:1", false),
        ] {
            let work = burials.work(&[listen.parse().unwrap()]);
            assert_eq!(work.concerns(&flow(asked, at(2)), |_| true), ours, "{listen} {asked}");
            assert!(!work.concerns(&flow(asked, at(2)), |_| false), "passed on for others");
        }
        assert!(is_of_this_host("127.0.0.1".parse().unwrap()));
        assert!(!is_of_this_host("192.0.2.1".parse().unwrap()));
    }
}
