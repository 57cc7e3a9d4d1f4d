//! Which directories an inotify descriptor watches, and what it reports.

use std::{collections::HashMap, fs, io, os::fd::OwnedFd};

use rustix::{
    fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init},
    io::Errno,
};
use tokio::io::unix::AsyncFd;
use woodfrog_guest_proto::{ErrorCode, WatchDepth, WatchEvent, WatchKind, limits};

use crate::error::{OpResult, fail, system};

/// Events not yet sent; beyond this the kernel keeps them, and reports an overflow in the end.
const MAX_PENDING: usize = 4 * limits::WATCH_PAGE;

pub(super) struct Tree {
    fd: AsyncFd<OwnedFd>,
    root: String,
    depth: WatchDepth,
    /// Directory of each watch, relative to the root; empty for the root.
    dirs: HashMap<i32, String>,
    /// The root itself is gone.
    pub(super) ended: bool,
}

impl Tree {
    /// Everything made below `root` from now on is reported.
    pub(super) fn new(root: &str, depth: WatchDepth) -> OpResult<Self> {
        let fd =
            init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|e| system("watcher", e))?;
        let fd = crate::readiness::watched(fd).map_err(|e| system("watcher", e))?;
        let dirs = HashMap::new();
        let mut tree = Self {
            fd,
            root: root.to_owned(),
            depth,
            dirs,
            ended: false,
        };
        tree.add(String::new(), &mut Vec::new())?;
        Ok(tree)
    }

    /// Watches a directory and, if asked to, those below; reports what is found there.
    fn add(&mut self, start: String, found: &mut Vec<WatchEvent>) -> OpResult<()> {
        let mut todo = vec![start];
        while let Some(dir) = todo.pop() {
            if self.dirs.len() >= limits::MAX_WATCHES {
                return Err(fail(ErrorCode::TooLarge, "too many directories to watch"));
            }
            let path = self.absolute(&dir);
            let mut flags = WatchFlags::CREATE
                | WatchFlags::MODIFY
                | WatchFlags::ATTRIB
                | WatchFlags::DELETE
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            if !dir.is_empty() {
                flags |= WatchFlags::DONT_FOLLOW;
            }
            match add_watch(self.fd.get_ref(), path.as_str(), flags) {
                Ok(watch) => drop(self.dirs.insert(watch, dir.clone())),
                // Gone or replaced since it was seen.
                Err(Errno::NOENT | Errno::NOTDIR) if !dir.is_empty() => continue,
                Err(e) => return Err(system(&format!("path '{path}'"), e)),
            }
            if self.depth == WatchDepth::Direct {
                continue;
            }
            for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
                let Ok(name) = entry.file_name().into_string() else {
                    continue;
                };
                let name = join(&dir, &name);
                if found.len() < MAX_PENDING {
                    found.push(event(WatchKind::Create, name.clone()));
                }
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    todo.push(name);
                }
            }
        }
        Ok(())
    }

    pub(super) fn absolute(&self, name: &str) -> String {
        match name {
            "" | "." => self.root.clone(),
            name => format!("{}/{name}", self.root.trim_end_matches('/')),
        }
    }

    /// Waits for events and takes them.
    pub(super) async fn next(&mut self) -> OpResult<Vec<WatchEvent>> {
        loop {
            let mut ready = self.fd.readable().await.map_err(|e| system("watcher", e))?;
            let taken = ready.try_io(|fd| drain(fd.get_ref()));
            drop(ready);
            let Ok(raw) = taken else { continue };
            let mut events = Vec::new();
            for raw in raw.map_err(|e| system("watcher", e))? {
                self.translate(raw, &mut events);
            }
            events.dedup_by(|b, a| b == a && b.kind == WatchKind::Write);
            if !events.is_empty() || self.ended {
                return Ok(events);
            }
        }
    }

    fn translate(&mut self, raw: Raw, events: &mut Vec<WatchEvent>) {
        if raw.flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            events.push(event(WatchKind::Overflow, String::new()));
            return;
        }
        let Some(dir) = self.dirs.get(&raw.watch).cloned() else {
            return;
        };
        if raw.flags.contains(ReadFlags::IGNORED) {
            self.dirs.remove(&raw.watch);
            return;
        }
        let own = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT;
        if raw.flags.intersects(own) {
            // A directory below is reported by the one above it.
            if dir.is_empty() && !self.ended {
                self.ended = true;
                let moved = raw.flags.contains(ReadFlags::MOVE_SELF);
                let kind = if moved {
                    WatchKind::Rename
                } else {
                    WatchKind::Remove
                };
                events.push(event(kind, ".".to_owned()));
            }
            return;
        }
        let Some(kind) = kind_of(raw.flags) else {
            return;
        };
        let name = match &raw.name {
            Some(name) => join(&dir, name),
            // About a watched directory itself; one below is reported by the one above it too.
            None if dir.is_empty() => ".".to_owned(),
            None => return,
        };
        let is_dir = raw.flags.contains(ReadFlags::ISDIR);
        if is_dir && kind == WatchKind::Rename {
            self.forget(&name);
        }
        events.push(event(kind, name.clone()));
        if is_dir && kind == WatchKind::Create && self.depth == WatchDepth::Recursive {
            // What was made in it before the watch existed is reported here; a file made at the
            // same moment may be reported twice.
            if self.add(name, events).is_err() {
                events.push(event(WatchKind::Overflow, String::new()));
            }
        }
    }

    /// Stops watching a directory that was moved away, and what is below it.
    fn forget(&mut self, name: &str) {
        let below = format!("{name}/");
        let gone = |dir: &String| dir == name || dir.starts_with(&below);
        let watches: Vec<i32> = self
            .dirs
            .iter()
            .filter(|(_, d)| gone(d))
            .map(|(w, _)| *w)
            .collect();
        for watch in watches {
            self.dirs.remove(&watch);
            // It may have ended by itself.
            let _ = rustix::fs::inotify::remove_watch(self.fd.get_ref(), watch);
        }
    }
}

/// One event as the kernel gives it.
struct Raw {
    watch: i32,
    flags: ReadFlags,
    name: Option<String>,
}

fn drain(fd: &OwnedFd) -> io::Result<Vec<Raw>> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 8192];
    let mut reader = Reader::new(fd, &mut buffer);
    let mut events = Vec::new();
    while events.len() < MAX_PENDING || !reader.is_buffer_empty() {
        match reader.next() {
            Ok(e) => events.push(Raw {
                watch: e.wd(),
                flags: e.events(),
                name: e.file_name().map(|n| n.to_string_lossy().into_owned()),
            }),
            Err(Errno::AGAIN) if !events.is_empty() => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(events)
}

fn kind_of(flags: ReadFlags) -> Option<WatchKind> {
    if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
        Some(WatchKind::Create)
    } else if flags.contains(ReadFlags::MODIFY) {
        Some(WatchKind::Write)
    } else if flags.contains(ReadFlags::DELETE) {
        Some(WatchKind::Remove)
    } else if flags.contains(ReadFlags::MOVED_FROM) {
        Some(WatchKind::Rename)
    } else if flags.contains(ReadFlags::ATTRIB) {
        Some(WatchKind::Chmod)
    } else {
        None
    }
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    }
}

fn event(kind: WatchKind, name: String) -> WatchEvent {
    WatchEvent {
        kind,
        name,
        entry: None,
    }
}
