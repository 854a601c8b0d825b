//! How a host arranges control groups: version 1, version 2, both or none, read from its mounts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use wire::node_file::CgroupPaths;

/// A controller of version 1 that Tally uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// Quota and throttling.
    Cpu,
    /// Usage.
    Cpuacct,
    /// Memory limit.
    Memory,
    /// Pausing.
    Freezer,
}

impl Controller {
    /// Each of them.
    pub const ALL: [Controller; 4] =
        [Controller::Cpu, Controller::Cpuacct, Controller::Memory, Controller::Freezer];

    /// As the kernel names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Cpuacct => "cpuacct",
            Controller::Memory => "memory",
            Controller::Freezer => "freezer",
        }
    }
}

/// How this host arranges control groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Version 1: a tree per controller, by mount point.
    V1(BTreeMap<Controller, PathBuf>),
    /// Version 2: one tree.
    V2(PathBuf),
    /// Neither is mounted.
    None,
}

impl Layout {
    /// Reads a `/proc/PID/mountinfo`. A version 2 tree counts only if it has the `cpu` controller:
    /// on hosts that mount both, the controllers stay with version 1.
    #[must_use]
    pub fn detect(mountinfo: &str) -> Layout {
        let mut v1 = BTreeMap::new();
        let mut v2 = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(point) = left.split(' ').nth(4) else { continue };
            let mut words = right.split(' ');
            let kind = words.next().unwrap_or_default();
            let options = words.next_back().unwrap_or_default();
            match kind {
                "cgroup2" if v2.is_none() => v2 = Some(PathBuf::from(point)),
                "cgroup" => {
                    for controller in Controller::ALL {
                        if options.split(',').any(|o| o == controller.name()) {
                            v1.entry(controller).or_insert_with(|| PathBuf::from(point));
                        }
                    }
                }
                _ => {}
            }
        }
        if let Some(root) = v2 {
            let controllers = fs::read_to_string(root.join("cgroup.controllers"));
            let has_cpu = controllers.is_ok_and(|c| c.split_whitespace().any(|c| c == "cpu"));
            if has_cpu {
                return Layout::V2(root);
            }
        }
        if v1.is_empty() { Layout::None } else { Layout::V1(v1) }
    }

    /// The trees there are.
    #[must_use]
    pub fn roots(&self) -> Vec<&PathBuf> {
        match self {
            Layout::V1(mounts) => {
                // Controllers mounted together share one tree.
                let unique: BTreeSet<&PathBuf> = mounts.values().collect();
                unique.into_iter().collect()
            }
            Layout::V2(root) => vec![root],
            Layout::None => Vec::new(),
        }
    }

    /// The groups of a process, from its `/proc/PID/cgroup`: how a container's are found.
    #[must_use]
    pub fn paths_of(&self, proc_cgroup: &str) -> CgroupPaths {
        let mut found = CgroupPaths::default();
        for line in proc_cgroup.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let below = path.trim_start_matches('/');
            match self {
                Layout::V2(root) if controllers.is_empty() => {
                    found.unified = Some(text(&root.join(below)));
                }
                Layout::V1(mounts) => {
                    let at = |c: Controller| {
                        let here = controllers.split(',').any(|name| name == c.name());
                        mounts.get(&c).filter(|_| here).map(|m| text(&m.join(below)))
                    };
                    found.cpu = found.cpu.or_else(|| at(Controller::Cpu));
                    found.cpuacct = found.cpuacct.or_else(|| at(Controller::Cpuacct));
                    found.memory = found.memory.or_else(|| at(Controller::Memory));
                }
                Layout::V2(_) | Layout::None => {}
            }
        }
        found
    }
}

/// A path as messages carry it.
#[must_use]
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
