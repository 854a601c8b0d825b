//! Tally's balancer alone, in front of given instances: what is measured.
//!
//! `bench-balancer LISTEN THREADS UPSTREAM... [--policy NAME] ...`, see [`USAGE`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use balancer::{Config, Deps};
use bench::args::Args;
use chassis::{Identity, Listen, Metrics, Readiness, Shutdown};
use domain::{
    BalancerId, Epoch, Generation, HashRule, Health, Hold, InstanceId, Load, LoadReport,
    LoadSource, PolicyName, Probe, Revision, RouteEntry, RouteGen, RouteMode, RouteState,
    RouteTable, ServiceFront, ServiceName,
};
use scoreboard::{Board, MemoryBoard, RedisBoard};
use tokio::io::{AsyncBufReadExt, BufReader};

const USAGE: &str = "bench-balancer LISTEN THREADS UPSTREAM...
  --policy NAME        how an instance is picked (feedback)
  --mode MODE          http, tcp or nat (http); tcp and nat take LISTEN as the service's port
  --report-every MS    steady loads, told for the instances (100; 0: none)
  --receiver ADDRESS   takes reports of real instances there instead, datagrams and HTTP:
                       service `bench`, instances bench-0000000000, bench-0000000001, ...
  --redis URL          the board is there, shared with other balancers (in memory otherwise)
  --no-splice          mode tcp copies bulk instead of passing it through pipes
  --follow             another process publishes routes and takes reports in
  --balancers N        so many more balancers are claimed to be alive (0)
  --concurrency N      requests that an instance says it takes at load 1.0
  --slow-start SECONDS how long the share of a new instance grows (0)
  --probe PATH         where policy `prequal` asks instances
  --id NAME            its name among balancers (bench)
  --admin ADDRESS      where /metrics and the like answer
Lines on the standard input change the routes: the addresses that take requests, each line a whole
table; `-ADDRESS` drains.";

/// More than the generator ever has open: nothing waits in this measurement.
const MAX_IN_FLIGHT: u32 = 10_000;
/// A claimed balancer says so often that it lives.
const BEAT: Duration = Duration::from_secs(1);

struct Plan {
    listen: SocketAddr,
    threads: usize,
    upstreams: Vec<SocketAddr>,
    policy: PolicyName,
    mode: RouteMode,
    report_every: Duration,
    receiver: Option<SocketAddr>,
    redis: Option<String>,
    follow: bool,
    splice: bool,
    balancers: usize,
    concurrency: Option<u32>,
    slow_start: Duration,
    probe: Option<String>,
    id: BalancerId,
    admin: Option<SocketAddr>,
}

impl Plan {
    fn read() -> Result<Plan> {
        let mut args = Args::of_process(USAGE, &["follow", "no-splice"])?;
        let bare = args.bare();
        let mut bare = bare.iter();
        let mut next = |what: &str| bare.next().with_context(|| format!("{what}\n{USAGE}"));
        let plan = Plan {
            listen: next("LISTEN is missing")?.parse().context("LISTEN is HOST:PORT")?,
            threads: next("THREADS is missing")?.parse().context("THREADS is a number")?,
            upstreams: bare
                .map(|word| word.parse())
                .collect::<Result<_, _>>()
                .context("UPSTREAM is HOST:PORT")?,
            policy: args.or("policy", PolicyName::Feedback)?,
            mode: mode(&args.or("mode", "http".to_owned())?)?,
            report_every: Duration::from_millis(args.or("report-every", 100)?),
            receiver: args.option("receiver")?,
            redis: args.option("redis")?,
            follow: args.switch("follow"),
            splice: !args.switch("no-splice"),
            balancers: args.or("balancers", 0)?,
            concurrency: args.option("concurrency")?,
            slow_start: Duration::from_secs_f64(args.or("slow-start", 0.0)?),
            probe: args.option("probe")?,
            id: args.or("id", "bench".parse().map_err(anyhow::Error::msg)?)?,
            admin: args.option("admin")?,
        };
        args.finish()?;
        Ok(plan)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let plan = Plan::read()?;
    let clock: Arc<dyn domain::Clock> = Arc::new(chassis::SystemClock::new());
    let board: Arc<dyn Board> = match &plan.redis {
        None => Arc::new(MemoryBoard::new(Arc::clone(&clock))),
        Some(url) => Arc::new(RedisBoard::connect(url, Arc::clone(&clock))?),
    };
    let shutdown = Shutdown::new();
    let mut config = Config::new(plan.id.clone());
    let admin = plan.admin.map(Listen::Tcp);
    config.listen = match plan.mode {
        RouteMode::Http => vec![plan.listen],
        RouteMode::Tcp | RouteMode::Nat => vec![SocketAddr::new(plan.listen.ip(), 0)],
    };
    config.admin = admin;
    config.workers = plan.threads;
    config.limits.port_splice = plan.splice;
    if !plan.follow {
        board.publish_front(&front(&plan)?).await?;
        let mut routes = Routes::new(Arc::clone(&board));
        routes.publish(&plan.upstreams, &[]).await?;
        let instances = routes.instances();
        shutdown.spawn(async move { routes.follow_input().await });
        if let Some(receiver) = plan.receiver {
            take_reports(receiver, &board, &clock, &shutdown).await?;
        } else if !plan.report_every.is_zero() {
            shutdown.spawn(report(Arc::clone(&board), instances, plan.report_every));
        }
    }
    for index in 0..plan.balancers {
        shutdown.spawn(claim(Arc::clone(&board), format!("claimed-{index}")));
    }
    balancer::run(config, Deps { board, clock, manager: None }, shutdown).await?;
    Ok(())
}

fn mode(word: &str) -> Result<RouteMode> {
    let all = [RouteMode::Http, RouteMode::Tcp, RouteMode::Nat];
    all.into_iter().find(|mode| mode.as_str() == word).with_context(|| format!("mode {word}?"))
}

fn service() -> Result<ServiceName> {
    "bench".parse().map_err(anyhow::Error::msg)
}

fn front(plan: &Plan) -> Result<ServiceFront> {
    Ok(ServiceFront {
        service: service()?,
        hosts: Vec::new(),
        paths: vec!["/".to_owned()],
        mode: plan.mode,
        port: (plan.mode != RouteMode::Http).then(|| plan.listen.port()),
        policy: plan.policy,
        hash: HashRule::default(),
        sticky: None,
        probe: plan.probe.clone().map(|path| Probe { path }),
        body_max: None,
        hold: Hold::default(),
        health: Health::default(),
        agent: None,
        concurrency: plan.concurrency,
        max_in_flight: MAX_IN_FLIGHT,
        slow_start: plan.slow_start,
        source: (!plan.report_every.is_zero()).then_some(LoadSource::Pushed),
        load_balanced: true,
        revision: Revision(1),
        startable: true,
    })
}

/// The service's route table, published anew whenever the input says so.
struct Routes {
    board: Arc<dyn Board>,
    known: Vec<SocketAddr>,
    generation: u64,
}

impl Routes {
    fn new(board: Arc<dyn Board>) -> Routes {
        Routes { board, known: Vec::new(), generation: 0 }
    }

