//! Descriptors that wait without blocking.

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// Registers a non-blocking descriptor with the runtime.
#[expect(
    deprecated,
    reason = "its replacement is unsafe for the sake of types that do not own \
                               their descriptor; an OwnedFd keeps the contract by itself"
)]
pub(crate) fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}
