//! What stands in the kernel: one table of Tally's own, as the JSON that `nft` reads. Pure.
//!
//! Per service and address family a chain that sends new connections to the instances by a map of
//! weighted slots. A connection gets there from `arriving` (from other hosts) or `leaving` (from
//! this one) by listen address and port. Where no rule applies, the user-space listener of the same
//! port takes the connection.

use domain::ServiceName;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

/// Before the usual priority of destination NAT (-100), so that rules of container engines for the
/// same port, if there are any, do not come first.
const BEFORE_ROUTING: i32 = -105;
/// Before the usual priority of source NAT.
const AFTER_ROUTING: i32 = 95;

/// Where connections of a service go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The instance.
    pub address: SocketAddr,
    /// Its slots of the map; 0: it gets no new connections.
    pub slots: u32,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Front {
    /// Its name.
    pub service: ServiceName,
    /// Its port.
    pub port: u16,
    /// Its instances, in the order of their ids.
    pub targets: Vec<Target>,
}

/// All that shall stand in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The table's name.
    pub table: String,
    /// Where the balancer listens.
    pub listen: Vec<IpAddr>,
    /// Its services.
    pub fronts: Vec<Front>,
}

/// Address families, as nftables names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const BOTH: [Family; 2] = [Family::V4, Family::V6];

    fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    fn ip(self) -> &'static str {
        match self {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        }
    }

    fn protocol(self) -> &'static str {
        match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        }
    }

    fn loopback(self) -> Value {
        match self {
            Family::V4 => json!({"prefix": {"addr": "127.0.0.0", "len": 8}}),
            Family::V6 => json!("::1"),
        }
    }
}

/// One service's instances of one family, and how far they can be reached from.
struct Part<'a> {
    front: &'a Front,
    family: Family,
    targets: Vec<&'a Target>,
    /// All instances are on loopback addresses: only connections of this host get there.
    all_loopback: bool,
    any_loopback: bool,
}

impl Wanted {
    fn parts(&self) -> Vec<Part<'_>> {
        let each = |family: Family| {
            self.fronts.iter().filter_map(move |front| {
                let mine = front.targets.iter().filter(|t| t.slots > 0);
                let targets: Vec<&Target> =
                    mine.filter(|t| Family::of(t.address.ip()) == family).collect();
                let loopback = |t: &&Target| t.address.ip().is_loopback();
                let (all_loopback, any_loopback) =
                    (targets.iter().all(loopback), targets.iter().any(loopback));
                (!targets.is_empty()).then_some(Part {
                    front,
                    family,
                    targets,
                    all_loopback,
                    any_loopback,
                })
            })
        };
        Family::BOTH.into_iter().flat_map(each).collect()
    }

    /// The whole table as one transaction that brings whatever stood there to what is wanted.
    /// `present`: chains that exist now. Without services the table goes.
    #[must_use]
    pub fn transaction(&self, present: &[String]) -> Value {
        let table = json!({"family": "inet", "name": self.table});
        let mut script = vec![json!({"add": {"table": table}})];
        let parts = self.parts();
        // While there is a service the table stays, if only empty: without it the kernel would no
        // longer follow the connections it passes on.
        if self.fronts.is_empty() {
            script.push(json!({"delete": {"table": table}}));
            return json!({ "nftables": script });
        }
        let plain = ["arriving".to_owned(), "leaving".to_owned()];
        let own: Vec<String> = parts.iter().map(Part::chain).collect();
        for (name, hook, priority) in [
            ("prerouting", "prerouting", BEFORE_ROUTING),
            ("output", "output", BEFORE_ROUTING),
            ("postrouting", "postrouting", AFTER_ROUTING),
        ] {
            script.push(json!({"add": {"chain": {
                "family": "inet", "table": self.table, "name": name, "type": "nat",
                "hook": hook, "prio": priority, "policy": "accept",
            }}}));
            script.push(json!({"flush": {"chain": self.chain(name)}}));
        }
        for name in plain.iter().chain(&own) {
            script.push(json!({"add": {"chain": self.chain(name)}}));
            script.push(json!({"flush": {"chain": self.chain(name)}}));
        }
        // Always true here. But the kernel follows connections only while some rule asks about
        // them: without this one, taking the last instance out would cut those that are open.
        let new = test("==", json!({"ct": {"key": "state"}}), json!("new"));
        script.push(self.rule("prerouting", vec![new, jump("arriving")]));
        script.push(self.rule("output", vec![jump("leaving")]));
        for part in &parts {
            script.push(self.rule(&part.chain(), part.spread()));
            for listen in &self.listen {
                self.reach(part, *listen, &mut script);
            }
        }
        let known = ["prerouting", "output", "postrouting"];
        for old in present {
            if !known.contains(&old.as_str()) && !plain.contains(old) && !own.contains(old) {
                script.push(json!({"delete": {"chain": self.chain(old)}}));
            }
        }
        json!({ "nftables": script })
    }

    /// The chains that stand there once the transaction was carried out.
    #[must_use]
    pub fn own_chains(&self) -> Vec<String> {
        self.parts().iter().map(Part::chain).collect()
    }

    fn chain(&self, name: &str) -> Value {
        json!({"family": "inet", "table": self.table, "name": name})
    }

    fn rule(&self, chain: &str, expr: Vec<Value>) -> Value {
        json!({"add": {"rule": {
            "family": "inet", "table": self.table, "chain": chain, "expr": expr,
        }}})
    }

    /// Rules by which connections to one listen address come to the part's chain, and their
    /// answers back through here.
    fn reach(&self, part: &Part<'_>, listen: IpAddr, script: &mut Vec<Value>) {
        // A socket on [::] hears IPv4 too.
        let any =
            listen.is_unspecified() && (Family::of(listen) == part.family || listen.is_ipv6());
        if !any && Family::of(listen) != part.family {
            return;
        }
        // What leaves for loopback addresses never gets out of this host, and the other way round.
        let loopback_only = listen.is_loopback();
        let mut tests = vec![test("==", json!({"meta": {"key": "l4proto"}}), json!("tcp"))];
        if any {
            let local = json!({"fib": {"result": "type", "flags": ["daddr"]}});
            let family = json!({"meta": {"key": "nfproto"}});
            tests.push(test("==", family, json!(part.family.protocol())));
            tests.push(test("==", local, json!("local")));
        } else {
            tests.push(test("==", part.destination(), json!(listen.to_string())));
        }
        let port = json!({"payload": {"protocol": "tcp", "field": "dport"}});
        tests.push(test("==", port, json!(part.front.port)));
        tests.push(begins());
        let to_part = |mut tests: Vec<Value>| {
            tests.push(jump(&part.chain()));
            tests
        };
        if !part.any_loopback && !loopback_only {
            script.push(self.rule("arriving", to_part(tests.clone())));
        }
        if part.all_loopback {
            script.push(self.rule("leaving", to_part(tests)));
        } else if !loopback_only {
            if any {
                let at = tests.len() - 1;
                let elsewhere = test("!=", part.destination(), part.family.loopback());
                tests.insert(at, elsewhere);
            }
            script.push(self.rule("leaving", to_part(tests)));
            script.push(self.rule("postrouting", part.answers_come_back(any, listen)));
        }
    }
}

