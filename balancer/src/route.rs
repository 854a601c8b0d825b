//! Which service a request or a connection is for: its host first, then the longest path prefix;
//! or its port alone.

use crate::view::Service;
use domain::{RouteMode, ServiceName};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One path prefix of a service.
#[derive(Debug, Clone)]
struct Prefix {
    path: String,
    service: Arc<Service>,
}

/// All services by host and path. Immutable; a new one is swapped in when fronts change.
#[derive(Debug, Default)]
pub struct Table {
    /// Sorted by host.
    hosts: Vec<(String, Vec<Prefix>)>,
    /// For any host.
    any: Vec<Prefix>,
    /// By port, for those that have one of their own; sorted.
    ports: Vec<(u16, Arc<Service>)>,
    /// Services whose port another one has, with its name.
    disputed: Vec<(Arc<Service>, u16, ServiceName)>,
    /// All, sorted by name.
    services: Vec<Arc<Service>>,
}

impl Table {
    /// The table of these services. Where two claim the same host and path, the name that sorts
    /// first has it.
    #[must_use]
    pub fn new(mut services: Vec<Arc<Service>>) -> Table {
        services.sort_by(|a, b| a.name.cmp(&b.name));
        let mut table = Table::default();
        for service in &services {
            let front = service.front.load();
            if !front.load_balanced {
                continue;
            }
            if let (RouteMode::Tcp | RouteMode::Nat, Some(port)) = (front.mode, front.port) {
                table.claim(port, service);
            }
            if front.mode != RouteMode::Http {
                continue;
            }
            let root = vec!["/".to_owned()];
            let paths = if front.paths.is_empty() { &root } else { &front.paths };
            for path in paths {
                let prefix = Prefix { path: path.clone(), service: Arc::clone(service) };
                if front.hosts.is_empty() {
                    table.any.push(prefix);
                    continue;
                }
                for host in &front.hosts {
                    let host = host.to_ascii_lowercase();
                    let found = table.hosts.binary_search_by(|(h, _)| h.as_str().cmp(&host));
                    let index = found.unwrap_or_else(|index| {
                        table.hosts.insert(index, (host, Vec::new()));
                        index
                    });
                    table.hosts[index].1.push(prefix.clone());
                }
            }
        }
        let longest_first = |prefixes: &mut Vec<Prefix>| {
            // Stable: equal lengths stay in the order of names.
            prefixes.sort_by_key(|p| std::cmp::Reverse(p.path.len()));
        };
        table.hosts.iter_mut().for_each(|(_, prefixes)| longest_first(prefixes));
        longest_first(&mut table.any);
        table.services = services;
        table
    }

    /// Gives a port to the service, unless another one that sorts before it has it.
    fn claim(&mut self, port: u16, service: &Arc<Service>) {
        match self.ports.binary_search_by_key(&port, |(port, _)| *port) {
            Err(index) => self.ports.insert(index, (port, Arc::clone(service))),
            Ok(index) => {
                let owner = self.ports[index].1.name.clone();
                self.disputed.push((Arc::clone(service), port, owner));
            }
        }
    }

    /// Services with a port of their own, by port.
    #[must_use]
    pub fn ports(&self) -> &[(u16, Arc<Service>)] {
        &self.ports
    }

    /// The service whose port this is.
    #[must_use]
    pub fn at_port(&self, port: u16) -> Option<&Arc<Service>> {
        let found = self.ports.binary_search_by_key(&port, |(port, _)| *port);
        found.ok().map(|index| &self.ports[index].1)
    }

    /// Services that lost their port to another one, and what to do.
    #[must_use]
    pub fn port_disputes(&self) -> BTreeMap<ServiceName, String> {
        let each = self.disputed.iter().map(|(service, port, owner)| {
            let why = format!("service {owner} has port {port} already; choose another route.port");
            (service.name.clone(), why)
        });
        each.collect()
    }

    /// The service for a host, as the client wrote it (a port is ignored), and a path.
    #[must_use]
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<&Arc<Service>> {
        let host = without_port(host);
        let by_host = self.hosts.binary_search_by(|(h, _)| compare(h.as_bytes(), host));
        by_host
            .ok()
            .and_then(|index| longest(&self.hosts[index].1, path))
            .or_else(|| longest(&self.any, path))
    }

    /// All services, sorted by name.
    #[must_use]
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }
}

