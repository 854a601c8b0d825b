//! From a service manifest to a checked `ServiceSpec`: defaults are filled in, words become types.

use super::parse::ManifestError;
use super::route::route;
use super::service::{
    AgentManifest, HealthManifest, LifecycleManifest, LoadManifest, NeedsManifest, RolloutManifest,
    RunManifest, ServiceManifest,
};
use crate::quantity::{Q, Span};
use domain::{
    AgentCheck, Band, Bytes, Health, Hibernate, Isolation, Lifecycle, LoadPolicy, LoadSource,
    MilliCpu, Mount, Needs, Replace, Resources, Rollout, Run, ServiceGroup, ServiceSpec, Share,
    Vertical,
};
use std::time::Duration;

/// Default room of an instance: a small web service.
const CPU_DEFAULT: MilliCpu = MilliCpu(250);
const MEMORY_DEFAULT: Bytes = Bytes(128 << 20);
/// Most arguments, variables, mounts, hosts or paths in one list.
pub(super) const LIST_MAX: usize = 256;
/// Least distance of the thresholds: the target between them needs five points to either side, or
/// constant demand would cycle.
const BAND_MIN: Share = Share::percent(10);
/// Shortest reporting period: a report more often costs more than it tells.
const PERIOD_MIN: Duration = Duration::from_millis(100);
/// How often an agent is asked, as `HAProxy` does by default: existing agents expect no more.
const AGENT_INTERVAL: Duration = secs(2);
/// Longest text of one argument or variable.
const TEXT_BYTES_MAX: usize = 32 << 10;

pub(super) fn span(q: Option<Q<Span>>, default: Duration) -> Duration {
    q.map_or(default, |q| q.0.0)
}

pub(super) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(super) fn word<T: Copy>(
    pointer: &str,
    text: Option<&str>,
    known: &[(&str, T)],
    default: T,
) -> Result<T, ManifestError> {
    let Some(text) = text else { return Ok(default) };
    known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let shown: String = text.chars().take(40).collect();
        let detail = format!("must be one of {}, not {shown:?}", names.join(", "));
        ManifestError::at(pointer, detail)
    })
}

impl TryFrom<&ServiceManifest> for ServiceSpec {
    type Error = ManifestError;

    fn try_from(m: &ServiceManifest) -> Result<ServiceSpec, ManifestError> {
        if m.kind.as_deref().is_some_and(|k| k != "service") {
            return Err(ManifestError::at("/kind", "must be \"service\" here"));
        }
        let name = m.name.as_deref().ok_or_else(|| ManifestError::at("/name", "is missing"))?;
        let name =
            name.parse().map_err(|e: domain::IdError| ManifestError::at("/name", e.to_string()))?;
        let group = word(
            "/group",
            m.group.as_deref(),
            &[
                ("self-contained", ServiceGroup::SelfContained),
                ("node-specific", ServiceGroup::NodeSpecific),
                ("system", ServiceGroup::System),
            ],
            ServiceGroup::SelfContained,
        )?;
        let resources = m.resources.clone().unwrap_or_default();
        let run = run(&m.run)?;
        let stop_first =
            group == ServiceGroup::NodeSpecific || run.mounts.iter().any(|mount| !mount.read_only);
        let route = route(m.route.as_ref(), &name)?;
        let owner = m.owner.as_deref().map(str::parse).transpose();
        let spec = ServiceSpec {
            min_instances: m.min_instances,
            max_instances: m.max_instances,
            load_balanced: m.load_balanced,
            group,
            run,
            resources: Resources {
                cpu: resources.cpu.map_or(CPU_DEFAULT, |q| q.0),
                memory: resources.memory.map_or(MEMORY_DEFAULT, |q| q.0),
            },
            needs: needs(&m.needs)?,
            priority: m.priority.unwrap_or(0),
            owner: owner
                .map_err(|e: domain::IdError| ManifestError::at("/owner", e.to_string()))?,
            load: load(m.load.as_ref())?,
            lifecycle: lifecycle(m.lifecycle.as_ref(), stop_first)?,
            rollout: rollout(m.rollout.as_ref())?,
            vertical: m.vertical.as_ref().map(|v| Vertical { cpu_max: v.cpu_max.0 }),
            route,
            health: health(m.health.as_ref())?,
            name,
        };
        if spec.group == ServiceGroup::NodeSpecific && spec.needs.node.is_none() {
            let detail = "a node-specific service must name its node";
            return Err(ManifestError::at("/needs/node", detail));
        }
        if spec.resources.memory == Bytes(0) {
            return Err(ManifestError::at("/resources/memory", "must be above 0"));
        }
        if spec.vertical.as_ref().is_some_and(|v| v.cpu_max < spec.resources.cpu) {
            let detail = format!("must be at least resources.cpu, {}", spec.resources.cpu);
            return Err(ManifestError::at("/vertical/cpu_max", detail));
        }
        let whole = spec.rollout.floor >= Share::percent(100);
        if spec.rollout.surge == 0 && whole && spec.lifecycle.replace == Replace::StartFirst {
            let detail = "must be at least 1 while the floor is 100%, or nothing could be replaced";
            return Err(ManifestError::at("/rollout/surge", detail));
        }
        spec.check()?;
        Ok(spec)
    }
}