impl Part<'_> {
    fn chain(&self) -> String {
        format!("{}-{}", self.family.ip(), self.front.service)
    }

    fn destination(&self) -> Value {
        json!({"payload": {"protocol": self.family.ip(), "field": "daddr"}})
    }

    /// The one rule that gives a new connection its instance.
    fn spread(&self) -> Vec<Value> {
        let tcp = test("==", json!({"meta": {"key": "l4proto"}}), json!("tcp"));
        if let [only] = self.targets[..] {
            let (ip, port) = (only.address.ip().to_string(), only.address.port());
            return vec![
                tcp,
                json!({"dnat": {"family": self.family.ip(), "addr": ip, "port": port}}),
            ];
        }
        let mut next = 0;
        let mut slots = Vec::with_capacity(self.targets.len());
        for target in &self.targets {
            let last = next + target.slots - 1;
            let range = if last == next { json!(next) } else { json!({"range": [next, last]}) };
            let to = [json!(target.address.ip().to_string()), json!(target.address.port())];
            slots.push(json!([range, {"concat": to}]));
            next = last + 1;
        }
        let draw = json!({"numgen": {"mode": "random", "mod": next, "offset": 0}});
        let map = json!({"map": {"key": draw, "data": {"set": slots}}});
        vec![tcp, json!({"dnat": {"family": self.family.ip(), "addr": map}})]
    }

    /// Connections that were sent on to another host come from this one's address, so that the
    /// answers pass here.
    fn answers_come_back(&self, any: bool, listen: IpAddr) -> Vec<Value> {
        let ct = |key: &str| json!({"ct": {"key": key, "dir": "original"}});
        let mut rule = vec![
            test("!=", json!({"meta": {"key": "oifname"}}), json!("lo")),
            test("==", json!({"meta": {"key": "nfproto"}}), json!(self.family.protocol())),
            test("==", json!({"meta": {"key": "l4proto"}}), json!("tcp")),
            test("in", json!({"ct": {"key": "status"}}), json!("dnat")),
        ];
        if !any {
            let key = format!("{} daddr", self.family.ip());
            rule.push(test("==", ct(&key), json!(listen.to_string())));
        }
        rule.push(test("==", ct("proto-dst"), json!(self.front.port)));
        rule.push(json!({"masquerade": null}));
        rule
    }
}

