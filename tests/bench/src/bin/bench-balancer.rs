//! Tally's balancer alone, in front of fixed upstreams that report a steady load: what is measured.
//!
//! `bench-balancer LISTEN THREADS UPSTREAM...`

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use balancer::{Config, Deps};
use chassis::Shutdown;
use domain::{
    BalancerId, Epoch, Generation, HashRule, Health, Hold, InstanceId, Load, LoadReport,
    LoadSource, PolicyName, Revision, RouteEntry, RouteGen, RouteMode, RouteState, RouteTable,
    ServiceFront, ServiceName,
};
use scoreboard::{Board, MemoryBoard};

/// Instances report this often by default (see the contract's `load.period`).
const REPORT_PERIOD: Duration = Duration::from_secs(1);
/// More than the generator ever has open: nothing waits in this measurement.
const MAX_IN_FLIGHT: u32 = 10_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let listen: SocketAddr = args.next().context("LISTEN is missing")?.parse()?;
    let threads: usize = args.next().context("THREADS is missing")?.parse()?;
    let upstreams: Vec<SocketAddr> =
        args.map(|arg| arg.parse()).collect::<Result<_, _>>().context("UPSTREAM is HOST:PORT")?;
    let clock = Arc::new(chassis::SystemClock::new());
    let board = Arc::new(MemoryBoard::new(Arc::clone(&clock) as Arc<dyn domain::Clock>));
    let instances = publish(board.as_ref(), &upstreams).await?;
    let mut config = Config::new("bench".parse::<BalancerId>()?);
    config.listen = vec![listen];
    config.admin = None;
    config.workers = threads;
    let shutdown = Shutdown::new();
    shutdown.spawn(report(Arc::clone(&board), instances));
    balancer::run(config, Deps { board, clock, manager: None }, shutdown).await?;
    Ok(())
}

/// One service with every upstream as a ready instance.
async fn publish(board: &MemoryBoard, upstreams: &[SocketAddr]) -> Result<Vec<InstanceId>> {
    let service: ServiceName = "bench".parse()?;
    let front = ServiceFront {
        service: service.clone(),
        hosts: Vec::new(),
        paths: vec!["/".to_owned()],
        mode: RouteMode::Http,
        port: None,
        policy: PolicyName::Feedback,
        hash: HashRule::default(),
        sticky: None,
        probe: None,
        body_max: None,
        hold: Hold::default(),
        health: Health::default(),
        agent: None,
        concurrency: None,
        max_in_flight: MAX_IN_FLIGHT,
        slow_start: Duration::ZERO,
        source: Some(LoadSource::Pushed),
        load_balanced: true,
        revision: Revision(1),
        startable: true,
    };
    board.publish_front(&front).await?;
    let mut entries = Vec::new();
    for (index, address) in upstreams.iter().enumerate() {
        entries.push(RouteEntry {
            instance: format!("bench-{index:010}").parse()?,
            address: *address,
            state: RouteState::Ready,
            weight: 100,
            max_in_flight: MAX_IN_FLIGHT,
            revision: Revision(1),
        });
    }
    let instances = entries.iter().map(|entry| entry.instance.clone()).collect();
    let generation = RouteGen { epoch: Epoch(1), generation: Generation(1) };
    board.publish_routes(&service, &RouteTable { generation, entries }).await?;
    Ok(instances)
}

/// Equal, steady loads, as instances push them: the feedback path is part of what is measured.
async fn report(board: Arc<MemoryBoard>, instances: Vec<InstanceId>) {
    let mut beat = tokio::time::interval(REPORT_PERIOD);
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
            note(&error);
        }
    }
}

/// The memory board does not fail; should it ever, the person at the terminal sees it.
fn note(error: &dyn std::error::Error) {
    let _written = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("a load report was not recorded: {error}\n").as_bytes(),
    );
}
