//! Everything the child needs, laid out before it exists, so that it need not allocate.

use std::ffi::{CString, c_char};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::SocketAddrUnix;

use super::message::{Failure, LaunchSpec};
use crate::limits::ResourceLimit;
use crate::seccomp::Filter;

/// The most paths in each of the lists of a request.
const MAX_PATHS: usize = 64;

pub(super) struct Plan<'a> {
    pub(super) root: OwnedFd,
    /// `None` where the network is the sandbox's own: then the child makes it.
    pub(super) sysfs: Option<OwnedFd>,
    /// The child reads a byte here before it starts.
    pub(super) go: OwnedFd,
    pub(super) hostname: Vec<u8>,
    pub(super) filter: &'a Filter,
    pub(super) rlimits: &'a [ResourceLimit],
    pub(super) masked: Vec<Masked>,
    pub(super) readonly: Vec<CString>,
    pub(super) directories: Vec<Attached>,
    /// Of `/run` with `/dev/shm`.
    pub(super) memory_size: CString,
    pub(super) inodes: CString,
    pub(super) listen: Option<Listen>,
    pub(super) program: CString,
    pub(super) argv: Vec<*const c_char>,
    pub(super) env: Vec<*const c_char>,
    /// What `argv` and `env` point to.
    _strings: Vec<CString>,
}

/// A socket to be made, and the directory for it.
pub(super) struct Listen {
    pub(super) dir: CString,
    pub(super) address: SocketAddrUnix,
}

impl Listen {
    fn new(path: &str) -> Result<Self, Failure> {
        let refused = || Failure::refused("request", "the socket is not in a directory of /run");
        let (dir, _) = path.rsplit_once('/').ok_or_else(refused)?;
        let name = dir.strip_prefix("/run/").ok_or_else(refused)?;
        if name.is_empty() || name.contains('/') {
            return Err(refused());
        }
        Ok(Self {
            dir: c(dir)?,
            address: SocketAddrUnix::new(path)
                .map_err(|e| Failure::io("request", Some(path), &e.into()))?,
        })
    }
}

/// A directory to be attached inside.
pub(super) struct Attached {
    pub(super) tree: OwnedFd,
    /// The place, and before it all that is above it, from the top.
    pub(super) way: Vec<CString>,
}

impl Attached {
    pub(super) fn new(tree: OwnedFd, path: &str) -> Result<Self, Failure> {
        let part = |part: &str| part.is_empty() || part == "." || part == "..";
        let Some(names) = path.strip_prefix('/') else {
            return Err(Failure::refused("request", "a path that is not absolute"));
        };
        if names.split('/').any(part) {
            return Err(Failure::refused("request", "a path that is not plain"));
        }
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1);
        let way = ends.chain([path.len()]).map(|end| c(&path[..end]));
        Ok(Self {
            tree,
            way: way.collect::<Result<_, _>>()?,
        })
    }
}

pub(super) enum Masked {
    File(CString),
    Directory(CString),
}

impl Masked {
    pub(super) fn path(&self) -> &CString {
        match self {
            Masked::File(path) | Masked::Directory(path) => path,
        }
    }
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        spec: &'a LaunchSpec,
        filter: &'a Filter,
        root: OwnedFd,
        sysfs: Option<OwnedFd>,
        directories: Vec<Attached>,
        go: OwnedFd,
    ) -> Result<Self, Failure> {
        if spec.masked.len() > MAX_PATHS || spec.readonly.len() > MAX_PATHS {
            return Err(Failure::refused("request", "too many paths"));
        }
        let mut strings = Vec::with_capacity(spec.argv.len() + spec.env.len());
        let mut vector = |texts: &[String]| -> Result<Vec<*const c_char>, Failure> {
            let mut pointers = Vec::with_capacity(texts.len() + 1);
            for text in texts {
                let string = c(text)?;
                // The text is on the heap and stays there when the CString is moved.
                pointers.push(string.as_ptr());
                strings.push(string);
            }
            pointers.push(std::ptr::null());
            Ok(pointers)
        };
        let (argv, env) = (vector(&spec.argv)?, vector(&spec.env)?);
        Ok(Self {
            root,
            sysfs,
            go,
            hostname: spec.hostname.clone().into_bytes(),
            filter,
            rlimits: &spec.rlimits,
            masked: masked(&spec.masked)?,
            readonly: spec
                .readonly
                .iter()
                .map(|path| c(path))
                .collect::<Result<_, _>>()?,
            directories,
            memory_size: c(&spec.tmpfs.run.saturating_add(spec.tmpfs.shm).to_string())?,
            inodes: c(&spec.tmpfs.inodes.to_string())?,
            listen: spec.listen.as_deref().map(Listen::new).transpose()?,
            program: c(&spec.program)?,
            argv,
            env,
            _strings: strings,
        })
    }
}

/// Sandboxes run on this kernel, so what it does not have here it does not have there.
fn masked(paths: &[String]) -> Result<Vec<Masked>, Failure> {
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        match Path::new(path).metadata() {
            Ok(data) if data.is_dir() => found.push(Masked::Directory(c(path)?)),
            Ok(_) => found.push(Masked::File(c(path)?)),
            Err(_) => {}
        }
    }
    Ok(found)
}

fn c(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::refused("request", "a text with a zero byte"))
}
