//! The engine for containers: a Docker daemon, or Podman's compatible interface.

use super::command::Tail;
use super::docker_health;
use super::docker_spec::{self, LABEL_INSTANCE, LABEL_NODE, Place};

use crate::engine::{CommandEnd, Engine, Exit, Found, OwnCheck, Running, Start, fill};
use crate::error::EngineError;
use crate::layout::Layout;
use async_trait::async_trait;
use bollard::errors::Error as BollardError;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions, WaitContainerOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use domain::InstanceId;
use futures_util::StreamExt;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::Mutex;
use wire::assignment::Limits;
use wire::node_file::CgroupPaths;

/// Where Docker listens unless told otherwise.
pub const DOCKER_HOST_DEFAULT: &str = "unix:///var/run/docker.sock";
/// Seconds for one answer: making a container on a busy disk takes several.
const ANSWER_SECONDS: u64 = 60;
/// How long a killed container may take to end.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// Pause before looking again after the daemon went away: it may be restarting.
const AWAY_PAUSE: Duration = Duration::from_millis(500);

/// The engine.
#[derive(Debug)]
pub struct DockerEngine {
    host: String,
    place: Place,
    layout: Layout,
    client: Mutex<Option<Docker>>,
}

impl DockerEngine {
    /// An engine at `host` (`unix:///path` or `tcp://host:port`); it connects when first needed.
    #[must_use]
    pub fn new(host: &str, place: Place, layout: Layout) -> DockerEngine {
        DockerEngine { host: host.to_owned(), place, layout, client: Mutex::default() }
    }

    async fn client(&self) -> Result<Docker, EngineError> {
        let mut held = self.client.lock().await;
        if let Some(client) = held.as_ref() {
            return Ok(client.clone());
        }
        let host = &self.host;
        let made = match host.strip_prefix("unix://") {
            Some(path) => Docker::connect_with_unix(path, ANSWER_SECONDS, API_DEFAULT_VERSION),
            None => Docker::connect_with_http(host, ANSWER_SECONDS, API_DEFAULT_VERSION),
        };
        let away = |e: BollardError| {
            EngineError::fleeting(format!(
                "no Docker daemon answers at {host} ({e}); start it on this node, or set DOCKER_HOST"
            ))
        };
        // Daemons refuse versions they do not know, so never speak before asking.
        let client = made.map_err(away)?.negotiate_version().await.map_err(away)?;
        *held = Some(client.clone());
        Ok(client)
    }

    async fn inspect(
        &self,
        docker: &Docker,
        id: &InstanceId,
    ) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let name = docker_spec::name(id);
        match docker.inspect_container(&name, None::<InspectContainerOptions>).await {
            Ok(seen) => Ok(Some(seen)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(told("cannot look at the container", error)),
        }
    }

    /// The running container as it is known again; `None` when it does not run.
    fn running(&self, seen: &ContainerInspectResponse, port: u16) -> Option<Running> {
        let state = seen.state.as_ref()?;
        let pid = i32::try_from(state.pid?).ok().filter(|_| state.running == Some(true))?;
        // Probed inside where possible: Docker's own proxy accepts before the service does.
        let networks = seen.network_settings.as_ref().and_then(|n| n.networks.as_ref());
        let inner = networks
            .and_then(|n| n.get("bridge"))
            .and_then(|n| n.ip_address.as_ref()?.parse().ok());
        let ports = seen.host_config.as_ref().and_then(|h| h.port_bindings.as_ref());
        let inner_port = ports
            .and_then(|p| p.keys().min())
            .and_then(|k| k.split('/').next()?.parse::<u16>().ok());
        let probe = match (inner, inner_port) {
            (Some(ip), Some(port)) => SocketAddr::new(ip, port),
            _ => SocketAddr::new(self.place.address, port),
        };
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .map_or_else(|_| CgroupPaths::default(), |text| self.layout.paths_of(&text));
        let checked = docker_health::is_checked(state);
        Some(Running { pid, start_time: 0, probe, cgroups, missing: Vec::new(), checked })
    }