fn longest<'a>(prefixes: &'a [Prefix], path: &[u8]) -> Option<&'a Arc<Service>> {
    prefixes.iter().find(|p| covers(&p.path, path)).map(|p| &p.service)
}

/// `/api` covers `/api` and `/api/x`, not `/apix`; `/api/` covers only what is below it.
fn covers(prefix: &str, path: &[u8]) -> bool {
    match path.strip_prefix(prefix.as_bytes()) {
        None => false,
        Some(rest) => {
            rest.is_empty() || prefix.ends_with('/') || rest.starts_with(b"/") || prefix.is_empty()
        }
    }
}

fn without_port(host: &[u8]) -> &[u8] {
    let end = match host.iter().rposition(|b| *b == b':') {
        // `[::1]:80` has its port after the bracket, `[::1]` has none.
        Some(colon) if host[colon + 1..].iter().all(u8::is_ascii_digit) => colon,
        _ => host.len(),
    };
    let host = &host[..end];
    // A final dot makes a name absolute, not another name.
    host.strip_suffix(b".").unwrap_or(host)
}

/// Orders a lower-case name and one in any case, without making a copy.
fn compare(lower: &[u8], any_case: &[u8]) -> Ordering {
    lower.iter().copied().cmp(any_case.iter().map(u8::to_ascii_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::front;

    fn table(fronts: &[(&str, &[&str], &[&str])]) -> Table {
        let services = fronts.iter().enumerate().map(|(slot, (name, hosts, paths))| {
            let mut front = front(name);
            front.hosts = hosts.iter().map(|h| (*h).to_owned()).collect();
            front.paths = paths.iter().map(|p| (*p).to_owned()).collect();
            Arc::new(Service::new(front, slot as u64, slot, 1))
        });
        Table::new(services.collect())
    }

    #[test]
    fn host_first_then_the_longest_prefix_at_a_boundary() {
        let table = table(&[
            ("shop", &["shop.example.com"], &["/"]),
            ("cart", &["shop.example.com"], &["/cart"]),
            ("six", &["[::1]"], &["/"]),
            ("rest", &[], &["/public/", "/health"]),
        ]);
        let find = |host: &str, path: &str| {
            table.find(host.as_bytes(), path.as_bytes()).map(|s| s.name.as_str().to_owned())
        };
        for (host, path, expected) in [
            ("shop.example.com", "/", Some("shop")),
            ("SHOP.Example.com:8080", "/x", Some("shop")),
            ("shop.example.com.", "/x", Some("shop")),
            ("shop.example.com", "/cart", Some("cart")),
            ("shop.example.com", "/cart/7", Some("cart")),
            ("shop.example.com", "/cartoon", Some("shop")),
            ("[::1]:8080", "/", Some("six")),
            ("[::1]", "/", Some("six")),
            ("other", "/public/a", Some("rest")),
            ("other", "/public", None),
            ("other", "/health", Some("rest")),
            ("", "/health", Some("rest")),
            ("other", "/", None),
            ("other", "*", None),
        ] {
            assert_eq!(find(host, path).as_deref(), expected, "{host} {path}");
        }
    }

    #[test]
    fn a_port_belongs_to_the_first_name_and_the_other_is_told() {
        let ported = |name: &str, mode, port, slot| {
            let mut front = front(name);
            (front.mode, front.port) = (mode, port);
            Arc::new(Service::new(front, slot as u64, slot, 1))
        };
        let table = Table::new(vec![
            ported("db", RouteMode::Tcp, Some(5432), 0),
            ported("cache", RouteMode::Nat, Some(5432), 1),
            ported("mail", RouteMode::Tcp, Some(25), 2),
            ported("web", RouteMode::Http, Some(80), 3),
        ]);
        let at = |port| table.at_port(port).map(|s| s.name.as_str().to_owned());
        assert_eq!((at(5432).as_deref(), at(25).as_deref()), (Some("cache"), Some("mail")));
        assert_eq!((at(80), table.ports().len()), (None, 2));
        let disputes = table.port_disputes();
        assert!(disputes[&"db".parse().unwrap()].contains("service cache has port 5432"));
        assert_eq!(table.find(b"db", b"/").map(|s| s.name.as_str()), Some("web"));
    }

    #[test]
    fn the_first_name_has_a_disputed_route() {
        let table = table(&[("b", &[], &["/"]), ("a", &[], &["/"])]);
        assert_eq!(table.find(b"x", b"/").unwrap().name.as_str(), "a");
    }
}
