//! The node's directory: the last accepted assignment, a record per instance, the node file.

use crate::error::Error;
use domain::InstanceId;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wire::assignment::{AssignedInstance, Assignment};
use wire::node_file::NodeFile;

/// What is known of an instance before and while it runs; survives the executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// As it was assigned when it was last started.
    pub instance: AssignedInstance,
    /// Its port on the node.
    pub port: u16,
    /// Whether it has been well since its start.
    pub ready: bool,
    /// Local restarts so far.
    pub restarts: u32,
    /// Why the executor gave up on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// A port that was freed a while ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreedPort {
    /// Which.
    pub port: u16,
    /// When, unix ms.
    pub at: domain::Timestamp,
}

/// The node's directory `DATA/node`.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens the directory, making it where needed; only its owner may read it, as it holds
    /// tokens.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(dir: &Path) -> Result<Store, Error> {
        let store = Store { dir: dir.to_owned() };
        make_dir(&store.dir.join("instances"))
            .map_err(|source| Error::Disk { path: dir.to_owned(), source })?;
        Ok(store)
    }

    fn assignment_path(&self) -> PathBuf {
        self.dir.join("assignment.json")
    }

    /// Where the transmitter finds the instances.
    #[must_use]
    pub fn node_file_path(&self) -> PathBuf {
        self.dir.join("instances.json")
    }

    /// The directory of an instance.
    #[must_use]
    pub fn instance_dir(&self, id: &InstanceId) -> PathBuf {
        self.dir.join("instances").join(id.as_str())
    }

    /// The last accepted assignment; `None` on a new node.
    ///
    /// # Errors
    /// When there is one that cannot be read: guessing could stop everything.
    pub fn assignment(&self) -> Result<Option<Assignment>, Error> {
        let path = self.assignment_path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Disk { path, source }),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::Unreadable { path, source })
    }

    /// Puts an assignment on disk: when this returns, it survives a power cut.
    ///
    /// # Errors
    /// When it could not be written; the former one is then still there.
    pub fn keep_assignment(&self, bytes: &[u8]) -> Result<(), Error> {
        let path = self.assignment_path();
        let kept = || -> io::Result<()> {
            let fresh = path.with_extension("new");
            let mut file = private(&fresh)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        kept().map_err(|source| Error::Disk { path: path.clone(), source })
    }

    /// Writes an instance's record, before it is started and when it changes.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn keep_record(&self, record: &Record) -> io::Result<()> {
        let dir = self.instance_dir(&record.instance.id);
        make_dir(&dir)?;
        crate::shim::write_json(&dir.join("record.json"), record)
    }

    /// Every readable record.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let Ok(entries) = fs::read_dir(self.dir.join("instances")) else { return Vec::new() };
        let mut records: Vec<Record> = entries
            .filter_map(|e| fs::read(e.ok()?.path().join("record.json")).ok())
            .filter_map(|bytes| serde_json::from_slice(&bytes).ok())
            .collect();
        records.sort_by(|a, b| a.instance.id.cmp(&b.instance.id));
        records
    }

    /// Forgets an instance and its log.
    pub fn forget(&self, id: &InstanceId) {
        let dir = self.instance_dir(id);
        if let Err(error) = fs::remove_dir_all(&dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(instance.id = %id, %error, "an instance's directory stays behind");
        }
    }

    /// Ports freed before the executor's restart.
    #[must_use]
    pub fn freed_ports(&self) -> Vec<FreedPort> {
        let bytes = fs::read(self.dir.join("ports.json")).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Keeps the freed ports. Losing them costs only their quarantine.
    pub fn keep_freed_ports(&self, freed: &[FreedPort]) {
        if let Err(error) = crate::shim::write_json(&self.dir.join("ports.json"), &freed) {
            tracing::warn!(%error, "freed ports are not on disk; a restart forgets them");
        }
    }

    /// Tells the transmitter which instances there are.
    ///
    /// # Errors
    /// When the file could not be replaced.
    pub fn keep_node_file(&self, file: &NodeFile) -> io::Result<()> {
        crate::shim::write_json(&self.node_file_path(), file)
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)
}

/// Replaces `path` at once, readable by its owner alone: a reader sees the old content or the new.
///
/// # Errors
/// When it could not be replaced.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    private(&fresh)?.write_all(bytes)?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_was_kept_is_found_again_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("node")).unwrap();
        assert!(store.assignment().unwrap().is_none());
        let assignment = crate::testing::assignment(3, vec![crate::testing::instance("a")]);
        store.keep_assignment(&serde_json::to_vec(&assignment).unwrap()).unwrap();
        assert_eq!(store.assignment().unwrap(), Some(assignment));
        let mode = fs::metadata(store.assignment_path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_broken_assignment_is_an_error_and_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        fs::write(store.assignment_path(), "{\"wire\":").unwrap();
        assert!(matches!(store.assignment(), Err(Error::Unreadable { .. })));
    }

    #[test]
    fn records_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let instance = crate::testing::instance("a");
        let record = Record {
            instance: instance.clone(),
            port: 20_000,
            ready: true,
            restarts: 2,
            failed: None,
        };
        store.keep_record(&record).unwrap();
        fs::create_dir_all(dir.path().join("instances/nonsense")).unwrap();
        assert_eq!(store.records(), vec![record]);
        store.forget(&instance.id);
        store.forget(&instance.id);
        assert!(store.records().is_empty());
    }
}
