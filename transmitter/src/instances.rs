//! Follows `DATA/node/instances.json`, where the executor says which instances there are.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use wire::assignment::ASSIGNED_INSTANCES_MAX;
use wire::node_file::NodeFile;

/// Where the file stands in the data directory.
pub const FILE: &str = "node/instances.json";
/// Longest file read: [`ASSIGNED_INSTANCES_MAX`] instances of two kilobytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Which file it was: inode, modification time, length.
type Mark = (u64, i64, i64, u64);

/// The file, read again when it is another one.
#[derive(Debug)]
pub struct Instances {
    path: PathBuf,
    mark: Option<Mark>,
    known: NodeFile,
}

impl Instances {
    /// Follows the file in the data directory.
    #[must_use]
    pub fn new(data: &Path) -> Instances {
        Instances { path: data.join(FILE), mark: None, known: NodeFile::default() }
    }

    /// The instances as the executor last wrote them. A file that is not there yet means none; one
    /// that cannot be read leaves the last list, and is complained about once.
    pub fn refresh(&mut self) -> &NodeFile {
        match self.changed() {
            Ok(None) => {}
            Ok(Some((mark, text))) => {
                self.mark = Some(mark);
                match serde_json::from_str::<NodeFile>(&text) {
                    Ok(file) if file.instances.len() <= ASSIGNED_INSTANCES_MAX => self.known = file,
                    Ok(_) => tracing::warn!("{} lists too many instances", self.path.display()),
                    Err(why) => tracing::warn!(%why, "{} is unreadable", self.path.display()),
                }
            }
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                self.mark = None;
                self.known = NodeFile::default();
            }
            Err(why) => tracing::debug!(%why, "{} cannot be read", self.path.display()),
        }
        &self.known
    }

    fn changed(&self) -> io::Result<Option<(Mark, String)>> {
        let file = fs::File::open(&self.path)?;
        let meta = file.metadata()?;
        let mark = (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size());
        if self.mark == Some(mark) {
            return Ok(None);
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(Some((mark, text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, text: &str) {
        fs::create_dir_all(dir.join("node")).unwrap();
        fs::write(dir.join("draft"), text).unwrap();
        fs::rename(dir.join("draft"), dir.join(FILE)).unwrap();
    }

    #[test]
    fn the_list_follows_the_file_and_outlives_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut instances = Instances::new(dir.path());
        assert!(instances.refresh().instances.is_empty());
        let one = r#"{"instances": [{"id": "shop-0123456789", "service": "shop", "pid": 1,
            "load_source": "auto", "load_token": "t", "limits": {"cpu_millis": 250, "memory_bytes": 1}}]}"#;
        write(dir.path(), one);
        assert_eq!(instances.refresh().instances.len(), 1);
        write(dir.path(), "{");
        assert_eq!(instances.refresh().instances.len(), 1);
        write(dir.path(), "{\"instances\": []}");
        assert!(instances.refresh().instances.is_empty());
        write(dir.path(), one);
        assert_eq!(instances.refresh().instances.len(), 1);
        fs::remove_file(dir.path().join(FILE)).unwrap();
        assert!(instances.refresh().instances.is_empty());
    }
}
