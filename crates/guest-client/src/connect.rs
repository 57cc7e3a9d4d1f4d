//! How a connection to the guest comes about.

use std::{future::Future, io, path::PathBuf, pin::Pin};

use tokio::net::UnixStream;

/// Makes connections to one guest. The implementation checks who answers (`SO_PEERCRED`) where
/// that matters.
pub trait Connect: Send + Sync {
    /// One new connection.
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send + '_>>;
}

/// Connects to a socket file of this machine.
#[derive(Debug, Clone)]
pub struct PathConnector(pub PathBuf);

impl Connect for PathConnector {
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send + '_>> {
        Box::pin(UnixStream::connect(&self.0))
    }
}
