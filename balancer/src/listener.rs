//! Sockets, one per worker with the kernel spreading connections, and the worker threads.

use crate::conn::SWEEP_EVERY;
use crate::http::serve;
use crate::limited::Limit;
use crate::worker::Worker;
use crate::{Error, Shared, tcp};
use chassis::{Shutdown, dial};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::runtime::LocalOptions;

/// Connections that wait in the kernel to be accepted: a burst of a few milliseconds.
const BACKLOG: i32 = 1024;
/// After a refused accept (no descriptors left): time for some to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Binds one socket per worker to the same address; with port 0 all get the port of the first.
///
/// # Errors
/// [`Error::Listen`].
pub fn bind(listen: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, Error> {
    let mut address = listen;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = bind_one(address).map_err(|source| Error::Listen { listen, source })?;
        address = socket.local_addr().map_err(|source| Error::Listen { listen, source })?;
        sockets.push(socket);
    }
    Ok(sockets)
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Starts a worker's thread. The receiver ends when the worker has.
///
/// # Errors
/// [`Error::Worker`].
pub fn start(
    index: usize,
    shared: Arc<Shared>,
    sockets: Vec<TcpListener>,
    shutdown: Shutdown,
    grace: Duration,
) -> Result<tokio::sync::oneshot::Receiver<()>, Error> {
    let (ended, end) = tokio::sync::oneshot::channel();
    let (made, making) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name(format!("balancer-{index}"))
        .spawn(move || {
            // A local runtime lives on its thread: it schedules its tasks without a second layer.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _nobody_waits = made.send(Err(error));
                    return;
                }
            };
            let _nobody_waits = made.send(Ok(()));
            let worker = Rc::new(Worker::new(index, shared));
            runtime.block_on(work(worker, sockets, shutdown, grace));
            // Dropping the tasks closes what is still open.
            drop(runtime);
            let _nobody_waits = ended.send(());
        })
        .map_err(|source| Error::Worker { source })?;
    // Within moments: the thread does nothing else before.
    let made = making.recv().unwrap_or_else(|_gone| Err(io::ErrorKind::Other.into()));
    made.map_err(|source| Error::Worker { source })?;
    Ok(end)
}

async fn work(worker: Rc<Worker>, sockets: Vec<TcpListener>, shutdown: Shutdown, grace: Duration) {
    worker.sweep();
    let mut accepting = Vec::new();
    for socket in sockets {
        match tokio::net::TcpListener::from_std(socket) {
            Ok(listener) => {
                accepting.push(tokio::task::spawn_local(accept(Rc::clone(&worker), listener)));
            }
            Err(error) => tracing::error!(%error, "a socket cannot be used"),
        }
    }
    accepting.push(tokio::task::spawn_local(tcp::work(Rc::clone(&worker))));
    let sweeping = async {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            worker.sweep();
        }
    };
    tokio::select! {
        () = shutdown.started() => {}
        () = sweeping => {}
    }
    for task in accepting {
        task.abort();
    }
    worker.stop_all();
    let drained = async {
        while worker.open() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            worker.sweep();
            worker.stop_all();
        }
    };
    if tokio::time::timeout(grace, drained).await.is_err() {
        let open = worker.open();
        tracing::info!(worker = worker.index, open, "connections are cut after the grace period");
    }
}

/// After a refused accept. Where descriptors are lacking, waiting alone brings none back: clients may
/// keep idle connections for long.
async fn make_room(worker: &Worker, error: &io::Error) {
    if dial::is_our_lack(error) {
        worker.limited(Limit::Connections);
        if worker.evict() {
            // They end as soon as they are polled.
            return tokio::task::yield_now().await;
        }
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn accept(worker: Rc<Worker>, listener: tokio::net::TcpListener) {
    loop {
        if worker.shared.doors.open.load(Relaxed) >= worker.limits.connections {
            worker.limited(Limit::Connections);
            if worker.evict() {
                // They end as soon as they are polled.
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            continue;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _no_delay_is_a_wish = stream.set_nodelay(true);
                // It counts from here on, not from when its task first runs.
                let conn = worker.admit(peer);
                tokio::task::spawn_local(serve::drive(Rc::clone(&worker), stream, conn));
            }
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                make_room(&worker, &error).await;
            }
        }
    }
}
