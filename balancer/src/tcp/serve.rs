//! One worker's part of the service ports: accepts, and drives each connection from the first
//! moment to the last.

use super::counts::{Counts, Refusal};
use super::join::{End, Pair, Pulse, reset};
use super::place::Caller;
use super::ports::News;
use crate::limited::Limit;
use crate::worker::Worker;
use futures_util::FutureExt;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::TcpListener as Socket;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How often quiet connections are looked for: they end late by at most this.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// After a refused accept (no descriptors left): time for some to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What all of a worker's connections share.
pub struct Floor {
    pub worker: Rc<Worker>,
    pulses: RefCell<Vec<Weak<Pulse>>>,
}

/// Serves the service ports of one worker, for as long as it is polled.
pub async fn work(worker: Rc<Worker>) {
    let limits = Rc::clone(&worker.limits);
    let idle_max = limits.tunnel_idle.0.0;
    let mut news = worker.shared.ports.attend();
    let floor = Rc::new(Floor { worker, pulses: RefCell::default() });
    // Dropping the sender of a port closes it.
    let mut open: BTreeMap<u16, watch::Sender<()>> = BTreeMap::new();
    loop {
        tokio::select! {
            told = news.recv() => match told {
                Some(News::Open(port, sockets)) => {
                    let (held, closing) = watch::channel(());
                    for socket in sockets {
                        listen(&floor, port, socket, closing.clone());
                    }
                    open.insert(port, held);
                }
                Some(News::Close(port)) => drop(open.remove(&port)),
                None => return,
            },
            () = tokio::time::sleep(SWEEP_EVERY) => floor.sweep(idle_max),
        }
    }
}

impl Floor {
    fn sweep(&self, idle_max: Duration) {
        let now = self.worker.now();
        self.pulses.borrow_mut().retain(|pulse| match pulse.upgrade() {
            Some(pulse) => {
                pulse.check(now, idle_max);
                true
            }
            None => false,
        });
    }
}

fn listen(floor: &Rc<Floor>, port: u16, socket: Socket, closing: watch::Receiver<()>) {
    match TcpListener::from_std(socket) {
        Ok(listener) => {
            tokio::task::spawn_local(accept(Rc::clone(floor), port, listener, closing));
        }
        Err(error) => tracing::error!(%error, port, "a socket cannot be used"),
    }
}

async fn accept(
    floor: Rc<Floor>,
    port: u16,
    listener: TcpListener,
    mut closing: watch::Receiver<()>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Only ever by the sender's end.
            _closed = closing.changed() => break,
        };
        match accepted {
            Ok((stream, _)) => admit(&floor, port, stream),
            Err(error) => {
                tracing::debug!(%error, port, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Who came before the port was closed is not turned away by the kernel.
    while let Some(Ok((stream, _))) = listener.accept().now_or_never() {
        admit(&floor, port, stream);
    }
}

/// Lets a connection in, if its service may have one more.
fn admit(floor: &Rc<Floor>, port: u16, stream: TcpStream) {
    let worker = &floor.worker;
    let Some(local) = worker.shared.table.load().at_port(port).map(|s| worker.local(s)) else {
        reset(&stream);
        return;
    };
    let counts = &local.service.links[worker.index];
    let open: u32 = local.service.links.iter().map(|c| c.open.load(Relaxed)).sum();
    let all = worker.shared.doors.open.load(Relaxed);
    let own_full = open >= worker.limits.port_connections;
    if own_full || all >= worker.limits.connections {
        worker.limited(if own_full { Limit::PortConnections } else { Limit::Connections });
        counts.refused(Refusal::Connections);
        reset(&stream);
        return;
    }
    counts.open.fetch_add(1, Relaxed);
    let _no_delay_is_a_wish = stream.set_nodelay(true);
    let caller = Caller::new(Rc::clone(worker), local, stream);
    tokio::task::spawn_local(drive(Rc::clone(floor), caller));
}

/// A connection that counts as open until this is dropped.
struct Open {
    floor: Rc<Floor>,
    service: Arc<crate::view::Service>,
}

impl Open {
    fn counts(&self) -> &Counts {
        &self.service.links[self.floor.worker.index]
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counts().open.fetch_sub(1, Relaxed);
        self.service.tunnels.fetch_sub(1, Relaxed);
        self.floor.worker.closed();
    }
}

async fn drive(floor: Rc<Floor>, caller: Caller) {
    floor.worker.held_open();
    let service = Arc::clone(&caller.local.service);
    service.tunnels.fetch_add(1, Relaxed);
    let open = Open { floor: Rc::clone(&floor), service };
    let counts = open.counts();
    let (client, instance, place) = match Box::pin(caller.reach(counts)).await {
        Ok(reached) => reached,
        Err(why) => {
            counts.refused(why);
            return;
        }
    };
    counts.joined.fetch_add(1, Relaxed);
    let pulse = Rc::new(Pulse::new(floor.worker.now()));
    floor.pulses.borrow_mut().push(Rc::downgrade(&pulse));
    let mut pair = Pair::new(client, instance, Rc::clone(&floor.worker.tools), pulse);
    let mut told = (0, 0);
    let end = std::future::poll_fn(|cx| {
        let polled = pair.poll_unpin(cx);
        let (up, down) = pair.bytes();
        counts.received.fetch_add(up - told.0, Relaxed);
        counts.sent.fetch_add(down - told.1, Relaxed);
        if told.1 == 0 && down > 0 {
            place.spoke();
        }
        told = (up, down);
        polled
    })
    .await;
    match end {
        End::Whole => {}
        End::Broken => drop(counts.broken.fetch_add(1, Relaxed)),
        End::Idle => {
            counts.idle.fetch_add(1, Relaxed);
            floor.worker.limited(Limit::TunnelIdle);
        }
    }
    place.ended(pair.instance_said_nothing());
}
