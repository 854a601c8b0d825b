//! The HTTP side of a sleeping instance: requests without a body, answers when their time has come.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Sleeper;
use crate::openloop::DEMAND_HEADER;

/// A head larger than this is not from our generator.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// An instance that fails does so after this.
const FAILS_AFTER: Duration = Duration::from_millis(1);
/// After a failed accept or bind.
const PAUSE: Duration = Duration::from_millis(10);
/// Where policy `prequal` asks.
const PROBE: &str = "/probe";

/// Listens while the switch is on; off, connections break.
pub(super) async fn listen(sleeper: Rc<Sleeper>, mut open: watch::Receiver<bool>) {
    loop {
        if open.wait_for(|open| *open).await.is_err() {
            return;
        }
        let Ok(listener) = TcpListener::bind(sleeper.plan.address).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let sleeper = Rc::clone(&sleeper);
                        connections.spawn_local(async move { serve(stream, &sleeper).await.is_ok() });
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
                Some(_ended) = connections.join_next() => {}
                closed = open.wait_for(|open| !*open) => {
                    if closed.is_err() {
                        return;
                    }
                    break;
                }
            }
        }
    }
}

async fn serve(mut stream: TcpStream, sleeper: &Sleeper) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::with_capacity(1024);
    loop {
        let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") else {
            if stream.read_buf(&mut head).await? == 0 || head.len() > HEAD_BYTES_MAX {
                return Ok(());
            }
            continue;
        };
        let text = String::from_utf8_lossy(&head[..end]).into_owned();
        head.drain(..end + 4);
        let answer = answer(sleeper, &text).await;
        stream.write_all(answer.as_bytes()).await?;
    }
}

async fn answer(sleeper: &Sleeper, head: &str) -> String {
    let path = head.split(' ').nth(1).unwrap_or("/");
    if path == PROBE {
        return probed(sleeper);
    }
    sleeper.counts.requests.fetch_add(1, Relaxed);
    if sleeper.plan.fails {
        tokio::time::sleep(FAILS_AFTER).await;
        return "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n".to_owned();
    }
    let work = Duration::from_micros(demand(head));
    let now = sleeper.now();
    let found = sleeper.queue.borrow().in_flight();
    let end = sleeper.queue.borrow_mut().arrive(now, work);
    // Whoever asked may go away meanwhile; the work is done all the same.
    sleeper.counts.in_flight.fetch_add(1, Relaxed);
    let _busy = Busy(sleeper);
    tokio::time::sleep_until((sleeper.start + end).into()).await;
    sleeper.latencies.borrow_mut().note(found, end.saturating_sub(now));
    let load = if sleeper.in_header { header(sleeper) } else { String::new() };
    format!("HTTP/1.1 200 OK\r\n{load}content-length: 2\r\n\r\nok")
}

/// A request in hand.
struct Busy<'a>(&'a Sleeper);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.queue.borrow_mut().finish();
        self.0.counts.in_flight.fetch_sub(1, Relaxed);
    }
}

fn demand(head: &str) -> u64 {
    let lines = head.split("\r\n").skip(1);
    let mut pairs = lines.filter_map(|line| line.split_once(':'));
    let found = pairs.find(|(name, _)| name.eq_ignore_ascii_case(DEMAND_HEADER));
    found.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

/// The load as an ORCA header.
fn header(sleeper: &Sleeper) -> String {
    let state = sleeper.state();
    format!(
        "endpoint-load-metrics: TEXT application_utilization={:.4},rps_fractional={:.2},\
         named_metrics.in_flight={}\r\n",
        state.load, state.rps, state.in_flight
    )
}

/// What Prequal's probes want to know: requests in flight, and how long such requests took.
fn probed(sleeper: &Sleeper) -> String {
    let in_flight = if sleeper.plan.fails { 0 } else { sleeper.queue.borrow().in_flight() };
    let known = sleeper.latencies.borrow().at(in_flight);
    let latency = known.map(|seconds| format!(",named_metrics.latency={seconds:.6}"));
    format!(
        "HTTP/1.1 200 OK\r\nendpoint-load-metrics: TEXT named_metrics.in_flight={in_flight}{}\r\n\
         content-length: 0\r\n\r\n",
        latency.unwrap_or_default()
    )
}
