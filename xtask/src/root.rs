//! Where the checkout is, and the folders the chores write to.

use std::path::{Path, PathBuf};

/// The checkout's root: the folder above this package.
pub fn repo() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Cargo's target folder, which `CARGO_TARGET_DIR` may move.
pub fn target() -> PathBuf {
    match std::env::var("CARGO_TARGET_DIR") {
        Ok(dir) if !dir.is_empty() => repo().join(dir),
        Ok(_) | Err(_) => repo().join("target"),
    }
}

/// The folder for the chores' own output (logs, figures): `target/NAME`, created.
pub fn output(name: &str) -> std::io::Result<PathBuf> {
    let dir = target().join(name);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// A folder that is removed, with all in it, when this value goes.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes `TMP/tally-NAME-PID`. The path is short on purpose: unix sockets inside it must stay
    /// under the kernel's 108 bytes.
    pub fn new(name: &str) -> std::io::Result<Scratch> {
        let path = std::env::temp_dir().join(format!("tally-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Scratch { path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            println!("  note: {} could not be removed: {error}", self.path.display());
        }
    }
}
