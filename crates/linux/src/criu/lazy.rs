//! Restores that do not wait for memory: the processes go on at once, and a page comes when it is
//! touched, or when its turn is. Until all are in, a daemon of CRIU's serves them from the images.
//!
//! The restored processes ask for their pages through `userfaultfd`, from inside a user namespace.
//! The kernel allows that only with `vm.unprivileged_userfaultfd=1`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::process::{WaitOptions, waitpid};

use super::find::Criu;
use super::rpc::{Images, Notify, RestoreSpec, RpcError, restore_with};
use super::worker::spec;
use crate::process::{kill, wait_ended};
use crate::spawn::{Spawned, Stdio, spawn};

const SYSCTL: &str = "/proc/sys/vm/unprivileged_userfaultfd";
const LOG_FILE: &str = "lazy-pages.log";
const COMPLAINTS: &str = "lazy-pages.stderr";
/// Where the restore looks for the daemon, in the directory for its work.
const SOCKET: &str = "lazy-pages.socket";

/// Whether memory can be restored lazily.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LazyPages {
    /// It can.
    Ready,
    /// After [`allow_lazy_pages`].
    NotAllowed,
    /// The kernel has no `userfaultfd`.
    Missing,
}

/// Looks at this machine.
pub fn lazy_pages() -> LazyPages {
    match fs::read_to_string(SYSCTL) {
        Ok(value) if value.trim() == "1" => LazyPages::Ready,
        Ok(_) => LazyPages::NotAllowed,
        Err(_) => LazyPages::Missing,
    }
}

/// Allows `userfaultfd` to every process of the machine, until the next boot. The price: a process
/// that has found a race in the kernel can use it to stop the kernel in the middle and win that
/// race. Sandboxes do not get it by this: their filter refuses the call.
///
/// # Errors
/// If there is no such setting, or it may not be changed.
pub fn allow_lazy_pages() -> io::Result<()> {
    crate::sys::write_file(SYSCTL, b"1")
}

/// The daemon that brings the rest of the memory of a restored sandbox. It ends by itself when
/// all is in. As long as it has not, the sandbox must not be checkpointed, the images must stay,
/// and the end of the daemon would leave the sandbox's processes waiting for ever.
///
/// Dropping this kills it if it still runs, so the sandbox is to be ended before.
#[derive(Debug)]
pub struct PageDaemon {
    process: Spawned,
    ended: bool,
}

impl PageDaemon {
    /// Starts it and waits until it can be asked.
    fn start(criu: &Criu, images: &Images, timeout: Duration) -> Result<Self, RpcError> {
        // An earlier one's.
        match fs::remove_file(images.work.join(SOCKET)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let (ready, tells) = crate::launcher::pipe()?;
        let arguments = [
            "lazy-pages",
            "--images-dir",
            text(&images.images)?,
            "--work-dir",
            text(&images.work)?,
            "--log-file",
            LOG_FILE,
            "--status-fd",
            "1",
        ];
        let null = File::open("/dev/null")?;
        let complaints = File::create(images.work.join(COMPLAINTS))?;
        let mut order = spec(criu, &arguments, null.into(), complaints)?;
        if let Stdio::Fds { stdout, .. } = &mut order.stdio {
            *stdout = tells;
        }
        let daemon = Self {
            process: spawn_apart(criu, order)?,
            ended: false,
        };
        let said = wait_ended(ready.as_fd(), timeout)?;
        // A byte when it listens; the end of the pipe when it has ended instead.
        let listens = said && File::from(ready).read(&mut [0])? == 1;
        match (listens, said) {
            (true, _) => Ok(daemon),
            (false, true) => Err(RpcError::Died {
                log: log(&images.work),
            }),
            (false, false) => Err(RpcError::Timeout {
                timeout,
                log: log(&images.work),
            }),
        }
    }

    /// A descriptor that becomes readable when it ends.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }

    /// Waits until all pages are in; `false` if they are not yet.
    ///
    /// # Errors
    /// `BrokenPipe` if it has ended otherwise: the sandbox lacks pages for good and is to be ended.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        if self.ended {
            return Ok(true);
        }
        if !wait_ended(self.as_fd(), timeout)? {
            return Ok(false);
        }
        self.ended = true;
        let pid = self.process.pid;
        let status = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))?;
        match status.and_then(|(_, status)| status.exit_status()) {
            Some(0) => Ok(true),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for PageDaemon {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Errors mean that it is gone already.
        let _ = kill(&self.process.pidfd);
        let pid = self.process.pid;
        let _ = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
    }
}

/// As [`super::restore`], but returns before the memory is in. See [`lazy_pages`].
pub fn restore_lazily(
    criu: &Criu,
    spec: &RestoreSpec<'_>,
    notify: Notify<'_>,
) -> Result<(u32, PageDaemon), RpcError> {
    let daemon = PageDaemon::start(criu, spec.images, spec.timeout)?;
    let init = restore_with(criu, spec, true, notify)?;
    Ok((init, daemon))
}

/// In a thread that ends afterwards, for [`Criu::enter_cache`].
fn spawn_apart(criu: &Criu, order: crate::spawn::SpawnSpec) -> Result<Spawned, RpcError> {
    std::thread::scope(|scope| {
        let started = scope.spawn(|| -> Result<Spawned, RpcError> {
            criu.enter_cache()?;
            Ok(spawn(order)?)
        });
        let panicked = |_| Err(io::Error::other("thread panicked").into());
        started.join().unwrap_or_else(panicked)
    })
}

fn text(path: &Path) -> io::Result<&str> {
    path.to_str()
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn log(work: &Path) -> String {
    let read = |name| fs::read_to_string(work.join(name)).unwrap_or_default();
    format!("{}{}", read(COMPLAINTS), read(LOG_FILE))
}
