//! Trying out `deploy/compose.yaml`: images from host binaries, a service, requests, and an end.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::World;
use crate::score::Score;
use crate::{images, process, root};

/// Containers of six processes on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(120);
/// One `docker-compose` command: it waits for containers to stop.
const COMPOSE_DEADLINE: Duration = Duration::from_secs(180);
/// One `curl`; a first request may wait for its instance's start.
const CURL_SECONDS: &str = "40";
/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Requests sent through the balancer; all must be answered.
const REQUESTS: usize = 50;

/// What the service of this test is: the demo's own, so that the image needs no other program.
const SERVICE: &str = r#"{
  "min_instances": 0, "max_instances": 2,
  "run": {"command": ["/usr/bin/tally", "demo-service", "--port", "{port}"]}
}"#;

/// The composition as it runs for this test.
struct Composition {
    project: String,
    env: Vec<(&'static str, String)>,
    front: u16,
    api: u16,
}

/// Runs the stage.
pub fn run(world: &mut World) -> Result<Score> {
    const NAME: &str = "compose";
    for needed in ["build", "Docker", "docker-compose", "redis-server", "curl"] {
        if let Some(why) = world.lacking.get(needed) {
            return Ok(Score::skip(NAME, why));
        }
    }
    let host = &world.docker.as_ref().context("Docker was set up")?.host;
    images::make(&world.tally, Some(host))?;
    let composition = Composition::new(host)?;
    let ended = composition.up().and_then(|()| composition.try_out());
    if ended.is_err() {
        println!("{}", composition.logs());
    }
    composition.down()?;
    ended?;
    Ok(Score::pass())
}

impl Composition {
    fn new(host: &str) -> Result<Composition> {
        let (front, api) = (process::free_port()?, process::free_port()?);
        let env = vec![
            ("DOCKER_HOST", host.to_owned()),
            ("TALLY_IMAGE", images::TALLY.to_owned()),
            ("TALLY_REDIS_IMAGE", images::REDIS.to_owned()),
            ("TALLY_FRONT_PORT", front.to_string()),
            ("TALLY_API_PORT", api.to_string()),
            // Beside the default, so that a composition of the person's own is not disturbed.
            ("TALLY_SUBNET", "172.28.78".to_owned()),
        ];
        Ok(Composition { project: format!("tallytest{}", std::process::id()), env, front, api })
    }

    fn compose(&self, args: &[&str]) -> Result<process::Ran> {
        let mut command = Command::new("docker-compose");
        let file = root::repo().join("deploy/compose.yaml");
        command.args(["--project-name", &self.project, "--file"]).arg(file).args(args);
        command.envs(self.env.iter().map(|(name, value)| (*name, value.as_str())));
        if args.first() == Some(&"down") {
            return process::tidy_up(command, COMPOSE_DEADLINE);
        }
        process::quiet(command, COMPOSE_DEADLINE)
    }

    fn up(&self) -> Result<()> {
        let ran = self.compose(&["up", "-d"])?;
        if !ran.ok() {
            bail!("docker-compose up failed:\n{}", ran.tail(30));
        }
        Ok(())
    }

    fn down(&self) -> Result<()> {
        let ran = self.compose(&["down", "--volumes", "--timeout", "10"])?;
        if !ran.ok() {
            bail!("docker-compose down failed:\n{}", ran.tail(30));
        }
        Ok(())
    }

    fn logs(&self) -> String {
        self.compose(&["logs", "--no-color", "--tail", "40"])
            .map_or_else(|error| format!("{error:#}"), |ran| ran.output)
    }

    fn try_out(&self) -> Result<()> {
        let token = self.until("the admin token", || self.token())?;
        self.until("the API", || self.curl(&token, &["/readyz"]))?;
        self.until("the node", || {
            let nodes = self.curl(&token, &["/v1/nodes"])?;
            let ready = nodes.contains("\"ready\"");
            ready.then_some(()).with_context(|| format!("no node is ready: {nodes}"))
        })?;
        let put = ["/v1/services/hello", "-X", "PUT", "-H", "content-type: application/json"];
        self.curl(&token, &[put.as_slice(), &["-d", SERVICE]].concat())?;
        // The balancer hears of the service within its next look at the board.
        self.until("the first answer", || self.request())?;
        for number in 1..REQUESTS {
            self.request().with_context(|| format!("request {number}"))?;
        }
        Ok(())
    }

    fn token(&self) -> Result<String> {
        let ran = self.compose(&[
            "exec",
            "-T",
            "container-manager",
            "sh",
            "/usr/share/tally/admin-token",
        ])?;
        let token = ran.output.trim().to_owned();
        if !ran.ok() || token.is_empty() {
            bail!("{}", ran.tail(3));
        }
        Ok(token)
    }

    fn curl(&self, token: &str, args: &[&str]) -> Result<String> {
        let (path, rest) = args.split_first().context("a path")?;
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--fail-with-body", "--max-time", CURL_SECONDS])
            .args(["-H", &format!("Authorization: Bearer {token}")])
            .args(rest)
            .arg(format!("http://127.0.0.1:{}{path}", self.api));
        output(command)
    }

    fn request(&self) -> Result<String> {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--fail-with-body", "--max-time", CURL_SECONDS, "-H", "Host: hello"])
            .arg(format!("http://127.0.0.1:{}/", self.front));
        output(command)
    }

    /// Tries again until it works; past the deadline the last error is told.
    fn until<T>(&self, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(error) if began.elapsed() > READY_DEADLINE || process::interrupted() => {
                    return Err(error).with_context(|| format!("waiting for {what}"));
                }
                Err(_not_yet) => std::thread::sleep(LOOK),
            }
        }
    }
}

fn output(command: Command) -> Result<String> {
    let ran = process::quiet(command, COMPOSE_DEADLINE)?;
    if !ran.ok() {
        bail!("{}", ran.tail(5));
    }
    Ok(ran.output)
}
