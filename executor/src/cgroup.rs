//! The control groups of one node: one per instance, its limits, freezing, members, removal.

use crate::layout::{Controller, Layout, text};
use domain::{InstanceId, NodeId};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use wire::assignment::Limits;
use wire::node_file::CgroupPaths;

/// The group all instances of all nodes on a host live under.
const PARENT: &str = "tally";
/// The kernel's default bandwidth period; longer ones make throttled requests wait longer.
const PERIOD_MICROS: u64 = 100_000;
/// The kernel refuses quotas under a millisecond.
const QUOTA_MICROS_MIN: u64 = 1_000;

/// A group made for an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Made {
    /// Files to write `0` to in order to join.
    pub join: Vec<PathBuf>,
    /// What could not be done; the instance runs without it.
    pub missing: Vec<String>,
}

/// The control groups of one node's instances: `tally/NODE/INSTANCE` in each tree.
#[derive(Debug, Clone)]
pub struct Cgroups {
    layout: Layout,
    node: String,
    /// Held while the node's group is made or removed: one must not undo the other.
    changing: Arc<Mutex<()>>,
}

impl Cgroups {
    /// The groups of `node` under `layout`.
    #[must_use]
    pub fn new(layout: Layout, node: &NodeId) -> Cgroups {
        Cgroups { layout, node: node.to_string(), changing: Arc::default() }
    }

    /// The groups of `node` on this host.
    #[must_use]
    pub fn of_host(node: &NodeId) -> Cgroups {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Cgroups::new(Layout::detect(&mounts), node)
    }

