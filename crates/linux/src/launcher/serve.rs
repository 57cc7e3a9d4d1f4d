//! The launcher's loop.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};

use super::launch::{Tools, launch};
use super::message::{Call, Event, Failure, LaunchSpec, MAX_MESSAGE, Reply, Request, encode};
use crate::fdpass::{recv_with_fds, send_with_fds};
use crate::process::{Exit, kill};
use crate::seccomp::{Filter, SeccompPolicy};

/// Id-mapping namespaces kept for their next use; one costs about as much as a fork.
const MAX_MAPPINGS: usize = 256;
/// The most sandboxes at a time.
const MAX_SANDBOXES: usize = 8192;

struct Sandbox {
    id: String,
    pidfd: OwnedFd,
    /// Requests waiting for its end.
    waiting: Vec<u64>,
}

struct Launcher<'a> {
    socket: BorrowedFd<'a>,
    home_netns: OwnedFd,
    sandboxes: BTreeMap<i32, Sandbox>,
    filters: HashMap<SeccompPolicy, Filter>,
    mappings: HashMap<u32, OwnedFd>,
    /// Messages the socket had no room for. At most two for each sandbox and one for the request
    /// in work, since requests are not read while there are any.
    unsent: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
}

/// Serves until the socket is closed.
pub(super) fn run(socket: BorrowedFd<'_>) -> io::Result<()> {
    crate::selfctl::ignore_signals(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE])?;
    crate::selfctl::cloexec_from(3)?;
    let ends = child_signal()?;
    let mut launcher = Launcher {
        socket,
        home_netns: crate::netns::current()?,
        sandboxes: BTreeMap::new(),
        filters: HashMap::new(),
        mappings: HashMap::new(),
        unsent: VecDeque::new(),
    };
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let wanted = if launcher.unsent.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::OUT
        };
        let mut fds = [
            PollFd::new(&socket, wanted),
            PollFd::new(&ends, PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        let (on_socket, on_ends) = (fds[0].revents(), fds[1].revents());
        if !on_ends.is_empty() {
            launcher.reap(ends.as_fd())?;
        }
        if on_socket.contains(PollFlags::OUT) {
            launcher.flush()?;
        } else if on_socket.contains(PollFlags::IN) {
            match recv_with_fds(socket, &mut buffer) {
                Ok(received) if received.len == 0 => return Ok(()),
                Ok(received) => launcher.serve(&buffer[..received.len], received.fds)?,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    launcher.refuse(error.to_string())?;
                }
                Err(error) => return Err(error),
            }
        } else if !on_socket.is_empty() {
            return Ok(());
        }
    }
}

/// SIGCHLD as a descriptor. (Ignored, it would make children vanish unseen.)
fn child_signal() -> io::Result<OwnedFd> {
    // SAFETY: the set is ours; a default disposition; signalfd reads the set and makes a
    // descriptor that is ours.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }
}

