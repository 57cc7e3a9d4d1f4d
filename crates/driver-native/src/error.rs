//! What can go wrong at the driver's start, and shorthands for the rest.

use std::io;
use std::path::PathBuf;

use woodfrog_linux::launcher::Failure;
use woodfrog_sandbox::DriverError;

/// Why the driver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot prepare {path}")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot set up the pool at {path}")]
    Pool {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot start a launcher process")]
    Launcher(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no cgroup hierarchy can be used")]
    Cgroups(#[source] io::Error),
    #[error(transparent)]
    Network(#[from] woodfrog_driver_common::net::NetError),
    #[error("uid_base {base} does not leave room: it must be from {min} to {max}")]
    UidBase { base: u32, min: u32, max: u32 },
}

pub(crate) use woodfrog_driver_common::step;

/// What the launcher said, as a driver error.
pub(crate) fn from_failure(failure: Failure) -> DriverError {
    if let Some(refusal) = crate::volumes::refusal(&failure) {
        return refusal;
    }
    let out_of = [
        rustix::io::Errno::NOSPC,
        rustix::io::Errno::NOMEM,
        rustix::io::Errno::AGAIN,
    ];
    if out_of
        .iter()
        .any(|errno| errno.raw_os_error() == failure.errno)
    {
        return DriverError::Capacity {
            detail: failure.to_string(),
        };
    }
    let name = failure.step.clone();
    step(&name, failure)
}
