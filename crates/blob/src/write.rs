//! Making a folder again. Every step goes through the descriptor of a folder that this has made,
//! and makes something new: what a manifest says can neither lead out of the target nor overwrite.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat,
    ftruncate, linkat, makedev, mkdirat, mknodat, openat, symlinkat, syncfs, utimensat,
};
use rustix::io::{Errno, pwrite};

use crate::chunk::{CHUNK_BYTES, is_zero};
use crate::record::{Content, Entry, Meta, Node, Record};
use crate::{BlobError, Result, xattr};

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const NEW_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// Zeros of this length are left as holes.
const BLOCK: usize = 4096;

/// A folder that is being filled.
struct Open {
    folder: OwnedFd,
    name: Vec<u8>,
    meta: Meta,
}

/// A file whose pieces are coming.
struct File {
    file: OwnedFd,
    size: u64,
    name: Vec<u8>,
    meta: Meta,
}

/// Writes what the records say.
pub(crate) struct Writer {
    /// Where it is, for errors: the target and one component for each open folder but the first.
    target: PathBuf,
    root: OwnedFd,
    /// The folders around the current place; empty before the first record.
    open: Vec<Open>,
    file: Option<File>,
    bundle: Option<Bytes>,
    /// Files with several names → path of the first, below the root.
    links: HashMap<u64, PathBuf>,
}