    /// How the host arranges them.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn dir(&self, root: &Path, id: &InstanceId) -> PathBuf {
        root.join(PARENT).join(&self.node).join(id.as_str())
    }

    fn of(&self, controller: Controller, id: &InstanceId) -> Option<PathBuf> {
        match &self.layout {
            Layout::V1(mounts) => mounts.get(&controller).map(|root| self.dir(root, id)),
            Layout::V2(root) => Some(self.dir(root, id)),
            Layout::None => None,
        }
    }

    fn dirs(&self, id: &InstanceId) -> Vec<PathBuf> {
        self.layout.roots().into_iter().map(|root| self.dir(root, id)).collect()
    }

    /// Makes the group of `id` with its limits. What is not permitted is named in the answer, not
    /// an error: the instance then runs without it.
    #[must_use]
    pub fn create(&self, id: &InstanceId, limits: Limits) -> Made {
        let mut made = Made::default();
        if self.layout == Layout::None {
            made.missing.push("no control groups are mounted on this host".to_owned());
            return made;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Layout::V2(root) = &self.layout {
            made.missing.extend(hand_down(root, &root.join(PARENT).join(&self.node)));
        }
        // Version 1: a single-threaded process that joins through `tasks` spares the kernel's
        // global lock of thread groups, which costs 7 ms and more.
        let join = if matches!(self.layout, Layout::V2(_)) { "cgroup.procs" } else { "tasks" };
        for dir in self.dirs(id) {
            match make(&dir) {
                Ok(()) => made.join.push(dir.join(join)),
                Err(error) => made.missing.push(format!("cannot make {}: {error}", dir.display())),
            }
        }
        if !made.join.is_empty() {
            made.missing.extend(self.set_limits(id, limits));
        }
        made
    }

    /// Sets the limits of a group that may have running members. Answers what failed.
    #[must_use]
    pub fn set_limits(&self, id: &InstanceId, limits: Limits) -> Vec<String> {
        let quota = (u64::from(limits.cpu_millis) * PERIOD_MICROS / 1000).max(QUOTA_MICROS_MIN);
        let memory = limits.memory_bytes.to_string();
        let mut wrong = Vec::new();
        let mut put = |dir: Option<PathBuf>, file: &str, value: &str| {
            let Some(path) = dir.map(|d| d.join(file)) else {
                wrong.push(format!("the controller of {file} is not mounted"));
                return;
            };
            if let Err(error) = fs::write(&path, value) {
                wrong.push(format!("cannot write {value} to {}: {error}", path.display()));
            }
        };
        match &self.layout {
            Layout::V1(_) => {
                let cpu = || self.of(Controller::Cpu, id);
                put(cpu(), "cpu.cfs_period_us", &PERIOD_MICROS.to_string());
                put(cpu(), "cpu.cfs_quota_us", &quota.to_string());
                if limits.memory_bytes > 0 {
                    self.raise_swap_first(id, limits.memory_bytes);
                    put(self.of(Controller::Memory, id), "memory.limit_in_bytes", &memory);
                    self.hold_swap(id, &memory);
                }
            }
            Layout::V2(_) => {
                put(self.of(Controller::Cpu, id), "cpu.max", &format!("{quota} {PERIOD_MICROS}"));
                if limits.memory_bytes > 0 {
                    put(self.of(Controller::Memory, id), "memory.max", &memory);
                    self.hold_swap(id, "0");
                }
            }
            Layout::None => {}
        }
        wrong
    }

    /// Version 1 refuses a memory limit above the one for memory and swap together.
    fn raise_swap_first(&self, id: &InstanceId, memory_bytes: u64) {
        let file = self.of(Controller::Memory, id).map(|d| d.join("memory.memsw.limit_in_bytes"));
        let Some(file) = file.filter(|f| f.exists()) else { return };
        let now = fs::read_to_string(&file).ok().and_then(|t| t.trim().parse::<u64>().ok());
        if now.is_some_and(|now| now < memory_bytes) {
            let _told_by_the_limit_itself = fs::write(&file, memory_bytes.to_string());
        }
    }

    /// No swap beyond the memory limit, where the kernel accounts swap at all.
    fn hold_swap(&self, id: &InstanceId, value: &str) {
        let name = match &self.layout {
            Layout::V1(_) => "memory.memsw.limit_in_bytes",
            Layout::V2(_) => "memory.swap.max",
            Layout::None => return,
        };
        let file = self.of(Controller::Memory, id).map(|d| d.join(name));
        if let Some(file) = file.filter(|f| f.exists()) {
            let _swap_is_only_more_room = fs::write(file, value);
        }
    }

    /// Freezes or thaws all members.
    ///
    /// # Errors
    /// When the host has no such control group.
    pub fn freeze(&self, id: &InstanceId, frozen: bool) -> io::Result<()> {
        let dir = self.of(Controller::Freezer, id).ok_or(io::ErrorKind::Unsupported)?;
        match &self.layout {
            Layout::V2(_) => fs::write(dir.join("cgroup.freeze"), if frozen { "1" } else { "0" }),
            Layout::V1(_) | Layout::None => {
                fs::write(dir.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })
            }
        }
    }

    /// Processes in the group, in any of its trees.
    #[must_use]
    pub fn members(&self, id: &InstanceId) -> BTreeSet<i32> {
        let mut members = BTreeSet::new();
        for dir in self.dirs(id) {
            let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            members.extend(procs.lines().filter_map(|l| l.trim().parse::<i32>().ok()));
        }
        members
    }

    /// Removes an empty group. `false`: somebody still lives there.
    #[must_use]
    pub fn remove(&self, id: &InstanceId) -> bool {
        let gone = |dir: &PathBuf| match fs::remove_dir(dir) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        // Every tree is tried, so that one that is busy does not keep the others.
        self.dirs(id).into_iter().filter(|dir| !gone(dir)).count() == 0
    }

    /// Removes this node's group if its last instance has left.
    pub fn remove_node(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for root in self.layout.roots() {
            // Other nodes and instances keep what they need: only empty groups go.
            let _busy = fs::remove_dir(root.join(PARENT).join(&self.node));
            let _busy = fs::remove_dir(root.join(PARENT));
        }
    }

    /// Instances that have a group of this node.
    #[must_use]
    pub fn instances(&self) -> BTreeSet<InstanceId> {
        let mut found = BTreeSet::new();
        for root in self.layout.roots() {
            let Ok(entries) = fs::read_dir(root.join(PARENT).join(&self.node)) else { continue };
            let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
            found.extend(names.filter_map(|name| name.parse::<InstanceId>().ok()));
        }
        found
    }

    /// Where the group of `id` is, as far as it exists.
    #[must_use]
    pub fn paths(&self, id: &InstanceId) -> CgroupPaths {
        let at = |c: Controller| self.of(c, id).filter(|d| d.is_dir()).map(|d| text(&d));
        match &self.layout {
            Layout::V2(_) => CgroupPaths { unified: at(Controller::Cpu), ..Default::default() },
            Layout::V1(_) => CgroupPaths {
                unified: None,
                cpuacct: at(Controller::Cpuacct),
                cpu: at(Controller::Cpu),
                memory: at(Controller::Memory),
            },
            Layout::None => CgroupPaths::default(),
        }
    }

    /// How often the kernel killed a member for want of memory.
    #[must_use]
    pub fn oom_kills(&self, id: &InstanceId) -> u64 {
        let file = match &self.layout {
            Layout::V2(_) => "memory.events",
            Layout::V1(_) => "memory.oom_control",
            Layout::None => return 0,
        };
        let path = self.of(Controller::Memory, id).map(|d| d.join(file));
        let content = path.and_then(|p| fs::read_to_string(p).ok()).unwrap_or_default();
        let count = content.lines().find_map(|l| l.strip_prefix("oom_kill "));
        count.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
    }
}

/// Makes a group and those above it. Another node of this host may remove the empty common parent
/// in between, so a missing parent is tried again.
fn make(dir: &Path) -> io::Result<()> {
    const TRIES: u32 = 3;
    let mut made = fs::create_dir_all(dir);
    for _ in 1..TRIES {
        match &made {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                made = fs::create_dir_all(dir);
            }
            _ => break,
        }
    }
    made
}

/// Version 2: gives the controllers down to `parent`. Answers what failed.
fn hand_down(root: &Path, parent: &Path) -> Vec<String> {
    if let Err(error) = make(parent) {
        return vec![format!("cannot make {}: {error}", parent.display())];
    }
    let mut wrong = Vec::new();
    let mut steps: Vec<&Path> = parent.ancestors().take_while(|a| a.starts_with(root)).collect();
    steps.reverse();
    for dir in steps {
        let file = dir.join("cgroup.subtree_control");
        let given = fs::read_to_string(&file).unwrap_or_default();
        for controller in ["cpu", "memory"] {
            if given.split_whitespace().any(|c| c == controller) {
                continue;
            }
            if let Err(error) = fs::write(&file, format!("+{controller}")) {
                wrong.push(format!("cannot give {controller} to {}: {error}", dir.display()));
            }
        }
    }
    wrong
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
