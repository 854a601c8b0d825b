//! From an assigned instance to the container that Docker is asked to make; pure.

use crate::engine::{Start, fill};
use crate::error::EngineError;
use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, HostConfig, Mount, MountType, PortBinding,
    RestartPolicy, RestartPolicyNameEnum,
};
use domain::{InstanceId, NodeId};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use wire::assignment::Limits;

/// Label with the instance's id; by it containers are found again.
pub const LABEL_INSTANCE: &str = "tally.instance";
/// Label with the service's name.
pub const LABEL_SERVICE: &str = "tally.service";
/// Label with the node's id.
pub const LABEL_NODE: &str = "tally.node";
/// Label with the cluster's id.
pub const LABEL_CLUSTER: &str = "tally.cluster";
/// Name by which containers reach the host.
pub const HOST_NAME: &str = "tally.internal";
/// The kernel's default bandwidth period, as for plain processes.
const CPU_PERIOD_MICROS: i64 = 100_000;
/// Docker refuses quotas under a millisecond.
const CPU_QUOTA_MICROS_MIN: i64 = 1_000;
/// Docker refuses to make containers with less memory.
const MEMORY_BYTES_MIN: i64 = 6 << 20;

/// Whose containers these are, and where they answer.
#[derive(Debug, Clone)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// The cluster.
    pub cluster: String,
    /// Where instances answer.
    pub address: IpAddr,
}

/// The container's name.
#[must_use]
pub fn name(id: &InstanceId) -> String {
    format!("tally-{id}")
}

/// The port inside: the declared one, or the node's where the service takes what it is given.
#[must_use]
pub fn inner_port(start: &Start<'_>) -> u16 {
    start.instance.run.port.unwrap_or(start.port)
}

