//! Own namespaces of a plain process: mounts, IPC and host name, and its bound directories.

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::mount::{mount_bind_recursive, mount_change, mount_remount};
use rustix::thread::UnshareFlags;
use wire::assignment::AssignedMount;

/// Leaves the host's spaces and binds `mounts` in the new one.
///
/// # Errors
/// A sentence saying what was not permitted.
pub fn enter(mounts: &[AssignedMount]) -> Result<(), String> {
    let spaces = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    #[expect(deprecated, reason = "the successor is `unsafe` for the sake of FILES alone")]
    rustix::thread::unshare(spaces).map_err(|e| {
        format!("isolation by namespaces needs root on the node ({e}); use isolation: cgroup")
    })?;
    // Without this, what is bound here would appear on the host.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| format!("cannot separate the mounts: {e}"))?;
    for mount in mounts {
        let told = |e| format!("cannot bind {} to {}: {e}", mount.source, mount.target);
        mount_bind_recursive(&mount.source, &mount.target).map_err(told)?;
        if mount.read_only {
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            mount_remount(&mount.target, flags, "").map_err(told)?;
        }
    }
    Ok(())
}
