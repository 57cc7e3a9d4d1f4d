//! Reading the folder that is to be stored. Nothing in it is followed or trusted: a sandbox wrote it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Stat, fstat, major, minor, openat,
    readlinkat, seek, statat,
};
use rustix::io::{Errno, pread};

use crate::chunk::{CHUNK_BYTES, is_zero};
use crate::pack::{BUNDLED_MAX, Packer, Sink};
use crate::record::{Content, DEPTH_MAX, Entry, Meta, Node};
use crate::{BlobError, Result, xattr};

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// `NONBLOCK`: should the file have become a fifo since.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// Hands all of `folder` to the packer.
pub(crate) fn walk<S: Sink>(folder: &Path, packer: &mut Packer<S>) -> Result<()> {
    let mut walk = Walk {
        packer,
        path: folder.to_path_buf(),
        device: 0,
        links: HashMap::new(),
    };
    let root = walk.ok(openat(CWD, folder, FOLDER, Mode::empty()))?;
    let stat = walk.ok(fstat(&root))?;
    walk.device = stat.st_dev;
    let meta = walk.meta(root.as_fd(), b"", &stat)?;
    walk.packer.entry(Entry {
        depth: 0,
        name: Vec::new(),
        meta,
        link: None,
        node: Node::Folder,
    })?;
    walk.folder(root.as_fd(), 1)
}

struct Walk<'a, S> {
    packer: &'a mut Packer<S>,
    /// Where it is, for errors.
    path: PathBuf,
    /// The file system it stays on.
    device: u64,
    /// Files with several names: inode → number.
    links: HashMap<u64, u64>,
}

impl<S: Sink> Walk<'_, S> {
    fn error(&self, why: impl ToString) -> BlobError {
        BlobError::Source {
            path: self.path.clone(),
            why: why.to_string(),
        }
    }

    fn ok<T>(&self, result: std::result::Result<T, Errno>) -> Result<T> {
        result.map_err(|error| self.error(error))
    }

    fn folder(&mut self, folder: BorrowedFd<'_>, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(self.error(format!("folders are nested more than {DEPTH_MAX} deep")));
        }
        // Sorted, so that the same tree makes the same chunks.
        let mut names = Vec::new();
        for entry in self.ok(Dir::read_from(folder))? {
            let entry = self.ok(entry)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        for name in names {
            self.path.push(std::ffi::OsStr::from_bytes(&name));
            self.entry(folder, name, depth)?;
            self.path.pop();
        }
        Ok(())
    }

    fn entry(&mut self, parent: BorrowedFd<'_>, name: Vec<u8>, depth: usize) -> Result<()> {
        let stat = self.ok(statat(parent, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW))?;
        let meta = self.meta(parent, &name, &stat)?;
        let (first, link) = self.link(&stat);
        let entry = |node| Entry {
            depth,
            name: name.clone(),
            meta: meta.clone(),
            link: link.filter(|_| first),
            node,
        };
        if let Some(number) = link.filter(|_| !first) {
            return self.packer.entry(entry(Node::Link(number)));
        }
        let device = stat.st_rdev;
        let node = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return self.subfolder(parent, entry(Node::Folder), depth),
            FileType::RegularFile => {
                let size = u64::try_from(stat.st_size).unwrap_or_default();
                let content = Content::Pieces;
                let entry = entry(Node::File { size, content });
                let file = self.ok(openat(parent, name.as_slice(), FILE, Mode::empty()))?;
                return self.file(&file, &stat, size, entry);
            }
            FileType::Symlink => Node::Symlink {
                target: self
                    .ok(readlinkat(parent, name.as_slice(), Vec::new()))?
                    .into_bytes(),
            },
            FileType::Fifo => Node::Fifo,
            FileType::Socket => Node::Socket,
            FileType::CharacterDevice => Node::Char(major(device), minor(device)),
            FileType::BlockDevice => Node::Block(major(device), minor(device)),
            other => return Err(self.error(format!("its type is unknown: {other:?}"))),
        };
        self.packer.entry(entry(node))
    }

    fn subfolder(&mut self, parent: BorrowedFd<'_>, entry: Entry, depth: usize) -> Result<()> {
        let folder: OwnedFd =
            self.ok(openat(parent, entry.name.as_slice(), FOLDER, Mode::empty()))?;
        if self.ok(fstat(&folder))?.st_dev != self.device {
            return Err(self.error("another file system begins here"));
        }
        self.packer.entry(entry)?;
        self.folder(folder.as_fd(), depth + 1)
    }

    /// Whether this is the first name of a file, and the number of those that have several
    /// (an overlay's whiteouts do, too).
    fn link(&mut self, stat: &Stat) -> (bool, Option<u64>) {
        let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if stat.st_nlink < 2 || folder {
            return (true, None);
        }
        let next = self.links.len() as u64;
        let number = *self.links.entry(stat.st_ino).or_insert(next);
        (number == next, Some(number))
    }

    fn meta(&self, parent: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<Meta> {
        Ok(Meta {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (
                stat.st_mtime,
                u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
            ),
            xattrs: self.ok(xattr::read(parent, name))?,
        })
    }

    fn file(&mut self, file: &OwnedFd, stat: &Stat, size: u64, entry: Entry) -> Result<()> {
        let before = self.ok(fstat(file))?;
        if (before.st_ino, before.st_dev) != (stat.st_ino, stat.st_dev) {
            return Err(self.error("it was replaced while it was read"));
        }
        if size > 0 && size <= BUNDLED_MAX as u64 {
            let content = self.read(file, 0, usize::try_from(size).unwrap_or(BUNDLED_MAX))?;
            if is_zero(&content) {
                self.packer.entry(entry)?;
            } else {
                self.packer.small(entry, &content)?;
            }
        } else {
            self.packer.entry(entry)?;
            self.pieces(file, size)?;
        }
        let after = self.ok(fstat(file))?;
        let state = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        if state(&after) != state(stat) {
            return Err(self.error("it was changed while it was read"));
        }
        Ok(())
    }

    fn pieces(&mut self, file: &OwnedFd, size: u64) -> Result<()> {
        let mut at = 0;
        while at < size {
            match seek(file, SeekFrom::Data(at)) {
                Ok(data) if data >= size => break,
                Ok(data) => at = data - data % CHUNK_BYTES as u64,
                Err(Errno::NXIO) => break,
                Err(error) => return Err(self.error(error)),
            }
            let length = usize::try_from(size - at).unwrap_or(usize::MAX);
            let content = self.read(file, at, length.min(CHUNK_BYTES))?;
            self.packer.piece(at / CHUNK_BYTES as u64, content)?;
            at += CHUNK_BYTES as u64;
        }
        Ok(())
    }

    /// `length` bytes from there.
    fn read(&self, file: &OwnedFd, at: u64, length: usize) -> Result<Vec<u8>> {
        let mut content = vec![0; length];
        let mut have = 0;
        while have < length {
            match pread(file, &mut content[have..], at + have as u64) {
                Ok(0) => return Err(self.error("it was cut short while it was read")),
                Ok(count) => have += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.error(error)),
            }
        }
        Ok(content)
    }
}
