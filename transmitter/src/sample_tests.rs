//! Counters of made-up trees, and of real processes under load against another way to count.

use super::*;
use crate::testing::Busy;
use wire::assignment::Limits;

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn instance(cgroups: CgroupPaths, pid: Option<i32>) -> NodeFileInstance {
    NodeFileInstance {
        id: "shop-0123456789".parse().unwrap(),
        service: "shop".parse().unwrap(),
        cgroups,
        pid,
        load_source: "auto".to_owned(),
        load_token: String::new(),
        limits: Limits { cpu_millis: 250, memory_bytes: 1 << 26 },
    }
}

fn shown(dir: &tempfile::TempDir, part: &str) -> Option<String> {
    Some(dir.path().join(part).to_str().unwrap().to_owned())
}

#[test]
fn version_two_groups_are_read() {
    let dir = tree(&[
        (
            "g/cpu.stat",
            "usage_usec 1500000\nuser_usec 1\nsystem_usec 2\nnr_periods 20\nnr_throttled 5\nthrottled_usec 9\n",
        ),
        ("g/memory.current", "9000\n"),
        ("g/memory.stat", "anon 5\nfile 4000\ninactive_file 3000\nactive_file 1000\n"),
    ]);
    let groups = CgroupPaths { unified: shown(&dir, "g"), ..CgroupPaths::default() };
    let sampler = Sampler::new(dir.path());
    let now = Mono(Duration::from_secs(7));
    let got = sampler.instance(&instance(groups, None), now).unwrap();
    assert_eq!((got.cpu, got.memory_bytes), (Duration::from_millis(1500), 6000));
    assert_eq!((got.periods, got.throttled, got.at), (20, 5, now));
}

#[test]
fn version_one_groups_are_read() {
    let dir = tree(&[
        ("cpuacct/g/cpuacct.usage", "2500000000\n"),
        ("cpu/g/cpu.stat", "nr_periods 8\nnr_throttled 2\nthrottled_time 77\n"),
        ("memory/g/memory.usage_in_bytes", "9000\n"),
        (
            "memory/g/memory.stat",
            "cache 1\ninactive_file 1\ntotal_cache 1\ntotal_inactive_file 2000\n",
        ),
    ]);
    let groups = CgroupPaths {
        unified: None,
        cpuacct: shown(&dir, "cpuacct/g"),
        cpu: shown(&dir, "cpu/g"),
        memory: shown(&dir, "memory/g"),
    };
    let sampler = Sampler::new(dir.path());
    let got = sampler.instance(&instance(groups.clone(), None), Mono::default()).unwrap();
    assert_eq!((got.cpu, got.memory_bytes), (Duration::from_millis(2500), 7000));
    assert_eq!((got.periods, got.throttled), (8, 2));
    let alone = CgroupPaths { cpu: None, memory: None, ..groups };
    let got = sampler.instance(&instance(alone, None), Mono::default()).unwrap();
    assert_eq!((got.cpu, got.memory_bytes, got.periods), (Duration::from_millis(2500), 0, 0));
}

#[test]
fn a_process_is_read_with_all_that_descend_from_it() {
    let stat = |name: &str, times: &str, start: u32| {
        format!(
            "7 ({name}) S 1 7 7 0 -1 4194560 1 2 3 4 {times} 20 0 1 0 {start} 1000 10 18446744073709551615\n"
        )
    };
    let dir = tree(&[
        ("7/stat", &stat("a) b (c", "10 5 3 2", 99)),
        ("7/status", "Name:\ta\nVmRSS:\t     100 kB\n"),
        ("7/task/7/children", "8 "),
        ("7/task/9/children", "10 \n"),
        ("8/stat", &stat("x", "100 0 0 0", 100)),
        ("8/status", "VmRSS:\t     50 kB\n"),
        ("8/task/8/children", "7777 "),
        ("10/stat", &stat("y", "1 1 0 0", 101)),
        ("10/status", "Name:\tkernel threads have no such line\n"),
    ]);
    let sampler = Sampler::new(dir.path());
    let got = sampler.instance(&instance(CgroupPaths::default(), Some(7)), Mono::default());
    let got = got.unwrap();
    assert_eq!((got.cpu, got.origin), (Duration::from_millis(1220), 99));
    assert_eq!(got.memory_bytes, 150 * 1024);
}

#[test]
fn what_is_not_there_is_not_known() {
    let dir =
        tree(&[("stat", "nonsense\n"), ("g/cpu.stat", "usage_usec many\n"), ("5/stat", "5 (x")]);
    let sampler = Sampler::new(dir.path());
    let broken = CgroupPaths { unified: shown(&dir, "g"), ..CgroupPaths::default() };
    for (groups, pid) in [
        (CgroupPaths::default(), None),
        (CgroupPaths::default(), Some(4)),
        (CgroupPaths::default(), Some(5)),
        (CgroupPaths::default(), Some(-1)),
        (broken, None),
    ] {
        assert_eq!(sampler.instance(&instance(groups, pid), Mono::default()), None, "{pid:?}");
    }
}

/// Asserts that both are the same within 5 %.
fn close(ours: Duration, theirs: Duration) {
    let (a, b) = (ours.as_secs_f64(), theirs.as_secs_f64());
    assert!((a - b).abs() <= 0.05 * b, "{ours:?} is not near {theirs:?}");
}

#[test]
fn a_real_process_under_load_is_measured_as_its_scheduler_counts() {
    let (busy, sampler) = (Busy::start(), Sampler::new(Path::new("/proc")));
    let who = instance(CgroupPaths::default(), i32::try_from(busy.pid()).ok());
    let read = || (sampler.instance(&who, Mono::default()).unwrap(), busy.scheduled());
    let (ours, theirs) = read();
    busy.run_for(Duration::from_secs(1));
    let (ours_after, theirs_after) = read();
    close(ours_after.cpu - ours.cpu, theirs_after - theirs);

    let pid = sysinfo::Pid::from_u32(busy.pid());
    let mut system = sysinfo::System::new().unwrap();
    system.refresh_processes(sysinfo::ProcessesToUpdate::Some(&[pid]), true);
    let (a, b) = (ours_after.memory_bytes, system.process(pid).unwrap().memory());
    assert!(a.abs_diff(b) <= b / 20, "{a} bytes are not near {b}");
}

#[test]
fn a_real_control_group_under_load_is_measured_as_its_scheduler_counts() {
    let name = format!("tally-test-{}", std::process::id());
    let dir = Path::new("/sys/fs/cgroup/cpuacct").join(&name);
    if fs::create_dir(&dir).is_err() {
        skipped("a_real_control_group_under_load", "no writable control group of version 1");
        return;
    }
    let busy = Busy::start();
    fs::write(dir.join("cgroup.procs"), busy.pid().to_string()).unwrap();
    let groups = CgroupPaths { cpuacct: dir.to_str().map(str::to_owned), ..CgroupPaths::default() };
    let (who, sampler) = (instance(groups, None), Sampler::new(Path::new("/proc")));
    let read = || (sampler.instance(&who, Mono::default()).unwrap(), busy.scheduled());
    let (ours, theirs) = read();
    busy.run_for(Duration::from_millis(500));
    let (ours_after, theirs_after) = read();
    close(ours_after.cpu - ours.cpu, theirs_after - theirs);
    drop(busy);
    fs::remove_dir(&dir).unwrap();
}

#[expect(clippy::print_stdout, reason = "read by the test runner, which counts skipped tests")]
fn skipped(test: &str, reason: &str) {
    println!("SKIPPED: {test}: {reason}");
}
