//! Fronts as JSON.

use super::bounded;
use super::json::{ms, read_ms};
use domain::{
    AgentCheck, Bytes, HashBy, HashRule, Health, Hold, PolicyName, Probe, Revision, RouteMode,
    ServiceFront, ServiceName, Share, Sticky,
};
use serde::{Deserialize, Serialize};

/// Longest front read: a few hundred host names and paths.
pub const FRONT_BYTES_MAX: usize = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct HoldText {
    requests: u32,
    bytes: u64,
    deadline_ms: f64,
}

#[derive(Serialize, Deserialize)]
struct HashText {
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Ten-thousandths of the mean.
    balance: u32,
}

#[derive(Serialize, Deserialize)]
struct StickyText {
    cookie: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_age_ms: Option<f64>,
}

#[derive(Serialize, Deserialize)]
struct HealthText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    interval_ms: f64,
    timeout_ms: f64,
    failures: u32,
}

#[derive(Serialize, Deserialize)]
struct AgentText {
    port: u16,
    interval_ms: f64,
}

/// What was added after the first release may be missing, and then has its default.
#[derive(Serialize, Deserialize)]
struct FrontText {
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
    mode: String,
    #[serde(default)]
    port: Option<u16>,
    policy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<HashText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sticky: Option<StickyText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    probe_path: Option<String>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body_max: Option<u64>,
    hold: HoldText,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    health: Option<HealthText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent: Option<AgentText>,
    #[serde(default)]
    concurrency: Option<u32>,
    max_in_flight: u32,
    slow_start_ms: f64,
    /// `None`: `auto`.
    #[serde(default)]
    source: Option<String>,
    load_balanced: bool,
    revision: u64,
    startable: bool,
}

/// A front as JSON.
///
/// # Errors
/// None in practice: the text has no form JSON could not say.
pub fn front(front: &ServiceFront) -> Result<String, String> {
    let text = FrontText {
        hosts: front.hosts.clone(),
        paths: front.paths.clone(),
        mode: front.mode.as_str().to_owned(),
        port: front.port,
        policy: front.policy.as_str().to_owned(),
        hash: (front.hash != HashRule::default()).then(|| HashText {
            by: front.hash.by.as_str().to_owned(),
            name: front.hash.by.name().map(str::to_owned),
            balance: front.hash.balance.0,
        }),
        sticky: front.sticky.as_ref().map(|sticky| StickyText {
            cookie: sticky.cookie.clone(),
            max_age_ms: sticky.max_age.map(ms),
        }),
        probe_path: front.probe.as_ref().map(|probe| probe.path.clone()),
        body_max: front.body_max.map(|max| max.0),
        health: (front.health != Health::default()).then(|| HealthText {
            path: front.health.path.clone(),
            interval_ms: ms(front.health.interval),
            timeout_ms: ms(front.health.timeout),
            failures: front.health.failures,
        }),
        agent: front
            .agent
            .map(|agent| AgentText { port: agent.port, interval_ms: ms(agent.interval) }),
        hold: HoldText {
            requests: front.hold.requests,
            bytes: front.hold.bytes.0,
            deadline_ms: ms(front.hold.deadline),
        },
        concurrency: front.concurrency,
        max_in_flight: front.max_in_flight,
        slow_start_ms: ms(front.slow_start),
        source: front.source.map(|source| source.as_str().to_owned()),
        load_balanced: front.load_balanced,
        revision: front.revision.0,
        startable: front.startable,
    };
    serde_json::to_string(&text).map_err(|why| why.to_string())
}

/// Reads a front. Fields of a newer version are passed over.
///
/// # Errors
/// What is wrong with it.
pub fn read_front(service: &ServiceName, text: &str) -> Result<ServiceFront, String> {
    bounded(text, FRONT_BYTES_MAX)?;
    let text: FrontText = serde_json::from_str(text).map_err(|why| why.to_string())?;
    Ok(ServiceFront {
        service: service.clone(),
        hosts: text.hosts,
        paths: text.paths,
        mode: [RouteMode::Http, RouteMode::Tcp, RouteMode::Nat]
            .into_iter()
            .find(|mode| mode.as_str() == text.mode)
            .ok_or_else(|| format!("mode cannot be {:?}", text.mode))?,
        port: text.port,
        policy: text.policy.parse::<PolicyName>()?,
        hash: text.hash.map_or(Ok(HashRule::default()), read_hash)?,
        sticky: text.sticky.map(read_sticky).transpose()?,
        probe: text.probe_path.map(|path| Probe { path }),
        body_max: text.body_max.map(Bytes),
        health: text.health.map_or(Ok(Health::default()), read_health)?,
        agent: text.agent.map(read_agent).transpose()?,
        hold: Hold {
            requests: text.hold.requests,
            bytes: Bytes(text.hold.bytes),
            deadline: read_ms(text.hold.deadline_ms, "hold.deadline_ms")?,
        },
        concurrency: text.concurrency,
        max_in_flight: text.max_in_flight,
        slow_start: read_ms(text.slow_start_ms, "slow_start_ms")?,
        source: match text.source.as_deref() {
            None | Some("auto") => None,
            Some(source) => Some(source.parse()?),
        },
        load_balanced: text.load_balanced,
        revision: Revision(text.revision),
        startable: text.startable,
    })
}

