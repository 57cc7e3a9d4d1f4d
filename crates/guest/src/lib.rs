//! PID 1 of a sandbox: runs processes, terminals, files, watchers and connections for the host.
//!
//! One thread serves everything; file operations that may block use a few short-lived helpers.
//! Nothing here outlives a host connection except processes and their output, so a checkpoint
//! taken while no host is connected loses nothing.
#![forbid(unsafe_code)]

use std::{
    io,
    os::fd::RawFd,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use rustix::process::{Signal, WaitOptions, kill_process, wait};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

mod census;
mod conn;
mod error;
mod files;
mod guest;
mod process;
mod readiness;
mod serve;
mod system;
mod tcp;
mod trust;
mod users;

use guest::Guest;
pub use users::Acting;

/// Threads for file operations, and how long an idle one stays.
const HELPERS: usize = 4;
const HELPER_IDLE: Duration = Duration::from_secs(2);
const HELPER_STACK: usize = 256 << 10;
/// Between asking processes to end and ending them.
const TERMINATION: Duration = Duration::from_secs(2);
const KILL_PASSES: usize = 8;

/// Whether the guest is the init of its PID namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reaps every orphan, and ends every process of the namespace when it ends. No signal makes it
    /// end: whoever is root inside can send them. The host asks for it, or kills it.
    Init,
    /// For tests, beside other programs: adopts the orphans of its processes, so that at SIGTERM
    /// it can end every descendant, daemons included.
    Plain,
}

/// Where connections come from.
#[derive(Debug, Clone)]
pub enum Socket {
    /// A path to listen at. Replaced if it exists; made with mode 0600.
    Path(PathBuf),
    /// A descriptor that listens already.
    Inherited(RawFd),
    /// A TCP port of every address, and the file with the secret that callers say.
    Tcp { port: u16, secret: PathBuf },
}

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    pub socket: Socket,
    /// The directory with `passwd` and `group`.
    pub etc: PathBuf,
    pub role: Role,
    pub acting: Acting,
    pub until: Until,
}

/// What ends the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The host's request and, where it is not an init, SIGTERM.
    Told,
    /// That, or the end of its standard input: who holds the other end is gone.
    InputEnds,
}

/// Serves until it is to end (then ends the processes and returns) or an error at the start.
pub fn run(options: &Options) -> io::Result<()> {
    woodfrog_linux::selfctl::set_undumpable()?;
    if options.role == Role::Plain {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    // Whatever started us had its own idea of this.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(HELPERS)
        .thread_keep_alive(HELPER_IDLE)
        .thread_stack_size(HELPER_STACK)
        .build()?;
    let result = LocalSet::new().block_on(&runtime, serve_until_told(options));
    runtime.shutdown_background();
    result
}

async fn serve_until_told(options: &Options) -> io::Result<()> {
    // Before the first process can exist, so that no exit is missed.
    let mut child = signal(SignalKind::child())?;
    let mut signalled = pin!(signalled(options.role)?);
    let mut orphaned = pin!(orphaned(options.until));
    let guest = Guest::new(options.etc.clone(), options.acting);
    let serve_at = |listener| tokio::task::spawn_local(serve::serve(guest.clone(), listener));
    match &options.socket {
        Socket::Path(path) => serve_at(listen(path)?),
        Socket::Inherited(number) => serve_at(inherited(*number)?),
        Socket::Tcp { port, secret } => {
            let front = tcp::Front::new(*port, secret)?;
            tokio::task::spawn_local(front.serve(guest.clone()))
        }
    };
    loop {
        tokio::select! {
            _ = child.recv() => reap(&guest),
            () = &mut signalled => break,
            () = guest.shutdown.notified() => break,
            () = &mut orphaned => break,
        }
    }
    terminate(&guest, options.role, &mut child).await;
    if let Socket::Path(path) = &options.socket {
        // Leaving the socket behind would only cost the next start a removal.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Signals that ask programs to end: SIGHUP, SIGINT, SIGQUIT and SIGTERM.
const ENDING: [i32; 4] = [1, 2, 3, 15];

/// Resolves at SIGTERM, unless as an init: that ignores what asks to end, for it cannot tell its
/// host from whoever is root in the sandbox.
fn signalled(role: Role) -> io::Result<impl Future<Output = ()>> {
    let term = match role {
        Role::Init => {
            woodfrog_linux::selfctl::ignore_signals(&ENDING)?;
            None
        }
        Role::Plain => Some(signal(SignalKind::terminate())?),
    };
    Ok(async move {
        match term {
            Some(mut term) => {
                term.recv().await;
            }
            None => std::future::pending().await,
        }
    })
}

/// Resolves when standard input ends, if that matters. A thread of its own waits for it: it may be
/// of a kind that cannot be polled.
async fn orphaned(until: Until) {
    let (ended, told) = tokio::sync::oneshot::channel::<()>();
    if until == Until::InputEnds {
        let wait = move || {
            let mut byte = [0; 64];
            while rustix::io::read(rustix::stdio::stdin(), &mut byte).is_ok_and(|n| n > 0) {}
            drop(ended);
        };
        // Without a thread nobody waits, and only a signal ends us.
        drop(
            std::thread::Builder::new()
                .stack_size(HELPER_STACK)
                .spawn(wait),
        );
        drop(told.await);
        return;
    }
    drop(ended);
    std::future::pending().await
}

/// The socket is only for root: it is bound inside a umask that denies everybody else, so there
/// is no moment at which another user could connect.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    listener
}

fn inherited(number: RawFd) -> io::Result<UnixListener> {
    let socket = woodfrog_linux::selfctl::inherited(number)?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn reap(guest: &Guest) {
    let processes = guest.processes.borrow();
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        processes.reaped(pid, status);
    }
}

/// Asks every process to end, and ends those that do not.
async fn terminate(guest: &Guest, role: Role, child: &mut tokio::signal::unix::Signal) {
    let others = || match role {
        // Everything in the namespace but us.
        Role::Init => census::all(),
        Role::Plain => census::descendants(rustix::process::getpid()),
    };
    let everyone = |signal| {
        for pid in others() {
            let _ = kill_process(pid, signal);
        }
    };
    everyone(Signal::TERM);
    let gone = async {
        while !others().is_empty() {
            child.recv().await;
            reap(guest);
        }
    };
    if tokio::time::timeout(TERMINATION, gone).await.is_err() {
        // What forks faster than one pass sees is met by the next.
        for _ in 0..KILL_PASSES {
            everyone(Signal::KILL);
            reap(guest);
        }
    }
}
