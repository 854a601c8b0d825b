//! Reads the node: processors, memory, disk and network, as the crate `sysinfo` counts them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use sysinfo::{CpuRefreshKind, Disk, DiskRefreshKind, Disks, MemoryRefreshKind, Networks, System};

/// Interfaces that pass on what other interfaces count already, or never leave the host.
const INNER_INTERFACES: [&str; 7] = ["lo", "veth", "docker", "br-", "virbr", "ifb", "dummy"];
/// `busy` of a node whose processors all ran all the time.
pub const BUSY_WHOLE: u32 = 1_000_000;

/// What one look at the node gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeReading {
    /// Share of the processors' time since the look before in which something ran, in millionths;
    /// of the first look since the host started.
    pub busy: u32,
    /// Processors.
    pub cpus: u32,
    /// Used memory: all but what is available, bytes.
    pub memory_bytes: u64,
    /// Used disk: all but what a program may still fill, bytes.
    pub disk_bytes: u64,
    /// Bytes received so far.
    pub rx_bytes: u64,
    /// Bytes sent so far.
    pub tx_bytes: u64,
}

/// Looks at the node; made once, and each look refreshes only what is told.
#[derive(Debug)]
pub struct NodeSampler {
    system: System,
    networks: Networks,
    /// The file system that holds `folder`, where `sysinfo` lists it.
    disk: Option<Disk>,
    folder: PathBuf,
}

impl NodeSampler {
    /// A sampler; `folder` is on the disk that counts.
    ///
    /// # Errors
    /// What `sysinfo` says of a host it cannot read.
    pub fn new(folder: &Path) -> Result<NodeSampler, sysinfo::Error> {
        Ok(NodeSampler {
            system: System::new()?,
            networks: Networks::new()?,
            disk: disk_of(folder),
            folder: folder.to_owned(),
        })
    }

    /// The node now; `None` where the processors cannot be read.
    pub fn read(&mut self) -> Option<NodeReading> {
        self.system.refresh_cpu_specifics(CpuRefreshKind::nothing().with_usage());
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        self.networks.refresh(true);
        let cpus = u32::try_from(self.system.cpus().len()).ok().filter(|cpus| *cpus > 0)?;
        let (rx_bytes, tx_bytes) = self.traffic();
        let (total, free) = (self.system.total_memory(), self.system.available_memory());
        Some(NodeReading {
            busy: millionths(self.system.global_cpu_usage()),
            cpus,
            memory_bytes: total.saturating_sub(free),
            disk_bytes: self.used_disk(),
            rx_bytes,
            tx_bytes,
        })
    }

    /// Bytes received and sent by the interfaces that lead out of the host.
    fn traffic(&self) -> (u64, u64) {
        let mut sum = (0u64, 0u64);
        for (name, counts) in &self.networks {
            if !leads_out(&name.to_string_lossy()) {
                continue;
            }
            sum.0 = sum.0.saturating_add(counts.total_received());
            sum.1 = sum.1.saturating_add(counts.total_transmitted());
        }
        sum
    }

    fn used_disk(&mut self) -> u64 {
        if let Some(disk) = &mut self.disk {
            disk.refresh_specifics(DiskRefreshKind::nothing().with_storage());
            return disk.total_space().saturating_sub(disk.available_space());
        }
        let Ok(disk) = rustix::fs::statvfs(&self.folder) else { return 0 };
        disk.f_blocks.saturating_sub(disk.f_bavail).saturating_mul(disk.f_frsize)
    }
}

fn leads_out(interface: &str) -> bool {
    !INNER_INTERFACES.iter().any(|inner| interface.starts_with(inner))
}

/// The listed file system that holds `folder`. `sysinfo` leaves out those in memory and on the
/// network, and a part of a file system has a device number of its own: these are asked directly.
fn disk_of(folder: &Path) -> Option<Disk> {
    let device = std::fs::metadata(folder).ok()?.dev();
    let disks = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing()).ok()?;
    let holds = |disk: &Disk| {
        let mounted = std::fs::metadata(disk.mount_point());
        mounted.is_ok_and(|mounted| mounted.dev() == device)
    };
    Vec::from(disks).into_iter().find(holds)
}

fn millionths(percent: f32) -> u32 {
    let share = f64::from(percent) / 100.0 * f64::from(BUSY_WHOLE);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between zero and a million; what is not a number becomes zero"
    )]
    let whole = share.clamp(0.0, f64::from(BUSY_WHOLE)) as u32;
    whole
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
