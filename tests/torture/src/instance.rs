//! Instances that keep count: each reads what Tally sends without forgiving anything, remembers it,
//! and answers as it was told.

use crate::strict::{Kind, Message, Reader};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What one instance saw.
#[derive(Debug, Default)]
pub struct Seen {
    requests: Mutex<Vec<Message>>,
    nonsense: Mutex<Vec<String>>,
    /// Connections made to it.
    pub connections: AtomicUsize,
    /// Requests whose head came.
    pub begun: AtomicUsize,
}

impl Seen {
    /// All requests so far, whole or not, in the order in which they ended.
    #[must_use]
    pub fn requests(&self) -> Vec<Message> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was no request at all.
    #[must_use]
    pub fn nonsense(&self) -> Vec<String> {
        self.nonsense.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests whose target holds `text`.
    #[must_use]
    pub fn with_target(&self, text: &str) -> Vec<Message> {
        self.requests().into_iter().filter(|r| r.start.contains(text)).collect()
    }

    /// Remembers a request.
    pub fn keep(&self, request: Message) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    }

    /// Remembers what was none.
    pub fn complain(&self, why: String) {
        self.nonsense.lock().unwrap_or_else(PoisonError::into_inner).push(why);
    }
}

/// What to do after a request was read.
#[derive(Debug, Clone)]
pub enum Reply {
    /// These bytes; the connection stays.
    Keep(Vec<u8>),
    /// These bytes, then the end.
    Close(Vec<u8>),
    /// These bytes, then a reset.
    Reset(Vec<u8>),
}

/// A running instance, ended with this value.
#[derive(Debug)]
pub struct Instance {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it saw.
    pub seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Instance {
    /// Drives each connection with `talk`, which is told the connection's number from 0.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn raw<F, T>(talk: F) -> Instance
    where
        F: Fn(Reader<TcpStream>, Arc<Seen>, usize) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let seen = Arc::new(Seen::default());
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut talks = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let _wish = stream.set_nodelay(true);
                let number = kept.connections.fetch_add(1, Relaxed);
                talks.spawn(talk(Reader::new(stream), Arc::clone(&kept), number));
                while talks.try_join_next().is_some() {}
            }
        });
        Instance { address, seen, task }
    }

    /// Reads each request whole and answers with what `reply` makes of it.
    ///
    /// # Panics
    /// As [`Instance::raw`].
    pub async fn replying<F>(reply: F) -> Instance
    where
        F: Fn(&Message) -> Reply + Send + Sync + 'static,
    {
        let reply = Arc::new(reply);
        Instance::raw(move |reader, seen, _| {
            let reply = Arc::clone(&reply);
            async move { serve(reader, &seen, &*reply).await }
        })
        .await
    }

    /// Answers each request with its target.
    ///
    /// # Panics
    /// As [`Instance::raw`].
    pub async fn echoing() -> Instance {
        Instance::replying(|request| Reply::Keep(ok(request))).await
    }

    /// The same, for loads of many requests: it forgets them.
    ///
    /// # Panics
    /// As [`Instance::raw`].
    pub async fn echoing_without_memory() -> Instance {
        Instance::raw(|mut reader, seen, _| async move {
            while let Ok(Some(request)) = reader.message(Kind::Request).await {
                if !request.complete {
                    return;
                }
                seen.begun.fetch_add(1, Relaxed);
                if reader.io.write_all(&ok(&request)).await.is_err() {
                    return;
                }
            }
        })
        .await
    }

    /// Ends at once, with all connections, as a crash would.
    pub async fn kill(self) {
        self.task.abort();
        while !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads requests and answers them until the connection ends.
pub async fn serve(
    mut reader: Reader<TcpStream>,
    seen: &Seen,
    reply: &(dyn Fn(&Message) -> Reply + Send + Sync),
) {
    loop {
        let request = match next(&mut reader, seen).await {
            Some(request) if request.complete => request,
            _ => return,
        };
        match reply(&request) {
            Reply::Keep(bytes) => {
                if reader.io.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Reply::Close(bytes) => {
                let _gone = reader.io.write_all(&bytes).await;
                let _gone = reader.io.shutdown().await;
                return;
            }
            Reply::Reset(bytes) => {
                let _gone = reader.io.write_all(&bytes).await;
                reset(&reader.io);
                return;
            }
        }
    }
}

/// The next request, remembered; `None` at the end of the connection.
pub async fn next(reader: &mut Reader<TcpStream>, seen: &Seen) -> Option<Message> {
    let read = async {
        let Some(mut request) = reader.head(Kind::Request).await? else { return Ok(None) };
        seen.begun.fetch_add(1, Relaxed);
        reader.body(&mut request, Kind::Request).await?;
        Ok(Some(request))
    };
    let read: Result<Option<Message>, crate::strict::Malformed> = read.await;
    match read {
        Ok(request) => {
            let request = request?;
            seen.keep(request.clone());
            Some(request)
        }
        // A client that goes away within its head leaves half a line: told apart by the end.
        Err(why) => {
            seen.complain(why.0);
            None
        }
    }
}

/// Makes the end of a connection a reset.
pub fn reset(stream: &TcpStream) {
    let at_once = Some(std::time::Duration::ZERO);
    let _wish = rustix::net::sockopt::set_socket_linger(stream, at_once);
}

/// A plain answer that says which request it is for.
#[must_use]
pub fn ok(request: &Message) -> Vec<u8> {
    let (target, length) = (request.target(), request.body.len());
    let body = format!("{target} {length}");
    let none = if request.word(0) == "HEAD" { "" } else { body.as_str() };
    format!("HTTP/1.1 200 OK\r\nx-for: {target}\r\ncontent-length: {}\r\n\r\n{none}", body.len())
        .into_bytes()
}
