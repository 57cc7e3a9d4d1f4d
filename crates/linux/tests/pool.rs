//! A real pool in an image, as root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use woodfrog_linux::btrfs;
use woodfrog_linux::pool::{Pool, PoolKind};

/// One at a time: a child that the other one makes has our files open until it executes its
/// program, and what is open cannot be unmounted.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_pool_survives_and_limits_hold() {
    let _alone = alone();
    let dir = tempfile::Builder::new()
        .prefix("wf-pool")
        .tempdir_in("/var/tmp")
        .unwrap();
    if btrfs::is_btrfs(dir.path()).unwrap() {
        return; // there is no image to test on btrfs
    }
    let pool = Pool::set_up(dir.path(), 2 << 30).unwrap();
    assert_eq!(pool.kind, PoolKind::BtrfsImage);
    assert_eq!(pool.disk_limits, Ok(()));
    assert_eq!(
        Pool::set_up(dir.path(), 2 << 30).unwrap(),
        pool,
        "already set up"
    );
    let space = pool.space().unwrap();
    assert!(
        space.free > 1 << 30 && space.free <= space.total,
        "{space:?}"
    );

    let one = pool.path.join("one");
    btrfs::create_subvolume(&one).unwrap();
    let big = fill(&one);
    let two = pool.path.join("two");
    btrfs::snapshot(&one, &two).unwrap();
    fs::write(two.join("small"), b"changed").unwrap();
    assert_eq!(fs::read(one.join("small")).unwrap(), b"kept");
    drop(big);
    btrfs::delete_subvolume(&one).unwrap();
    assert!(!one.exists());

    pool.unmount().unwrap();
    assert!(!two.exists());
    let again = Pool::set_up(dir.path(), 2 << 30).unwrap();
    assert_eq!(again, pool);
    assert_eq!(fs::read(two.join("small")).unwrap(), b"changed");
    again.unmount().unwrap();
}

#[test]
fn quota_groups_limit_too() {
    let _alone = alone();
    let dir = tempfile::Builder::new()
        .prefix("wf-pool")
        .tempdir_in("/var/tmp")
        .unwrap();
    if btrfs::is_btrfs(dir.path()).unwrap() {
        return; // there is no image to test on btrfs
    }
    let image = dir.path().join("pool.img");
    let at = dir.path().join("pool");
    fs::create_dir(&at).unwrap();
    fs::File::create(&image).unwrap().set_len(2 << 30).unwrap();
    let run = |program: &str, arguments: &[&Path]| {
        let status = Command::new(program).args(arguments).status().unwrap();
        assert!(status.success(), "{program}");
    };
    run("mkfs.btrfs", &["-q".as_ref(), &image]);
    run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &at]);
    btrfs::enable_quota_groups(&at).unwrap();
    // As on a kernel without simple quotas: those on already stay.
    let pool = Pool::set_up(dir.path(), 2 << 30).unwrap();
    assert_eq!(pool.kind, PoolKind::BtrfsImage);
    assert_eq!(pool.disk_limits, Ok(()));
    let one = at.join("one");
    btrfs::create_subvolume(&one).unwrap();
    drop(fill(&one));
    pool.unmount().unwrap();
}

/// Limits a subvolume and writes to it until that is refused.
fn fill(one: &Path) -> fs::File {
    btrfs::limit(one, 8 << 20).unwrap();
    fs::write(one.join("small"), b"kept").unwrap();
    let mut big = fs::File::create(one.join("big")).unwrap();
    let error = (0..16).find_map(|_| {
        big.write_all(&vec![7; 1 << 20])
            .and_then(|()| big.sync_all())
            .err()
    });
    assert_eq!(error.unwrap().raw_os_error(), Some(libc::EDQUOT));
    let used = btrfs::used(one).unwrap();
    assert!((1 << 20..=8 << 20).contains(&used), "{used}");
    big
}
