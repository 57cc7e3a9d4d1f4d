//! Starting the launcher, and talking to it from a program without an event loop.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::message::{Call, Event, MAX_MESSAGE, Reply, Request, decode_reply, encode_request};
use crate::caps::CapSet;
use crate::fdpass::{recv_with_fds, send_with_fds};
use crate::process::wait_ended;
use crate::spawn::{SpawnError, SpawnSpec, Spawned, Stdio, spawn};

/// Everything: the launcher keeps the capabilities of its parent.
const UNBOUNDED: CapSet = CapSet(u64::MAX);

/// Starts `program` with these arguments as launcher: its standard input is the socket returned,
/// which it takes up with [`adopt_stdin`]. Its messages go to our standard error.
pub fn start(program: CString, argv: Vec<CString>) -> Result<(OwnedFd, Spawned), SpawnError> {
    let create = |e: rustix::io::Errno| SpawnError::Create(e.into());
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(create)?;
    let stderr = || rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3).map_err(create);
    let env = std::env::vars_os().filter_map(|(name, value)| {
        use std::os::unix::ffi::OsStringExt;
        let mut entry = name.into_vec();
        entry.push(b'=');
        entry.extend(value.into_vec());
        CString::new(entry).ok()
    });
    let spawned = spawn(SpawnSpec {
        program,
        argv,
        env: env.collect(),
        cwd: CString::from(c"/"),
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        groups: Some(vec![]),
        stdio: Stdio::Fds {
            stdin: theirs,
            stdout: stderr()?,
            stderr: stderr()?,
        },
        rlimits: vec![],
        umask: 0o022,
        capabilities: UNBOUNDED,
        oom_score_adj: None,
    })?;
    Ok((ours, spawned))
}

/// The launcher's socket, moved away from standard input, which becomes `/dev/null`.
pub fn adopt_stdin() -> io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(socket)
}

/// A synchronous client: one request at a time.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    seq: u64,
    reports: VecDeque<Event>,
}

impl Client {
    /// Talks over `socket` (see [`start`]).
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            seq: 0,
            reports: VecDeque::new(),
        }
    }

    /// Sends a request and waits for its answer, which may itself be [`Event::Failed`].
    ///
    /// # Errors
    /// `TimedOut`, `UnexpectedEof` when the launcher is gone, or what the socket says.
    pub fn call(
        &mut self,
        call: Call,
        fds: &[BorrowedFd<'_>],
        timeout: Duration,
    ) -> io::Result<(Event, Vec<OwnedFd>)> {
        self.seq += 1;
        let request = encode_request(&Request {
            seq: self.seq,
            call,
        })?;
        send_with_fds(&self.socket, &request, fds)?;
        let deadline = Instant::now() + timeout;
        loop {
            let (reply, fds) = self.receive(deadline)?;
            match reply.seq {
                Some(seq) if seq == self.seq => return Ok((reply.event, fds)),
                Some(_) => {} // the answer to a request given up on
                None => self.reports.push_back(reply.event),
            }
        }
    }

    /// Sends bytes as they are, for clients that build their own requests.
    pub fn send_raw(&self, bytes: &[u8]) -> io::Result<()> {
        send_with_fds(&self.socket, bytes, &[]).map(drop)
    }

    /// The next thing the launcher reports by itself.
    pub fn next_report(&mut self, timeout: Duration) -> io::Result<Event> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(report) = self.reports.pop_front() {
                return Ok(report);
            }
            let (reply, _) = self.receive(deadline)?;
            if reply.seq.is_none() {
                self.reports.push_back(reply.event);
            }
        }
    }

    fn receive(&self, deadline: Instant) -> io::Result<(Reply, Vec<OwnedFd>)> {
        let left = deadline.saturating_duration_since(Instant::now());
        if !wait_ended(self.socket.as_fd(), left)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut buffer = vec![0; MAX_MESSAGE];
        let received = recv_with_fds(&self.socket, &mut buffer)?;
        if received.len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((decode_reply(&buffer[..received.len])?, received.fds))
    }
}
