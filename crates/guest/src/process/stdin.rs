//! Input of a process: ordered, back-pressured, and safe to repeat.

use std::{io, os::fd::OwnedFd, rc::Rc, time::Duration};

use rustix::io::{Errno, write};
use tokio::io::unix::AsyncFd;
use woodfrog_guest_proto::{ErrorCode, Frame, FrameKind, ProcessRef, StdinPosition};

use super::Process;
use crate::{
    conn::Conn,
    error::{OpResult, fail, invalid, system},
    guest::Guest,
};

/// How long after the end of its process an input operation waits for its own end.
const LAST_WORD: Duration = Duration::from_secs(10);

enum Target {
    Closed,
    Pipe(AsyncFd<OwnedFd>),
    Terminal(Rc<AsyncFd<OwnedFd>>),
}

pub(super) struct Stdin {
    target: Target,
    /// Bytes the process has been given.
    given: u64,
}

impl Stdin {
    pub(super) fn closed() -> Self {
        Self {
            target: Target::Closed,
            given: 0,
        }
    }

    pub(super) fn pipe(fd: AsyncFd<OwnedFd>) -> Self {
        Self {
            target: Target::Pipe(fd),
            given: 0,
        }
    }

    pub(super) fn terminal(fd: Rc<AsyncFd<OwnedFd>>) -> Self {
        Self {
            target: Target::Terminal(fd),
            given: 0,
        }
    }

    pub(super) fn close(&mut self) {
        self.target = Target::Closed;
    }

    fn fd(&self) -> OpResult<&AsyncFd<OwnedFd>> {
        match &self.target {
            Target::Closed => Err(fail(ErrorCode::Closed, "stdin is closed")),
            Target::Pipe(fd) => Ok(fd),
            Target::Terminal(fd) => Ok(fd),
        }
    }

    async fn write(&mut self, mut bytes: &[u8]) -> OpResult<()> {
        while !bytes.is_empty() {
            let fd = self.fd()?;
            let mut ready = fd.writable().await.map_err(|e| system("stdin", e))?;
            let n = match ready.try_io(|fd| write(fd.get_ref(), bytes).map_err(io::Error::from)) {
                Ok(Ok(n)) => n,
                Ok(Err(e)) if Errno::from_io_error(&e) == Some(Errno::PIPE) => {
                    self.close();
                    return Err(fail(ErrorCode::Closed, "the process closed its stdin"));
                }
                Ok(Err(e)) => return Err(system("stdin", e)),
                Err(_) => continue,
            };
            self.given += n as u64;
            bytes = bytes.get(n..).unwrap_or_default();
        }
        Ok(())
    }
}

/// One stdin operation: data frames until End. Writers of one process take turns.
pub(crate) async fn feed(
    conn: &mut Conn,
    guest: &Guest,
    target: &ProcessRef,
    offset: Option<u64>,
) -> OpResult<()> {
    let process = guest.processes.borrow_mut().find(target)?;
    let mut stdin = tokio::select! {
        stdin = process.stdin.lock() => stdin,
        _ = process.wait_exit() => return Err(process.gone()),
        () = conn.hangup_unread() => return Ok(()),
    };
    let base = offset.unwrap_or(stdin.given);
    let mut received = 0u64;
    loop {
        let frame = tokio::select! {
            biased;
            frame = conn.recv() => frame,
            () = over(&process), if process.exit.get().is_none() => {
                stdin.close();
                return Err(process.gone());
            }
        };
        match frame {
            Ok(Some(Frame::Data { offset, bytes, .. })) if offset == received => {
                let at = base.saturating_add(received);
                received += bytes.len() as u64;
                write_at(conn, &process, &mut stdin, at, &bytes).await?;
            }
            Ok(Some(Frame::End(_))) => break,
            // The host is gone; what it sent has been given.
            Ok(None) | Err(_) => return Ok(()),
            Ok(Some(_)) => return Err(invalid("expected contiguous data or the end")),
        }
    }
    let position = StdinPosition {
        offset: stdin.given,
    };
    drop(stdin);
    // A host that does not wait for the answer has its reasons.
    let _ = conn.send(FrameKind::End, &position).await;
    Ok(())
}

/// The process has ended, and a host that was about to say "that was all" has had its time: input
/// that ends its reader (`exit`) was delivered like any other.
async fn over(process: &Process) {
    let (_, at) = process.wait_exit().await;
    tokio::time::sleep_until(at + LAST_WORD).await;
}

/// Writes what of `at..` the process does not have yet.
async fn write_at(
    conn: &Conn,
    process: &Process,
    stdin: &mut Stdin,
    at: u64,
    bytes: &[u8],
) -> OpResult<()> {
    if process.exit.get().is_some() {
        stdin.close();
        return Err(process.gone());
    }
    stdin.fd()?;
    if at > stdin.given {
        let given = stdin.given;
        return Err(invalid(format!(
            "input at {at} would leave a hole after {given}"
        )));
    }
    let known = usize::try_from(stdin.given - at)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let fresh = bytes.get(known..).unwrap_or_default();
    tokio::select! {
        biased;
        result = stdin.write(fresh) => return result,
        _ = process.wait_exit() => {}
        () = conn.hangup_unread() => return Ok(()),
    }
    stdin.close();
    Err(process.gone())
}

/// Closes stdin after everything written before it.
pub(crate) async fn close(guest: &Guest, target: &ProcessRef) -> OpResult<()> {
    let process = guest.processes.borrow_mut().find(target)?;
    let mut stdin = tokio::select! {
        stdin = process.stdin.lock() => stdin,
        _ = process.wait_exit() => return Ok(()),
    };
    match stdin.target {
        Target::Terminal(_) => Err(fail(
            ErrorCode::Unsupported,
            "a terminal is closed by sending it ^D",
        )),
        Target::Pipe(_) | Target::Closed => {
            stdin.close();
            Ok(())
        }
    }
}
