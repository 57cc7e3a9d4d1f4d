//! Places of volumes: subvolumes of the pool, each with a quota.

use std::fs;
use std::io;
use std::path::Path;

use woodfrog_engine::volume::Places;
use woodfrog_linux::btrfs;

/// Whether the pool has quotas is the driver's to say.
#[derive(Debug)]
pub(crate) struct PoolPlaces;

impl Places for PoolPlaces {
    fn make(&self, path: &Path, bytes: u64) -> io::Result<()> {
        btrfs::create_subvolume(path)?;
        let limited = btrfs::limit(path, bytes);
        if limited.is_err() {
            self.remove(path)?;
        }
        limited
    }

    fn used(&self, path: &Path) -> io::Result<u64> {
        btrfs::used(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match btrfs::delete_subvolume(path) {
            Ok(()) => Ok(()),
            // It is none, or there is another one in it.
            Err(_) => fs::remove_dir_all(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use anyhow::{Context as _, Result, ensure};
    use woodfrog_engine::volume::{Attributes, Parents, Replace, Tree, VolumeError, Volumes};
    use woodfrog_linux::pool::Pool;

    use super::*;

    const LIMIT: u64 = 8 << 20;

    /// A pool on this machine, unmounted in the end.
    struct Mounted(Pool);

    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = self.0.unmount();
        }
    }

    fn put(volumes: &Volumes, tree: &Tree, path: &str, mib: usize) -> Result<(), VolumeError> {
        let (set, bytes) = (Attributes::default(), vec![7; 1 << 20]);
        let mut upload = volumes.upload(tree, path, set, Parents::Needed, Replace::Yes)?;
        for _ in 0..mib {
            upload.write(&bytes)?;
        }
        upload.commit(tree).map(drop)
    }

    #[test]
    fn a_full_volume_takes_no_more_can_be_emptied_and_harms_no_other() -> Result<()> {
        let dir = tempfile::Builder::new()
            .prefix("wf-places")
            .tempdir_in("/var/tmp")?;
        let pool = Mounted(Pool::set_up(dir.path(), 2 << 30)?);
        let has_quotas = pool.0.disk_limits.clone();
        has_quotas.map_err(anyhow::Error::msg)?;
        let volumes = Volumes::new(dir.path().join("volumes"))
            .with_places(dir.path().join("pool/volumes"), Arc::new(PoolPlaces));
        for id in ["one", "two"] {
            volumes.create(id, Some(LIMIT))?;
        }
        let one = volumes.tree("one", Some(LIMIT))?;
        put(&volumes, &one, "/kept", 2)?;
        // Through the API, and by whoever has it mounted.
        let refused = put(&volumes, &one, "/big", 16);
        ensure!(matches!(refused, Err(VolumeError::NoSpace)), "{refused:?}");
        let mut filler = fs::File::create(volumes.path("one").join("filler"))?;
        let full = (0..16).find_map(|_| {
            let written = filler.write_all(&vec![7; 1 << 20]);
            written.and_then(|()| filler.sync_all()).err()
        });
        let full = full.context("it takes what is beyond its limit")?;
        ensure!(
            full.kind() == io::ErrorKind::QuotaExceeded,
            "{full:?} is no quota"
        );
        // Counted is what is written down.
        rustix::fs::syncfs(&filler)?;
        let used = volumes.used("one").context("it is counted")?;
        ensure!(used > 6 << 20 && used <= LIMIT, "{used}");

        let two = volumes.tree("two", Some(LIMIT))?;
        put(&volumes, &two, "/other", 4)?;
        // Nothing can be renamed in a full one; what is in it can be removed all the same.
        volumes.remove(&one, "/filler")?;
        drop(filler);
        put(&volumes, &one, "/kept", 1)?;
        volumes.delete("one")?;
        ensure!(!volumes.path("one").exists(), "it is still there");
        ensure!(volumes.path("two").join("other").exists(), "the other went");
        Ok(())
    }
}