    async fn create(&self, docker: &Docker, start: &Start<'_>) -> Result<(), EngineError> {
        let name = docker_spec::name(&start.instance.id);
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let body = docker_spec::container(start, &self.place)?;
        let image = body.image.clone().unwrap_or_default();
        match docker.create_container(Some(options), body).await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(404) => Err(EngineError::lasting(format!(
                "image {image} is not on this node; build it here with `docker build -t {image} .` \
                 or fetch it with `docker pull {image}`"
            ))),
            Err(error) => {
                let lasting = status(&error) == Some(400);
                let text = told("cannot make the container", error).text;
                Err(EngineError { text, permanent: lasting })
            }
        }
    }

    async fn remove(&self, docker: &Docker, id: &InstanceId) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match docker.remove_container(&docker_spec::name(id), Some(options)).await {
            Ok(()) => Ok(()),
            // Already gone, or being removed by an earlier call.
            Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(told("cannot remove the container", error)),
        }
    }

    async fn send(&self, id: &InstanceId, signal: &str) -> Result<(), EngineError> {
        let docker = self.client().await?;
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        match docker.kill_container(&docker_spec::name(id), Some(options)).await {
            Ok(()) => Ok(()),
            // Not there, or not running.
            Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(told("cannot signal the container", error)),
        }
    }

    async fn exec(&self, id: &InstanceId, argv: Vec<String>) -> Result<CommandEnd, EngineError> {
        let docker = self.client().await?;
        let options = CreateExecOptions {
            cmd: Some(argv),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let failed = |e| told("cannot run it in the container", e);
        let made = docker.create_exec(&docker_spec::name(id), options).await.map_err(failed)?;
        let mut tail = Tail::default();
        if let StartExecResults::Attached { mut output, .. } =
            docker.start_exec(&made.id, None).await.map_err(failed)?
        {
            while let Some(Ok(chunk)) = output.next().await {
                tail.take(&chunk.into_bytes());
            }
        }
        let ended = docker.inspect_exec(&made.id).await.map_err(failed)?;
        let code = ended.exit_code.and_then(|c| i32::try_from(c).ok());
        Ok(CommandEnd { code, output: tail.text() })
    }

    async fn exit(&self, id: &InstanceId) -> Option<Exit> {
        let exit = |text: String, code| Exit { text, code, permanent: false };
        let docker = self.client().await.ok()?;
        let Some(seen) = self.inspect(&docker, id).await.ok()? else {
            return Some(exit("its container was removed".to_owned(), None));
        };
        let state = seen.state?;
        if state.running == Some(true) {
            return None;
        }
        let code = state.exit_code.and_then(|c| i32::try_from(c).ok());
        let error = state.error.filter(|e| !e.is_empty());
        let text = match (state.oom_killed, error, code) {
            (Some(true), _, _) => {
                "killed by the kernel: it needed more memory than its limit".to_owned()
            }
            (_, Some(error), _) => error,
            (_, None, Some(code @ 129..=192)) => format!("killed by signal {}", code - 128),
            (_, None, Some(code)) => format!("ended by itself with exit code {code}"),
            (_, None, None) => "ended".to_owned(),
        };
        Some(exit(text, code))
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn start(&self, start: &Start<'_>) -> Result<Running, EngineError> {
        let docker = self.client().await?;
        let id = &start.instance.id;
        // Usually none is there; asking costs a millisecond, and a name clash a whole attempt.
        if let Some(seen) = self.inspect(&docker, id).await? {
            if let Some(running) = self.running(&seen, start.port) {
                return Ok(running);
            }
            self.remove(&docker, id).await?;
        }
        self.create(&docker, start).await?;
        let name = docker_spec::name(id);
        if let Err(error) = docker.start_container(&name, None::<StartContainerOptions>).await {
            // A command that is not in the image, a mount that is not on the node.
            let lasting = matches!(status(&error), Some(400 | 404));
            let text = told("cannot start the container", error).text;
            return Err(EngineError { text, permanent: lasting });
        }
        let seen = self.inspect(&docker, id).await?;
        match seen.and_then(|s| self.running(&s, start.port)) {
            Some(running) => Ok(running),
            None => {
                let exit = self.exit(id).await;
                let text = exit.map_or_else(|| "it ended at once".to_owned(), |e| e.text);
                Err(EngineError::fleeting(text))
            }
        }
    }

    async fn found(&self) -> Result<BTreeMap<InstanceId, Found>, EngineError> {
        let docker = self.client().await?;
        let filter = format!("{LABEL_NODE}={}", self.place.node);
        let filters = HashMap::from([("label", vec![filter.as_str()])]);
        let options = ListContainersOptionsBuilder::default().filters(&filters).build();
        let listed = docker.list_containers(Some(options)).await;
        let listed = listed.map_err(|e| told("cannot list containers", e))?;
        let mut found = BTreeMap::new();
        for container in listed {
            let labels = container.labels.unwrap_or_default();
            let Some(id) = labels.get(LABEL_INSTANCE).and_then(|t| t.parse().ok()) else {
                continue;
            };
            if let Some(seen) = self.inspect(&docker, &id).await?
                && let Some(running) = self.running(&seen, 0)
            {
                found.insert(id, Found { running, whole: true });
            }
        }
        Ok(found)
    }

    async fn wait(&self, id: &InstanceId, _running: &Running) -> Exit {
        loop {
            if let Ok(docker) = self.client().await {
                let name = docker_spec::name(id);
                let mut ends = docker.wait_container(&name, None::<WaitContainerOptions>);
                // Whatever it says, and also when the daemon goes away: the state decides.
                let _hint = ends.next().await;
                if let Some(exit) = self.exit(id).await {
                    return exit;
                }
            }
            tokio::time::sleep(AWAY_PAUSE).await;
        }
    }

    async fn own_check(&self, id: &InstanceId) -> OwnCheck {
        let seen = async { self.inspect(&self.client().await?, id).await };
        match seen.await {
            Ok(Some(seen)) => seen.state.as_ref().map_or(OwnCheck::Well, docker_health::says),
            // Its end is told by whoever waits for it.
            Ok(None) => OwnCheck::Unknown("its container was removed".to_owned()),
            Err(error) => OwnCheck::Unknown(error.text),
        }
    }

    async fn terminate(&self, id: &InstanceId, _running: &Running) -> Result<(), EngineError> {
        let docker = self.client().await?;
        let seen = self.inspect(&docker, id).await?;
        let declared = seen.and_then(|s| s.config?.stop_signal).filter(|s| !s.is_empty());
        self.send(id, declared.as_deref().unwrap_or("SIGTERM")).await
    }

    async fn kill(&self, id: &InstanceId, running: &Running) -> Result<(), EngineError> {
        let _not_frozen = self.freeze(id, false).await;
        self.send(id, "SIGKILL").await?;
        match tokio::time::timeout(KILL_DEADLINE, self.wait(id, running)).await {
            Ok(_) => Ok(()),
            Err(_elapsed) => Err(EngineError::fleeting("the container does not end by SIGKILL")),
        }
    }

    async fn stop_command(
        &self,
        start: &Start<'_>,
        _running: &Running,
        argv: &[String],
        limit: Duration,
    ) -> CommandEnd {
        let argv = fill(argv, start, docker_spec::inner_port(start), "127.0.0.1");
        match tokio::time::timeout(limit, self.exec(&start.instance.id, argv)).await {
            Ok(Ok(end)) => end,
            Ok(Err(error)) => CommandEnd { code: None, output: error.text },
            Err(_elapsed) => CommandEnd { code: None, output: format!("no end within {limit:?}") },
        }
    }

    async fn limit(&self, id: &InstanceId, limits: Limits) -> Result<(), EngineError> {
        let docker = self.client().await?;
        let body = docker_spec::update(limits);
        let updated = docker.update_container(&docker_spec::name(id), body).await;
        updated.map_err(|e| told("cannot change the container's limits", e))
    }

    async fn freeze(&self, id: &InstanceId, frozen: bool) -> Result<(), EngineError> {
        let docker = self.client().await?;
        let name = docker_spec::name(id);
        let done = if frozen {
            docker.pause_container(&name).await
        } else {
            docker.unpause_container(&name).await
        };
        done.map_err(|e| told("cannot pause or resume the container", e))
    }

    async fn clear(&self, id: &InstanceId) {
        let Ok(docker) = self.client().await else { return };
        if let Err(error) = self.remove(&docker, id).await {
            tracing::warn!(instance.id = %id, %error, "its container stays behind");
        }
    }

    async fn logs(&self, id: &InstanceId, lines: usize) -> Result<Vec<String>, EngineError> {
        let docker = self.client().await?;
        let count = lines.to_string();
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail(&count).build();
        let mut output = docker.logs(&docker_spec::name(id), Some(options));
        let mut bytes = Vec::new();
        while let Some(chunk) = output.next().await {
            let chunk = chunk.map_err(|e| told("cannot read the container's log", e))?;
            bytes.extend_from_slice(&chunk.into_bytes());
            if bytes.len() > LOG_BYTES_MAX {
                break;
            }
        }
        Ok(crate::shim_log::last_lines(&bytes, lines))
    }
}

/// Bytes of log read for one answer.
const LOG_BYTES_MAX: usize = 1 << 20;

fn status(error: &BollardError) -> Option<u16> {
    if let BollardError::DockerResponseServerError { status_code, .. } = error {
        Some(*status_code)
    } else {
        None
    }
}

fn told(what: &str, error: BollardError) -> EngineError {
    let why = if let BollardError::DockerResponseServerError { message, .. } = error {
        message
    } else {
        error.to_string()
    };
    EngineError::fleeting(format!("{what}: {why}"))
}
