//! A data directory: its lock, its folders, and the board and registry that belong to it.

use crate::processes::UsageError;
use crate::settings::Settings;
use anyhow::{Context, bail};
use domain::Clock;
use registry::{Registry, SqliteRegistry};
use rustix::fs::{FlockOperation, flock};
use scoreboard::{Board, MemoryBoard, RedisBoard};
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A data directory in use by this process.
#[derive(Debug)]
pub struct Data {
    root: PathBuf,
    /// Held as long as the process lives; the kernel gives it back whatever happens.
    _lock: Option<File>,
}

impl Data {
    /// Makes the folders and takes the lock.
    ///
    /// # Errors
    /// When another process runs on it, or it cannot be written.
    pub fn take(settings: &Settings) -> anyhow::Result<Data> {
        let root = Data::make(settings)?;
        let path = root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "another `tally up` runs on {}; stop it, or use another --data directory",
                root.display()
            );
        }
        Ok(Data { root, _lock: Some(file) })
    }

    /// Makes the folders, for a role that shares the directory with others.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn share(settings: &Settings) -> anyhow::Result<Data> {
        Ok(Data { root: Data::make(settings)?, _lock: None })
    }

    /// Whether a `tally up` runs on the directory.
    pub fn is_taken(root: &Path) -> bool {
        File::options()
            .write(true)
            .open(root.join("lock"))
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
    }

    fn make(settings: &Settings) -> anyhow::Result<PathBuf> {
        let wanted = PathBuf::from(&settings.data);
        for folder in [wanted.clone(), wanted.join("run"), wanted.join("nodes")] {
            // Secrets and sockets live here: nobody else may look.
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .with_context(|| format!("making {}", folder.display()))?;
        }
        fs::canonicalize(&wanted).with_context(|| format!("finding {}", wanted.display()))
    }

    /// The directory, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The unix socket of a role.
    pub fn socket(&self, role: &str) -> PathBuf {
        self.root.join("run").join(format!("{role}.sock"))
    }
}

/// The one board: in memory, or on Redis.
///
/// # Errors
/// When the address is not readable.
pub fn board(settings: &Settings, clock: &Arc<dyn Clock>) -> anyhow::Result<Arc<dyn Board>> {
    if settings.redis.is_empty() {
        return Ok(Arc::new(MemoryBoard::new(Arc::clone(clock))));
    }
    // Connecting is for later; only an address that is none fails here.
    let board = RedisBoard::connect(&settings.redis, Arc::clone(clock)).map_err(|why| {
        let why = chassis::telemetry::Chain(&why).to_string();
        UsageError(format!("--redis {}: {why}; write it like redis://host:6379", settings.redis))
    })?;
    Ok(Arc::new(board))
}

/// The one registry.
///
/// # Errors
/// When it cannot be opened, or is of a kind that is not built.
pub fn registry(
    settings: &Settings,
    root: &Path,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn Registry>> {
    let wanted = settings.registry.as_str();
    if wanted.starts_with("postgres") {
        let detail = "a registry on PostgreSQL is not built yet; use --registry sqlite:PATH";
        return Err(UsageError(detail.to_owned()).into());
    }
    let path = match wanted.strip_prefix("sqlite:").unwrap_or(wanted) {
        "" => root.join("registry.sqlite"),
        path => PathBuf::from(path),
    };
    let registry = SqliteRegistry::open(&path, Arc::clone(clock))
        .with_context(|| format!("opening the registry {}", path.display()))?;
    Ok(Arc::new(registry))
}
