//! Why the driver cannot start.

use std::io;
use std::path::PathBuf;

pub(crate) use woodfrog_driver_common::step;

/// Why the driver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("gVisor's `runsc` is not on this machine; `woodfrog doctor --fix` installs it")]
    NoRunsc,
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
        source: io::Error,
    },
    #[error("no cgroup hierarchy can be used")]
    Cgroups(#[source] io::Error),
    #[error("sandboxes with gVisor are reached over their network, and there is none: {0}")]
    Network(String),
    #[error("{0} is too long a path: gVisor's sockets are in it; use a shorter data directory")]
    LongPath(PathBuf),
    #[error(transparent)]
    Addresses(#[from] woodfrog_driver_common::net::NetError),
}
