//! An instance's output on disk: one file and the one before it, each bounded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The present file.
pub const LOG_FILE: &str = "log";
/// The one before.
pub const OLD_LOG_FILE: &str = "log.1";
/// Bytes moved at a time: a pipe's default size.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks taken before other events are looked at again: a service that writes without end must
/// not keep the shim from hearing a signal.
const CHUNKS_PER_TURN: u32 = 16;

/// A bounded log. A full disk loses output and never stops the service.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl Log {
    /// Opens or continues the log in `dir`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<Log> {
        let path = dir.join(LOG_FILE);
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Log { path, file, bytes, bytes_max })
    }

    /// Takes what `source` has now. `false`: nothing will come any more.
    pub fn take(&mut self, source: &mut impl Read) -> bool {
        let mut chunk = [0_u8; CHUNK_BYTES];
        for _ in 0..CHUNKS_PER_TURN {
            match source.read(&mut chunk) {
                Ok(0) => return false,
                Ok(n) => self.write(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    fn write(&mut self, bytes: &[u8]) {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.bytes > 0 && self.bytes.saturating_add(length) > self.bytes_max {
            self.turn();
        }
        if self.file.write_all(bytes).is_ok() {
            self.bytes = self.bytes.saturating_add(length);
        }
    }

    fn turn(&mut self) {
        let _kept_if_it_fails = fs::rename(&self.path, self.path.with_file_name(OLD_LOG_FILE));
        let fresh = OpenOptions::new().create(true).write(true).truncate(true).open(&self.path);
        if let Ok(file) = fresh {
            self.file = file;
            self.bytes = 0;
        }
    }
}

/// The last `lines` lines of the log in `dir`, oldest first, from at most `bytes_max` bytes.
#[must_use]
pub fn tail(dir: &Path, lines: usize, bytes_max: u64) -> Vec<String> {
    let new = end_of(&dir.join(LOG_FILE), bytes_max);
    let room = bytes_max.saturating_sub(u64::try_from(new.len()).unwrap_or(bytes_max));
    let mut bytes = end_of(&dir.join(OLD_LOG_FILE), room);
    bytes.extend(new);
    last_lines(&bytes, lines)
}

/// The last `bytes_max` bytes of a file; none when it cannot be read.
fn end_of(path: &Path, bytes_max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut read = || -> io::Result<()> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
        file.take(bytes_max).read_to_end(&mut bytes).map(drop)
    };
    if read().is_ok() { bytes } else { Vec::new() }
}

/// The last `lines` lines of `bytes`.
#[must_use]
pub fn last_lines(bytes: &[u8], lines: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|l| (*l).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_never_holds_more_than_two_files_full() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), 100).unwrap();
        for i in 0..50 {
            let line = format!("line {i:04}\n");
            assert!(!log.take(&mut line.as_bytes()), "the end of a slice is the end");
        }
        let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size(LOG_FILE) <= 100 && size(OLD_LOG_FILE) <= 100);
        let last = tail(dir.path(), 12, 1 << 20);
        assert_eq!(last.len(), 12);
        assert_eq!(last[11], "line 0049");
        assert_eq!(last[0], "line 0038");
    }

    #[test]
    fn a_log_is_continued_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        Log::open(dir.path(), 1000).unwrap().write(b"one\n");
        Log::open(dir.path(), 1000).unwrap().write(b"two\n");
        assert_eq!(tail(dir.path(), 10, 1 << 20), ["one", "two"]);
    }

    #[test]
    fn lines_are_cut_from_the_end() {
        assert_eq!(last_lines(b"a\nb\n\xff\n", 2), ["b", "\u{fffd}"]);
        assert!(last_lines(b"", 5).is_empty());
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOG_FILE), "abcdef\nxy\n").unwrap();
        assert_eq!(tail(dir.path(), 9, 5), ["f", "xy"]);
    }
}
