//! What tests of the board need: clocks, values, and a Redis server of their own.

pub mod kinds;

use domain::{
    Bytes, Clock, HashRule, Health, Hold, InstanceId, Load, LoadReport, LoadSource, Mono,
    PolicyName, Revision, RouteEntry, RouteGen, RouteMode, RouteState, RouteTable, ServiceFront,
    ServiceName, Timestamp,
};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What Redis holds and says, as it is written and read.
pub mod text {
    pub use crate::codec::{
        ability, change, counts, demand, front, read_ability, read_changes, read_demand,
        read_front, read_plain_report, read_routes, read_terms, route, score, terms,
    };
}

/// Longest wait for a state in tests: long, because a loaded machine is slow; met at once if right.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A clock that stands until it is moved.
#[derive(Debug)]
pub struct HandClock(AtomicU64);

impl Default for HandClock {
    fn default() -> HandClock {
        HandClock(AtomicU64::new(1_800_000_000_000))
    }
}

impl HandClock {
    /// Moves it.
    pub fn pass(&self, span: Duration) {
        let ms = u64::try_from(span.as_millis()).expect("spans in tests are short");
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp(i64::try_from(self.0.load(Ordering::SeqCst)).expect("set by tests"))
    }
    fn monotonic(&self) -> Mono {
        Mono(Duration::from_millis(self.0.load(Ordering::SeqCst)))
    }
}

/// The system's clock, as the runtime reads it.
#[derive(Debug)]
pub struct RealClock(tokio::time::Instant);

impl Default for RealClock {
    fn default() -> RealClock {
        RealClock(tokio::time::Instant::now())
    }
}

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_800_000_000_000).plus(self.0.elapsed())
    }
    fn monotonic(&self) -> Mono {
        Mono(self.0.elapsed())
    }
}

/// A service's name.
#[must_use]
pub fn service(name: &str) -> ServiceName {
    name.parse().expect("tests name services rightly")
}

/// The `n`th instance of a service.
#[must_use]
pub fn instance(service: &str, n: u32) -> InstanceId {
    format!("{service}-{n:010}").parse().expect("ten digits are an id")
}

/// A report of a load in ten-thousandths.
#[must_use]
pub fn report(instance: &InstanceId, load: u32, seq: Option<u64>) -> LoadReport {
    LoadReport {
        instance: instance.clone(),
        load: Load::from_ten_thousandths(load),
        in_flight: Some(3),
        rps_milli: Some(12_500),
        eps_milli: None,
        seq,
        source: LoadSource::Pushed,
    }
}

/// The front of a balanced HTTP service.
#[must_use]
pub fn front(name: &str) -> ServiceFront {
    ServiceFront {
        service: service(name),
        hosts: vec![format!("{name}.example.com")],
        paths: vec!["/".to_owned()],
        mode: RouteMode::Http,
        port: None,
        policy: PolicyName::Feedback,
        hash: HashRule::default(),
        sticky: None,
        probe: None,
        body_max: None,
        hold: Hold { requests: 1000, bytes: Bytes(64 << 20), deadline: Duration::from_secs(30) },
        health: Health::default(),
        agent: None,
        concurrency: Some(10),
        max_in_flight: 100,
        slow_start: Duration::from_secs(10),
        source: None,
        load_balanced: true,
        revision: Revision(1),
        startable: true,
    }
}

/// A table with the first `count` instances of a service.
#[must_use]
pub fn routes(name: &str, generation: &str, count: u32) -> RouteTable {
    let entry = |n| RouteEntry {
        instance: instance(name, n),
        address: (Ipv4Addr::LOCALHOST, 20_000).into(),
        state: if n == 0 { RouteState::Draining } else { RouteState::Ready },
        weight: 100,
        max_in_flight: 10,
        revision: Revision(1),
    };
    let generation: RouteGen = generation.parse().expect("tests write versions rightly");
    RouteTable { generation, entries: (0..count).map(entry).collect() }
}

/// A port for a server of a test: below those that the system gives to clients, so that none takes
/// it between the look and the server's start, and another one for each server of this process.
///
/// # Panics
/// When all are taken.
#[must_use]
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u32 = 9_000;
    static NEXT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let start = u64::from(std::process::id()).wrapping_mul(97);
        let offset = u16::try_from((start + next) % u64::from(COUNT)).expect("a small number");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, FIRST + offset)).is_ok() {
            return FIRST + offset;
        }
    }
    panic!("no port is free");
}

/// A Redis server that a test starts, stops, loses and gets back; or the one that is given to it.
pub struct TestRedis {
    url: String,
    port: u16,
    child: Option<Child>,
    dir: Option<tempfile::TempDir>,
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        self.kill();
    }
}

impl TestRedis {
    /// The server at `TALLY_TEST_REDIS_URL`, else one of its own; `None` says that there is
    /// neither, after printing that `test` is skipped.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the address of the tests' Redis")]
    pub fn any(test: &str) -> Option<TestRedis> {
        match std::env::var("TALLY_TEST_REDIS_URL") {
            Ok(url) => Some(TestRedis { url, port: 0, child: None, dir: None }),
            Err(_absent) => TestRedis::own(test),
        }
    }

    /// A server of its own on a free port, without persistence, that can be lost.
    #[must_use]
    pub fn own(test: &str) -> Option<TestRedis> {
        let mut redis = TestRedis::down();
        match redis.start() {
            Ok(()) => Some(redis),
            Err(why) => {
                skipped(test, &format!("redis-server cannot be started: {why}"));
                None
            }
        }
    }

    /// A place where a server will be.
    #[must_use]
    pub fn down() -> TestRedis {
        let port = free_port();
        let dir = tempfile::tempdir().expect("there is room for an empty folder");
        TestRedis { url: format!("redis://127.0.0.1:{port}/0"), port, child: None, dir: Some(dir) }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts it, empty.
    ///
    /// # Errors
    /// When there is no `redis-server`, or it ends at once.
    pub fn start(&mut self) -> std::io::Result<()> {
        let dir = self.dir.as_ref().expect("started by us");
        let mut child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        loop {
            if std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                self.child = Some(child);
                return Ok(());
            }
            if let Some(status) = child.try_wait()? {
                return Err(std::io::Error::other(format!("redis-server ended with {status}")));
            }
            std::thread::yield_now();
        }
    }

    /// Ends it; what it held is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; then there is nothing to do.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Stops (`STOP`) or resumes (`CONT`) it.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(sent.expect("there is a kill command").success());
    }
}

/// Prints that a test did not run and why.
#[expect(clippy::print_stdout, reason = "read by the test runner, which counts skipped tests")]
pub fn skipped(test: &str, reason: &str) {
    println!("SKIPPED: {test}: {reason}");
}
