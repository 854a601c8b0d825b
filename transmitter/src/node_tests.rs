//! The real node under load against the kernel's own files, which our reading does not open itself.

use super::*;
use crate::testing::Busy;
use std::fs;
use std::time::Duration;

/// Busy and all ticks, and the processors, of `/proc/stat`.
fn ticks() -> (u64, u64, usize) {
    let text = fs::read_to_string("/proc/stat").unwrap();
    let mut lines = text.lines();
    let first = lines.next().unwrap().strip_prefix("cpu ").unwrap();
    let counts: Vec<u64> = first.split_whitespace().map(|n| n.parse().unwrap()).collect();
    // user nice system idle iowait irq softirq steal; guests are in user and nice already.
    let all: u64 = counts.iter().take(8).sum();
    let cpus = lines.filter(|line| line.starts_with("cpu")).count();
    (all - counts[3] - counts[4], all, cpus)
}

fn meminfo(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Bytes received and sent so far, of `/proc/net/dev`.
fn traffic() -> (u64, u64) {
    let text = fs::read_to_string("/proc/net/dev").unwrap();
    let mut sum = (0, 0);
    for (name, counts) in text.lines().filter_map(|line| line.split_once(':')) {
        if leads_out(name.trim()) {
            let counts: Vec<u64> = counts.split_whitespace().map(|n| n.parse().unwrap()).collect();
            sum = (sum.0 + counts[0], sum.1 + counts[8]);
        }
    }
    sum
}

/// Asserts that ours lies between two looks of another reader, or within 5 % of them.
fn between(before: u64, ours: u64, after: u64, slack: u64) {
    let (low, high) = (before.min(after), before.max(after));
    let near = low.saturating_sub(slack)..=high.saturating_add(slack);
    assert!(near.contains(&ours), "{ours} is not within {slack} of {low} to {high}");
}

#[test]
fn a_real_node_under_load_is_measured_as_the_kernel_counts() {
    let (busy, mut sampler) = (Busy::start(), NodeSampler::new(Path::new("/")).unwrap());
    sampler.read().unwrap();
    let (busy_before, all_before, cpus) = ticks();
    busy.run_for(Duration::from_secs(1));
    let free_before = meminfo("MemAvailable");
    let traffic_before = traffic();
    let read = sampler.read().unwrap();
    let (busy_after, all_after, _) = ticks();
    let (free_after, all_memory) = (meminfo("MemAvailable"), meminfo("MemTotal"));
    let traffic_after = traffic();

    let all = all_after - all_before;
    let theirs = (busy_after - busy_before) * u64::from(BUSY_WHOLE) / all;
    between(theirs, u64::from(read.busy), theirs, u64::from(BUSY_WHOLE) / 20);
    assert!(read.busy > 0, "a process ran for a second");
    assert_eq!(usize::try_from(read.cpus).unwrap(), cpus);
    let used = |free: u64| all_memory - free;
    between(used(free_before), read.memory_bytes, used(free_after), all_memory / 20);
    between(traffic_before.0, read.rx_bytes, traffic_after.0, traffic_after.0 / 20);
    between(traffic_before.1, read.tx_bytes, traffic_after.1, traffic_after.1 / 20);
}

#[test]
fn the_disk_that_counts_is_the_folders_own() {
    let here = tempfile::tempdir().unwrap();
    for folder in [here.path(), Path::new("/"), Path::new("/dev/shm"), Path::new("/proc")] {
        let mut sampler = NodeSampler::new(folder).unwrap();
        let used = || {
            let disk = rustix::fs::statvfs(folder).unwrap();
            (disk.f_blocks - disk.f_bavail) * disk.f_frsize
        };
        let before = used();
        let read = sampler.read().unwrap().disk_bytes;
        let after = used();
        between(before, read, after, after / 20);
    }
    let mut nowhere = NodeSampler::new(Path::new("/none/such")).unwrap();
    assert_eq!(nowhere.read().unwrap().disk_bytes, 0, "not known, and no reason to fail");
}

#[test]
fn inner_interfaces_do_not_count() {
    let table = [("eth0", true), ("ens4", true), ("lo", false), ("veth1a", false), ("br-9", false)];
    for (name, counts) in table {
        assert_eq!(leads_out(name), counts, "{name}");
    }
}

#[test]
fn a_share_stays_a_share() {
    let table = [(0.0, 0), (50.0, 500_000), (100.0, BUSY_WHOLE), (900.0, BUSY_WHOLE), (-3.0, 0)];
    for (percent, share) in table {
        assert_eq!(millionths(percent), share);
    }
    assert_eq!(millionths(f32::NAN), 0);
}
