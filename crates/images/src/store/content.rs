//! The content identity of a directory, and the check that it may be a layer.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{FileType, Stat};
use sha2::{Digest as _, Sha256};

use super::StoreError;
use crate::digest::Digest;
use crate::unpack::{MAX_ID, UnpackStats};
use crate::vfs;

const MAX_DEPTH: usize = 512;

struct Scan {
    hasher: Sha256,
    stats: UnpackStats,
    /// First path of each inode with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

/// Hashes names, kinds, owners, modes, attributes and contents beneath `path`. Times do not
/// count: building the same twice gives the same layer.
pub(super) fn scan(path: &Path) -> Result<(Digest, UnpackStats), StoreError> {
    let root = vfs::open_dir(path)?;
    let mut scan = Scan {
        hasher: Sha256::new_with_prefix(b"woodfrog-layer-1\0"),
        stats: UnpackStats::default(),
        links: HashMap::new(),
        buffer: vec![0; 128 * 1024],
    };
    scan.head(b"", &rustix::fs::fstat(&root).map_err(io::Error::from)?)?;
    scan.dir(root.as_fd(), &mut Vec::new(), 0)?;
    Ok((Digest::from_hasher(scan.hasher), scan.stats))
}

impl Scan {
    fn dir(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), StoreError> {
        if depth > MAX_DEPTH {
            return Err(StoreError::Content(
                "directories nested too deeply".to_owned(),
            ));
        }
        self.xattrs(dir)?;
        for name in vfs::names(dir)? {
            let before = path.len();
            path.push(b'/');
            path.extend_from_slice(name.as_bytes());
            let stat = vfs::stat_at(dir, &name)?.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            self.stats.entries += 1;
            if !self.hard_link(path, &stat) {
                self.head(path, &stat)?;
                match vfs::kind(&stat) {
                    FileType::Directory => {
                        self.dir(vfs::open_subdir(dir, &name)?.as_fd(), path, depth + 1)?;
                    }
                    FileType::RegularFile => self.file(vfs::open_file(dir, &name)?)?,
                    FileType::Symlink => {
                        let link = rustix::fs::readlinkat(dir, &name, Vec::new())
                            .map_err(io::Error::from)?;
                        self.field(link.as_bytes());
                    }
                    _ => {}
                }
            }
            path.truncate(before);
        }
        Ok(())
    }

    fn head(&mut self, path: &[u8], stat: &Stat) -> Result<(), StoreError> {
        let fine = match vfs::kind(stat) {
            FileType::Directory | FileType::RegularFile | FileType::Symlink | FileType::Fifo => {
                true
            }
            _ => vfs::is_whiteout(stat),
        };
        let shown = || String::from_utf8_lossy(path).into_owned();
        if !fine {
            return Err(StoreError::Content(format!(
                "`{}` is a device or socket",
                shown()
            )));
        }
        let id = u64::from(stat.st_uid.max(stat.st_gid));
        if id > MAX_ID && !vfs::is_whiteout(stat) {
            return Err(StoreError::Content(format!(
                "`{}` belongs to id {id}",
                shown()
            )));
        }
        self.field(path);
        // Owner and mode of a whiteout mean nothing.
        let owner = if vfs::is_whiteout(stat) {
            [0; 3]
        } else {
            [stat.st_uid, stat.st_gid, stat.st_mode]
        };
        for number in owner {
            self.hasher.update(number.to_le_bytes());
        }
        Ok(())
    }

    fn hard_link(&mut self, path: &[u8], stat: &Stat) -> bool {
        let several = stat.st_nlink > 1 && vfs::kind(stat) != FileType::Directory;
        // Overlayfs may link all whiteouts to one node.
        if !several || vfs::is_whiteout(stat) {
            return false;
        }
        let first = self
            .links
            .entry((stat.st_dev, stat.st_ino))
            .or_insert_with(|| path.to_vec());
        if first == path {
            return false;
        }
        let first = first.clone();
        self.field(path);
        self.field(b"hard link");
        self.field(&first);
        true
    }

    fn file(&mut self, mut file: std::fs::File) -> Result<(), StoreError> {
        self.xattrs(file.as_fd())?;
        let mut inner = Sha256::new();
        loop {
            let got = file.read(&mut self.buffer)?;
            if got == 0 {
                break;
            }
            inner.update(&self.buffer[..got]);
            self.stats.bytes += got as u64;
        }
        self.hasher.update(inner.finalize());
        Ok(())
    }

    fn xattrs(&mut self, fd: BorrowedFd<'_>) -> Result<(), StoreError> {
        for (name, value) in vfs::xattrs(fd)? {
            if kept(name.as_bytes()) {
                self.field(name.as_bytes());
                self.field(&value);
            }
        }
        Ok(())
    }

    fn field(&mut self, bytes: &[u8]) {
        self.hasher.update((bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }
}

/// Attributes that belong to the content. Overlayfs' notes about where a file was copied up from
/// hold for one mount only; that a directory is opaque holds always.
pub(super) fn kept(name: &[u8]) -> bool {
    name == vfs::OPAQUE.as_bytes() || !name.starts_with(b"trusted.")
}
