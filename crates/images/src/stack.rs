//! Looks up paths through a stack of layers as overlayfs would, without mounting anything.
//! Symlinks are resolved inside the stack; nothing outside its layers is ever opened.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{FileType, Stat};
use thiserror::Error;

use crate::vfs;

/// Symlinks followed in one lookup, as many as the kernel follows.
const MAX_SYMLINKS: usize = 40;

/// Why a path was not found or read.
#[derive(Debug, Error)]
pub enum StackError {
    #[error("`{0}` does not exist")]
    NotFound(String),
    #[error("`{0}` leads through something that is not a directory")]
    NotADirectory(String),
    #[error("`{0}` is not a regular file")]
    NotAFile(String),
    #[error("`{0}` goes through too many symbolic links")]
    Loop(String),
    #[error("`{path}` is larger than {limit} bytes")]
    TooLarge { path: String, limit: u64 },
    #[error("reading layers")]
    Io(#[from] io::Error),
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackKind {
    Missing,
    Directory,
    File,
    Other,
}

/// A directory as it appears in the stack: one descriptor per layer that contributes, top first.
#[derive(Clone)]
pub(crate) struct MergedDir {
    pub(crate) path: Vec<u8>,
    parts: Vec<Arc<OwnedFd>>,
}

pub(crate) enum Node {
    Dir(MergedDir),
    Symlink(Vec<u8>),
    Leaf { dir: Arc<OwnedFd>, stat: Stat },
}

/// Where a lookup ended.
pub(crate) struct Found {
    /// Directories from the root to the last existing one on the real path (symlinks resolved).
    pub(crate) dirs: Vec<MergedDir>,
    /// A file at the end, with the layer directory that holds it.
    pub(crate) leaf: Option<(Arc<OwnedFd>, Vec<u8>, Stat)>,
    /// Names that do not exist, below the last directory.
    pub(crate) missing: Vec<Vec<u8>>,
}

/// Open layers, ready for lookups.
pub struct LayerStack {
    root: MergedDir,
}

impl LayerStack {
    /// `layers` are directories, bottom first.
    pub fn open(layers: &[PathBuf]) -> Result<Self, StackError> {
        let mut parts = Vec::new();
        for path in layers.iter().rev() {
            let dir = vfs::open_dir(path)?;
            let opaque = vfs::is_opaque(&dir)?;
            parts.push(Arc::new(dir));
            if opaque {
                break;
            }
        }
        Ok(Self {
            root: MergedDir {
                path: Vec::new(),
                parts,
            },
        })
    }

    /// What is at `path`, symlinks followed.
    pub fn kind(&self, path: &str) -> Result<StackKind, StackError> {
        let found = match self.walk(path.as_bytes()) {
            Err(StackError::NotADirectory(_)) => return Ok(StackKind::Missing),
            found => found?,
        };
        Ok(match (&found.leaf, found.missing.is_empty()) {
            (Some((_, _, stat)), _) if vfs::kind(stat) == FileType::RegularFile => StackKind::File,
            (Some(_), _) => StackKind::Other,
            (None, true) => StackKind::Directory,
            (None, false) => StackKind::Missing,
        })
    }

    /// The content of the regular file at `path`, of at most `limit` bytes.
    pub fn read_file(&self, path: &str, limit: u64) -> Result<Vec<u8>, StackError> {
        let found = self.walk(path.as_bytes())?;
        let Some((dir, name, stat)) = found.leaf else {
            return Err(match found.missing.is_empty() {
                true => StackError::NotAFile(path.to_owned()),
                false => StackError::NotFound(path.to_owned()),
            });
        };
        if vfs::kind(&stat) != FileType::RegularFile {
            return Err(StackError::NotAFile(path.to_owned()));
        }
        let mut bytes = Vec::new();
        vfs::open_file(&*dir, name.as_slice())?
            .take(limit + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(StackError::TooLarge {
                path: path.to_owned(),
                limit,
            });
        }
        Ok(bytes)
    }

    /// Follows `path` as far as it exists.
    pub(crate) fn walk(&self, path: &[u8]) -> Result<Found, StackError> {
        let shown = || String::from_utf8_lossy(path).into_owned();
        let mut todo: VecDeque<Vec<u8>> = split(path).collect();
        let mut found = Found {
            dirs: vec![self.root.clone()],
            leaf: None,
            missing: Vec::new(),
        };
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if found.leaf.is_some() {
                return Err(StackError::NotADirectory(shown()));
            }
            if name == b".." {
                if found.missing.pop().is_none() && found.dirs.len() > 1 {
                    found.dirs.pop();
                }
                continue;
            }
            let node = match (found.missing.is_empty(), found.dirs.last()) {
                (true, Some(dir)) => dir.lookup(&name)?,
                _ => None,
            };
            match node {
                None => found.missing.push(name),
                Some(Node::Dir(dir)) => found.dirs.push(dir),
                Some(Node::Leaf { dir, stat }) => found.leaf = Some((dir, name, stat)),
                Some(Node::Symlink(target)) => {
                    links += 1;
                    if links > MAX_SYMLINKS {
                        return Err(StackError::Loop(shown()));
                    }
                    if target.starts_with(b"/") {
                        found.dirs.truncate(1);
                    }
                    for part in split(&target).collect::<Vec<_>>().into_iter().rev() {
                        todo.push_front(part);
                    }
                }
            }
        }
        Ok(found)
    }
}

impl MergedDir {
    /// The descriptor whose owner, mode and attributes the merged directory shows.
    pub(crate) fn top(&self) -> &Arc<OwnedFd> {
        &self.parts[0]
    }

