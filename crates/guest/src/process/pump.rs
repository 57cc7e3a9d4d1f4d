//! Moves a process's output into its log, and decides when it has ended.
//!
//! A descendant may keep the pipe open long after the process itself exited. Output is taken
//! until the pipe's end or until [`GRACE`] after the exit, then what the pipe holds at that
//! moment, and that is the end. The pipe is kept open and emptied afterwards, because closing it
//! would kill the descendant with SIGPIPE at its next line.

use std::{cell::RefCell, os::fd::OwnedFd, rc::Rc};

use rustix::io::{Errno, read};
use tokio::io::unix::AsyncFd;
use woodfrog_guest_proto::{Channel, ProcessEnd};

use super::{GRACE, Process, launch::PIPE_SIZE};
use crate::guest::Guest;

/// Bytes read at once.
const CHUNK: usize = 128 << 10;

thread_local! {
    /// One buffer for all pumps: it is never held across a wait.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

type Source = (Channel, Rc<AsyncFd<OwnedFd>>);

/// What one attempt to read brought.
enum Taken {
    Bytes(usize),
    Nothing,
    End,
}

/// Runs until the process has ended and its output is complete.
pub(super) async fn run(guest: Rc<Guest>, process: Rc<Process>, sources: Vec<Source>) {
    let mut pumps = Vec::new();
    for source in sources {
        pumps.push(tokio::task::spawn_local(pump(process.clone(), source)));
    }
    let mut open = Vec::new();
    for pump in pumps {
        open.extend(pump.await.ok().flatten());
    }
    finish(&guest, &process).await;
    for fd in open {
        tokio::task::spawn_local(discard(fd));
    }
}

async fn finish(guest: &Guest, process: &Rc<Process>) {
    let (exit, _) = process.wait_exit().await;
    let offset = {
        let mut log = process.log.borrow_mut();
        log.seal();
        log.end()
    };
    process.ended_ms.set(Some(crate::system::unix_ms()));
    *process.end.borrow_mut() = Some(ProcessEnd {
        exit,
        status: exit.status(),
        timed_out: process.timed_out.get(),
        offset,
    });
    process.master.borrow_mut().take();
    // A writer that holds the lock sees the exit and closes the pipe itself.
    if let Ok(mut stdin) = process.stdin.try_lock() {
        stdin.close();
    }
    process.grew.notify_waiters();
    guest.process_ended(process);
}

/// Returns the descriptor when somebody else still has the other end.
async fn pump(process: Rc<Process>, (channel, fd): Source) -> Option<Rc<AsyncFd<OwnedFd>>> {
    tokio::select! {
        biased;
        () = until_end(&process, &fd, channel) => return None,
        () = grace(&process) => {}
    }
    // A pipe holds at most its size, so this is all that was written before now.
    let mut left = PIPE_SIZE + CHUNK;
    while left > 0 {
        wait_room(&process).await;
        match take(&process, fd.get_ref(), channel) {
            Taken::Bytes(n) => left = left.saturating_sub(n),
            Taken::Nothing => return Some(fd),
            Taken::End => return None,
        }
        tokio::task::yield_now().await;
    }
    Some(fd)
}

async fn grace(process: &Process) {
    let (_, at) = process.wait_exit().await;
    tokio::time::sleep_until(at + GRACE).await;
}

async fn until_end(process: &Process, fd: &AsyncFd<OwnedFd>, channel: Channel) {
    loop {
        wait_room(process).await;
        let Ok(mut ready) = fd.readable().await else {
            return;
        };
        match take(process, fd.get_ref(), channel) {
            Taken::Bytes(_) => {}
            // The other pump may have used the room up meanwhile.
            Taken::Nothing if process.log.borrow().room() == 0 => {}
            Taken::Nothing => ready.clear_ready(),
            Taken::End => return,
        }
    }
}

/// Waits until no attached reader is the whole retention behind.
async fn wait_room(process: &Process) {
    loop {
        let moved = process.moved.notified();
        if process.log.borrow().room() > 0 {
            return;
        }
        moved.await;
    }
}

fn take(process: &Process, fd: &OwnedFd, channel: Channel) -> Taken {
    let room = {
        let log = process.log.borrow();
        log.room().min(CHUNK).min(log.most_at_once())
    };
    if room == 0 {
        return Taken::Nothing;
    }
    SCRATCH.with_borrow_mut(|scratch| {
        match read(fd, scratch.get_mut(..room).unwrap_or_default()) {
            Ok(0) => Taken::End,
            Ok(n) => {
                process.log.borrow_mut().push(
                    channel,
                    crate::system::unix_ms(),
                    scratch.get(..n).unwrap_or_default(),
                );
                process.grew.notify_waiters();
                Taken::Bytes(n)
            }
            Err(Errno::AGAIN | Errno::INTR) => Taken::Nothing,
            // A terminal whose last user is gone says EIO.
            Err(_) => Taken::End,
        }
    })
}

/// Empties a pipe nobody listens to any more, until its writers are gone.
async fn discard(fd: Rc<AsyncFd<OwnedFd>>) {
    while let Ok(mut ready) = fd.readable().await {
        let result = SCRATCH.with_borrow_mut(|scratch| read(fd.get_ref(), &mut scratch[..]));
        match result {
            Ok(0) => return,
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => ready.clear_ready(),
            Err(_) => return,
        }
    }
}