impl Writer {
    /// A writer into `target`, which is made if need be and must be empty.
    pub(crate) fn new(target: &Path) -> Result<Self> {
        let error = |why: String| BlobError::Target {
            path: target.to_path_buf(),
            why,
        };
        match mkdirat(CWD, target, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(error(errno.to_string())),
        }
        let root = openat(CWD, target, FOLDER, Mode::empty()).map_err(|e| error(e.to_string()))?;
        for entry in Dir::read_from(&root).map_err(|e| error(e.to_string()))? {
            let entry = entry.map_err(|e| error(e.to_string()))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Err(error("it is not empty".into()));
            }
        }
        Ok(Self {
            target: target.to_path_buf(),
            root,
            open: Vec::new(),
            file: None,
            bundle: None,
            links: HashMap::new(),
        })
    }

    /// Acts on a record; `content` is that of the chunk it names.
    pub(crate) fn record(&mut self, record: Record, content: Option<Bytes>) -> Result<()> {
        match record {
            Record::Bundle(_) => self.bundle = content,
            Record::Piece { at, .. } => self.piece(at, &content.unwrap_or_default())?,
            Record::Entry(entry) => {
                self.end_file()?;
                self.entry(entry)?;
            }
        }
        Ok(())
    }

    /// Completes all that is open and waits until it is on disk.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.end_file()?;
        if self.open.is_empty() {
            return Err(BlobError::corrupt("a manifest", "it is empty"));
        }
        self.close_to(0)?;
        syncfs(&self.root).map_err(|errno| self.error(b"", errno))
    }

    fn error(&self, name: &[u8], errno: Errno) -> BlobError {
        let why = match errno {
            Errno::PERM => format!("{errno} (owners and devices need root)"),
            other => other.to_string(),
        };
        BlobError::Target {
            path: self.target.join(self.below(name)),
            why,
        }
    }

    /// The path of `name` in the current folder, from the root.
    fn below(&self, name: &[u8]) -> PathBuf {
        let folders = self.open.iter().skip(1).map(|open| open.name.as_slice());
        folders.chain([name]).map(OsStr::from_bytes).collect()
    }

    fn entry(&mut self, entry: Entry) -> Result<()> {
        let bad = |why| Err(BlobError::corrupt("a manifest", why));
        let Entry {
            depth,
            name,
            meta,
            link,
            node,
        } = entry;
        if (depth == 0) != self.open.is_empty() {
            return bad("its first record is not its root, or there are several");
        }
        if depth > self.open.len() {
            return bad("an entry lies in no folder");
        }
        self.close_to(depth)?;
        if let Some(number) = link {
            let path = self.below(&name);
            self.links.insert(number, path);
        }
        let failed = |errno| self.error(&name, errno);
        let Some(parent) = self.open.last().map(|open| open.folder.as_fd()) else {
            let folder = self.root.try_clone().map_err(|_| failed(Errno::MFILE))?;
            self.open.push(Open { folder, name, meta });
            return Ok(());
        };
        let path = name.as_slice();
        let (kind, device) = match node {
            Node::Folder => {
                mkdirat(parent, path, Mode::RWXU).map_err(failed)?;
                let folder = openat(parent, path, FOLDER, Mode::empty()).map_err(failed)?;
                self.open.push(Open { folder, name, meta });
                return Ok(());
            }
            Node::File { size, content } => {
                let file = openat(parent, path, NEW_FILE, Mode::RUSR | Mode::WUSR);
                let file = file.map_err(failed)?;
                ftruncate(&file, size).map_err(failed)?;
                let file = File {
                    file,
                    size,
                    name,
                    meta,
                };
                return self.content(file, content);
            }
            Node::Link(number) => {
                let Some(first) = self.links.get(&number) else {
                    return bad("a hard link refers to nothing");
                };
                // Its folders are ours: nothing that exists is ever replaced.
                let flags = AtFlags::empty();
                return linkat(&self.root, first, parent, path, flags).map_err(failed);
            }
            Node::Symlink { target } => {
                symlinkat(target.as_slice(), parent, path).map_err(failed)?;
                (FileType::Symlink, 0)
            }
            Node::Fifo => (FileType::Fifo, 0),
            Node::Socket => (FileType::Socket, 0),
            Node::Char(major, minor) => (FileType::CharacterDevice, makedev(major, minor)),
            Node::Block(major, minor) => (FileType::BlockDevice, makedev(major, minor)),
        };
        if kind != FileType::Symlink {
            mknodat(parent, path, kind, Mode::RUSR | Mode::WUSR, device).map_err(failed)?;
        }
        dress(parent, path, &meta, kind == FileType::Symlink).map_err(failed)
    }

    fn content(&mut self, file: File, content: Content) -> Result<()> {
        if let Content::Bundled(at) = content {
            let size = usize::try_from(file.size).unwrap_or(usize::MAX);
            let end = at.saturating_add(size);
            let Some(bytes) = self.bundle.as_ref().and_then(|all| all.get(at..end)) else {
                return Err(BlobError::corrupt(
                    "a manifest",
                    "a small file lies outside its chunk",
                ));
            };
            write_sparse(&file.file, bytes, 0).map_err(|errno| self.error(&file.name, errno))?;
        }
        self.file = Some(file);
        Ok(())
    }

    fn piece(&mut self, at: u64, content: &[u8]) -> Result<()> {
        let Some(file) = &self.file else {
            return Err(BlobError::corrupt("a manifest", "a piece is of no file"));
        };
        let start = at.checked_mul(CHUNK_BYTES as u64);
        let end = start.and_then(|start| start.checked_add(content.len() as u64));
        match (start, end) {
            (Some(start), Some(end)) if end <= file.size => {
                let written = write_sparse(&file.file, content, start);
                written.map_err(|errno| self.error(&file.name, errno))
            }
            _ => Err(BlobError::corrupt(
                "a manifest",
                "a piece lies behind the end of its file",
            )),
        }
    }

    fn end_file(&mut self) -> Result<()> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let Some(parent) = self.open.last() else {
            return Ok(());
        };
        dress(parent.folder.as_fd(), &file.name, &file.meta, false)
            .map_err(|errno| self.error(&file.name, errno))
    }

    /// Completes the folders below this depth, innermost first: what is made in a folder changes
    /// its time, and its mode may forbid to make something.
    fn close_to(&mut self, depth: usize) -> Result<()> {
        while self.open.len() > depth {
            let Some(done) = self.open.pop() else { break };
            dress(done.folder.as_fd(), b"", &done.meta, false)
                .map_err(|errno| self.error(&done.name, errno))?;
        }
        Ok(())
    }
}

/// Owner, attributes, mode, time, in an order in which none undoes another.
fn dress(
    parent: std::os::fd::BorrowedFd<'_>,
    name: &[u8],
    meta: &Meta,
    symlink: bool,
) -> std::result::Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    let itself = if name.is_empty() { b"." } else { name };
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    chownat(parent, itself, Some(uid), Some(gid), nofollow)?;
    xattr::write(parent, name, &meta.xattrs)?;
    if !symlink {
        let mode = Mode::from_raw_mode(meta.mode & 0o7777);
        chmodat(parent, itself, mode, AtFlags::empty())?;
    }
    let time = Timespec {
        tv_sec: meta.mtime.0,
        tv_nsec: meta.mtime.1.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(parent, itself, &times, nofollow)
}

