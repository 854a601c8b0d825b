//! A balancer in front of fixed addresses, for measuring: `proxy LISTEN WORKERS TO...`.

use chassis::{Shutdown, SystemClock};
use domain::{
    Epoch, Generation, InstanceId, PolicyName, Revision, RouteEntry, RouteGen, RouteMode,
    RouteState, RouteTable, ServiceFront, service::Hold,
};
use scoreboard::{Board, MemoryBoard};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("usage: proxy LISTEN WORKERS TO...");
    let (listen, workers) = (next()?.parse()?, next()?.parse()?);
    let to: Vec<_> = args.map(|a| a.parse()).collect::<Result<_, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let clock = Arc::new(SystemClock::new());
        let board = Arc::new(MemoryBoard::new(clock.clone()));
        let front = ServiceFront {
            service: "proxied".parse()?,
            hosts: Vec::new(),
            paths: vec!["/".to_owned()],
            mode: RouteMode::Http,
            port: None,
            policy: PolicyName::Feedback,
            hold: Hold::default(),
            concurrency: None,
            max_in_flight: 1000,
            slow_start: Duration::from_secs(10),
            source: None,
            load_balanced: true,
            revision: Revision(1),
            startable: true,
        };
        let entries = to.iter().enumerate().map(|(i, address)| {
            let instance: InstanceId = format!("proxied-{i:010}").parse()?;
            Ok(RouteEntry {
                instance,
                address: *address,
                state: RouteState::Ready,
                weight: 100,
                max_in_flight: 1000,
                revision: Revision(1),
            })
        });
        let entries = entries.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        let generation = RouteGen { epoch: Epoch(1), generation: Generation(1) };
        board.publish_front(&front).await?;
        board.publish_routes(&front.service, &RouteTable { generation, entries }).await?;
        let mut config = balancer::Config::new("bench".parse()?);
        config.listen = vec![listen];
        config.workers = workers;
        config.admin = Some(chassis::Listen::Tcp(([127, 0, 0, 1], 0).into()));
        let deps = balancer::Deps { board, clock, manager: None };
        let shutdown = Shutdown::new();
        let signal = shutdown.clone();
        tokio::spawn(async move { signal.on_signal().await });
        balancer::run(config, deps, shutdown).await?;
        Ok(())
    })
}