pub(super) fn bounded(pointer: &str, len: usize, max: usize) -> Result<(), ManifestError> {
    if len > max {
        return Err(ManifestError::at(pointer, format!("may have {max} entries at most")));
    }
    Ok(())
}

fn argument(pointer: &str, text: &str) -> Result<(), ManifestError> {
    if text.len() > TEXT_BYTES_MAX || text.contains('\0') {
        let detail = format!("must have at most {TEXT_BYTES_MAX} bytes and no NUL");
        return Err(ManifestError::at(pointer, detail));
    }
    Ok(())
}

fn run(m: &RunManifest) -> Result<Run, ManifestError> {
    bounded("/run/command", m.command.len(), LIST_MAX)?;
    bounded("/run/stop_command", m.stop_command.len(), LIST_MAX)?;
    bounded("/run/env", m.env.len(), LIST_MAX)?;
    bounded("/run/mounts", m.mounts.len(), LIST_MAX)?;
    for (i, text) in m.command.iter().enumerate() {
        argument(&format!("/run/command/{i}"), text)?;
    }
    for (i, text) in m.stop_command.iter().enumerate() {
        argument(&format!("/run/stop_command/{i}"), text)?;
    }
    if m.command.first().is_some_and(String::is_empty) {
        return Err(ManifestError::at("/run/command/0", "the program's name is empty"));
    }
    for (key, value) in &m.env {
        let pointer = format!("/run/env/{}", key.replace('~', "~0").replace('/', "~1"));
        if key.is_empty() || key.contains(['=', '\0']) {
            return Err(ManifestError::at(pointer, "is no name of an environment variable"));
        }
        argument(&pointer, value)?;
    }
    for (i, mount) in m.mounts.iter().enumerate() {
        if !mount.source.starts_with('/') || !mount.target.starts_with('/') {
            let detail = "source and target must be absolute paths";
            return Err(ManifestError::at(format!("/run/mounts/{i}"), detail));
        }
    }
    if m.image.as_deref().is_some_and(str::is_empty) {
        return Err(ManifestError::at("/run/image", "is empty"));
    }
    if m.port == Some(0) {
        return Err(ManifestError::at("/run/port", "must be 1 to 65535"));
    }
    let isolation = word(
        "/run/isolation",
        m.isolation.as_deref(),
        &[
            ("none", Isolation::None),
            ("cgroup", Isolation::Cgroup),
            ("namespaces", Isolation::Namespaces),
        ],
        Isolation::Cgroup,
    )?;
    Ok(Run {
        image: m.image.clone(),
        command: m.command.clone(),
        stop_command: m.stop_command.clone(),
        port: m.port,
        env: m.env.clone(),
        workdir: m.workdir.clone(),
        user: m.user.clone(),
        mounts: m
            .mounts
            .iter()
            .map(|x| Mount {
                source: x.source.clone(),
                target: x.target.clone(),
                read_only: x.read_only,
            })
            .collect(),
        isolation,
    })
}

/// Reads `needs`; the placement request carries the same words.
pub(super) fn needs(m: &NeedsManifest) -> Result<Needs, ManifestError> {
    bounded("/needs/labels", m.labels.len(), LIST_MAX)?;
    let node_type = m.node_type.as_deref().map(str::parse).transpose();
    Ok(Needs {
        node: m.node.clone(),
        node_type: node_type
            .map_err(|e: domain::IdError| ManifestError::at("/needs/node_type", e.to_string()))?,
        cpu_class: m.cpu_class.clone(),
        disk_type: m.disk_type.clone(),
        labels: m.labels.clone(),
        dedicated: m.dedicated,
    })
}

impl TryFrom<&NeedsManifest> for Needs {
    type Error = ManifestError;
    fn try_from(m: &NeedsManifest) -> Result<Needs, ManifestError> {
        needs(m)
    }
}

impl From<&Needs> for NeedsManifest {
    fn from(needs: &Needs) -> NeedsManifest {
        NeedsManifest {
            node: needs.node.clone(),
            node_type: needs.node_type.as_ref().map(ToString::to_string),
            cpu_class: needs.cpu_class.clone(),
            disk_type: needs.disk_type.clone(),
            labels: needs.labels.clone(),
            dedicated: needs.dedicated,
        }
    }
}

