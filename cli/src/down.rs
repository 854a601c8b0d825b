//! `tally down`: everything of a data directory ends, whether `tally up` runs on it or not.

#![expect(clippy::print_stderr, reason = "progress is for people, on stderr")]

use crate::data::Data;
use crate::roles;
use crate::settings::Settings;
use crate::up::{self, Pace};
use anyhow::{Context, bail};
use chassis::http::UNIX_PATH_BYTES_MAX;
use chassis::{Client, Halt, Shutdown};
use domain::BalancerId;
use registry::Registry;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

/// The socket by which `tally down` speaks to `tally up`.
const SOCKET: &str = "up.sock";
/// What it says.
const WORD: &str = "down";
/// What comes back when everything ended.
const DONE: &str = "done";
/// Longest line read.
const LINE_BYTES_MAX: u64 = 4096;
/// Draining takes the longest drain deadline; what takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// One call of the API.
const CALL: Duration = Duration::from_secs(10);

/// What `tally up` hears.
pub struct DownSocket {
    path: PathBuf,
    asked: Arc<Mutex<Option<oneshot::Sender<String>>>>,
}

/// Listens for `tally down`; the first one starts the shutdown.
///
/// # Errors
/// When the socket cannot be made.
pub fn listen(run: &Path, shutdown: &Shutdown) -> anyhow::Result<DownSocket> {
    let path = run.join(SOCKET);
    if path.as_os_str().len() > UNIX_PATH_BYTES_MAX {
        bail!("{} is too long for a socket; use a shorter --data directory", path.display());
    }
    // We hold the directory's lock, so whoever left it is gone.
    let _none_left = std::fs::remove_file(&path);
    let listener =
        UnixListener::bind(&path).with_context(|| format!("listening on {}", path.display()))?;
    let asked: Arc<Mutex<Option<oneshot::Sender<String>>>> = Arc::default();
    let (sender, shutdown) = (Arc::clone(&asked), shutdown.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(hear(stream, Arc::clone(&sender), shutdown.clone()));
        }
    });
    Ok(DownSocket { path, asked })
}

async fn hear(
    stream: UnixStream,
    asked: Arc<Mutex<Option<oneshot::Sender<String>>>>,
    shutdown: Shutdown,
) {
    use tokio::io::AsyncReadExt;
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let read = BufReader::new(reader.take(LINE_BYTES_MAX)).read_line(&mut line).await;
    if read.is_err() || line.trim_end() != WORD {
        return;
    }
    let (told, ended) = oneshot::channel();
    let busy = asked.lock().unwrap_or_else(PoisonError::into_inner).replace(told).is_some();
    shutdown.start();
    let word = if busy { Ok("another `tally down` took over".to_owned()) } else { ended.await };
    let word = word.unwrap_or_else(|_gone| "tally up ended before it was done".to_owned());
    // The asker may be gone; the work is done all the same.
    let _gone = writer.write_all(format!("{word}\n").as_bytes()).await;
}

