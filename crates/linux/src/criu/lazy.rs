//! Restores that do not wait for memory: the processes go on at once, and a page comes when it is
//! touched, or when its turn is. Until all are in, a daemon of CRIU's serves them from the images.
//!
//! A daemon that ends too early leaves memory that reads as zeros. So how it ended must be known to
//! whoever comes next, even if the one who started it is gone: a shell around it writes it down.
//!
//! The restored processes ask for their pages through `userfaultfd`, from inside a user namespace.
//! The kernel allows that only with `vm.unprivileged_userfaultfd=1`.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{WaitOptions, waitpid};

use super::find::Criu;
use super::rpc::{Images, Notify, RestoreSpec, RpcError, restore_with};
use super::worker::spec;
use crate::process::{Identity, kill, wait_ended};
use crate::spawn::{SpawnSpec, Spawned, Stdio, spawn};

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

/// What the shell does: a daemon that loses it ends, and how the daemon ended is on disk before the
/// shell is gone.
const KEEPER: &str = r#"setpriv --pdeathsig KILL -- "$@"; echo $? > "$0""#;
const ALL_IN: &str = "0";

/// Whether a daemon that has ended said in `outcome` that all pages are in.
pub fn pages_are_in(outcome: &Path) -> bool {
    fs::read_to_string(outcome).is_ok_and(|text| text.trim_end() == ALL_IN)
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
/// and the end of the daemon would leave the sandbox without its memory.
///
/// Dropping this kills it if it still runs, so the sandbox is to be ended before; or else it is to
/// be [released](Self::release).
#[derive(Debug)]
pub struct PageDaemon {
    /// `None` once it has ended or was released.
    process: Option<Spawned>,
    outcome: PathBuf,
}

impl PageDaemon {
    /// Starts it and waits until it can be asked. How it ended will be in the file `outcome`.
    ///
    /// # Errors
    /// It does not come up; nothing of it is left.
    pub fn start(
        criu: &Criu,
        images: &Images,
        outcome: &Path,
        timeout: Duration,
    ) -> Result<Self, RpcError> {
        // An earlier one's.
        for old in [&images.work.join(SOCKET), outcome] {
            match fs::remove_file(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
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
        keep(&mut order, outcome)?;
        let daemon = Self {
            process: Some(spawn_apart(criu, order)?),
            outcome: outcome.to_owned(),
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

    /// Who it is, for those who come later; `None` once it has ended.
    ///
    /// # Errors
    /// It ended meanwhile, or the kernel does not say.
    pub fn identity(&self) -> io::Result<Option<Identity>> {
        let pid = |process: &Spawned| process.pid.as_raw_nonzero().get().unsigned_abs();
        self.process
            .as_ref()
            .map(pid)
            .map(Identity::read)
            .transpose()
    }

    /// Lets it go on by itself: a descriptor that becomes readable when it ends, and is to be
    /// reaped then. Whether all pages are in tells [`pages_are_in`]. `None` if it has ended.
    pub fn release(mut self) -> Option<OwnedFd> {
        self.process.take().map(|process| process.pidfd)
    }

    /// Waits until all pages are in; `false` if they are not yet.
    ///
    /// # Errors
    /// `BrokenPipe` if it has ended otherwise: the sandbox lacks pages for good and is to be ended.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        if let Some(process) = &self.process {
            if !wait_ended(process.pidfd.as_fd(), timeout)? {
                return Ok(false);
            }
            let pid = process.pid;
            rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))?;
            self.process = None;
        }
        match pages_are_in(&self.outcome) {
            true => Ok(true),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for PageDaemon {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            // Errors mean that it is gone already.
            let _ = kill(&process.pidfd);
            let pid = process.pid;
            let _ = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
        }
    }
}

/// Puts the shell around what was to be started.
fn keep(order: &mut SpawnSpec, outcome: &Path) -> io::Result<()> {
    let outcome = CString::new(text(outcome)?)?;
    let keeper = [
        c"/bin/sh".to_owned(),
        c"-c".to_owned(),
        CString::new(KEEPER)?,
    ];
    let program = std::mem::take(&mut order.argv);
    order.argv = keeper.into_iter().chain([outcome]).chain(program).collect();
    order.program = c"/bin/sh".to_owned();
    Ok(())
}

/// As [`super::restore`], but returns before the memory is in, which this daemon of the same images
/// brings. See [`lazy_pages`].
pub fn restore_lazily(
    criu: &Criu,
    spec: &RestoreSpec<'_>,
    _daemon: &PageDaemon,
    notify: Notify<'_>,
) -> Result<u32, RpcError> {
    restore_with(criu, spec, true, notify)
}

/// In a thread that ends afterwards, for [`Criu::enter_own`].
fn spawn_apart(criu: &Criu, order: SpawnSpec) -> Result<Spawned, RpcError> {
    std::thread::scope(|scope| {
        let started = scope.spawn(|| -> Result<Spawned, RpcError> {
            criu.enter_own(&[])?;
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
