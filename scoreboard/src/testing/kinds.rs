//! Redis as operators run it: on a unix socket, behind Sentinels, as a Cluster; real servers, each
//! of which a test may stop, resume and end.

use super::{PATIENCE, free_port};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One server process.
pub struct Server {
    /// Where it listens.
    pub port: u16,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server {
    fn start(dir: &Path, port: u16, args: &[&str]) -> std::io::Result<Server> {
        let dir = dir.join(port.to_string());
        std::fs::create_dir_all(&dir)?;
        let child = Command::new("redis-server")
            .args(args)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--daemonize", "no", "--protected-mode", "no", "--dir"])
            .arg(&dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Server { port, child };
        // Another program may have taken the port meanwhile.
        let own = format!("process_id:{}\r", server.child.id());
        server.wait("it listens", |server| server.text(&["INFO", "server"]).contains(&own));
        Ok(server)
    }

    #[expect(clippy::disallowed_methods, reason = "a test's patience is the system's time")]
    fn wait(&mut self, what: &str, mut check: impl FnMut(&Server) -> bool) {
        let began = Instant::now();
        while !check(self) {
            assert!(began.elapsed() < PATIENCE, "never: {what} (port {})", self.port);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn try_ask(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port))?;
        let mut live = client.get_connection_with_timeout(Duration::from_secs(1))?;
        live.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut cmd = redis::cmd(words.first().copied().unwrap_or("PING"));
        for word in words.iter().skip(1) {
            cmd.arg(*word);
        }
        cmd.query(&mut live)
    }

    /// Sends one command.
    ///
    /// # Panics
    /// When it fails.
    pub fn ask(&self, words: &[&str]) -> redis::Value {
        self.try_ask(words).unwrap_or_else(|why| panic!("{words:?}: {why}"))
    }

    fn text(&self, words: &[&str]) -> String {
        let answer = self.try_ask(words).ok();
        answer.and_then(|v| redis::from_redis_value(v).ok()).unwrap_or_default()
    }

    /// Stops (`STOP`) or resumes (`CONT`) it.
    ///
    /// # Panics
    /// When there is no `kill` command.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(sent.expect("there is a kill command").success());
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const KEEP_NOTHING: [&str; 4] = ["--save", "", "--appendonly", "no"];

/// Servers of a test, ended with it.
pub struct Kind {
    /// The board's address.
    pub url: String,
    /// Data servers: those that hold keys first.
    pub servers: Vec<Server>,
    /// Sentinels, if any.
    pub sentinels: Vec<Server>,
    _dir: tempfile::TempDir,
}

/// A server that is reached by a unix socket alone in the test.
///
/// # Errors
/// When there is no `redis-server`.
pub fn on_a_socket() -> std::io::Result<Kind> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("redis.sock");
    let shown = socket.display().to_string();
    let args = [&KEEP_NOTHING[..], &["--unixsocket", &shown]].concat();
    let server = Server::start(dir.path(), free_port(), &args)?;
    let url = format!("unix://{shown}");
    Ok(Kind { url, servers: vec![server], sentinels: Vec::new(), _dir: dir })
}

/// A master, a replica, and three Sentinels that agree by two within half a second.
///
/// # Errors
/// When there is no `redis-server`.
pub fn behind_sentinels() -> std::io::Result<Kind> {
    let dir = tempfile::tempdir()?;
    let master = Server::start(dir.path(), free_port(), &KEEP_NOTHING)?;
    let of = master.port.to_string();
    let args = [&KEEP_NOTHING[..], &["--replicaof", "127.0.0.1", &of]].concat();
    let mut replica = Server::start(dir.path(), free_port(), &args)?;
    let synced =
        |server: &Server| server.text(&["INFO", "replication"]).contains("master_link_status:up");
    replica.wait("the replica follows", synced);
    let mut sentinels = Vec::new();
    for _ in 0..3 {
        let port = free_port();
        let path = dir.path().join(format!("sentinel-{port}.conf"));
        std::fs::write(
            &path,
            format!(
                "sentinel monitor main 127.0.0.1 {of} 2\n\
                 sentinel down-after-milliseconds main 500\n\
                 sentinel failover-timeout main 3000\n"
            ),
        )?;
        let path = path.display().to_string();
        sentinels.push(Server::start(dir.path(), port, &[&path, "--sentinel"])?);
    }
    for sentinel in &mut sentinels {
        sentinel.wait("the Sentinels know each other and the replica", |sentinel| {
            let seen = sentinel.text(&["INFO", "sentinel"]);
            seen.contains("slaves=1") && seen.contains("sentinels=3")
        });
    }
    let hosts: Vec<_> = sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
    let url = format!("redis+sentinel://{}/main", hosts.join(","));
    Ok(Kind { url, servers: vec![master, replica], sentinels, _dir: dir })
}

/// Three masters that share the slots, with a replica each if wished.
///
/// # Errors
/// When there is no `redis-server`.
pub fn as_cluster(replicas: bool) -> std::io::Result<Kind> {
    let dir = tempfile::tempdir()?;
    let mut servers = Vec::new();
    let mut buses = Vec::new();
    for _ in 0..if replicas { 6 } else { 3 } {
        let bus = free_port().to_string();
        let args = [
            &KEEP_NOTHING[..],
            &["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"],
            &["--cluster-port", &bus],
        ]
        .concat();
        servers.push(Server::start(dir.path(), free_port(), &args)?);
        buses.push(bus);
    }
    let stretches = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
    for ((first, last), server) in stretches.iter().zip(&servers) {
        server.ask(&["CLUSTER", "ADDSLOTSRANGE", first, last]);
    }
    for (server, bus) in servers.iter().zip(&buses).skip(1) {
        servers[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &server.port.to_string(), bus]);
    }
    let count = servers.len();
    for server in &mut servers {
        server.wait("the cluster is whole", |server| {
            let info = server.text(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok")
                && info.contains(&format!("cluster_known_nodes:{count}\r"))
        });
    }
    let ids: Vec<String> = servers[..3].iter().map(|s| s.text(&["CLUSTER", "MYID"])).collect();
    for (server, id) in servers[3..].iter_mut().zip(&ids) {
        let replicates = ["CLUSTER", "REPLICATE", id];
        server.wait("it may be a replica", |server| server.try_ask(&replicates).is_ok());
        server.wait("the replica follows", |server| {
            server.text(&["INFO", "replication"]).contains("master_link_status:up")
        });
    }
    let hosts: Vec<_> = servers[..3].iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
    let url = format!("redis+cluster://{}", hosts.join(","));
    Ok(Kind { url, servers, sentinels: Vec::new(), _dir: dir })
}
