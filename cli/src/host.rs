//! What this host is: its name, its processors, memory and disk.

use domain::{Bytes, MilliCpu};
use std::path::Path;

/// What a node says of itself when it joins.
#[derive(Debug, Clone, Copy)]
pub struct HostRoom {
    /// Processors this process may use.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
    /// Size of the file system that holds the data.
    pub disk: Bytes,
}

/// Memory taken for granted when the kernel does not tell.
const MEMORY_UNKNOWN: u64 = 1 << 30;

/// Measures this host; `data` says which disk.
pub fn room(data: &Path) -> HostRoom {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let disk = rustix::fs::statvfs(data).map_or(0, |s| s.f_blocks.saturating_mul(s.f_frsize));
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    HostRoom {
        cpu: MilliCpu(u32::try_from(processors * 1000).unwrap_or(u32::MAX)),
        memory: Bytes(total_memory(&meminfo).unwrap_or(MEMORY_UNKNOWN)),
        disk: Bytes(disk),
    }
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The host's name, made fit for a node's name.
pub fn name() -> String {
    let uname = rustix::system::uname();
    let text = uname.nodename().to_string_lossy();
    let fit: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .take(domain::id::NAME_CHARS_MAX)
        .collect();
    if fit.is_empty() { "host".to_owned() } else { fit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        assert_eq!(total_memory("MemFree: 1 kB\nMemTotal:   2048 kB\n"), Some(2 << 20));
        assert_eq!(total_memory("nothing"), None);
        let room = room(Path::new("/"));
        assert!(room.cpu.0 >= 1000 && room.memory.0 > 0 && room.disk.0 > 0, "{room:?}");
    }
}
