//! The handle on one guest, and its short operations.

use std::{future::Future, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use woodfrog_guest_proto::{
    Configure, Configured, Empty, Hello, Metrics, Port, Ports, Request, limits,
};

use crate::{Connect, GuestError, fd, link::Link};

/// Unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(30);

/// A cheap handle on one guest.
#[derive(Clone)]
pub struct GuestClient {
    connector: Arc<dyn Connect>,
    deadline: Duration,
}

impl GuestClient {
    /// Nothing is connected before the first operation.
    pub fn new(connector: Arc<dyn Connect>) -> Self {
        Self {
            connector,
            deadline: DEADLINE,
        }
    }

    /// The same guest with another deadline. It covers whole short operations, and the first
    /// answer of those that stream.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            connector: self.connector.clone(),
            deadline,
        }
    }

    pub async fn hello(&self) -> Result<Hello, GuestError> {
        self.call(&Request::Hello {}).await
    }

    /// Returns what is in force afterwards.
    pub async fn configure(&self, change: Configure) -> Result<Configured, GuestError> {
        self.call(&Request::Configure(change)).await
    }

    pub async fn metrics(&self) -> Result<Metrics, GuestError> {
        self.call(&Request::Metrics {}).await
    }

    /// Listening TCP ports, at most [`limits::MAX_PORTS`].
    pub async fn ports(&self) -> Result<Vec<Port>, GuestError> {
        let Ports { mut ports } = self.call(&Request::Ports {}).await?;
        ports.truncate(limits::MAX_PORTS);
        Ok(ports)
    }

    /// A connection to a port of the sandbox's loopback, made inside.
    pub async fn connect(&self, port: u16) -> Result<TcpStream, GuestError> {
        self.in_time(async {
            let mut link = self.open(&Request::Connect { port }).await?;
            let (_, fd) = link.recv_with_fd().await?;
            TcpStream::from_std(fd::tcp_socket(fd)?).map_err(GuestError::Io)
        })
        .await
    }

    /// Asks the guest to end its processes and itself. It is under way when this returns, and may
    /// be over before the answer comes: then this fails, although it was heard.
    pub async fn shutdown(&self) -> Result<(), GuestError> {
        self.command(&Request::Shutdown {}).await
    }

    pub(crate) async fn open(&self, request: &Request) -> Result<Link, GuestError> {
        Link::open(self.connector.as_ref(), request).await
    }

    /// An operation with one answer.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<T, GuestError> {
        self.in_time(async { self.open(request).await?.end().await })
            .await
    }

    /// An operation whose answer says nothing.
    pub(crate) async fn command(&self, request: &Request) -> Result<(), GuestError> {
        self.call::<Empty>(request).await.map(|_| ())
    }

    pub(crate) async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, GuestError>>,
    ) -> Result<T, GuestError> {
        tokio::time::timeout(self.deadline, work)
            .await
            .unwrap_or(Err(GuestError::Timeout))
    }
}