impl Launcher<'_> {
    /// Answers a message that is no request.
    fn refuse(&mut self, detail: String) -> io::Result<()> {
        let event = Event::Failed(Failure::refused("request", detail));
        self.send(Reply { seq: None, event }, None)
    }

    fn serve(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) -> io::Result<()> {
        let Request { seq, call } = match serde_json::from_slice(bytes) {
            Ok(request) => request,
            Err(error) => return self.refuse(error.to_string()),
        };
        let done = match call {
            Call::Launch(spec) => self.launch(*spec, fds).map(Some),
            Call::PrepareMapping { uid_base } => self
                .prepare_mapping(uid_base)
                .map(|()| Some((Event::Mapped, None))),
            Call::CreateNetns => crate::netns::create()
                .map(|netns| Some((Event::Netns, Some(netns))))
                .map_err(|e| Failure::io("network namespace", None, &e)),
            Call::MountOverlay {
                layers,
                upper_dir,
                uid_base,
            } => self.mount(&layers, &upper_dir, uid_base).map(Some),
            Call::MapDirectory { source, uid_base } => self.map(&source, uid_base).map(Some),
            Call::Destroy(spec) => self.destroy(&spec.id, seq).map(|()| None),
        };
        match done {
            Ok(None) => Ok(()),
            Ok(Some((event, fd))) => self.send(
                Reply {
                    seq: Some(seq),
                    event,
                },
                fd,
            ),
            Err(failure) => self.send(
                Reply {
                    seq: Some(seq),
                    event: Event::Failed(failure),
                },
                None,
            ),
        }
    }

    fn launch(
        &mut self,
        spec: LaunchSpec,
        given: Vec<OwnedFd>,
    ) -> Result<(Event, Option<OwnedFd>), Failure> {
        if self.sandboxes.len() >= MAX_SANDBOXES {
            return Err(Failure::refused("request", "too many sandboxes"));
        }
        if self.sandboxes.values().any(|sandbox| sandbox.id == spec.id) {
            return Err(Failure::refused(
                "request",
                "a sandbox of this id runs already",
            ));
        }
        self.prepare_mapping(spec.uid_base)?;
        let filter = match self.filters.entry(spec.seccomp) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let filter = Filter::new(spec.seccomp);
                entry.insert(filter.map_err(|e| Failure::io("seccomp", None, &e))?)
            }
        };
        let tools = Tools {
            home_netns: self.home_netns.as_fd(),
            filter,
            mapping: self.mappings[&spec.uid_base].as_fd(),
        };
        let made = launch(&spec, given, &tools)?;
        let pidfd = made
            .pidfd
            .try_clone()
            .map_err(|e| Failure::io("pidfd", None, &e));
        let sandbox = Sandbox {
            id: spec.id,
            pidfd: made.pidfd,
            waiting: vec![],
        };
        if pidfd.is_err() {
            let _ = kill(&sandbox.pidfd);
        }
        self.sandboxes
            .insert(made.pid.as_raw_nonzero().get(), sandbox);
        Ok((Event::Launched(made.launched), Some(pidfd?)))
    }

    fn prepare_mapping(&mut self, base: u32) -> Result<(), Failure> {
        if self.mappings.contains_key(&base) {
            return Ok(());
        }
        if self.mappings.len() >= MAX_MAPPINGS {
            self.mappings.clear();
        }
        let namespace = crate::idmap::mapping_namespace(base)
            .map_err(|e| Failure::io("mapping namespace", None, &e))?;
        self.mappings.insert(base, namespace);
        Ok(())
    }

    fn mount(
        &mut self,
        layers: &[String],
        upper_dir: &str,
        base: u32,
    ) -> Result<(Event, Option<OwnedFd>), Failure> {
        self.prepare_mapping(base)?;
        let mapping = self.mappings[&base].as_fd();
        let (mount, _) = crate::overlay::mount(layers, upper_dir, mapping)
            .map_err(|e| super::launch::root_failure(&e))?;
        Ok((Event::Overlay, Some(mount)))
    }

    fn map(&mut self, source: &str, base: u32) -> Result<(Event, Option<OwnedFd>), Failure> {
        self.prepare_mapping(base)?;
        let mount = super::launch::map_directory(source, self.mappings[&base].as_fd())?;
        Ok((Event::Directory, Some(mount)))
    }

    /// Kills; the answer follows the end.
    fn destroy(&mut self, id: &str, seq: u64) -> Result<(), Failure> {
        let sandbox = self
            .sandboxes
            .values_mut()
            .find(|sandbox| sandbox.id == id)
            .ok_or_else(|| Failure::refused("destroy", "no sandbox of this launcher"))?;
        kill(&sandbox.pidfd).map_err(|e| Failure::io("destroy", None, &e))?;
        sandbox.waiting.push(seq);
        Ok(())
    }

    /// Reports every child that has ended.
    fn reap(&mut self, ends: BorrowedFd<'_>) -> io::Result<()> {
        let mut info = [0u8; 128];
        while rustix::io::read(ends, &mut info).is_ok() {}
        loop {
            let mut status = 0;
            // SAFETY: `status` is ours.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                return Ok(());
            }
            let Some(sandbox) = self.sandboxes.remove(&pid) else {
                continue;
            };
            let exit = Exit::from_status(status);
            let event = Event::Exited {
                id: sandbox.id,
                pid: pid as u32,
                exit,
            };
            self.send(Reply { seq: None, event }, None)?;
            for seq in sandbox.waiting {
                self.send(
                    Reply {
                        seq: Some(seq),
                        event: Event::Destroyed { exit },
                    },
                    None,
                )?;
            }
        }
    }

    fn send(&mut self, reply: Reply, fd: Option<OwnedFd>) -> io::Result<()> {
        self.unsent.push_back((encode(&reply)?, fd));
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some((bytes, fd)) = self.unsent.front() {
            let fds: Vec<BorrowedFd<'_>> = fd.iter().map(AsFd::as_fd).collect();
            match send_now(self.socket, bytes, &fds) {
                Ok(()) => drop(self.unsent.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Sends without waiting. The socket itself may be in blocking mode for its other users.
fn send_now(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut ready = [PollFd::new(&socket, PollFlags::OUT)];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if rustix::io::retry_on_intr(|| poll(&mut ready, Some(&now)))? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    send_with_fds(socket, bytes, fds).map(drop)
}
