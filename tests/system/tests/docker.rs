//! A service in real containers: woken by a request, answered, removed without a trace.

use http::StatusCode;
use serde_json::json;
use std::path::Path;
use std::process::Command;
use system_tests::load::get;
use system_tests::platform::Platform;
use system_tests::process::run;
use system_tests::wait::until;

/// Made from this host's busybox; kept between runs, as a developer's own image would be.
const IMAGE: &str = "tally-system-test:1";
/// What the container says.
const WORDS: &str = "from a container";

/// A daemon, by its address.
struct Docker(String);

impl Docker {
    /// `None`, having said why, where containers cannot be run.
    #[expect(clippy::disallowed_methods, reason = "xtask tells tests where the daemon is")]
    fn find(test: &str) -> Option<Docker> {
        let told = ["TALLY_TEST_DOCKER", "DOCKER_HOST"].iter().find_map(|n| std::env::var(n).ok());
        let docker = Docker(told.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned()));
        if docker.run(&["version"]).is_none() {
            system_tests::skipped(test, &format!("no Docker daemon answers at {}", docker.0));
            return None;
        }
        let paths = ["/bin/busybox", "/usr/bin/busybox"].iter().map(Path::new);
        let Some(busybox) = paths.filter(|p| p.exists()).find(|p| is_static(p)) else {
            system_tests::skipped(test, "no static busybox is here; install busybox-static");
            return None;
        };
        docker.make_image(busybox);
        Some(docker)
    }

    fn run(&self, words: &[&str]) -> Option<String> {
        let output = Command::new("docker").arg("-H").arg(&self.0).args(words).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn make_image(&self, busybox: &Path) {
        if self.run(&["image", "inspect", IMAGE]).is_some() {
            return;
        }
        let folder = tempfile::tempdir().expect("the image's files");
        let root = folder.path().join("root");
        for sub in ["bin", "www", "tmp"] {
            std::fs::create_dir_all(root.join(sub)).expect("the image's files");
        }
        std::fs::copy(busybox, root.join("bin/busybox")).expect("the image's files");
        std::os::unix::fs::symlink("busybox", root.join("bin/httpd")).expect("the image's files");
        std::fs::write(root.join("www/index.html"), WORDS).expect("the image's files");
        let tar = folder.path().join("image.tar");
        let packed =
            Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status();
        assert!(packed.expect("tar").success());
        let imported = self.run(&["import", &tar.display().to_string(), IMAGE]);
        assert!(imported.is_some(), "docker import");
    }

    /// Names of containers, running or not, of a service.
    fn containers_of(&self, service: &str) -> Vec<String> {
        let label = format!("label=tally.service={service}");
        let words = ["ps", "-a", "--filter", &label, "--format", "{{.Names}}"];
        let names = self.run(&words).expect("docker ps");
        names.lines().map(str::to_owned).collect()
    }
}

fn is_static(path: &Path) -> bool {
    Command::new("ldd").arg(path).output().is_ok_and(|output| !output.status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_wakes_a_container_and_removing_the_service_removes_it() {
    let Some(docker) = Docker::find("docker") else { return };
    let platform = Platform::start_with(None, &[("DOCKER_HOST", &docker.0)]).await;
    let service = "boxed";
    let body = json!({
        "min_instances": 0,
        "max_instances": 2,
        "run": {
            "image": IMAGE,
            "command": ["/bin/httpd", "-f", "-p", "8000", "-h", "/www"],
            "port": 8000,
        },
        "resources": {"cpu": "100m", "memory": "32MiB"},
        "lifecycle": {"drain_deadline": "2s"},
    });
    platform.put_service(service, &body).await;
    assert_eq!(docker.containers_of(service), Vec::<String>::new());
    let reply = get(platform.at.front, service).await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}\n{}", reply.body, platform.log());
    assert_eq!(reply.body, WORDS);
    let ready = platform.ready(service, 1).await;
    let name = format!("tally-{}", ready[0].id);
    assert_eq!(docker.containers_of(service), std::slice::from_ref(&name));
    let inspect = |format: &str| docker.run(&["inspect", "-f", format, &name]);
    let label = |label: &str| inspect(&format!("{{{{index .Config.Labels \"{label}\"}}}}"));
    assert_eq!(label("tally.instance").as_deref(), Some(ready[0].id.as_str()));
    let node = ready[0].node.as_ref().map(domain::NodeId::as_str);
    assert_eq!(label("tally.node").as_deref(), node);
    assert_eq!(inspect("{{.HostConfig.Memory}}").as_deref(), Some("33554432"));

    let removed = run(&["service", "rm", service, "--api", &platform.at.api]);
    assert!(removed.status.success(), "{removed:?}");
    until("the end of the container", || {
        let left = docker.containers_of(service);
        std::future::ready(if left.is_empty() { Ok(()) } else { Err((left, platform.log())) })
    })
    .await;
    platform.down().await;
}
