//! Control groups on made-up trees of both versions.

use super::*;

const V1_MOUNTS: &str = "\
25 22 0:23 / /sys/fs/cgroup/cpu rw,relatime shared:1 - cgroup cgroup rw,cpu
26 22 0:24 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
27 22 0:25 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
28 22 0:26 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer
29 22 0:27 / /nowhere/unified rw - cgroup2 cgroup2 rw
30 1 0:28 / / rw - ext4 /dev/vda rw";

fn id() -> InstanceId {
    "shop-0123456789".parse().unwrap()
}

fn node() -> NodeId {
    "n-0123456789".parse().unwrap()
}

fn limits(cpu_millis: u32, memory_bytes: u64) -> Limits {
    Limits { cpu_millis, memory_bytes }
}

fn v1(root: &Path) -> Cgroups {
    let mounts = Controller::ALL.into_iter().map(|c| (c, root.join(c.name()))).collect();
    Cgroups::new(Layout::V1(mounts), &node())
}

#[test]
fn version_1_keeps_the_controllers_when_both_are_mounted() {
    let Layout::V1(mounts) = Layout::detect(V1_MOUNTS) else { panic!("not version 1") };
    assert_eq!(mounts[&Controller::Cpu], Path::new("/sys/fs/cgroup/cpu"));
    assert_eq!(mounts[&Controller::Cpuacct], Path::new("/sys/fs/cgroup/cpuacct"));
    assert_eq!(mounts.len(), 4);
}

#[test]
fn controllers_mounted_together_share_a_tree() {
    let mounts = "25 22 0:23 / /cg/both rw - cgroup cgroup rw,cpu,cpuacct";
    let layout = Layout::detect(mounts);
    assert_eq!(layout.roots(), vec![Path::new("/cg/both")]);
    let paths = layout.paths_of("4:cpu,cpuacct:/docker/abc\n0::/\n");
    assert_eq!(paths.cpu.as_deref(), Some("/cg/both/docker/abc"));
    assert_eq!(paths.cpuacct, paths.cpu);
    assert_eq!(paths.memory, None);
}

#[test]
fn a_version_2_tree_with_controllers_wins() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::write(root.join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
    let mounts = format!("29 22 0:27 / {} rw - cgroup2 cgroup2 rw", root.display());
    let layout = Layout::detect(&mounts);
    assert_eq!(layout, Layout::V2(root.to_owned()));
    let paths = layout.paths_of("0::/system.slice/docker-abc.scope\n");
    assert_eq!(paths.unified, Some(text(&root.join("system.slice/docker-abc.scope"))));
}

#[test]
fn no_mounts_means_none() {
    assert_eq!(Layout::detect("garbage\n - \n1 2 3 - cgroup"), Layout::None);
    let made = Cgroups::new(Layout::None, &node()).create(&id(), limits(250, 1));
    assert!(made.join.is_empty() && made.missing.len() == 1);
}

#[test]
fn version_1_limits_land_in_their_files_and_change_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let groups = v1(dir.path());
    let made = groups.create(&id(), limits(250, 64 << 20));
    assert_eq!(made.missing, Vec::<String>::new());
    assert_eq!(made.join.len(), 4);
    assert!(made.join.iter().all(|j| j.ends_with("n-0123456789/shop-0123456789/tasks")));
    let read = |c: &str, f: &str| {
        let at = dir.path().join(c).join("tally/n-0123456789/shop-0123456789").join(f);
        fs::read_to_string(at).unwrap()
    };
    assert_eq!(read("cpu", "cpu.cfs_quota_us"), "25000");
    assert_eq!(read("cpu", "cpu.cfs_period_us"), "100000");
    assert_eq!(read("memory", "memory.limit_in_bytes"), "67108864");
    assert_eq!(groups.set_limits(&id(), limits(1500, 128 << 20)), Vec::<String>::new());
    assert_eq!(read("cpu", "cpu.cfs_quota_us"), "150000");
    assert_eq!(read("memory", "memory.limit_in_bytes"), "134217728");
    groups.freeze(&id(), true).unwrap();
    assert_eq!(read("freezer", "freezer.state"), "FROZEN");
    assert_eq!(groups.instances().into_iter().collect::<Vec<_>>(), vec![id()]);
    assert!(groups.paths(&id()).cpuacct.is_some());
}

#[test]
fn version_2_hands_controllers_down_and_limits_in_one_tree() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    let groups = Cgroups::new(Layout::V2(root.clone()), &node());
    let made = groups.create(&id(), limits(1, 0));
    assert_eq!(made.missing, Vec::<String>::new());
    let own = root.join("tally/n-0123456789/shop-0123456789");
    assert_eq!(made.join, vec![own.join("cgroup.procs")]);
    // Under the kernel's minimum, and no memory limit at all.
    assert_eq!(fs::read_to_string(own.join("cpu.max")).unwrap(), "1000 100000");
    assert!(!own.join("memory.max").exists());
    for parent in [root.clone(), root.join("tally"), root.join("tally/n-0123456789")] {
        assert!(parent.join("cgroup.subtree_control").exists(), "{}", parent.display());
    }
    fs::write(own.join("memory.events"), "low 0\noom 2\noom_kill 3\n").unwrap();
    assert_eq!(groups.oom_kills(&id()), 3);
    fs::write(own.join("cgroup.procs"), "12\n34\n").unwrap();
    assert_eq!(groups.members(&id()).into_iter().collect::<Vec<_>>(), vec![12, 34]);
}

#[test]
fn what_is_not_permitted_is_told_and_not_an_error() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the tree should be: nothing can be made below it, whoever we are.
    fs::write(dir.path().join("cpu"), "").unwrap();
    let made = v1(dir.path()).create(&id(), limits(250, 1 << 20));
    assert_eq!(made.join.len(), 3);
    assert!(made.missing.iter().any(|m| m.contains("cannot make")), "{:?}", made.missing);
}

#[test]
fn a_group_that_is_gone_counts_as_removed() {
    let dir = tempfile::tempdir().unwrap();
    assert!(v1(dir.path()).remove(&id()));
}
