//! Manifests as people write them: the contract's example, defaults, faults with pointers, hostile
//! input.

use super::{Format, Manifest, ManifestError, ServiceManifest, from_value, parse_text};
use domain::{
    AgentCheck, Band, Budget, Bytes, HashBy, HashRule, Hibernate, Isolation, LoadPolicy,
    LoadSource, MilliCpu, Money, MonthlyCap, PolicyName, PoolState, Replace, RouteMode,
    ServiceGroup, ServiceSpec, Share, Sticky,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;

const EXAMPLE: &str = include_str!("../../goldens/manifests.yaml");

/// The least a service can be.
const LEAST: &str = "kind: service\nname: shop\nrun: {command: [./shop]}\n";

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn service(text: &str) -> Result<ServiceSpec, ManifestError> {
    match parse_text(text, Format::Yaml)?.as_slice() {
        [Manifest::Service(m)] => ServiceSpec::try_from(m.as_ref()),
        other => panic!("not one service: {other:?}"),
    }
}

#[test]
fn the_example_gives_back_every_field() {
    let manifests = parse_text(EXAMPLE, Format::Yaml).unwrap();
    let [Manifest::Service(s), Manifest::NodeType(t), Manifest::Budget(b)] = manifests.as_slice()
    else {
        panic!("{manifests:?}");
    };
    let s = ServiceSpec::try_from(s.as_ref()).unwrap();
    assert_eq!((s.name.as_str(), s.min_instances, s.max_instances), ("shop", 0, 8));
    assert!(s.load_balanced);
    assert_eq!(s.group, ServiceGroup::SelfContained);
    assert_eq!(s.run.image.as_deref(), Some("shop:1.2"));
    assert_eq!(s.run.command, ["./shop", "--port", "{port}"]);
    assert_eq!(s.run.stop_command, ["./stop", "{instance}"]);
    assert_eq!((s.run.port, s.run.workdir.as_deref()), (Some(8080), Some("/srv")));
    assert_eq!(s.run.user.as_deref(), Some("www-data"));
    assert_eq!(s.run.env.get("SHOP_MODE").map(String::as_str), Some("live"));
    let mount = &s.run.mounts[0];
    assert_eq!((mount.source.as_str(), mount.target.as_str()), ("/data/shop", "/data"));
    assert!(!mount.read_only);
    assert_eq!(s.run.isolation, Isolation::Cgroup);
    assert_eq!((s.resources.cpu, s.resources.memory), (MilliCpu(250), Bytes(64 << 20)));
    assert_eq!(s.needs.node.as_deref(), Some("db-1"));
    assert_eq!(s.needs.node_type.as_ref().map(AsRef::as_ref), Some("fast"));
    assert_eq!(s.needs.cpu_class.as_deref(), Some("fast"));
    assert_eq!(s.needs.disk_type.as_deref(), Some("ssd"));
    assert_eq!(s.needs.labels.get("zone").map(String::as_str), Some("a"));
    assert!(!s.needs.dedicated);
    assert_eq!((s.priority, s.owner.as_ref().map(AsRef::as_ref)), (0, Some("team-a")));
    assert_eq!(s.load.source, None);
    assert_eq!(s.load.agent, Some(AgentCheck { port: 9777, interval: secs(2) }));
    assert_eq!((s.load.concurrency, s.load.max_in_flight), (Some(10), 100));
    assert_eq!((s.load.wait_limit, s.load.period), (Duration::from_millis(500), secs(1)));
    assert_eq!((s.load.slow_start, s.load.window), (secs(10), secs(60)));
    let p = Share::percent;
    assert_eq!((s.load.up, s.load.down, s.load.target), (p(70), p(40), p(55)));
    assert_eq!(s.load.band, Band::Manual);
    let l = &s.lifecycle;
    assert_eq!((l.idle_timeout, l.lifespan), (secs(300), Some(secs(86_400))));
    assert_eq!((l.start_deadline, l.drain_deadline), (secs(30), secs(30)));
    assert_eq!((l.hibernate, l.replace), (Hibernate::Stop, Replace::StartFirst));
    assert_eq!((s.rollout.surge, s.rollout.floor, s.rollout.bake), (1, p(100), secs(10)));
    assert_eq!(s.vertical.map(|v| v.cpu_max), Some(MilliCpu(500)));
    assert_eq!((s.route.hosts, s.route.paths), (vec!["shop.example.com".into()], vec!["/".into()]));
    assert_eq!((s.route.mode, s.route.port), (RouteMode::Http, Some(5432)));
    assert_eq!(s.route.policy, PolicyName::Feedback);
    assert_eq!((s.route.hold.requests, s.route.hold.bytes), (1000, Bytes(64 << 20)));
    assert_eq!(s.route.hold.deadline, secs(30));
    let sticky = Sticky { cookie: "shop_instance".into(), max_age: Some(secs(3600)) };
    assert_eq!((s.route.sticky, s.route.body_max), (Some(sticky), Some(Bytes(1 << 30))));
    assert_eq!((s.route.hash, s.route.probe), (HashRule::default(), None));
    assert_eq!(s.health.path.as_deref(), Some("/up"));
    assert_eq!((s.health.interval, s.health.timeout, s.health.failures), (secs(2), secs(1), 3));

    let (t, currency) = t.check().unwrap();
    assert_eq!((t.name.as_str(), t.provider.as_str()), ("small", "local"));
    assert_eq!(t.capacity.resources.cpu, MilliCpu(2000));
    assert_eq!((t.capacity.resources.memory, t.capacity.disk), (Bytes(4 << 30), Bytes(40 << 30)));
    assert_eq!((t.cpu_class.as_str(), t.disk_type.as_str()), ("standard", "ssd"));
    assert_eq!((t.price.0, currency.to_string()), (6000, "EUR".to_owned()));
    assert_eq!((t.billing_unit, t.max_count), (secs(3600), 5));
    assert_eq!((t.pool.min, t.pool.state), (0, PoolState::Stopped));
    assert_eq!(t.start_command, ["./order"]);
    assert_eq!((t.stop_command, t.list_command), (vec!["./end".into()], vec!["./list".into()]));

    let b = Budget::try_from(b).unwrap();
    assert_eq!(b.cap, MonthlyCap::Amount(Money(120_000_000)));
    assert_eq!((b.reserve, b.strict_pacing), (p(3), false));
}

#[test]
fn yaml_toml_and_json_say_the_same() {
    let manifests = parse_text(EXAMPLE, Format::Yaml).unwrap();
    let values: Vec<Value> = manifests.iter().map(Manifest::to_value).collect();
    let json = Value::Array(values.clone()).to_string();
    assert_eq!(parse_text(&json, Format::Json).unwrap(), manifests);
    // JSON is YAML too.
    assert_eq!(parse_text(&values[0].to_string(), Format::Yaml).unwrap(), manifests[..1]);
    let toml = toml::to_string(&json!({ "manifest": values })).unwrap();
    assert_eq!(parse_text(&toml, Format::Toml).unwrap(), manifests);
    let one = toml::to_string(&values[2]).unwrap();
    assert_eq!(parse_text(&one, Format::Toml).unwrap(), manifests[2..]);
}

#[test]
fn what_is_not_said_has_the_promised_defaults() {
    let s = service(LEAST).unwrap();
    assert_eq!((s.min_instances, s.max_instances), (0, 1));
    assert_eq!((s.resources.cpu, s.resources.memory), (MilliCpu(250), Bytes(128 << 20)));
    assert_eq!((s.load.concurrency, s.load.concurrency_or_default()), (None, 10));
    assert_eq!(LoadPolicy::CONCURRENCY_DEFAULT, 10);
    let p = Share::percent;
    assert_eq!((s.load.up, s.load.down, s.load.target), (p(70), p(40), p(55)));
    assert_eq!((s.load.window, s.load.max_in_flight), (secs(60), 100));
    assert_eq!((s.lifecycle.idle_timeout, s.lifecycle.lifespan), (secs(300), Some(secs(86_400))));
    assert_eq!((s.rollout.surge, s.rollout.floor), (1, p(100)));
    assert_eq!(s.route.hosts, ["shop", "shop.localhost"]);
    assert_eq!((s.health.path, s.route.paths), (None, vec!["/".to_owned()]));
    assert_eq!(s.vertical, None);
    // Writable mounts cannot be held twice at a time.
    let mounted = format!("{LEAST}needs:\nhooks: {{}}\n",)
        .replace("[./shop]}", "[./shop], mounts: [{source: /a, target: /b}]}");
    assert_eq!(service(&mounted).unwrap().lifecycle.replace, Replace::StopFirst);
}

#[test]
fn words_that_yaml_once_took_for_truth_values_stay_words() {
    let text = "kind: budget\nmonthly_cap: none\npacing: off\n";
    let [Manifest::Budget(b)] = &parse_text(text, Format::Yaml).unwrap()[..] else { panic!() };
    assert_eq!(b.pacing.as_deref(), Some("off"));
    assert_eq!(Budget::try_from(b).unwrap().cap, MonthlyCap::Unlimited);
    let source = service(&format!("{LEAST}load: {{source: header}}\n")).unwrap().load.source;
    assert_eq!(source, Some(LoadSource::Header));
}

#[test]
fn what_is_hashed_probed_and_bounded_is_read() {
    let route = |text: &str| service(&format!("{LEAST}route: {{{text}}}\n")).unwrap().route;
    let by_header = route("policy: hash, hash: {by: header, name: X-User, balance: 150%}");
    let by = HashBy::Header("x-user".into());
    assert_eq!(by_header.hash, HashRule { by, balance: Share::percent(150) });
    let by_cookie = route("policy: hash, hash: {by: cookie, name: Id}");
    let by = HashBy::Cookie("Id".into());
    assert_eq!(by_cookie.hash, HashRule { by, balance: Share::percent(125) });
    assert_eq!(route("policy: hash").hash.by, HashBy::Source);
    let probed = route("policy: prequal, probe: {path: /probe}");
    assert_eq!(probed.probe.map(|probe| probe.path).as_deref(), Some("/probe"));
    assert_eq!(route("body_max: none").body_max, None);
    assert_eq!(route("body_max: 8MiB").body_max, Some(Bytes(8 << 20)));
    assert_eq!(route("mode: http").body_max, Some(Bytes(1 << 30)));
    assert_eq!(route("sticky: {cookie: id}").sticky.unwrap().max_age, None);
}

/// One wrong line, added to the least service: where the fault is said to be, and what is said.
const FAULTS: &[(&str, &str, &str)] = &[
    ("load: {up: 40}", "/load/up", "write it like 70%"),
    ("load: {up: 40%}", "/load/up", "at least 10% above down 40%"),
    ("load: {down: 65%}", "/load/down", "at least 10% above down 65%"),
    ("load: {target: 68%}", "/load/target", "5 points below up"),
    ("load: {target: 30%}", "/load/target", "must be above down"),
    ("load: {window: 60}", "/load/window", "write it like 30s"),
    ("load: {window: 2h}", "/load/window", "1s to 1h"),
    ("load: {window: 99999d}", "/load/window", "at most 3650d"),
    ("load: {period: 1ms}", "/load/period", "at least 100ms"),
    ("load: {concurrency: 0}", "/load/concurrency", "at least 1"),
    ("load: {max_in_flight: 0}", "/load/max_in_flight", "at least 1"),
    ("load: {source: psychic}", "/load/source", "balancer"),
    ("load: {source: agent}", "/load/source", "needs load.agent"),
    ("load: {agent: {port: 0}}", "/load/agent/port", "1 to 65535"),
    ("load: {agent: {}}", "/load/agent/port", "is missing"),
    ("load: {agent: {port: 1, interval: 1ms}}", "/load/agent/interval", "at least 100ms"),
    ("load: {band: wide}", "/load/band", "manual, auto"),
    ("load: {upp: 70%}", "/load/upp", "did you mean `up`?"),
    ("resources: {memory: 64}", "/resources/memory", "write it like 64MiB"),
    ("resources: {memory: 0B}", "/resources/memory", "above 0"),
    ("resources: {cpu: 0}", "/resources/cpu", "1m to 4096"),
    ("resources: {memry: 64MiB}", "/resources/memry", "did you mean `memory`?"),
    ("resources: 5", "/resources", "a table of keys"),
    ("min_instances: 2", "/min_instances", "must not exceed max_instances"),
    ("min_instances: -1", "/min_instances", "invalid value"),
    ("max_instances: 0", "/max_instances", "1 to 10000"),
    ("max_instance: 3", "/max_instance", "did you mean `max_instances`?"),
    ("group: nodespecific", "/group", "node-specific"),
    ("group: node-specific", "/needs/node", "must name its node"),
    ("owner: 'a b'", "/owner", "may hold only"),
    ("needs: {node_type: 'a b'}", "/needs/node_type", "may hold only"),
    ("needs: {labels: {zone: 1}}", "/needs/labels/zone", "put it in quotes"),
    ("lifecycle: {start_deadline: 0s}", "/lifecycle/start_deadline", "above 0"),
    ("lifecycle: {lifespan: 10ms}", "/lifecycle/lifespan", "at least 1s"),
    ("lifecycle: {hibernate: nap}", "/lifecycle/hibernate", "stop, pause, checkpoint"),
    ("lifecycle: {replace: never}", "/lifecycle/replace", "start-first, stop-first"),
    ("rollout: {floor: 120%}", "/rollout/floor", "at most 100%"),
    ("rollout: {surge: 0}", "/rollout/surge", "nothing could be replaced"),
    ("vertical: {cpu_max: 100m}", "/vertical/cpu_max", "at least resources.cpu, 250m"),
    ("vertical: {}", "/vertical/cpu_max", "is missing"),
    ("route: {hosts: ['http://shop']}", "/route/hosts/0", "without scheme"),
    ("route: {paths: [shop]}", "/route/paths/0", "starts with '/'"),
    ("route: {mode: udp}", "/route/mode", "http, tcp, nat"),
    ("route: {mode: tcp}", "/route/port", "need a front port"),
    ("route: {mode: tcp, port: 0}", "/route/port", "1 to 65535"),
    ("route: {mode: tcp, port: 70000}", "/route/port", "65535"),
    ("route: {policy: magic}", "/route/policy", "feedback"),
    ("route: {hash: {by: host}}", "/route/hash", "only with policy: hash"),
    ("route: {policy: hash, hash: {by: moon}}", "/route/hash/by", "source, header, cookie"),
    ("route: {policy: hash, hash: {by: header}}", "/route/hash/name", "needs its name"),
    ("route: {policy: hash, hash: {by: cookie, name: 'a b'}}", "/route/hash/name", "the name of"),
    ("route: {policy: hash, hash: {by: path, name: x}}", "/route/hash/name", "only with"),
    (
        "route: {policy: hash, hash: {by: path, balance: 100%}}",
        "/route/hash/balance",
        "at least 101%",
    ),
    (
        "route: {policy: hash, mode: tcp, port: 1, hash: {by: path}}",
        "/route/hash/by",
        "must be source",
    ),
    ("route: {sticky: {cookie: ''}}", "/route/sticky/cookie", "name of a cookie"),
    ("route: {sticky: {cookie: a, max_age: 0s}}", "/route/sticky/max_age", "at least 1s"),
    ("route: {mode: tcp, port: 1, sticky: {cookie: a}}", "/route/sticky", "needs mode http"),
    ("route: {probe: {path: /x}}", "/route/probe", "only with policy: prequal"),
    ("route: {policy: prequal, probe: {path: x}}", "/route/probe/path", "starts with '/'"),
    ("route: {body_max: much}", "/route/body_max", "64MiB"),
    ("route: {hold: {deadline: 2h}}", "/route/hold/deadline", "at most 1h"),
    ("route: {hold: {bytes: 12}}", "/route/hold/bytes", "64MiB"),
    ("health: {path: up}", "/health/path", "starts with '/'"),
    ("health: {interval: 2}", "/health/interval", "write it like 30s"),
    ("name2: x", "/name2", "did you mean `name`?"),
];

/// Whole manifests that are wrong.
const WRONG: &[(&str, &str, &str)] = &[
    ("", "", "start with `kind: service`"),
    ("just words", "", "a table of keys"),
    ("- a\n- b\n", "", "a table of keys"),
    ("name: shop", "/kind", "is missing"),
    ("kind: 5", "/kind", "must be service, node-type or budget"),
    ("kind: servcie\nname: shop", "/kind", "did you mean \"service\"?"),
    ("kind: service\nrun: {command: [a]}", "/name", "is missing"),
    ("kind: service\nname: Shop\nrun: {command: [a]}", "/name", "a-z"),
    ("kind: service\nname: shop", "/run", "is missing"),
    ("kind: service\nname: shop\nrun: {}", "/run", "an image (a container) or a command"),
    ("kind: service\nname: shop\nrun: {image: x}", "/run/port", "the port it listens on"),
    ("kind: service\nname: shop\nrun: {image: ''}", "/run/image", "is empty"),
    ("kind: service\nname: shop\nrun: {command: ['']}", "/run/command/0", "is empty"),
    ("kind: service\nname: shop\nrun: {command: ./shop}", "/run/command", "expected a sequence"),
    ("kind: service\nname: a\nrun: {command: [a], env: {'A=B': c}}", "/run/env/A=B", "no name"),
    ("kind: service\nname: a\nrun: {command: [a], env: {A: 1}}", "/run/env/A", "in quotes"),
    ("kind: service\nname: a\nrun: {command: [a], port: 0}", "/run/port", "1 to 65535"),
    (
        "kind: service\nname: a\nrun: {command: [a], isolation: vm}",
        "/run/isolation",
        "none, cgroup",
    ),
    (
        "kind: service\nname: a\nrun: {command: [a], mounts: [{source: a, target: /b}]}",
        "/run/mounts/0",
        "absolute",
    ),
    (
        "kind: service\nname: a\nrun: {command: [a], mounts: [{source: /a}]}",
        "/run/mounts/0/target",
        "is missing",
    ),
    ("kind: service\nname: shop\nname: shop", "", "not YAML"),
    ("kind: [", "", "not YAML"),
    ("kind: node-type\nname: x\nprovider: local", "/cpu", "is missing"),
    (
        "kind: node-type\nname: x\nprovider: local\ncpu: 1\nmemory: 1GiB\nprice_per_hour: 5",
        "/price_per_hour",
        "expected a string",
    ),
    (
        "kind: node-type\nname: x\nprovider: local\ncpu: 1\nmemory: 1GiB\nprice_per_hour: cheap",
        "/price_per_hour",
        "120 EUR",
    ),
    (
        "kind: node-type\nname: x\nprovider: command\ncpu: 1\nmemory: 1GiB\nprice_per_hour: 1 EUR",
        "/start_command",
        "is missing",
    ),
    (
        "kind: node-type\nname: x\nprovider: local\ncpu: 1\nmemory: 1GiB\nprice_per_hour: 1 EUR\n\
         pool: {min: 2}",
        "/pool/min",
        "must not exceed max_count",
    ),
    (
        "kind: node-type\nname: x\nprovider: local\ncpu: 1\nmemory: 1GiB\nprice_per_hour: 1 EUR\n\
         billing_unit: 10s\nstop_lead: 10s",
        "/stop_lead",
        "shorter than billing_unit",
    ),
    ("kind: budget", "/monthly_cap", "is missing"),
    ("kind: budget\nmonthly_cap: lots", "/monthly_cap", "or \"none\" for no cap"),
    ("kind: budget\nmonthly_cap: 1 EUR\nreserve: 120%", "/reserve", "at most 100%"),
    ("kind: budget\nmonthly_cap: 1 EUR\npacing: fast", "/pacing", "off or strict"),
];

fn fault(text: &str) -> ManifestError {
    let checked = parse_text(text, Format::Yaml)
        .and_then(|manifests| manifests.iter().try_for_each(Manifest::check));
    checked.expect_err(text)
}

#[test]
fn each_fault_is_found_where_it_is_and_says_what_would_be_right() {
    let with_least = FAULTS.iter().map(|(line, p, d)| (format!("{LEAST}{line}\n"), *p, *d));
    let whole = WRONG.iter().map(|(text, p, d)| ((*text).to_owned(), *p, *d));
    for (text, pointer, part) in with_least.chain(whole) {
        let e = fault(&text);
        assert_eq!(e.pointer, pointer, "{text}: {e}");
        assert!(e.detail.contains(part), "{text}: {e}");
        assert!(!e.to_string().contains('\n') && !e.detail.contains("struct"), "{e}");
        let problem = e.problem();
        assert_eq!((problem.status, problem.errors[0].pointer.as_str()), (422, pointer));
    }
}

#[test]
fn a_fault_names_its_document() {
    let text = format!("{LEAST}---\n{LEAST}load: {{upp: 1}}\n");
    let e = fault(&text);
    assert_eq!((e.document, e.pointer.as_str()), (Some(2), "/load/upp"));
    assert!(e.to_string().starts_with("document 2: /load/upp: "), "{e}");
}

#[test]
fn toml_takes_nothing_beside_its_manifests() {
    let text = "kind = \"budget\"\n[[manifest]]\nkind = \"budget\"\nmonthly_cap = \"none\"\n";
    let e = parse_text(text, Format::Toml).unwrap_err();
    assert_eq!(e.pointer, "/kind");
    assert!(e.detail.contains("[[manifest]]"), "{e}");
}

#[test]
fn bombs_are_refused() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let inner = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs.push_str(&format!("a{i}: &a{i} [{inner}]\n"));
    }
    let merged: String =
        (1..200).map(|i| format!("b{i}: &b{i}\n  <<: [*b{0}, *b{0}]\n", i - 1)).collect();
    let bombs = [
        laughs,
        format!("b0: &b0 {{x: 1}}\n{merged}"),
        "[".repeat(500_000),
        "{a: ".repeat(200_000),
        "- ".repeat(300_000),
        (0..20_000).map(|i| format!("{}a:\n", " ".repeat(i % 50_000))).take(900).collect(),
        "---\n".repeat(200_000),
        "&a ".repeat(300_000),
        format!("x: {}", "9".repeat(900_000)),
        "kind: service\n---\n".repeat(2000),
        "a".repeat(super::parse::MANIFEST_BYTES_MAX + 1),
    ];
    for bomb in &bombs {
        let e = parse_text(bomb, Format::Yaml).unwrap_err();
        assert!(e.to_string().len() < 600, "{e}");
    }
    for nest in ["[".repeat(500_000), "{\"a\":".repeat(150_000)] {
        assert!(parse_text(&nest, Format::Json).is_err());
    }
    for nest in [
        format!("a = {}", "[".repeat(500_000)),
        format!("{}a = 1", "a.".repeat(500_000)),
        format!("[{}a]", "a.".repeat(500_000)),
        format!("a = {}", "{a=".repeat(300_000)),
    ] {
        assert!(parse_text(&nest, Format::Toml).is_err());
    }
}