/// What Docker is asked to make.
///
/// # Errors
/// When no image is named.
pub fn container(start: &Start<'_>, place: &Place) -> Result<ContainerCreateBody, EngineError> {
    let instance = start.instance;
    let run = &instance.run;
    let image = run.image.clone().ok_or_else(|| {
        EngineError::lasting("a container needs run.image; for a plain process name no image")
    })?;
    let port = inner_port(start);
    let command = fill(&run.command, start, port, "0.0.0.0");
    let labels = [
        (LABEL_INSTANCE, instance.id.to_string()),
        (LABEL_SERVICE, instance.service.to_string()),
        (LABEL_NODE, place.node.to_string()),
        (LABEL_CLUSTER, place.cluster.clone()),
    ];
    Ok(ContainerCreateBody {
        image: Some(image),
        cmd: (!command.is_empty()).then_some(command),
        env: Some(environment(start, place)),
        user: run.user.clone(),
        working_dir: run.workdir.clone(),
        labels: Some(labels.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        exposed_ports: Some(vec![format!("{port}/tcp")]),
        host_config: Some(host(start, place)),
        ..ContainerCreateBody::default()
    })
}

fn host(start: &Start<'_>, place: &Place) -> HostConfig {
    let published = PortBinding {
        host_ip: Some(place.address.to_string()),
        host_port: Some(start.port.to_string()),
    };
    let mut ports = HashMap::new();
    ports.insert(format!("{}/tcp", inner_port(start)), Some(vec![published]));
    let mount = |m: &wire::assignment::AssignedMount| Mount {
        source: Some(m.source.clone()),
        target: Some(m.target.clone()),
        typ: Some(MountType::BIND),
        read_only: Some(m.read_only),
        ..Mount::default()
    };
    let limits = Quota::of(start.instance.limits);
    HostConfig {
        port_bindings: Some(ports),
        extra_hosts: Some(vec![format!("{HOST_NAME}:host-gateway")]),
        mounts: Some(start.instance.run.mounts.iter().map(mount).collect()),
        cpu_period: Some(CPU_PERIOD_MICROS),
        cpu_quota: Some(limits.cpu_quota),
        memory: limits.memory,
        memory_swap: limits.memory,
        // The executor restarts, and knows why.
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        ..HostConfig::default()
    }
}

struct Quota {
    cpu_quota: i64,
    memory: Option<i64>,
}

impl Quota {
    fn of(limits: Limits) -> Quota {
        let quota = i64::from(limits.cpu_millis) * (CPU_PERIOD_MICROS / 1000);
        let memory = i64::try_from(limits.memory_bytes).unwrap_or(i64::MAX);
        Quota {
            cpu_quota: quota.max(CPU_QUOTA_MICROS_MIN),
            memory: (memory > 0).then(|| memory.max(MEMORY_BYTES_MIN)),
        }
    }
}

/// The change of a running container's limits.
#[must_use]
pub fn update(limits: Limits) -> ContainerUpdateBody {
    let quota = Quota::of(limits);
    ContainerUpdateBody {
        cpu_period: Some(CPU_PERIOD_MICROS),
        cpu_quota: Some(quota.cpu_quota),
        memory: quota.memory,
        memory_swap: quota.memory,
        ..ContainerUpdateBody::default()
    }
}

/// `NAME=value` lines. Addresses on the host's loopback become [`HOST_NAME`], which is how a
/// container reaches the host.
fn environment(start: &Start<'_>, place: &Place) -> Vec<String> {
    let mut env: BTreeMap<String, String> = start.env.clone();
    env.extend(start.instance.run.env.clone());
    for name in ["TALLY_LOAD_URL", "TALLY_LOAD_ADDR"] {
        if let Some(value) = env.get_mut(name) {
            for loopback in ["127.0.0.1", "localhost", "[::1]"] {
                *value = value.replace(loopback, HOST_NAME);
            }
        }
    }
    env.insert("TALLY_INSTANCE".to_owned(), start.instance.id.to_string());
    env.insert("TALLY_NODE".to_owned(), place.node.to_string());
    env.insert("PORT".to_owned(), inner_port(start).to_string());
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::assignment::{AssignedMount, EngineKind};

    fn place() -> Place {
        Place {
            node: "n-0123456789".parse().unwrap(),
            cluster: "c1".to_owned(),
            address: "10.0.0.5".parse().unwrap(),
        }
    }

    #[test]
    fn a_container_has_all_that_was_assigned() {
        let mut instance = crate::testing::instance("shop");
        instance.engine = EngineKind::Docker;
        instance.run.image = Some("shop:1.2".to_owned());
        instance.run.command = vec!["--port={port}".to_owned(), "{instance}".to_owned()];
        instance.run.port = Some(8080);
        instance.run.user = Some("www".to_owned());
        instance.run.mounts = vec![AssignedMount {
            source: "/data".to_owned(),
            target: "/srv".to_owned(),
            read_only: true,
        }];
        let mut env = BTreeMap::new();
        env.insert("TALLY_LOAD_URL".to_owned(), "http://127.0.0.1:7402/v1/load".to_owned());
        let start = Start { instance: &instance, port: 20_001, env };
        let made = container(&start, &place()).unwrap();
        assert_eq!(made.image.as_deref(), Some("shop:1.2"));
        let expected = vec!["--port=8080".to_owned(), instance.id.to_string()];
        assert_eq!(made.cmd, Some(expected));
        let env = made.env.unwrap();
        assert!(env.contains(&"PORT=8080".to_owned()));
        assert!(env.contains(&"TALLY_LOAD_URL=http://tally.internal:7402/v1/load".to_owned()));
        assert_eq!(made.labels.unwrap()[LABEL_NODE], "n-0123456789");
        let host = made.host_config.unwrap();
        let bound = host.port_bindings.unwrap()["8080/tcp"].clone().unwrap();
        assert_eq!(bound[0].host_ip.as_deref(), Some("10.0.0.5"));
        assert_eq!(bound[0].host_port.as_deref(), Some("20001"));
        assert_eq!((host.cpu_quota, host.memory), (Some(25_000), Some(64 << 20)));
        assert_eq!(host.mounts.unwrap()[0].read_only, Some(true));
        assert_eq!(host.extra_hosts.unwrap(), ["tally.internal:host-gateway"]);
    }

    #[test]
    fn without_an_image_there_is_no_container() {
        let instance = crate::testing::instance("shop");
        let start = Start { instance: &instance, port: 1, env: BTreeMap::new() };
        assert!(container(&start, &place()).unwrap_err().permanent);
    }

    #[test]
    fn limits_stay_within_what_docker_takes() {
        let update = update(Limits { cpu_millis: 1, memory_bytes: 1 });
        assert_eq!((update.cpu_quota, update.memory), (Some(1000), Some(6 << 20)));
        assert_eq!(super::update(Limits { cpu_millis: 2000, memory_bytes: 0 }).memory, None);
    }
}
