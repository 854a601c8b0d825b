//! HTTP servers over TCP and unix sockets, with bounds on heads, time and connections.

use crate::shutdown::Shutdown;
use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

/// Longest unix socket path the kernel takes, without its closing NUL.
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// Where to listen: `127.0.0.1:7400` or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address; port 0 picks a free one.
    Tcp(SocketAddr),
    /// A unix socket, mode 0600.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this host can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Listen::Tcp(address) => address.ip().is_loopback(),
            Listen::Unix(_) => true,
        }
    }
}

impl FromStr for Listen {
    type Err = String;
    fn from_str(text: &str) -> Result<Listen, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Listen::Unix(PathBuf::from(path)));
        }
        text.parse().map(Listen::Tcp).map_err(|_why| {
            format!("{text:?} is no address; write it like 127.0.0.1:7400 or unix:/run/tally.sock")
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket; its file goes with the listener.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Binds. A socket file nobody answers on is replaced; one that is in use is an error.
    ///
    /// # Errors
    /// With the address and what to do about it.
    pub async fn bind(listen: &Listen) -> Result<Listener, String> {
        match listen {
            Listen::Tcp(address) => {
                TcpListener::bind(address).await.map(Listener::Tcp).map_err(|e| {
                    if e.kind() == io::ErrorKind::AddrInUse {
                        let next = "stop it or choose another address";
                        return format!("{address} is in use by another program; {next}");
                    }
                    format!("cannot listen on {address}: {e}")
                })
            }
            Listen::Unix(path) => bind_unix(path).await,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn local(&self) -> Listen {
        match self {
            Listener::Tcp(l) => {
                Listen::Tcp(l.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0))))
            }
            Listener::Unix(_, path) => Listen::Unix(path.clone()),
        }
    }
}

async fn bind_unix(path: &Path) -> Result<Listener, String> {
    let shown = path.display();
    if path.as_os_str().len() > UNIX_PATH_BYTES_MAX {
        return Err(format!(
            "the socket path {shown} is longer than {UNIX_PATH_BYTES_MAX} bytes; \
             use a shorter --data directory"
        ));
    }
    if path.exists() {
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            return Err(format!("{shown} is in use by another process"));
        }
        fs::remove_file(path).map_err(|e| format!("cannot replace {shown}: {e}"))?;
    }
    let listener =
        UnixListener::bind(path).map_err(|e| format!("cannot listen on {shown}: {e}"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(|e| format!("cannot protect {shown}: {e}"))?;
    Ok(Listener::Unix(listener, path.to_owned()))
}

/// Who asks; in every request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAddr {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over a unix socket: only our own user can.
    Unix,
}

impl PeerAddr {
    /// Whether the peer is on this host.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            PeerAddr::Tcp(address) => address.ip().to_canonical().is_loopback(),
            PeerAddr::Unix => true,
        }
    }
}

/// Bounds of a server.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections_max: usize,
    /// From the first byte of a head to its last.
    pub head_deadline: Duration,
    /// Bytes of a head.
    pub head_bytes_max: usize,
    /// After the shutdown started, for requests in hand.
    pub grace: Duration,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        // A control API serves tools and nodes, not the public: a thousand nodes hold one each.
        ServerLimits {
            connections_max: 4096,
            head_deadline: Duration::from_secs(10),
            head_bytes_max: 64 << 10,
            grace: Duration::from_secs(5),
        }
    }
}

/// Serves `router` until the shutdown starts and requests in hand ended or the grace is over.
/// Bodies are bounded by the handlers' extractors (`ApiJson`, `DefaultBodyLimit`).
pub async fn serve(listener: Listener, router: Router, limits: ServerLimits, shutdown: &Shutdown) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let connections = shutdown.branch();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        // Dropping an accept in hand loses no connection: the kernel keeps it.
        let accepted = tokio::select! {
            () = shutdown.started() => break,
            accepted = accept(&listener) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let router = router.clone();
                let ending = connections.clone();
                connections.spawn(async move {
                    connection(stream, peer, router, limits, ending).await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of descriptors or memory: wait a little instead of spinning.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    connections.finished(limits.grace).await;
    if let Listener::Unix(_, path) = &listener {
        let _gone_already = fs::remove_file(path);
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn accept(listener: &Listener) -> io::Result<(Box<dyn Stream>, PeerAddr)> {
    match listener {
        Listener::Tcp(l) => {
            let (stream, address) = l.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream), PeerAddr::Tcp(address)))
        }
        Listener::Unix(l, _) => {
            let (stream, _) = l.accept().await?;
            Ok((Box::new(stream), PeerAddr::Unix))
        }
    }
}

async fn connection(
    stream: Box<dyn Stream>,
    peer: PeerAddr,
    router: Router,
    limits: ServerLimits,
    shutdown: Shutdown,
) {
    let service = tower::ServiceExt::map_request(
        router,
        move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(peer);
            request.map(axum::body::Body::new)
        },
    );
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head_deadline)
        .max_buf_size(limits.head_bytes_max.max(8192));
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection.with_upgrades());
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::trace!(%error, "a connection ended badly");
            }
            return;
        }
        () = shutdown.started() => connection.as_mut().graceful_shutdown(),
    }
    if let Err(error) = connection.await {
        tracing::trace!(%error, "a connection ended badly");
    }
}