/// Nothing is too strange to be answered: an error or a manifest that checks without panic.
fn answers(text: &str) {
    for format in [Format::Yaml, Format::Toml, Format::Json] {
        for manifest in parse_text(text, format).unwrap_or_default() {
            let checked = manifest.check();
            let again: Result<ServiceManifest, _> = from_value(manifest.to_value());
            if let (Ok(()), Manifest::Service(m)) = (checked, &manifest) {
                assert_eq!(&again.unwrap(), m.as_ref(), "a manifest reads as it was written");
            }
        }
    }
}

/// Text that looks like a manifest: its keys, its punctuation, its values in any order.
fn yamlish() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "kind",
        "service",
        "name",
        "shop",
        "run",
        "command",
        "load",
        "up",
        "70%",
        "250m",
        "64MiB",
        "30s",
        "hooks",
        "needs",
        "labels",
        ":",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "\n    ",
        "{",
        "}",
        "[",
        "]",
        ",",
        "&a ",
        "*a",
        "<<: ",
        "---\n",
        "!!binary ",
        "|",
        ">",
        "'",
        "\"",
        "#",
        "~",
        "null",
        "1e999",
        ".nan",
        "0x",
        "-1",
        "\u{0}",
        "\u{feff}",
        "=",
        "[[manifest]]\n",
        "\t",
        "?",
        "@",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

