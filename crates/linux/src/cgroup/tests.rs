use super::*;

const HYBRID: &str = "\
cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
";

#[test]
fn layouts_are_told_apart() {
    let hybrid = Hierarchies::from_mounts(HYBRID).unwrap();
    let Hierarchies::Split {
        controllers,
        unified,
    } = &hybrid
    else {
        panic!("{hybrid:?}")
    };
    assert_eq!(controllers["cpu"], Path::new("/sys/fs/cgroup/cpu"));
    assert_eq!(
        unified.as_deref(),
        Some(Path::new("/sys/fs/cgroup/unified"))
    );
    let pure = Hierarchies::from_mounts("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n").unwrap();
    assert_eq!(
        pure,
        Hierarchies::Unified {
            root: "/sys/fs/cgroup".into()
        }
    );
    assert!(Hierarchies::from_mounts("proc /proc proc rw 0 0\n").is_err());
}

/// A directory that looks like a version 2 tree to us.
fn tree() -> (tempfile::TempDir, Hierarchies, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("woodfrog-abc/sb1");
    fs::create_dir_all(&dir).unwrap();
    for at in [root.path(), &root.path().join("woodfrog-abc")] {
        fs::write(at.join("cgroup.subtree_control"), "cpu\n").unwrap();
    }
    for (name, text) in [
        ("memory.max", "max\n"),
        ("memory.current", "4096\n"),
        ("memory.stat", "anon 1\nfile 2048\n"),
        ("memory.events", "low 0\noom 3\noom_kill 2\n"),
        ("cpu.max", "max 100000\n"),
        ("cpu.stat", "usage_usec 17\nuser_usec 1\n"),
        ("pids.max", "max\n"),
        ("pids.current", "5\n"),
        ("cgroup.freeze", "0\n"),
        ("cgroup.events", "populated 1\nfrozen 1\n"),
        ("cgroup.procs", ""),
        ("cgroup.kill", ""),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
    let hierarchies = Hierarchies::Unified {
        root: root.path().to_owned(),
    };
    (root, hierarchies, dir)
}

#[test]
fn version_2_limits_are_written() {
    let (root, hierarchies, dir) = tree();
    let limits = Limits {
        memory_bytes: Some(1 << 20),
        cpu_millicores: Some(1500),
        pids: Some(64),
    };
    let group = hierarchies.create("woodfrog-abc/sb1", &limits).unwrap();
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    assert_eq!(text(&dir.join("memory.max")), "1048576");
    assert_eq!(text(&dir.join("cpu.max")), "150000 100000");
    assert_eq!(text(&dir.join("pids.max")), "64");
    for at in ["", "woodfrog-abc"] {
        let control = root.path().join(at).join("cgroup.subtree_control");
        assert_eq!(text(&control), "+memory +pids +cpu");
    }
    assert_eq!(group.join().unified.as_deref(), dir.to_str());
    group.set_limits(&Limits::default()).unwrap();
    assert_eq!(text(&dir.join("memory.max")), "max");
    assert_eq!(text(&dir.join("cpu.max")), "max 100000");
}

#[test]
fn version_2_usage_and_freezing() {
    let (_root, hierarchies, dir) = tree();
    let group = hierarchies.group("woodfrog-abc/sb1");
    let usage = group.usage().unwrap();
    let expected = Usage {
        memory_bytes: 4096,
        memory_limit: None,
        shmem_bytes: 0,
        cache_bytes: 2048,
        cpu_nanos: 17_000,
        pids: 5,
        oom_kills: 2,
    };
    assert_eq!(usage, expected);
    group.freeze().unwrap();
    assert_eq!(fs::read_to_string(dir.join("cgroup.freeze")).unwrap(), "1");
    group.thaw().unwrap();
    assert_eq!(fs::read_to_string(dir.join("cgroup.freeze")).unwrap(), "0");
    group.kill_all().unwrap();
    assert_eq!(fs::read_to_string(dir.join("cgroup.kill")).unwrap(), "1");
    assert_eq!(hierarchies.list("woodfrog-abc").unwrap(), ["sb1"]);
    assert!(hierarchies.list("woodfrog-none").unwrap().is_empty());
}