fn load(m: Option<&LoadManifest>) -> Result<LoadPolicy, ManifestError> {
    let m = m.cloned().unwrap_or_default();
    let source = match m.source.as_deref() {
        None | Some("auto") => None,
        Some(text) => {
            Some(text.parse::<LoadSource>().map_err(|e| ManifestError::at("/load/source", e))?)
        }
    };
    let up = m.up.map_or(Share::percent(70), |q| q.0);
    let down = m.down.map_or(Share::percent(40), |q| q.0);
    if m.concurrency == Some(0) {
        return Err(ManifestError::at("/load/concurrency", "must be at least 1"));
    }
    // With the target at the midpoint the fault is the band, not a target nobody wrote.
    if m.target.is_none() && up.0 < down.0 + BAND_MIN.0 {
        let detail = format!("up {up} must be at least {BAND_MIN} above down {down}");
        return Err(ManifestError::at(
            if m.up.is_some() { "/load/up" } else { "/load/down" },
            detail,
        ));
    }
    if m.period.is_some_and(|q| q.0.0 < PERIOD_MIN) {
        return Err(ManifestError::at("/load/period", "must be at least 100ms"));
    }
    let band = word(
        "/load/band",
        m.band.as_deref(),
        &[("manual", Band::Manual), ("auto", Band::Auto)],
        Band::Manual,
    )?;
    let agent = m.agent.as_ref().map(agent).transpose()?;
    if source == Some(LoadSource::Agent) && agent.is_none() {
        let detail = "source agent needs load.agent, with the agent's port";
        return Err(ManifestError::at("/load/source", detail));
    }
    Ok(LoadPolicy {
        source,
        agent,
        concurrency: m.concurrency,
        max_in_flight: m.max_in_flight.unwrap_or(100),
        wait_limit: span(m.wait_limit, Duration::from_millis(500)),
        period: span(m.period, secs(1)),
        slow_start: span(m.slow_start, secs(10)),
        up,
        down,
        target: m.target.map_or(Share(u32::midpoint(up.0, down.0)), |q| q.0),
        window: span(m.window, secs(60)),
        band,
    })
}

fn agent(m: &AgentManifest) -> Result<AgentCheck, ManifestError> {
    if m.port == 0 {
        return Err(ManifestError::at("/load/agent/port", "must be 1 to 65535"));
    }
    let interval = span(m.interval, AGENT_INTERVAL);
    if interval < PERIOD_MIN {
        return Err(ManifestError::at("/load/agent/interval", "must be at least 100ms"));
    }
    Ok(AgentCheck { port: m.port, interval })
}

fn lifecycle(m: Option<&LifecycleManifest>, stop_first: bool) -> Result<Lifecycle, ManifestError> {
    let m = m.cloned().unwrap_or_default();
    let replace_default = if stop_first { Replace::StopFirst } else { Replace::StartFirst };
    let hibernate = word(
        "/lifecycle/hibernate",
        m.hibernate.as_deref(),
        &[
            ("stop", Hibernate::Stop),
            ("pause", Hibernate::Pause),
            ("checkpoint", Hibernate::Checkpoint),
        ],
        Hibernate::Stop,
    )?;
    let replace = word(
        "/lifecycle/replace",
        m.replace.as_deref(),
        &[("start-first", Replace::StartFirst), ("stop-first", Replace::StopFirst)],
        replace_default,
    )?;
    let lifecycle = Lifecycle {
        idle_timeout: span(m.idle_timeout, secs(300)),
        lifespan: Some(span(m.lifespan, secs(24 * 3600))),
        start_deadline: span(m.start_deadline, secs(30)),
        drain_deadline: span(m.drain_deadline, secs(30)),
        hibernate,
        replace,
    };
    if lifecycle.start_deadline.is_zero() {
        return Err(ManifestError::at("/lifecycle/start_deadline", "must be above 0"));
    }
    if lifecycle.lifespan.is_some_and(|l| l < secs(1)) {
        return Err(ManifestError::at("/lifecycle/lifespan", "must be at least 1s"));
    }
    Ok(lifecycle)
}

fn rollout(m: Option<&RolloutManifest>) -> Result<Rollout, ManifestError> {
    let m = m.cloned().unwrap_or_default();
    let floor = m.floor.map_or(Share::percent(100), |q| q.0);
    if floor > Share::percent(100) {
        return Err(ManifestError::at("/rollout/floor", "must be at most 100%"));
    }
    Ok(Rollout { surge: m.surge.unwrap_or(1), floor, bake: span(m.bake, secs(10)) })
}

/// Whether a path can stand in the head of a request.
pub(super) fn is_request_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= 1024 && path.bytes().all(|b| b.is_ascii_graphic())
}

fn health(m: Option<&HealthManifest>) -> Result<Health, ManifestError> {
    let (m, d) = (m.cloned().unwrap_or_default(), Health::default());
    if m.path.as_deref().is_some_and(|p| !is_request_path(p)) {
        return Err(ManifestError::at("/health/path", "must be a path that starts with '/'"));
    }
    Ok(Health {
        path: m.path,
        interval: span(m.interval, d.interval).max(Duration::from_millis(100)),
        timeout: span(m.timeout, d.timeout).max(Duration::from_millis(10)),
        failures: m.failures.unwrap_or(d.failures).max(1),
    })
}
