//! Agents of instances, each a real listener, through to loads and terms on the board.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use chassis::{Identity, Listen, Listener, Metrics, Readiness, Shutdown, SystemClock};
use domain::{AgentCheck, Clock, LoadReport, LoadSource, Terms};
use load_receiver::{Config, Deps, run};
use scoreboard::testing::{PATIENCE, front, instance, report, routes, service};
use scoreboard::{Board, MemoryBoard};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// An agent whose line can be changed; without one it accepts and says nothing.
struct Agent {
    line: Arc<Mutex<Option<&'static str>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Agent {
    async fn at(address: SocketAddr, line: &'static str) -> Agent {
        let listener = TcpListener::bind(address).await.unwrap();
        let line = Arc::new(Mutex::new(Some(line)));
        let said = Arc::clone(&line);
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let line = *said.lock().unwrap();
                match line {
                    Some(line) => stream.write_all(line.as_bytes()).await.unwrap(),
                    None => open.push(stream),
                }
            }
        });
        Agent { line, task }
    }

    fn say(&self, line: Option<&'static str>) {
        *self.line.lock().unwrap() = line;
    }
}

struct Role {
    board: Arc<MemoryBoard>,
    metrics: Metrics,
    shutdown: Shutdown,
    done: tokio::task::JoinHandle<()>,
}

/// Hosts of the three instances: each an address of the loopback.
fn host(n: u32) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 10 + u8::try_from(n).unwrap())
}

impl Role {
    /// Three instances of `shop`, each on a host of its own, with agents at `port`.
    async fn start(port: u16, source: Option<LoadSource>) -> Role {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let board = Arc::new(MemoryBoard::new(Arc::clone(&clock)));
        let mut shop = front("shop");
        shop.agent = Some(AgentCheck { port, interval: Duration::from_millis(100) });
        shop.source = source;
        board.publish_front(&shop).await.unwrap();
        let mut table = routes("shop", "1.1", 3);
        for (entry, n) in table.entries.iter_mut().zip(0..) {
            entry.address.set_ip(host(n).into());
        }
        board.publish_routes(&service("shop"), &table).await.unwrap();
        let loopback = Listen::Tcp(([127, 0, 0, 1], 0).into());
        let metrics = Metrics::new();
        let deps = Deps {
            board: Arc::clone(&board) as Arc<dyn Board>,
            clock,
            identity: Arc::new(Identity::generate()),
            listeners: vec![Listener::bind(&loopback).await.unwrap()],
            sockets: Vec::new(),
            agents: Vec::new(),
            metrics: metrics.clone(),
            readiness: Readiness::new(),
        };
        let shutdown = Shutdown::new();
        let done = tokio::spawn(run(Config::default(), deps, shutdown.clone()));
        Role { board, metrics, shutdown, done }
    }

    async fn load(&self, n: u32) -> Option<LoadReport> {
        let view = self.board.service(&service("shop")).await.unwrap();
        let found = view.loads.into_iter().find(|r| r.report.instance == instance("shop", n));
        found.map(|reading| reading.report)
    }

    async fn terms(&self, n: u32) -> Option<Terms> {
        self.board.terms().await.unwrap().remove(&instance("shop", n))
    }

    async fn end(self) {
        self.shutdown.start();
        self.done.await.unwrap();
    }
}

async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never: {what}");
}

/// A port that is free on every host of the test.
async fn free_port() -> u16 {
    loop {
        let first = TcpListener::bind((host(0), 0)).await.unwrap();
        let port = first.local_addr().unwrap().port();
        if TcpListener::bind((host(1), port)).await.is_ok()
            && TcpListener::bind((host(2), port)).await.is_ok()
        {
            return port;
        }
    }
}

fn load_of(report: Option<&LoadReport>) -> Option<u16> {
    report.map(|r| r.load.ten_thousandths())
}

#[tokio::test]
async fn what_agents_say_becomes_loads_and_terms() {
    let port = free_port().await;
    let busy = Agent::at((host(0), port).into(), "75% up maxconn:30\n").await;
    let leaving = Agent::at((host(1), port).into(), "drain#for the night\r\n").await;
    let role = Role::start(port, None).await;
    until("a load", async || load_of(role.load(0).await.as_ref()) == Some(2500)).await;
    assert_eq!(role.load(0).await.unwrap().source, LoadSource::Agent);
    until("a bound", async || {
        role.terms(0).await == Some(Terms { weight: 100, max_in_flight: Some(30) })
    })
    .await;
    until("nothing new", async || role.terms(1).await == Some(Terms::NOTHING_NEW)).await;
    assert_eq!(role.load(1).await, None, "no percentage is no load");
    assert_eq!((role.load(2).await, role.terms(2).await), (None, None), "no agent says nothing");

    leaving.say(Some("40% ready hello"));
    until("ready again", async || role.terms(1).await.is_none()).await;
    until("its load", async || load_of(role.load(1).await.as_ref()) == Some(6000)).await;
    busy.say(Some("0% maxconn:0\n"));
    until("nothing new", async || role.terms(0).await == Some(Terms::NOTHING_NEW)).await;
    let text = role.metrics.render();
    for line in ["{result=\"line\"}", "{result=\"unknown_words\"}", "{result=\"silent\"}"] {
        assert!(text.contains(&format!("tally_load_agent_checks_total{line}")), "{text}");
    }
    role.end().await;
}

#[tokio::test]
async fn a_silent_agent_is_unknown_and_not_down() {
    let port = free_port().await;
    let agent = Agent::at((host(0), port).into(), "drain\n").await;
    let mute = Agent::at((host(1), port).into(), "maint\n").await;
    let role = Role::start(port, None).await;
    let closed = async |n| role.terms(n).await == Some(Terms::NOTHING_NEW);
    until("both are closed", async || closed(0).await && closed(1).await).await;
    mute.say(None);
    agent.task.abort();
    until("both as configured", async || {
        role.terms(0).await.is_none() && role.terms(1).await.is_none()
    })
    .await;
    role.end().await;
}

#[tokio::test]
async fn the_instances_own_word_on_its_load_comes_first_but_the_agent_may_close_it() {
    let port = free_port().await;
    let _agent = Agent::at((host(0), port).into(), "10% drain\n").await;
    let pushed = {
        let role = Role::start(port, Some(LoadSource::Pushed)).await;
        role.board.record(&[report(&instance("shop", 0), 700, None)]).await.unwrap();
        until("closed", async || role.terms(0).await == Some(Terms::NOTHING_NEW)).await;
        let load = role.load(0).await;
        role.end().await;
        load
    };
    assert_eq!(load_of(pushed.as_ref()), Some(700));
}