fn read_hash(text: HashText) -> Result<HashRule, String> {
    let by = HashBy::from_parts(&text.by, text.name)
        .ok_or_else(|| format!("hash.by cannot be {:?}", text.by))?;
    Ok(HashRule { by, balance: Share(text.balance) })
}

fn read_sticky(text: StickyText) -> Result<Sticky, String> {
    let max_age = text.max_age_ms.map(|age| read_ms(age, "sticky.max_age_ms")).transpose()?;
    Ok(Sticky { cookie: text.cookie, max_age })
}

fn read_health(text: HealthText) -> Result<Health, String> {
    Ok(Health {
        path: text.path,
        interval: read_ms(text.interval_ms, "health.interval_ms")?,
        timeout: read_ms(text.timeout_ms, "health.timeout_ms")?,
        failures: text.failures,
    })
}

fn read_agent(text: AgentText) -> Result<AgentCheck, String> {
    let interval = read_ms(text.interval_ms, "agent.interval_ms")?;
    Ok(AgentCheck { port: text.port, interval })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::LoadSource;
    use proptest::prelude::*;
    use std::time::Duration;

    fn shop() -> ServiceName {
        "shop".parse().unwrap()
    }

    fn hash() -> impl Strategy<Value = HashRule> {
        let by = prop_oneof![
            Just(HashBy::Source),
            "[a-z-]{1,9}".prop_map(HashBy::Header),
            "[a-zA-Z_]{1,9}".prop_map(HashBy::Cookie),
            Just(HashBy::Path),
            Just(HashBy::Host),
        ];
        (by, 101u32..40_000).prop_map(|(by, balance)| HashRule { by, balance: Share(balance) })
    }

    proptest! {
        #[test]
        fn fronts_read_as_written(
            hosts in proptest::collection::vec("[a-z.]{1,20}", 0..4),
            port in proptest::option::of(any::<u16>()),
            numbers in any::<(u32, u64, u32, u64)>(),
            micros in proptest::array::uniform4(0u64..30_000_000_000),
            flags in any::<(bool, bool, bool)>(),
            policy in 0usize..9, hash in hash(), word in proptest::option::of("[a-z/]{1,9}"),
        ) {
            let span = Duration::from_micros;
            let wanted = ServiceFront {
                service: shop(),
                hosts,
                paths: vec!["/".into()],
                mode: RouteMode::Tcp,
                port,
                policy: PolicyName::ALL[policy],
                hash,
                sticky: word.clone().map(|cookie| Sticky {
                    cookie,
                    max_age: flags.1.then_some(span(micros[2])),
                }),
                probe: word.clone().map(|path| Probe { path }),
                body_max: port.map(|_| Bytes(numbers.1)),
                hold: Hold {
                    requests: numbers.0,
                    bytes: Bytes(numbers.1),
                    deadline: span(micros[0]),
                },
                health: Health {
                    path: word,
                    interval: span(micros[3]),
                    timeout: span(micros[2]),
                    failures: numbers.2,
                },
                agent: port.map(|port| AgentCheck { port, interval: span(micros[2]) }),
                concurrency: port.map(u32::from),
                max_in_flight: numbers.2,
                slow_start: span(micros[1]),
                source: flags.0.then_some(LoadSource::Header),
                load_balanced: flags.1,
                revision: Revision(numbers.3),
                startable: flags.2,
            };
            prop_assert_eq!(read_front(&shop(), &front(&wanted).unwrap()), Ok(wanted));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,200}") {
            let _unused = read_front(&shop(), &text);
        }
    }

    #[test]
    fn what_an_older_manager_wrote_is_read_with_defaults() {
        let old = r#"{"hosts":["a"],"paths":["/"],"mode":"http","port":null,"policy":"feedback",
            "hold":{"requests":7,"bytes":9,"deadline_ms":1000.0},"concurrency":null,
            "max_in_flight":5,"slow_start_ms":10000.0,"source":null,"load_balanced":true,
            "revision":3,"startable":true}"#;
        let front = read_front(&shop(), old).unwrap();
        assert_eq!((front.hold.requests, front.max_in_flight), (7, 5));
        assert_eq!((front.hash, front.health), (HashRule::default(), Health::default()));
        assert_eq!((front.sticky, front.probe, front.agent), (None, None, None));
        assert_eq!(front.body_max, None);
    }

    #[test]
    fn a_front_too_long_is_refused() {
        assert!(read_front(&shop(), &" ".repeat(FRONT_BYTES_MAX + 1)).is_err());
    }
}
