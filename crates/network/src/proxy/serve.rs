//! Accepts, peeks, decides; then splices, or has headers set.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::decide::{Target, Verdict, decide, goes_on};
use super::dial::{DialError, Dialer};
use super::exchange::{Exchange, Scheme};
use super::forward::Begun;
use super::{Peek, http, tls};
use crate::authority::Authority;
use crate::policy::EgressPolicy;
use crate::quota::Quota;
use crate::registry::{PolicyWatch, Registry};

/// Connections at once, over all sandboxes and per port.
const MAX_CONNECTIONS: usize = 4096;
/// Of these, one sandbox's, over all ports.
const MAX_PER_SANDBOX: usize = 512;
/// How much of a connection is read to find the name.
const MAX_PEEK: usize = 16 * 1024;
/// How long the client may take to send it.
const PEEK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection waits for what the server is not told yet after a start.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after a failed `accept`.
const FAULT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener expects to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Tls,
    /// Whatever it is: nothing is read.
    Any,
}

impl Protocol {
    fn peek(self, data: &[u8]) -> Peek {
        match self {
            Self::Http => http::peek(data),
            Self::Tls => tls::peek(data),
            Self::Any => Peek::Nameless,
        }
    }

    /// Where hosts that are looked up are connected to.
    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Tls => 443,
            Self::Any => 0,
        }
    }

    const fn refusal(self) -> &'static [u8] {
        match self {
            Self::Http => http::FORBIDDEN,
            Self::Tls => tls::DENIED,
            Self::Any => &[],
        }
    }
}

pub(crate) struct Proxy {
    registry: Arc<Registry>,
    dialer: Arc<Dialer>,
    authority: Arc<Authority>,
    each: Arc<Quota>,
}

/// A connection of a sandbox, and what its first bytes were.
struct Accepted {
    client: TcpStream,
    head: Vec<u8>,
    protocol: Protocol,
    slot: u32,
}

impl Proxy {
    pub(crate) fn new(
        registry: Arc<Registry>,
        dialer: Arc<Dialer>,
        authority: Arc<Authority>,
    ) -> Self {
        Self {
            registry,
            dialer,
            authority,
            each: Quota::new(MAX_PER_SANDBOX),
        }
    }

    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, protocol: Protocol) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let Ok((client, peer)) = listener.accept().await else {
                sleep(FAULT_PAUSE).await;
                continue;
            };
            let proxy = Arc::clone(&self);
            tokio::spawn(async move {
                let _permit = permit;
                if let Err(error) = proxy.handle(client, peer.ip(), protocol).await {
                    tracing::debug!(%peer, %error, "egress connection ended");
                }
            });
        }
    }

    async fn handle(
        &self,
        mut client: TcpStream,
        peer: IpAddr,
        protocol: Protocol,
    ) -> io::Result<()> {
        let Some((slot, mut watch)) = self.registry.of_peer(peer) else {
            return Ok(());
        };
        let Some(_share) = self.each.take(slot) else {
            return refuse(client, protocol).await;
        };
        client.set_nodelay(true)?;
        let wanted = wanted(&client);
        let (head, peek) = read_head(&mut client, protocol).await?;
        let Some(policy) = known(&mut watch).await else {
            return refuse(client, protocol).await;
        };
        let verdict = decide(&policy, &peek, protocol.port(), wanted);
        let accepted = Accepted {
            client,
            head,
            protocol,
            slot,
        };
        let over = over(watch.clone(), &policy, &verdict, |policy| {
            decide(policy, &peek, protocol.port(), wanted)
        });
        let work = async {
            match &verdict {
                Verdict::Refuse => {
                    tracing::debug!(slot, ?peek, "egress refused by policy");
                    refuse(accepted.client, protocol).await
                }
                Verdict::Pass(target) => self.pass(accepted, &policy, target).await,
                Verdict::Change(target) => self.change(accepted, watch, target).await,
            }
        };
        tokio::select! {
            done = work => done,
            () = over => Ok(()),
        }
    }

    /// Bytes go through as they are.
    async fn pass(
        &self,
        accepted: Accepted,
        policy: &EgressPolicy,
        target: &Target,
    ) -> io::Result<()> {
        let slot = accepted.slot;
        let mut server = match self.dialer.dial(slot, policy, target).await {
            Ok(server) => server,
            Err(DialError::Forbidden) => {
                tracing::debug!(slot, ?target, "egress refused: only forbidden addresses");
                return refuse(accepted.client, accepted.protocol).await;
            }
            // Closed without a word that could be taken for the server's.
            Err(error) => return reset(&accepted.client).and(Err(io::Error::other(error))),
        };
        server.write_all(&accepted.head).await?;
        server.flush().await?;
        let mut client = accepted.client;
        copy_bidirectional(&mut client, &mut server).await.map(drop)
    }

    /// Requests are read, changed and sent to the host that they are for.
    async fn change(
        &self,
        accepted: Accepted,
        watch: PolicyWatch,
        target: &Target,
    ) -> io::Result<()> {
        let Target::Name { host, .. } = target else {
            return refuse(accepted.client, accepted.protocol).await;
        };
        let slot = accepted.slot;
        let client = Begun::new(accepted.head, accepted.client);
        let scheme = match accepted.protocol {
            Protocol::Tls => Scheme::Https,
            Protocol::Http | Protocol::Any => Scheme::Http,
        };
        let dialer = Arc::clone(&self.dialer);
        let exchange = Exchange::new(dialer, watch, slot, host, target.clone(), scheme);
        match scheme {
            Scheme::Http => exchange.serve(client).await,
            Scheme::Https => {
                let config = self.authority.server(host).map_err(io::Error::other)?;
                let accept = TlsAcceptor::from(config).accept(client);
                exchange.serve(timeout(PEEK_TIMEOUT, accept).await??).await
            }
        }
    }
}

