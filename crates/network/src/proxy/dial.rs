//! Connections to where sandboxes may go, directly or through a proxy.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::decide::{Judged, Target};
use super::socks::{self, Destination, SocksError};
use crate::dns::Upstreams;
use crate::policy::EgressPolicy;
use crate::registry::Registry;
use crate::route::{ProxyHost, ProxyTls, Route, SocksProxy};
use crate::trust::{Trust, TrustError, server_name};

/// How long one address of a host may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a proxy may take to answer and to connect.
const PROXY_TIMEOUT: Duration = Duration::from_secs(30);
/// How many addresses of a host are tried.
const MAX_ADDRESSES: usize = 4;
/// Between two warnings about the proxy of one sandbox.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// A connection to the outside.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("only forbidden addresses")]
    Forbidden,
    #[error("no connection")]
    Failed(#[from] io::Error),
    #[error("the server's name cannot be checked")]
    Name(#[source] TrustError),
    /// Its proxy is to blame, which is told.
    #[error("proxy {proxy}")]
    Proxy {
        proxy: String,
        #[source]
        source: ProxyError,
    },
    #[error("the proxy is not known yet")]
    Unknown,
}

/// Why a proxy cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("the proxy's name has no address")]
    Nameless,
    #[error("the proxy's name cannot be looked up")]
    Lookup(#[source] io::Error),
    #[error("the proxy must not be at a private, local or otherwise internal address")]
    Forbidden,
    #[error("it does not answer")]
    Unreachable(#[source] io::Error),
    #[error("it cannot be spoken to over TLS")]
    Tls(#[source] io::Error),
    #[error("its certificate cannot be checked")]
    Trust(#[from] TrustError),
    #[error("it took too long")]
    TooSlow,
    #[error("no connection through it")]
    Socks(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<SocksError> for ProxyError {
    fn from(error: SocksError) -> Self {
        Self::Socks(Box::new(error))
    }
}

/// Connects for sandboxes.
pub(crate) struct Dialer {
    registry: Arc<Registry>,
    upstreams: Arc<Upstreams>,
    trust: Trust,
    /// When the operator was last told about the proxy of a slot.
    warned: Mutex<HashMap<u32, Instant>>,
}

impl Dialer {
    pub(crate) fn new(registry: Arc<Registry>, upstreams: Arc<Upstreams>, trust: Trust) -> Self {
        Self {
            registry,
            upstreams,
            trust,
            warned: Mutex::default(),
        }
    }

    /// A connection by a policy's route. Deny rules decide first: what they deny, no proxy sees.
    pub(super) async fn dial(
        &self,
        slot: u32,
        policy: &EgressPolicy,
        target: &Target,
    ) -> Result<Box<dyn Stream>, DialError> {
        let dialled = match &policy.route {
            Route::Direct => self.direct(policy, target).await,
            Route::Proxy(proxy) => self.through(policy, proxy, target).await,
            Route::Unknown => Err(DialError::Unknown),
        };
        if let Err(error @ DialError::Proxy { .. }) = &dialled {
            self.warn(slot, error);
        }
        dialled
    }

    /// As [`Self::dial`], with TLS to a host that proves its name.
    pub(super) async fn dial_tls(
        &self,
        slot: u32,
        policy: &EgressPolicy,
        target: &Target,
        host: &str,
    ) -> Result<Box<dyn Stream>, DialError> {
        let name = server_name(host).map_err(DialError::Name)?;
        let stream = self.dial(slot, policy, target).await?;
        let connector = TlsConnector::from(self.trust.servers());
        let secured = timeout(CONNECT_TIMEOUT, connector.connect(name, stream)).await;
        Ok(Box::new(secured.map_err(io::Error::from)??))
    }

    async fn direct(
        &self,
        policy: &EgressPolicy,
        target: &Target,
    ) -> Result<Box<dyn Stream>, DialError> {
        let mut failure = DialError::Forbidden;
        for address in self.addresses(policy, target).await? {
            match tcp(address).await {
                Ok(stream) => return Ok(Box::new(stream)),
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }

    async fn through(
        &self,
        policy: &EgressPolicy,
        proxy: &SocksProxy,
        target: &Target,
    ) -> Result<Box<dyn Stream>, DialError> {
        let addresses;
        let destination = match target {
            // The proxy has its own view of names, as E2B defines it.
            Target::Name {
                host,
                port,
                judged: Judged::ByName,
            } => Destination::Name(host, *port),
            Target::Name { .. } | Target::Address(_) => {
                addresses = self.addresses(policy, target).await?;
                Destination::Address(*addresses.first().ok_or(DialError::Forbidden)?)
            }
        };
        let blame = |source| DialError::Proxy {
            proxy: proxy.to_string(),
            source,
        };
        let tunnel = timeout(PROXY_TIMEOUT, self.tunnel(proxy, destination)).await;
        tunnel.unwrap_or(Err(ProxyError::TooSlow)).map_err(blame)
    }

    async fn tunnel(
        &self,
        proxy: &SocksProxy,
        destination: Destination<'_>,
    ) -> Result<Box<dyn Stream>, ProxyError> {
        let mut stream = self.to_proxy(proxy).await?;
        socks::connect(&mut stream, proxy.credentials.as_ref(), destination).await?;
        Ok(stream)
    }

    async fn to_proxy(&self, proxy: &SocksProxy) -> Result<Box<dyn Stream>, ProxyError> {
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for ip in self.proxy_addresses(proxy).await? {
            match tcp(SocketAddrV4::new(ip, proxy.port)).await {
                Ok(stream) => return self.secured(stream, proxy.tls.as_ref()).await,
                Err(error) => failure = error,
            }
        }
        Err(ProxyError::Unreachable(failure))
    }

    async fn secured(
        &self,
        stream: TcpStream,
        tls: Option<&ProxyTls>,
    ) -> Result<Box<dyn Stream>, ProxyError> {
        let Some(tls) = tls else {
            return Ok(Box::new(stream));
        };
        let name = server_name(&tls.server_name)?;
        let connector = TlsConnector::from(self.trust.proxy(tls.roots.as_deref())?);
        let secured = connector.connect(name, stream).await;
        Ok(Box::new(secured.map_err(ProxyError::Tls)?))
    }

    /// Where a proxy is, at least one address: such as sandboxes may reach themselves, or such as
    /// the operator named.
    pub(crate) async fn proxy_addresses(
        &self,
        proxy: &SocksProxy,
    ) -> Result<Vec<Ipv4Addr>, ProxyError> {
        let found = match &proxy.host {
            ProxyHost::Address(address) => vec![*address],
            ProxyHost::Name(name) => {
                let found = self.upstreams.resolve(name).await;
                found.map_err(ProxyError::Lookup)?
            }
        };
        if found.is_empty() {
            return Err(ProxyError::Nameless);
        }
        let mut allowed = Vec::new();
        for ip in found.into_iter().take(MAX_ADDRESSES) {
            if self.registry.operator_names_proxy(ip) || self.is_outside(ip).await {
                allowed.push(ip);
            }
        }
        match allowed.is_empty() {
            true => Err(ProxyError::Forbidden),
            false => Ok(allowed),
        }
    }

    /// Addresses of a target that the policy and the operator let a sandbox reach.
    async fn addresses(
        &self,
        policy: &EgressPolicy,
        target: &Target,
    ) -> Result<Vec<SocketAddrV4>, DialError> {
        let (found, port, by_name) = match target {
            Target::Address(address) => (vec![*address.ip()], address.port(), false),
            Target::Name { host, port, judged } => {
                let found = self.upstreams.resolve(host).await?;
                (found, *port, *judged == Judged::ByName)
            }
        };
        let mut allowed = Vec::new();
        for ip in found.into_iter().take(MAX_ADDRESSES) {
            if (by_name || policy.permits_address(ip)) && self.is_outside(ip).await {
                allowed.push(SocketAddrV4::new(ip, port));
            }
        }
        Ok(allowed)
    }

    /// Whether sandboxes may go there at all: the operator's rules, and never the host itself.
    async fn is_outside(&self, ip: Ipv4Addr) -> bool {
        self.registry.operator_allows(ip) && !is_local(ip).await
    }

    /// Says why connections of a sandbox end, now and then.
    fn warn(&self, slot: u32, error: &DialError) {
        let error = error as &dyn std::error::Error;
        let now = Instant::now();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let last = warned.insert(slot, now);
        match last {
            Some(last) if now.duration_since(last) < WARN_EVERY => {
                warned.insert(slot, last);
                tracing::debug!(slot, error, "no connection: egress proxy");
            }
            Some(_) | None => {
                tracing::warn!(
                    slot,
                    error,
                    "connections of a sandbox end: its egress proxy cannot be used"
                );
            }
        }
    }
}

async fn tcp(address: SocketAddrV4) -> io::Result<TcpStream> {
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whether the address is one of the host's own: then a connection to it starts from it.
async fn is_local(ip: Ipv4Addr) -> bool {
    let probe = async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect((ip, 9)).await?;
        socket.local_addr()
    };
    // Without a route there is no connection either.
    probe.await.is_ok_and(|local: SocketAddr| local.ip() == ip)
}
