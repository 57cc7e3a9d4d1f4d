//! Running a helper program to its end.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{WaitOptions, waitpid};

use crate::caps::CapSet;
use crate::process::{kill, wait_ended};
use crate::spawn::{SpawnError, SpawnSpec, Stdio, spawn};

/// The most output that is kept.
const MAX_OUTPUT: u64 = 64 * 1024;

/// What a program did.
pub(crate) struct Ran {
    /// Its exit code, if it had one.
    pub(crate) code: Option<i32>,
    /// What it wrote, both streams.
    pub(crate) output: String,
}

/// Runs a program found in our `PATH`, with our identity. Killed when it takes longer than
/// `timeout` in all, or writes more than is kept.
pub(crate) fn run(argv: &[&str], timeout: Duration) -> io::Result<Ran> {
    run_with(argv, &[], timeout)
}

/// As [`run`], with these `NAME=value` in its environment.
pub(crate) fn run_with(argv: &[&str], more: &[String], timeout: Duration) -> io::Result<Ran> {
    run_reading(argv, more, File::open("/dev/null")?.into(), timeout)
}

/// As [`run_with`], with this standard input.
pub(crate) fn run_reading(
    argv: &[&str],
    more: &[String],
    stdin: OwnedFd,
    timeout: Duration,
) -> io::Result<Ran> {
    let argv: Vec<CString> = argv
        .iter()
        .map(|arg| CString::new(*arg))
        .collect::<Result<_, _>>()?;
    let program = argv.first().cloned().unwrap_or_default();
    let (reader, writer) = io::pipe()?;
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("PATH={path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    let mut env = vec![CString::new(path)?, CString::from(c"LC_ALL=C")];
    for entry in more {
        env.push(CString::new(entry.as_str())?);
    }
    let child = spawn(SpawnSpec {
        program,
        argv,
        env,
        cwd: CString::from(c"/"),
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        groups: Some(vec![]),
        stdio: Stdio::Fds {
            stdin,
            stdout: writer.try_clone()?.into(),
            stderr: writer.into(),
        },
        rlimits: vec![],
        umask: 0o077,
        capabilities: CapSet(u64::MAX),
        oom_score_adj: None,
    })
    .map_err(|error| match error {
        SpawnError::NotFound => io::Error::new(io::ErrorKind::NotFound, "not installed"),
        other => io::Error::other(other),
    })?;
    let deadline = Instant::now() + timeout;
    let output = collect(reader, deadline);
    let left = deadline.saturating_duration_since(Instant::now());
    let in_time = wait_ended(child.pidfd.as_fd(), left)?;
    if !in_time {
        kill(&child.pidfd)?;
    }
    let status = rustix::io::retry_on_intr(|| waitpid(Some(child.pid), WaitOptions::empty()))?;
    if !in_time {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "took too long"));
    }
    Ok(Ran {
        code: status.and_then(|(_, status)| status.exit_status()),
        output: output?,
    })
}

fn collect(reader: io::PipeReader, deadline: Instant) -> io::Result<String> {
    let mut reader = reader.take(MAX_OUTPUT);
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Readable, or closed by its writers.
        if !wait_ended(reader.get_ref().as_fd(), left)? {
            break;
        }
        match reader.read(&mut buffer)? {
            0 => break,
            len => bytes.extend_from_slice(&buffer[..len]),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