    /// An address keeps its instance for good.
    fn instance(&mut self, address: SocketAddr) -> Result<InstanceId> {
        let at = self.known.iter().position(|known| *known == address);
        let index = at.unwrap_or_else(|| {
            self.known.push(address);
            self.known.len() - 1
        });
        format!("bench-{index:010}").parse().map_err(anyhow::Error::msg)
    }

    fn instances(&self) -> Vec<InstanceId> {
        let ids = (0..self.known.len()).map(|index| format!("bench-{index:010}").parse());
        ids.flatten().collect()
    }

    async fn publish(&mut self, ready: &[SocketAddr], draining: &[SocketAddr]) -> Result<()> {
        let mut entries = Vec::new();
        let ready = ready.iter().map(|address| (*address, RouteState::Ready));
        let draining = draining.iter().map(|address| (*address, RouteState::Draining));
        for (address, state) in ready.chain(draining) {
            entries.push(RouteEntry {
                instance: self.instance(address)?,
                address,
                state,
                weight: 100,
                max_in_flight: MAX_IN_FLIGHT,
                revision: Revision(1),
            });
        }
        entries.sort_by(|a, b| a.instance.cmp(&b.instance));
        self.generation += 1;
        let generation = RouteGen { epoch: Epoch(1), generation: Generation(self.generation) };
        self.board.publish_routes(&service()?, &RouteTable { generation, entries }).await?;
        Ok(())
    }

    async fn follow_input(&mut self) {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Err(error) = self.take(&line).await {
                note(&format!("{line}: {error:#}"));
            }
        }
    }

    async fn take(&mut self, line: &str) -> Result<()> {
        let (mut ready, mut draining) = (Vec::new(), Vec::new());
        for word in line.split_whitespace() {
            match word.strip_prefix('-') {
                Some(word) => draining.push(word.parse()?),
                None => ready.push(word.parse()?),
            }
        }
        self.publish(&ready, &draining).await
    }
}

/// Reports of real instances, through the load-receiver as users run it.
async fn take_reports(
    address: SocketAddr,
    board: &Arc<dyn Board>,
    clock: &Arc<dyn domain::Clock>,
    shutdown: &Shutdown,
) -> Result<()> {
    let bound = load_receiver::bind(&Listen::Tcp(address)).await.map_err(anyhow::Error::msg)?;
    let (listener, socket) = bound;
    let deps = load_receiver::Deps {
        board: Arc::clone(board),
        clock: Arc::clone(clock),
        identity: Arc::new(Identity::generate()),
        listeners: vec![listener],
        sockets: socket.into_iter().collect(),
        agents: Vec::new(),
        metrics: Metrics::new(),
        readiness: Readiness::new(),
    };
    let config = load_receiver::Config::default();
    shutdown.spawn(load_receiver::run(config, deps, shutdown.clone()));
    Ok(())
}

/// Equal, steady loads, as instances push them: the feedback path is part of what is measured.
async fn report(board: Arc<dyn Board>, instances: Vec<InstanceId>, every: Duration) {
    let mut beat = tokio::time::interval(every);
    for seq in 1.. {
        beat.tick().await;
        let reports: Vec<LoadReport> = instances
            .iter()
            .map(|instance| LoadReport {
                instance: instance.clone(),
                load: Load::from_ten_thousandths(5_000),
                in_flight: None,
                rps_milli: None,
                eps_milli: None,
                seq: Some(seq),
                source: LoadSource::Pushed,
            })
            .collect();
        if let Err(error) = board.record(&reports).await {
            note(&format!("a load report was not recorded: {error}"));
        }
    }
}

/// Says for a balancer that is not there that it lives.
async fn claim(board: Arc<dyn Board>, name: String) {
    let Ok(id) = name.parse::<BalancerId>() else { return };
    let mut beat = tokio::time::interval(BEAT);
    loop {
        beat.tick().await;
        if let Err(error) = board.write_demand(&id, &[]).await {
            note(&format!("{name} has no heartbeat: {error}"));
        }
    }
}

fn note(text: &str) {
    let text = format!("bench-balancer: {text}\n");
    let _written = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
}