/// Where the client wanted to go before it was sent here.
fn wanted(client: &TcpStream) -> Option<SocketAddrV4> {
    let address = rustix::net::sockopt::ip_original_dst(client).ok()?;
    // Who came here by itself wanted nothing else.
    let here = client.local_addr().ok()?;
    (SocketAddr::V4(address) != here).then_some(address)
}

/// Reads until there is a name. A client that says nothing, or that waits to be spoken to, is
/// nameless.
async fn read_head(client: &mut TcpStream, protocol: Protocol) -> io::Result<(Vec<u8>, Peek)> {
    let mut head = Vec::new();
    if protocol == Protocol::Any {
        return Ok((head, Peek::Nameless));
    }
    head.reserve(2048);
    let read = async {
        loop {
            if client.read_buf(&mut head).await? == 0 {
                return Ok(Peek::Nameless);
            }
            match protocol.peek(&head) {
                Peek::Incomplete if head.len() < MAX_PEEK => {}
                Peek::Incomplete => return Ok(Peek::Nameless),
                peek => return Ok(peek),
            }
        }
    };
    let peek = timeout(PEEK_TIMEOUT, read).await;
    let peek = peek.unwrap_or(Ok::<_, io::Error>(Peek::Nameless))?;
    Ok((head, peek))
}

/// The policy, once all of it is known.
async fn known(watch: &mut PolicyWatch) -> Option<Arc<EgressPolicy>> {
    let wait = watch.wait_for(|policy| policy.is_known());
    let policy = timeout(KNOWN_TIMEOUT, wait).await;
    let policy = policy.ok()?.ok()?;
    Some(Arc::clone(&policy))
}

/// Tells the client in its own protocol.
async fn refuse(mut client: TcpStream, protocol: Protocol) -> io::Result<()> {
    if protocol == Protocol::Any {
        return reset(&client);
    }
    timeout(PEEK_TIMEOUT, client.write_all(protocol.refusal())).await??;
    client.shutdown().await
}

/// The connection is reset when it is dropped.
fn reset(client: &TcpStream) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_linger(
        client,
        Some(Duration::ZERO),
    )?)
}

/// Returns once the policy in force no longer allows the connection, or the sandbox left.
async fn over(
    mut watch: PolicyWatch,
    policy: &EgressPolicy,
    verdict: &Verdict,
    judge: impl Fn(&EgressPolicy) -> Verdict,
) {
    while watch.changed().await.is_ok() {
        let now = Arc::clone(&watch.borrow_and_update());
        if !goes_on((policy, verdict), (&now, &judge(&now))) {
            return;
        }
    }
}