/// The packet opens a connection. Packets from the middle of one that the kernel does not know, as
/// of a dead instance's that it was made to forget, are not sent to somebody who does not know it
/// either: they find no connection here, and their sender hears that it is over.
fn begins() -> Value {
    let flags = json!({"payload": {"protocol": "tcp", "field": "flags"}});
    test("==", json!({"&": [flags, ["fin", "syn", "rst", "ack"]]}), json!("syn"))
}

fn test(op: &str, left: Value, right: Value) -> Value {
    json!({"match": {"op": op, "left": left, "right": right}})
}

fn jump(chain: &str) -> Value {
    json!({"jump": {"target": chain}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(listen: &[&str], targets: &[(&str, u32)]) -> Wanted {
        let targets = targets
            .iter()
            .map(|(address, slots)| Target { address: address.parse().unwrap(), slots: *slots })
            .collect();
        Wanted {
            table: "tally-b1".to_owned(),
            listen: listen.iter().map(|l| l.parse().unwrap()).collect(),
            fronts: vec![Front { service: "db".parse().unwrap(), port: 5432, targets }],
        }
    }

    /// The chains that got rules, in order, once per rule.
    fn ruled(wanted: &Wanted) -> Vec<String> {
        let script = wanted.transaction(&[]);
        let rules = script["nftables"].as_array().unwrap().iter();
        rules
            .filter_map(|line| line["add"]["rule"]["chain"].as_str())
            .map(ToOwned::to_owned)
            .collect()
    }

    #[test]
    fn the_map_gives_each_instance_its_slots() {
        let script = wanted(&["10.0.0.1"], &[("10.1.0.1:80", 1), ("10.1.0.2:81", 3)])
            .transaction(&["ip-gone".to_owned(), "arriving".to_owned()]);
        let text = script.to_string();
        assert!(text.contains(r#"[0,{"concat":["10.1.0.1",80]}]"#), "{text}");
        assert!(text.contains(r#"[{"range":[1,3]},{"concat":["10.1.0.2",81]}]"#), "{text}");
        assert!(text.contains(r#""mod":4"#), "{text}");
        let deleted =
            r#"{"delete":{"chain":{"family":"inet","name":"ip-gone","table":"tally-b1"}}"#;
        assert!(text.contains(deleted) && text.matches("delete").count() == 1, "{text}");
    }

    #[test]
    fn who_can_be_reached_from_where() {
        let far = [("10.1.0.1:80", 5), ("10.1.0.2:80", 5)];
        let near = [("127.0.0.1:80", 5)];
        let mixed = [("10.1.0.1:80", 5), ("127.0.0.1:80", 5)];
        let base = ["prerouting", "output", "ip-db"];
        for (listen, targets, expected) in [
            ("10.0.0.1", &far[..], &["arriving", "leaving", "postrouting"][..]),
            ("0.0.0.0", &far[..], &["arriving", "leaving", "postrouting"]),
            ("::", &far[..], &["arriving", "leaving", "postrouting"]),
            ("127.0.0.1", &far[..], &[]),
            ("10.0.0.1", &near[..], &["leaving"]),
            ("127.0.0.1", &near[..], &["leaving"]),
            ("0.0.0.0", &near[..], &["leaving"]),
            ("10.0.0.1", &mixed[..], &["leaving", "postrouting"]),
            ("::1", &far[..], &[]),
        ] {
            let got = ruled(&wanted(&[listen], targets));
            assert_eq!(got[..3], base, "{listen} {targets:?}");
            assert_eq!(got[3..], *expected, "{listen} {targets:?}");
        }
    }

    #[test]
    fn without_instances_the_table_is_empty_and_without_services_it_goes() {
        for targets in [&[][..], &[("10.1.0.1:80", 0)]] {
            let empty = wanted(&["10.0.0.1"], targets);
            assert_eq!(ruled(&empty), ["prerouting", "output"]);
            assert!(!empty.transaction(&[]).to_string().contains("delete"));
        }
        let none = Wanted { fronts: Vec::new(), ..wanted(&[], &[]) };
        let script = none.transaction(&["arriving".to_owned()]);
        let lines = script["nftables"].as_array().unwrap();
        assert!(lines.len() == 2 && lines[1]["delete"]["table"].is_object(), "{script}");
    }
}
