//! Reads counters of instances from control groups and `/proc`; no arithmetic but units. A file that
//! is not there or not readable is a value that is not known.

use domain::{InstanceId, Mono};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::node_file::{CgroupPaths, NodeFileInstance};

/// Longest file read: `/proc/net/dev` and `memory.stat` have a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Processes followed of one instance without a control group; more belong into one.
const PROCESSES_MAX: usize = 256;
/// One tick of the times in `/proc/PID/stat`: the kernel shows hundredths of a second to programs,
/// whatever its own pace (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);
/// An instance's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InstanceReading {
    /// When it was read.
    pub at: Mono,
    /// Processor time used so far.
    pub cpu: Duration,
    /// Tells a restarted counter from a running one: the process' start, zero for control groups.
    pub origin: u64,
    /// Used memory without what the kernel can drop at once, bytes.
    pub memory_bytes: u64,
    /// Periods of the quota so far.
    pub periods: u64,
    /// Periods in which it was throttled.
    pub throttled: u64,
}

/// Where the kernel shows its counters.
#[derive(Debug, Clone)]
pub struct Sampler {
    proc: PathBuf,
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

fn read_number(path: &Path) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

/// The number after `key` in lines of `key value`.
fn keyed(text: &str, key: &str) -> Option<u64> {
    let line = |line: &str| {
        line.strip_prefix(key)?
            .strip_prefix([' ', ':'])?
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()
    };
    text.lines().find_map(line)
}

impl Sampler {
    /// Reads under `proc` (`/proc`).
    #[must_use]
    pub fn new(proc: &Path) -> Sampler {
        Sampler { proc: proc.to_owned() }
    }

    /// An instance's counters: of its control group, else of its processes.
    #[must_use]
    pub fn instance(&self, instance: &NodeFileInstance, now: Mono) -> Option<InstanceReading> {
        let reading = unified(&instance.cgroups)
            .or_else(|| split(&instance.cgroups))
            .or_else(|| self.processes(u32::try_from(instance.pid?).ok()?))?;
        Some(InstanceReading { at: now, ..reading })
    }

    /// All instances that can be read.
    #[must_use]
    pub fn instances<'a>(
        &self,
        instances: impl IntoIterator<Item = &'a NodeFileInstance>,
        now: Mono,
    ) -> BTreeMap<InstanceId, InstanceReading> {
        let read = |i: &NodeFileInstance| Some((i.id.clone(), self.instance(i, now)?));
        instances.into_iter().filter_map(read).collect()
    }

    /// A process and all that descend from it. What ended is in its parent's sum.
    fn processes(&self, root: u32) -> Option<InstanceReading> {
        let first = self.process(root)?;
        let mut sum = InstanceReading {
            cpu: first.cpu,
            origin: first.start,
            memory_bytes: first.memory_bytes,
            ..InstanceReading::default()
        };
        let mut open = self.children(root);
        let mut seen = 1;
        while let Some(pid) = open.pop() {
            if seen == PROCESSES_MAX {
                break;
            }
            seen += 1;
            let Some(process) = self.process(pid) else { continue };
            sum.cpu += process.cpu;
            sum.memory_bytes = sum.memory_bytes.saturating_add(process.memory_bytes);
            open.extend(self.children(pid));
        }
        Some(sum)
    }

    fn children(&self, pid: u32) -> Vec<u32> {
        let Ok(tasks) = fs::read_dir(self.proc.join(format!("{pid}/task"))) else { return vec![] };
        let mut children = Vec::new();
        for task in tasks.filter_map(Result::ok).take(PROCESSES_MAX) {
            let text = read(&task.path().join("children")).unwrap_or_default();
            children
                .extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        children
    }

    fn process(&self, pid: u32) -> Option<Process> {
        let dir = self.proc.join(pid.to_string());
        let stat = read(&dir.join("stat"))?;
        // The name stands in brackets and may hold anything, even brackets.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // Counted from the third field of proc(5): user, system, children's user and system time.
        let ticks = |n: usize| fields.get(n)?.parse::<u64>().ok();
        let used: u64 = [11, 12, 13, 14].into_iter().map(|n| ticks(n).unwrap_or(0)).sum();
        let resident = keyed(&read(&dir.join("status"))?, "VmRSS").unwrap_or(0);
        Some(Process {
            cpu: TICK.saturating_mul(u32::try_from(used).unwrap_or(u32::MAX)),
            start: ticks(19)?,
            memory_bytes: resident.saturating_mul(1024),
        })
    }
}

struct Process {
    cpu: Duration,
    start: u64,
    memory_bytes: u64,
}

/// Version 2: one directory.
fn unified(groups: &CgroupPaths) -> Option<InstanceReading> {
    let dir = PathBuf::from(groups.unified.as_ref()?);
    let stat = read(&dir.join("cpu.stat"))?;
    let memory = read_number(&dir.join("memory.current")).unwrap_or(0);
    let inactive = read(&dir.join("memory.stat")).and_then(|t| keyed(&t, "inactive_file"));
    Some(InstanceReading {
        cpu: Duration::from_micros(keyed(&stat, "usage_usec")?),
        memory_bytes: memory.saturating_sub(inactive.unwrap_or(0)),
        periods: keyed(&stat, "nr_periods").unwrap_or(0),
        throttled: keyed(&stat, "nr_throttled").unwrap_or(0),
        ..InstanceReading::default()
    })
}

/// Version 1: a directory for each controller.
fn split(groups: &CgroupPaths) -> Option<InstanceReading> {
    let usage = read_number(&Path::new(groups.cpuacct.as_ref()?).join("cpuacct.usage"))?;
    let quota = groups.cpu.as_ref().and_then(|dir| read(&Path::new(dir).join("cpu.stat")));
    let quota = quota.unwrap_or_default();
    let memory = groups.memory.as_ref().map(Path::new);
    let number = |name: &str| memory.and_then(|dir| read_number(&dir.join(name)));
    let stat = memory.and_then(|dir| read(&dir.join("memory.stat"))).unwrap_or_default();
    let inactive = keyed(&stat, "total_inactive_file").or_else(|| keyed(&stat, "inactive_file"));
    Some(InstanceReading {
        cpu: Duration::from_nanos(usage),
        memory_bytes: number("memory.usage_in_bytes")
            .unwrap_or(0)
            .saturating_sub(inactive.unwrap_or(0)),
        periods: keyed(&quota, "nr_periods").unwrap_or(0),
        throttled: keyed(&quota, "nr_throttled").unwrap_or(0),
        ..InstanceReading::default()
    })
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