fn jsonish() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "kind",
        "name",
        "run",
        "command",
        "load",
        "up",
        "needs",
        "labels",
        "resources",
        "cpu",
        "route",
        "hold",
        "lifecycle",
        "env",
        "mounts",
        "monthly_cap",
        "price_per_hour",
        "x",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["service", "node-type", "budget", "70%", "1s", "64MiB", "1 EUR"])
            .prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn cases(quick: u32) -> ProptestConfig {
    ProptestConfig { cases: quick, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(25_000))]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        answers(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_lookalike_panics(text in yamlish()) {
        answers(&text);
    }

    #[test]
    fn no_value_panics(value in jsonish()) {
        let service: Result<ServiceManifest, _> = from_value(value.clone());
        if let Ok(manifest) = service {
            let _either = Manifest::Service(Box::new(manifest)).check();
        }
        answers(&value.to_string());
    }

    #[test]
    fn no_damaged_manifest_panics(
        cut in 0usize..4000,
        len in 0usize..12,
        new in "[\\PC\n\t]{0,8}",
        twice in any::<bool>(),
    ) {
        let at = EXAMPLE.floor_char_boundary(cut.min(EXAMPLE.len()));
        let end = EXAMPLE.ceil_char_boundary((at + len).min(EXAMPLE.len()));
        let mut text = format!("{}{new}{}", &EXAMPLE[..at], &EXAMPLE[end..]);
        if twice {
            text = text.replacen("70%", &new, 1);
        }
        for manifest in parse_text(&text, Format::Yaml).unwrap_or_default() {
            let _either = manifest.check();
        }
    }
}
