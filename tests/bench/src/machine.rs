//! What the kernel knows of processes and cores: processor time, memory, how busy a core was.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};

/// The kernel counts processor time in hundredths of a second towards programs (`USER_HZ`).
const TICK_MICROS: u64 = 10_000;

/// Processor time since their start of a process and those it started, all threads, microseconds.
///
/// # Errors
/// When the process is gone.
pub fn cpu_micros(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for pid in family(pid) {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let stat = Stat::read(&stat).with_context(|| format!("/proc/{pid}/stat reads oddly"))?;
        sum += stat.cpu_micros;
    }
    fs::metadata(format!("/proc/{pid}")).with_context(|| format!("process {pid} is gone"))?;
    Ok(sum)
}

/// Processor time since its start of this process alone, without those it started.
///
/// # Errors
/// When the kernel does not tell.
pub fn own_cpu_micros() -> Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    Ok(Stat::read(&stat).context("/proc/self/stat reads oddly")?.cpu_micros)
}

/// Resident memory of a process and those it started, bytes.
///
/// # Errors
/// When the process is gone.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for pid in family(pid) {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("process {pid} is gone"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        sum += kib.unwrap_or(0) * 1024;
    }
    Ok(sum)
}

/// A process and all below it.
fn family(pid: u32) -> BTreeSet<u32> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(stat) = Stat::read(&stat) {
            all.push((pid, stat.parent));
        }
    }
    let mut found = BTreeSet::from([pid]);
    loop {
        let before = found.len();
        let below = all.iter().filter(|(_, parent)| found.contains(parent)).map(|(pid, _)| *pid);
        let below: Vec<u32> = below.collect();
        found.extend(below);
        if found.len() == before {
            return found;
        }
    }
}

struct Stat {
    parent: u32,
    cpu_micros: u64,
}

impl Stat {
    fn read(stat: &str) -> Option<Stat> {
        // The name in parentheses may hold blanks. After it: state, parent, ..., and utime and
        // stime as the 12th and 13th.
        let after = stat.rsplit_once(')')?.1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let utime: u64 = fields.get(11)?.parse().ok()?;
        let stime: u64 = fields.get(12)?.parse().ok()?;
        Some(Stat {
            parent: fields.get(1)?.parse().ok()?,
            cpu_micros: (utime + stime) * TICK_MICROS,
        })
    }
}

/// The machine's busy and whole time at one moment, in ticks; one entry per core.
#[derive(Debug, Clone)]
pub struct Busy(Vec<(u64, u64)>);

impl Busy {
    /// Now.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn now() -> Result<Busy> {
        let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Ok(Busy(cores(&text)))
    }

    /// The busy share of one core since `before`, 0 to 1.
    #[must_use]
    pub fn core_since(&self, before: &Busy, core: usize) -> f64 {
        match (self.0.get(core), before.0.get(core)) {
            (Some(now), Some(then)) => share(now.0 - then.0, now.1 - then.1),
            _ => 0.0,
        }
    }

    /// The busy share of the whole machine since `before`, 0 to 1.
    #[must_use]
    pub fn since(&self, before: &Busy) -> f64 {
        let sum =
            |of: &Busy| of.0.iter().fold((0, 0), |sum, core| (sum.0 + core.0, sum.1 + core.1));
        let (now, then) = (sum(self), sum(before));
        share(now.0 - then.0, now.1 - then.1)
    }
}

#[expect(clippy::cast_precision_loss, reason = "ticks of one run are far below 2^53")]
fn share(busy: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { busy as f64 / whole as f64 }
}

fn cores(stat: &str) -> Vec<(u64, u64)> {
    let lines = stat.lines().filter(|line| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    lines
        .map(|line| {
            // user nice system idle iowait irq softirq steal; guest times are in user already.
            let ticks = line.split_whitespace().skip(1).take(8);
            let ticks: Vec<u64> = ticks.map(|t| t.parse().unwrap_or(0)).collect();
            let whole: u64 = ticks.iter().sum();
            let idle = ticks.get(3).unwrap_or(&0) + ticks.get(4).unwrap_or(&0);
            (whole - idle, whole)
        })
        .collect()
}

/// Lets this process and those it starts have as many descriptors as the system allows them.
///
/// # Errors
/// When the system refuses.
pub fn raise_descriptors() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })
        .context("raise the number of descriptors")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_past_odd_names() {
        let stat = Stat::read("12 (a ) b) S 7 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1").unwrap();
        assert_eq!((stat.parent, stat.cpu_micros), (7, 2_000_000));
        assert!(cpu_micros(std::process::id()).is_ok());
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
    }

    #[test]
    fn busy_time_of_a_core_and_of_the_machine() {
        let before = "cpu  9 9 9 9\ncpu0 10 0 10 80 0 0 0 0\ncpu1 0 0 0 100 0 0 0 0\nintr 5\n";
        let after = "cpu  9 9 9 9\ncpu0 60 0 60 80 0 0 0 0\ncpu1 0 0 0 150 50 0 0 0\n";
        let (before, after) = (Busy(cores(before)), Busy(cores(after)));
        assert!((after.core_since(&before, 0) - 1.0).abs() < 1e-9);
        assert!(after.core_since(&before, 1) < 1e-9);
        assert!((after.since(&before) - 0.5).abs() < 1e-9);
        assert!(after.core_since(&before, 7) < 1e-9);
    }
}
