//! Containers under a real Docker daemon, where one answers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Node, eventually, get, service};
use wire::assignment::{AssignedInstance, EngineKind, RunState, Want};
use wire::operation::{Logs, Verb};

/// The same with a HEALTHCHECK that wants a file.
const CHECKED_IMAGE: &str = "tally-executor-test:checked";

/// A daemon and an image of a small web server, made from this host's static busybox.
struct Docker {
    host: String,
    image: String,
}

impl Docker {
    /// `None` where the tests cannot run; says why.
    fn find(test: &str) -> Option<Docker> {
        #[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
        let told = ["TALLY_TEST_DOCKER", "DOCKER_HOST"].iter().find_map(|n| std::env::var(n).ok());
        let host = told.unwrap_or_else(|| executor::DOCKER_HOST_DEFAULT.to_owned());
        let docker = Docker { host, image: "tally-executor-test:1".to_owned() };
        let skip = |why: &str| {
            println!("SKIPPED: {test}: {why}");
            None
        };
        if docker.run(&["version"]).is_none() {
            return skip(&format!("no Docker daemon answers at {}", docker.host));
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().map(Path::new);
        let Some(busybox) = busybox.filter(|p| p.exists()).find(|p| is_static(p)) else {
            return skip("no static busybox is here; install busybox-static");
        };
        docker.make_image(busybox);
        Some(docker)
    }

    fn run(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("docker").arg("-H").arg(&self.host).args(arguments).output();
        let output = output.ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn make_image(&self, busybox: &Path) {
        if self.run(&["image", "inspect", CHECKED_IMAGE]).is_some() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        for sub in ["bin", "www", "tmp", "data"] {
            std::fs::create_dir_all(root.join(sub)).unwrap();
        }
        std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
        for name in ["sh", "httpd", "kill", "echo", "touch", "sleep", "env", "cat", "rm"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        std::fs::write(root.join("www/up"), "well\n").unwrap();
        let tar: PathBuf = dir.path().join("image.tar");
        let made = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status();
        assert!(made.unwrap().success());
        assert!(self.run(&["import", tar.to_str().unwrap(), &self.image]).is_some());
        let check = "HEALTHCHECK --interval=100ms --timeout=5s --retries=1 \
                     CMD cat /tmp/well || { echo no database; exit 1; }";
        let import = ["import", "--change", check, tar.to_str().unwrap(), CHECKED_IMAGE];
        assert!(self.run(&import).is_some());
    }

    async fn node(&self) -> Node {
        let mut node = Node::new();
        node.docker_host = self.host.clone();
        node.start().await;
        node
    }

    /// A web server that writes its environment where it can be read.
    fn server(&self) -> AssignedInstance {
        let script = "env > /www/env; echo serving; exec httpd -f -p $PORT -h /www";
        let mut instance = service("box", &["/bin/sh", "-c", script]);
        instance.engine = EngineKind::Docker;
        instance.run.image = Some(self.image.clone());
        instance.run.port = Some(8080);
        instance.health.path = Some("/up".to_owned());
        // A shell's `exec`ed server is process 1, which ignores signals it does not handle.
        instance.drain_deadline_ms = 300;
        instance
    }
}

fn is_static(path: &Path) -> bool {
    let output = Command::new("ldd").arg(path).output();
    output.is_ok_and(|o| !o.status.success())
}

#[tokio::test]
async fn a_container_runs_is_adopted_limited_and_leaves_nothing_behind() {
    let name = "a_container_runs_is_adopted_limited_and_leaves_nothing_behind";
    let Some(docker) = Docker::find(name) else { return };
    let mut node = docker.node().await;
    let mut instance = docker.server();
    node.assign(std::slice::from_ref(&instance)).await;
    let seen = node.until(&instance.id, RunState::Ready).await;
    let env = get(&seen, "/env");
    for line in ["PORT=8080\n", "TALLY_LOAD_ADDR=tally.internal:7402\n"] {
        assert!(env.contains(line), "{line} is not in {env}");
    }
    let container = format!("tally-{}", instance.id);
    let inspect = |format: &str| docker.run(&["inspect", "-f", format, &container]);
    let id = inspect("{{.Id}}").unwrap();
    assert_eq!(inspect("{{index .Config.Labels \"tally.service\"}}").as_deref(), Some("box"));
    assert_eq!(inspect("{{.HostConfig.CpuQuota}}").as_deref(), Some("50000"));
    let file = node.dir.path().join("node/instances.json");
    let grouped = || async { std::fs::read_to_string(&file).unwrap().contains(&id) };
    eventually("the transmitter knows its control group", grouped).await;

    node.end().await;
    node.start().await;
    let seen = node.until_seen(&instance.id, "known", |_| true).await;
    assert_eq!((seen.state, seen.restarts), (RunState::Ready, 0));
    assert_eq!(inspect("{{.Id}}").as_deref(), Some(id.as_str()));

    instance.limits.cpu_millis = 1500;
    node.assign(std::slice::from_ref(&instance)).await;
    let changed = || async { inspect("{{.HostConfig.CpuQuota}}").as_deref() == Some("150000") };
    eventually("the limit follows", changed).await;
    assert_eq!(inspect("{{.Id}}").as_deref(), Some(id.as_str()));

    instance.want = Want::Paused;
    node.assign(std::slice::from_ref(&instance)).await;
    node.until(&instance.id, RunState::Paused).await;
    assert_eq!(inspect("{{.State.Status}}").as_deref(), Some("paused"));
    instance.want = Want::Running;
    node.assign(std::slice::from_ref(&instance)).await;
    node.until(&instance.id, RunState::Ready).await;

    let path = format!("/v1/logs?instance={}", instance.id);
    let limit = std::time::Duration::from_secs(20);
    let logs: Logs = node.client().get(&path, limit).await.unwrap();
    assert_eq!(logs.lines, ["serving"]);
    node.down().await;
    assert_eq!(inspect("{{.Id}}"), None);
}

#[tokio::test]
async fn a_crashed_container_comes_back_and_a_stop_command_runs_inside() {
    let name = "a_crashed_container_comes_back_and_a_stop_command_runs_inside";
    let Some(docker) = Docker::find(name) else { return };
    let node = docker.node().await;
    let mut instance = docker.server();
    let words = ["/bin/sh", "-c", "echo stopping {instance}; exit 4"];
    instance.run.stop_command = words.iter().map(|w| (*w).to_owned()).collect();
    node.assign(std::slice::from_ref(&instance)).await;
    let seen = node.until(&instance.id, RunState::Ready).await;
    let container = format!("tally-{}", instance.id);
    docker.run(&["kill", &container]).unwrap();
    let again = node
        .until_seen(&instance.id, "restarted", |s| s.restarts == 1 && s.state == RunState::Ready)
        .await;
    assert_eq!(again.port, seen.port);
    assert_eq!(again.exit.as_deref(), Some("killed by signal 9"));
    node.assign(&[]).await;
    node.until_gone(&instance.id).await;
    let done = node.done().await;
    let stop = done.iter().find(|o| o.verb == Verb::StopCommand).unwrap();
    assert_eq!((stop.ok, stop.exit_status), (false, Some(4)));
    assert_eq!(stop.output, format!("stopping {}\n", instance.id));
    node.down().await;
}

#[tokio::test]
async fn a_healthcheck_adds_to_our_probe() {
    let Some(docker) = Docker::find("a_healthcheck_adds_to_our_probe") else { return };
    let node = docker.node().await;
    let mut instance = docker.server();
    instance.run.image = Some(CHECKED_IMAGE.to_owned());
    node.assign(std::slice::from_ref(&instance)).await;
    let container = format!("tally-{}", instance.id);
    let health = || docker.run(&["inspect", "-f", "{{.State.Health.Status}}", &container]);
    let says = |word: &'static str| async move { health().as_deref() == Some(word) };
    // Our probe is content long before; its own check is not.
    eventually("its check fails", || says("unhealthy")).await;
    assert_eq!(node.seen(&instance.id).await.unwrap().state, RunState::Starting);
    docker.run(&["exec", &container, "/bin/touch", "/tmp/well"]).unwrap();
    let ready = node.until(&instance.id, RunState::Ready).await;
    assert_eq!((ready.exit.as_deref(), ready.restarts), (None, 0));

    docker.run(&["exec", &container, "/bin/rm", "/tmp/well"]).unwrap();
    let unwell = node.until(&instance.id, RunState::Unwell).await;
    let why = unwell.exit.unwrap();
    assert!(
        why.starts_with("unwell: its HEALTHCHECK fails") && why.contains("no database"),
        "{why}"
    );
    docker.run(&["exec", &container, "/bin/touch", "/tmp/well"]).unwrap();
    let again = node.until(&instance.id, RunState::Ready).await;
    assert_eq!((again.exit, again.restarts, again.ready_ms), (None, 0, ready.ready_ms));

    // One that does not become well again in time is started anew.
    instance.start_deadline_ms = 500;
    node.assign(std::slice::from_ref(&instance)).await;
    docker.run(&["exec", &container, "/bin/rm", "/tmp/well"]).unwrap();
    let restarted = node.until_seen(&instance.id, "restarted", |s| s.restarts == 1).await;
    let why = restarted.exit.unwrap();
    assert!(why.contains("not well within 500 ms of being set aside"), "{why}");
    node.down().await;
}

#[tokio::test]
async fn a_stray_container_is_removed_and_a_missing_image_is_named() {
    let name = "a_stray_container_is_removed_and_a_missing_image_is_named";
    let Some(docker) = Docker::find(name) else { return };
    let mut node = Node::new();
    node.docker_host = docker.host.clone();
    let stray = docker.server();
    let container = format!("tally-{}", stray.id);
    let labels = [format!("tally.instance={}", stray.id), format!("tally.node={}", node.id)];
    let image = docker.image.as_str();
    let run = ["run", "-d", "--name", &container, "--label", &labels[0], "--label", &labels[1]];
    docker.run(&[&run[..], &[image, "/bin/sleep", "600"]].concat()).unwrap();
    node.start().await;
    let gone = || async { docker.run(&["inspect", &container]).is_none() };
    eventually("the stray is removed", gone).await;
    let mut missing = docker.server();
    missing.run.image = Some("tally-no-such-image:9".to_owned());
    node.assign(std::slice::from_ref(&missing)).await;
    let seen = node.until(&missing.id, RunState::Failed).await;
    let why = seen.exit.unwrap();
    assert!(why.contains("docker build -t tally-no-such-image:9"), "{why}");
    assert_eq!(seen.restarts, 0);
    node.down().await;
}

#[tokio::test]
async fn without_a_daemon_processes_run_and_containers_say_what_is_missing() {
    let node = Node::started().await;
    let mut container = service("box", &[]);
    container.engine = EngineKind::Docker;
    container.run.image = Some("shop:1".to_owned());
    let process = support::server("shop");
    node.assign(&[container.clone(), process.clone()]).await;
    node.until(&process.id, RunState::Ready).await;
    let seen = node.until(&container.id, RunState::Failed).await;
    let why = seen.exit.unwrap();
    assert!(why.contains("no Docker daemon answers") && why.contains("DOCKER_HOST"), "{why}");
    node.down().await;
}