impl DownSocket {
    /// Whether anybody asked.
    pub fn is_wanted(&self) -> bool {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Tells the asker how it ended.
    pub fn tell(&self, ended: &anyhow::Result<()>) {
        let asker = self.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
        let word = match ended {
            Ok(()) => DONE.to_owned(),
            Err(error) => format!("{error:#}").replace('\n', " "),
        };
        if let Some(asker) = asker {
            let _gone = asker.send(word);
            // The answer is written by another task; give it the moment it needs before we end.
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for DownSocket {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.path);
    }
}

/// `tally down`.
///
/// # Errors
/// What is left, and why.
pub async fn run(mut settings: Settings) -> anyhow::Result<()> {
    let root = PathBuf::from(&settings.data);
    if !root.is_dir() {
        bail!("{} does not exist; say --data as you did for `tally up`", root.display());
    }
    let root = std::fs::canonicalize(&root)?;
    if Data::is_taken(&root) {
        ask(&root.join("run").join(SOCKET)).await?;
    } else {
        // Nobody runs: take over for the time of draining, on addresses nobody else uses.
        let quiet = Settings::loopback();
        let left = left_in_kernel(&settings)?;
        settings.balancer = quiet.balancer;
        if let Some(name) = left {
            settings.balancer.id = name.to_string();
        }
        settings.load_receiver = quiet.load_receiver;
        settings.container_manager = quiet.container_manager;
        let mut running = up::start(&settings, Pace::Normal).await?;
        let ready = running.ready().await;
        running.down().await.and(ready)?;
    }
    eprintln!("everything of {} has ended", root.display());
    Ok(())
}

/// The name by which `tally up` may have left a table of mode `nat` in the kernel, to be taken over
/// and away; `None`: another program has its address by now, and may have the name too.
fn left_in_kernel(settings: &Settings) -> anyhow::Result<Option<BalancerId>> {
    let address = roles::front::address(settings)?;
    let name = roles::front::id(&settings.balancer.id, address)?;
    Ok(TcpListener::bind(address).is_ok().then_some(name))
}

async fn ask(socket: &Path) -> anyhow::Result<()> {
    let mut stream = connect(socket).await?;
    stream.write_all(format!("{WORD}\n").as_bytes()).await?;
    eprintln!("the running `tally up` drains and stops everything");
    let mut answer = String::new();
    let mut stream = BufReader::new(stream);
    let read = stream.read_line(&mut answer);
    tokio::time::timeout(PATIENCE + CALL, read).await.context("it does not end")??;
    match answer.trim_end() {
        DONE => Ok(()),
        "" => bail!("`tally up` ended before it was done; run `tally down` again"),
        word => bail!("{word}"),
    }
}

/// Connects to a `tally up` that may have begun this very moment.
async fn connect(socket: &Path) -> anyhow::Result<UnixStream> {
    let deadline = tokio::time::Instant::now() + CALL;
    loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => return Ok(stream),
            Err(error) if tokio::time::Instant::now() >= deadline => {
                let socket = socket.display();
                return Err(error).with_context(|| format!("asking `tally up` at {socket}"));
            }
            Err(_not_yet) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Holds every service at zero and waits until no instance is left.
///
/// # Errors
/// With the instances that are left.
pub async fn drain(registry: &Arc<dyn Registry>, halt: &Halt) -> anyhow::Result<()> {
    halt.set();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut told = usize::MAX;
    loop {
        let left = registry.instances().await.context("reading what is left")?;
        if left.is_empty() {
            return Ok(());
        }
        if left.len() != told {
            told = left.len();
            tracing::info!(instances = told, "draining");
        }
        if tokio::time::Instant::now() >= deadline {
            let names: Vec<String> =
                left.iter().map(|i| format!("{} ({})", i.id, i.state)).collect();
            bail!("these instances do not end: {}", names.join(", "));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Stops every node of this host.
///
/// # Errors
/// With the nodes that are left.
pub async fn stop_nodes(registry: &Arc<dyn Registry>, machines: &Client) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let nodes = registry.nodes().await.context("reading what is left")?;
        let left: Vec<_> = nodes.into_iter().filter(|n| n.provider == "local").collect();
        if left.is_empty() {
            return Ok(());
        }
        for node in left.iter().filter(|n| n.state != domain::NodeState::Stopping) {
            let path = format!("/v1/nodes/{}", node.id);
            if !node.may_stop {
                let patch = wire::operator::NodePatch { may_stop: true };
                let sent: Result<serde_json::Value, _> =
                    machines.json(http::Method::PATCH, &path, Some(&patch), CALL).await;
                sent.with_context(|| format!("giving {} free", node.id))?;
            }
            let sent: Result<serde_json::Value, _> =
                machines.json::<(), _>(http::Method::DELETE, &path, None, CALL).await;
            if let Err(error) = sent {
                tracing::debug!(node.id = %node.id, %error, "the node is not stopped yet");
            }
        }
        if tokio::time::Instant::now() >= deadline {
            let names: Vec<String> =
                left.iter().map(|n| format!("{} ({})", n.id, n.state)).collect();
            bail!("these nodes do not end: {}", names.join(", "));
        }
        tokio::time::sleep(LOOK).await;
    }
}
