//! One launcher process, from this side.
//!
//! A thread reads its answers; callers send by themselves (a message is one packet, so sends do
//! not mix) and wait for the answer with their number.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::sync::{Semaphore, oneshot};
use woodfrog_linux::fdpass::{recv_with_fds, send_with_fds};
use woodfrog_linux::launcher::{
    Call, Event, Failure, MAX_MESSAGE, Request, decode_reply, encode_request,
};
use woodfrog_sandbox::DriverError;

use crate::error::{from_failure, step};

/// Requests under way at one launcher: what its socket surely holds.
const IN_FLIGHT_MAX: usize = 16;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

type Answer = (Event, Vec<OwnedFd>);

/// A launcher process.
pub(crate) struct Launcher {
    socket: Arc<OwnedFd>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>,
    alive: Arc<AtomicBool>,
    seq: AtomicU64,
    room: Semaphore,
}

impl Launcher {
    /// Takes over the socket of a started launcher, and the duty to reap it.
    pub(crate) fn new(socket: OwnedFd, process: Pid) -> io::Result<Self> {
        let launcher = Self {
            socket: Arc::new(socket),
            waiting: Arc::default(),
            alive: Arc::new(AtomicBool::new(true)),
            seq: AtomicU64::new(1),
            room: Semaphore::new(IN_FLIGHT_MAX),
        };
        let socket = Arc::clone(&launcher.socket);
        let waiting = Arc::clone(&launcher.waiting);
        let alive = Arc::clone(&launcher.alive);
        std::thread::Builder::new()
            .name("launcher-answers".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                let reason = read_answers(&socket, &waiting);
                alive.store(false, Ordering::Release);
                lock(&waiting).clear();
                tracing::debug!(%reason, "a launcher is gone");
                // Its end of the socket sees this one's, if it is still there.
                let _ = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both);
                let _ = rustix::io::retry_on_intr(|| waitpid(Some(process), WaitOptions::empty()));
            })?;
        Ok(launcher)
    }

    /// Whether it still answers.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Makes it end: it does when its socket closes.
    pub(crate) fn close(&self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    /// Sends a request and waits for its answer; a refusal is an error.
    pub(crate) async fn call(
        &self,
        call: Call,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Answer, DriverError> {
        self.try_call(call, fds).await?.map_err(from_failure)
    }

    /// The same; the inner error is the launcher's refusal.
    pub(crate) async fn try_call(
        &self,
        call: Call,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Result<Answer, Failure>, DriverError> {
        let _room = self.room.acquire().await.map_err(|e| step("launcher", e))?;
        let seq = self.seq.fetch_add(1, Ordering::Relaxed);
        let request =
            encode_request(&Request { seq, call }).map_err(|e| step("launcher request", e))?;
        let (sender, receiver) = oneshot::channel();
        lock(&self.waiting).insert(seq, sender);
        if let Err(error) = send_with_fds(self.socket.as_fd(), &request, fds) {
            lock(&self.waiting).remove(&seq);
            return Err(step("launcher request", error));
        }
        let answer = tokio::time::timeout(ANSWER_MAX, receiver).await;
        lock(&self.waiting).remove(&seq);
        match answer {
            Ok(Ok((Event::Failed(failure), _))) => Ok(Err(failure)),
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Ok(Err(_)) => Err(step("launcher", "the launcher process ended")),
            Err(_) => {
                // Nor will it answer the next: it is replaced, and ends when it finds out.
                self.close();
                Err(step("launcher", "the launcher process does not answer"))
            }
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // The thread that reads answers holds the socket, too.
        self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Reads until the launcher is gone; returns why.
fn read_answers(
    socket: &OwnedFd,
    waiting: &Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
) -> String {
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let received = match recv_with_fds(socket.as_fd(), &mut buffer) {
            Ok(received) if received.len == 0 => return "end of its socket".into(),
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return error.to_string(),
        };
        match decode_reply(&buffer[..received.len]) {
            Ok(reply) => {
                let waiter = reply.seq.and_then(|seq| lock(waiting).remove(&seq));
                if let Some(waiter) = waiter {
                    // The caller may have given up; its descriptors then close here.
                    let _ = waiter.send((reply.event, received.fds));
                }
            }
            Err(error) => return format!("unreadable answer: {error}"),
        }
    }
}
