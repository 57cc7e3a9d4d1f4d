//! From a start request to a running process.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ffi::CString,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags, fchown, fcntl_getfl, fcntl_setfl},
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
    process::{Gid, Uid},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{io::unix::AsyncFd, sync::Notify};
use woodfrog_guest_proto::{Channel, ErrorCode, PtySize, Rlimit, StartRequest, StdinMode, limits};
use woodfrog_linux::{
    limits::{Resource, ResourceLimit},
    spawn::{SpawnError, SpawnSpec, Stdio, spawn_pid},
};

use super::{Process, kill_session, log::Log, pump, stdin::Stdin};
use crate::{
    error::{OpResult, fail, invalid, system},
    guest::Guest,
    users::User,
};

/// What the pipes of a process are enlarged to.
pub(super) const PIPE_SIZE: usize = 1 << 20;
/// Group that terminals belong to.
const TTY_GROUP: u32 = 5;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Our ends of a process's descriptors.
struct Ends {
    stdin: Stdin,
    sources: Vec<(Channel, Rc<AsyncFd<OwnedFd>>)>,
    master: Option<Rc<AsyncFd<OwnedFd>>>,
}

/// Starts a process and everything that looks after it.
pub(crate) fn start(guest: &Rc<Guest>, request: StartRequest) -> OpResult<Rc<Process>> {
    check(guest, &request)?;
    let user = guest.user(request.user.as_deref())?;
    let env = environment(guest, &request, &user);
    let cwd = working_directory(guest, &request, &user)?;
    let (stdio, ends) = descriptors(&request, &user)?;
    let spec = SpawnSpec {
        program: c_string(&request.cmd)?,
        argv: std::iter::once(&request.cmd)
            .chain(&request.args)
            .map(c_string)
            .collect::<OpResult<_>>()?,
        env: env
            .iter()
            .map(|(k, v)| c_string(format!("{k}={v}")))
            .collect::<OpResult<_>>()?,
        cwd: c_string(&cwd)?,
        uid: user.uid,
        gid: user.gid,
        groups: guest.acting.of_processes(user.groups.clone()),
        stdio,
        rlimits: request
            .rlimits
            .iter()
            .map(rlimit)
            .collect::<OpResult<_>>()?,
        umask: 0o022,
        capabilities: guest.acting.capabilities(),
        oom_score_adj: guest.acting.oom_score_adj(),
    };
    let pid = spawn_pid(spec).map_err(|e| spawn_error(&request.cmd, &cwd, &e))?;
    let retention = request
        .retention
        .unwrap_or(limits::DEFAULT_RETENTION as u64) as usize;
    let timeout = request.timeout_ms;
    let pieces = request.pieces;
    let process = Rc::new(Process {
        id: guest.processes.borrow_mut().next_id(),
        pid,
        tag: request.tag.clone(),
        user: user.name,
        cwd,
        started_ms: crate::system::unix_ms(),
        ended_ms: Cell::new(None),
        size: Cell::new(request.pty),
        request,
        log: RefCell::new(Log::new(retention.max(limits::MIN_RETENTION), pieces)),
        grew: Notify::new(),
        moved: Notify::new(),
        exit: Cell::new(None),
        exited: Notify::new(),
        end: RefCell::new(None),
        timed_out: Cell::new(false),
        stdin: tokio::sync::Mutex::new(ends.stdin),
        master: RefCell::new(ends.master),
    });
    guest.processes.borrow_mut().insert(process.clone());
    tokio::task::spawn_local(pump::run(guest.clone(), process.clone(), ends.sources));
    if let Some(timeout) = timeout {
        tokio::task::spawn_local(enforce_timeout(
            process.clone(),
            Duration::from_millis(timeout),
        ));
    }
    Ok(process)
}

async fn enforce_timeout(process: Rc<Process>, timeout: Duration) {
    if tokio::time::timeout(timeout, process.wait_exit())
        .await
        .is_err()
    {
        process.timed_out.set(true);
        kill_session(process.pid);
    }
}

fn check(guest: &Guest, request: &StartRequest) -> OpResult<()> {
    if request.cmd.is_empty() {
        return Err(invalid("cmd is empty"));
    }
    if request.args.len() + request.env.len() > limits::MAX_STRINGS {
        return Err(fail(
            ErrorCode::TooLarge,
            "too many arguments and environment entries",
        ));
    }
    if request.env.keys().any(|k| k.is_empty() || k.contains('=')) {
        return Err(invalid("an environment name is empty or contains '='"));
    }
    if request
        .retention
        .is_some_and(|r| r > limits::MAX_RETENTION as u64)
    {
        return Err(fail(ErrorCode::TooLarge, "retention is above the limit"));
    }
    if guest.processes.borrow().running() >= limits::MAX_PROCESSES {
        return Err(fail(ErrorCode::Busy, "too many processes"));
    }
    Ok(())
}

fn environment(guest: &Guest, request: &StartRequest, user: &User) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let base = [
        ("PATH", PATH),
        ("HOME", &user.home),
        ("USER", &user.name),
        ("LOGNAME", &user.name),
        ("SHELL", &user.shell),
    ];
    env.extend(base.map(|(k, v)| (k.to_owned(), v.to_owned())));
    if request.pty.is_some() {
        env.insert("TERM".to_owned(), "xterm-256color".to_owned());
    }
    env.extend(guest.config.borrow().env.clone());
    env.extend(request.env.clone());
    env
}