/// Writes what is not zero.
fn write_sparse(file: &OwnedFd, content: &[u8], at: u64) -> std::result::Result<(), Errno> {
    let mut place = 0;
    while place < content.len() {
        let length = run(&content[place..]);
        if length == 0 {
            place += BLOCK;
            continue;
        }
        let mut rest = &content[place..place + length];
        while !rest.is_empty() {
            match pwrite(file, rest, at + place as u64) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => {
                    place += count;
                    rest = &rest[count..];
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

/// Length of the blocks at the beginning that are not all zeros.
fn run(content: &[u8]) -> usize {
    let blocks = content.chunks(BLOCK).take_while(|block| !is_zero(block));
    blocks.map(<[u8]>::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(depth: usize, name: &str, node: Node) -> Record {
        let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
        Record::Entry(Entry {
            depth,
            name: name.into(),
            meta: Meta {
                mode: 0o755,
                uid: uid.as_raw(),
                gid: gid.as_raw(),
                mtime: (1, 2),
                xattrs: Vec::new(),
            },
            link: None,
            node,
        })
    }

    fn file(size: u64, content: Content) -> Node {
        Node::File { size, content }
    }

    /// What a manifest with these records after its root is answered with.
    fn refusal(records: Vec<Record>) -> String {
        let target = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(&target.path().join("t")).unwrap();
        writer.record(entry(0, "", Node::Folder), None).unwrap();
        for record in records {
            if let Err(error) = writer.record(record, Some(Bytes::from_static(&[1; 100]))) {
                return error.to_string();
            }
        }
        writer.finish().unwrap();
        String::from("done")
    }

    #[test]
    fn hostile_manifests_are_refused() {
        let outside = tempfile::tempdir().unwrap();
        let link = Node::Symlink {
            target: outside.path().as_os_str().as_bytes().to_vec(),
        };
        let through = vec![entry(1, "a", link.clone()), entry(2, "b", Node::Folder)];
        assert!(refusal(through).contains("in no folder"));
        let over = vec![entry(1, "a", link.clone()), entry(1, "a", Node::Folder)];
        assert!(refusal(over).contains("exists"));
        let write = file(5, Content::Pieces);
        assert!(refusal(vec![entry(1, "a", link), entry(1, "a", write)]).contains("exists"));
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);

        assert!(refusal(vec![entry(1, "a", Node::Link(3))]).contains("refers to nothing"));
        assert!(refusal(vec![entry(0, "", Node::Folder)]).contains("several"));
        let chunk = crate::Digest::of(b"");
        let piece = |at| Record::Piece { at, chunk };
        assert!(refusal(vec![piece(0)]).contains("of no file"));
        for (size, at) in [
            (99, 0),
            (100, 1),
            (u64::MAX >> 1, u64::MAX >> 3),
            (0, u64::MAX),
        ] {
            let records = vec![entry(1, "a", file(size, Content::Pieces)), piece(at)];
            let error = refusal(records);
            assert!(
                error.contains("behind the end") || error.contains("large"),
                "{error}"
            );
        }
        for (at, size) in [(0, 101), (100, 1), (usize::MAX, 2)] {
            let records = vec![
                Record::Bundle(chunk),
                entry(1, "a", file(size, Content::Bundled(at))),
            ];
            assert!(refusal(records).contains("outside its chunk"));
        }
        let bundled = entry(1, "a", file(1, Content::Bundled(0)));
        assert!(refusal(vec![bundled]).contains("outside its chunk"));
        let mut strange = entry(1, "a", Node::Folder);
        if let Record::Entry(entry) = &mut strange {
            entry.meta.xattrs = vec![crate::record::Xattr(b"security.evm".into(), vec![1])];
        }
        assert!(refusal(vec![strange, entry(1, "b", Node::Folder)]).contains("Invalid"));
    }

    #[test]
    fn a_target_with_something_in_it_is_refused() {
        let target = tempfile::tempdir().unwrap();
        std::fs::write(target.path().join("x"), "kept").unwrap();
        let error = Writer::new(target.path()).err().unwrap().to_string();
        assert!(error.contains("not empty"), "{error}");
        let link = target.path().join("l");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(Writer::new(&link).is_err());
    }
}