    pub(crate) fn lookup(&self, name: &[u8]) -> io::Result<Option<Node>> {
        let mut parts = Vec::new();
        for part in &self.parts {
            let Some(stat) = vfs::stat_at(&**part, name)? else {
                continue;
            };
            if vfs::is_whiteout(&stat) {
                break;
            }
            match vfs::kind(&stat) {
                FileType::Directory => {
                    let dir = vfs::open_subdir(&**part, name)?;
                    let opaque = vfs::is_opaque(&dir)?;
                    parts.push(Arc::new(dir));
                    if opaque {
                        break;
                    }
                }
                // A file below a directory is hidden by it.
                _ if !parts.is_empty() => break,
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&**part, name, Vec::new())?;
                    return Ok(Some(Node::Symlink(target.into_bytes())));
                }
                _ => {
                    return Ok(Some(Node::Leaf {
                        dir: part.clone(),
                        stat,
                    }));
                }
            }
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let path = if self.path.is_empty() {
            name.to_vec()
        } else {
            [&self.path, &b"/"[..], name].concat()
        };
        Ok(Some(Node::Dir(MergedDir { path, parts })))
    }
}

fn split(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let parts = path
        .split(|&b| b == b'/')
        .filter(|part| !matches!(*part, b"" | b"."));
    parts.map(<[u8]>::to_vec)
}

/// Reads one file of at most `limit` bytes through a stack of layer directories, bottom first.
pub fn read_file(layers: &[PathBuf], path: &str, limit: u64) -> Result<Vec<u8>, StackError> {
    LayerStack::open(layers)?.read_file(path, limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn looks_through_whiteouts_opaque_directories_and_links() {
        let tmp = tempfile::tempdir().unwrap();
        let (low, top) = (tmp.path().join("low"), tmp.path().join("top"));
        for dir in [
            low.join("etc/sub"),
            low.join("gone"),
            low.join("fresh"),
            top.join("etc"),
            top.join("fresh"),
        ] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(low.join("etc/passwd"), "low").unwrap();
        std::fs::write(low.join("etc/sub/f"), "deep").unwrap();
        std::fs::write(low.join("fresh/old"), "hidden").unwrap();
        std::fs::write(top.join("etc/passwd"), "top").unwrap();
        std::fs::write(tmp.path().join("secret"), "host").unwrap();
        vfs::make_whiteout(vfs::open_dir(&top).unwrap(), "gone").unwrap();
        vfs::set_opaque(vfs::open_dir(&top.join("fresh")).unwrap()).unwrap();
        symlink("/etc", top.join("conf")).unwrap();
        symlink("../../../../secret", low.join("escape")).unwrap();
        symlink(tmp.path().join("secret"), low.join("absolute")).unwrap();
        symlink("loop", low.join("loop")).unwrap();
        let layers = [low, top];
        let read =
            |path: &str| read_file(&layers, path, 100).map(|b| String::from_utf8(b).unwrap());
        assert_eq!(read("/etc/passwd").unwrap(), "top");
        assert_eq!(read("conf/sub/../sub/./f").unwrap(), "deep");
        for missing in [
            "gone",
            "gone/x",
            "fresh/old",
            "escape",
            "absolute",
            "nope/x",
        ] {
            assert!(
                matches!(read(missing), Err(StackError::NotFound(_))),
                "{missing}"
            );
        }
        assert!(matches!(read("loop"), Err(StackError::Loop(_))));
        assert!(matches!(read("etc"), Err(StackError::NotAFile(_))));
        assert!(matches!(
            read("etc/passwd/x"),
            Err(StackError::NotADirectory(_))
        ));
        assert!(matches!(
            read_file(&layers, "etc/passwd", 2),
            Err(StackError::TooLarge { .. })
        ));
        let stack = LayerStack::open(&layers).unwrap();
        assert_eq!(stack.kind("conf/").unwrap(), StackKind::Directory);
        assert_eq!(stack.kind("fresh/old").unwrap(), StackKind::Missing);
    }
}