/// A directory that was asked for must exist; a default that does not exist is passed over.
fn working_directory(guest: &Guest, request: &StartRequest, user: &User) -> OpResult<String> {
    let is_dir = |path: &str| std::fs::metadata(path).is_ok_and(|m| m.is_dir());
    if let Some(cwd) = request.cwd.as_deref().filter(|c| !c.is_empty()) {
        let cwd = crate::files::resolve(cwd, &user.home);
        return match std::fs::metadata(&cwd) {
            Ok(meta) if meta.is_dir() => Ok(cwd),
            Ok(_) => Err(invalid(format!("cwd '{cwd}' is not a directory"))),
            Err(_) => Err(invalid(format!("cwd '{cwd}' does not exist"))),
        };
    }
    let configured = guest.config.borrow().default_workdir.clone();
    let candidates = configured.into_iter().chain([user.home.clone()]);
    Ok(candidates
        .map(|c| crate::files::resolve(&c, &user.home))
        .find(|c| is_dir(c))
        .unwrap_or("/".to_owned()))
}

fn descriptors(request: &StartRequest, user: &User) -> OpResult<(Stdio, Ends)> {
    match request.pty {
        Some(size) => terminal(size, user),
        None => pipes(request.stdin, user),
    }
    .map_err(|e| system("descriptors", e))
}

fn pipes(stdin: StdinMode, user: &User) -> std::io::Result<(Stdio, Ends)> {
    let (out_read, out_write) = pipe(user)?;
    let (err_read, err_write) = pipe(user)?;
    let (child_stdin, stdin) = match stdin {
        StdinMode::Closed => {
            let null =
                rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            (null, Stdin::closed())
        }
        StdinMode::Open => {
            let (read, write) = pipe(user)?;
            (read, Stdin::pipe(asynchronous(write)?))
        }
    };
    let sources = vec![
        (Channel::Stdout, Rc::new(asynchronous(out_read)?)),
        (Channel::Stderr, Rc::new(asynchronous(err_read)?)),
    ];
    let stdio = Stdio::Fds {
        stdin: child_stdin,
        stdout: out_write,
        stderr: err_write,
    };
    Ok((
        stdio,
        Ends {
            stdin,
            sources,
            master: None,
        },
    ))
}

/// A pipe that belongs to the user, so that `/dev/stdout` can be opened by the process.
fn pipe(user: &User) -> std::io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // Smaller when the user's share of pipe memory is used up; that only costs speed.
    let _ = fcntl_setpipe_size(&write, PIPE_SIZE);
    fchown(
        &read,
        Some(Uid::from_raw(user.uid)),
        Some(Gid::from_raw(user.gid)),
    )?;
    Ok((read, write))
}

fn terminal(size: PtySize, user: &User) -> std::io::Result<(Stdio, Ends)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    tcsetwinsize(&master, winsize(size))?;
    // As login(1) does; the terminal works without it.
    let _ = fchown(
        &slave,
        Some(Uid::from_raw(user.uid)),
        Some(Gid::from_raw(TTY_GROUP)),
    );
    let master = Rc::new(asynchronous(master)?);
    let ends = Ends {
        stdin: Stdin::terminal(master.clone()),
        sources: vec![(Channel::Pty, master.clone())],
        master: Some(master),
    };
    Ok((Stdio::Terminal(slave), ends))
}

pub(super) fn winsize(size: PtySize) -> Winsize {
    Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn asynchronous(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    let flags = fcntl_getfl(fd.as_fd())?;
    fcntl_setfl(fd.as_fd(), flags | OFlags::NONBLOCK)?;
    crate::readiness::watched(fd)
}

fn c_string(text: impl AsRef<str>) -> OpResult<CString> {
    CString::new(text.as_ref()).map_err(|_| invalid("a string contains a NUL byte"))
}

fn rlimit(limit: &Rlimit) -> OpResult<ResourceLimit> {
    let resource = match limit.resource.as_str() {
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::FileSize,
        "memlock" => Resource::MemLock,
        "nofile" => Resource::OpenFiles,
        "nproc" => Resource::Processes,
        "stack" => Resource::Stack,
        other => return Err(invalid(format!("resource limit '{other}' is not known"))),
    };
    Ok(ResourceLimit {
        resource,
        soft: limit.soft,
        hard: limit.hard,
    })
}

fn spawn_error(cmd: &str, cwd: &str, error: &SpawnError) -> woodfrog_guest_proto::ErrorBody {
    match error {
        SpawnError::NotFound => fail(ErrorCode::NotFound, format!("{cmd}: program not found")),
        SpawnError::NotExecutable => fail(
            ErrorCode::PermissionDenied,
            format!("{cmd}: program not executable"),
        ),
        SpawnError::WorkingDirectory(e) => invalid(format!("cwd '{cwd}': {e}")),
        SpawnError::Create(e) => fail(ErrorCode::Busy, format!("cannot create a process: {e}")),
        SpawnError::Setup { step, source } => fail(
            ErrorCode::Internal,
            format!("cannot set up the process ({step:?}): {source}"),
        ),
    }
}
