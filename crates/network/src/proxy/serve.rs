//! Accepts, peeks, decides, splices.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::{Peek, http, tls};
use crate::dns::Upstreams;
use crate::domain;
use crate::policy::EgressPolicy;
use crate::quota::Quota;
use crate::registry::{PolicyWatch, Registry};

/// Connections at once, over all sandboxes and per port.
const MAX_CONNECTIONS: usize = 4096;
/// Of these, one sandbox's, over both ports.
const MAX_PER_SANDBOX: usize = 512;
/// How much of a connection is read to find the name.
const MAX_PEEK: usize = 16 * 1024;
/// How long the client may take to send it.
const PEEK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one address of the host may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many addresses of a host are tried.
const MAX_ADDRESSES: usize = 4;
/// Pause after a failed `accept`.
const FAULT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener expects to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Tls,
}

impl Protocol {
    fn peek(self, data: &[u8]) -> Peek {
        match self {
            Self::Http => http::peek(data),
            Self::Tls => tls::peek(data),
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Tls => 443,
        }
    }

    const fn refusal(self) -> &'static [u8] {
        match self {
            Self::Http => http::FORBIDDEN,
            Self::Tls => tls::DENIED,
        }
    }
}

/// The name to connect to, when the policy allows it: pure.
fn decide(policy: &EgressPolicy, peek: &Peek) -> Option<String> {
    match peek {
        Peek::Host(host) => domain::normalise(host).filter(|host| policy.allows_name(host)),
        Peek::Incomplete | Peek::Nameless => None,
    }
}

pub(crate) struct Proxy {
    registry: Arc<Registry>,
    upstreams: Arc<Upstreams>,
    each: Arc<Quota>,
}

impl Proxy {
    pub(crate) fn new(registry: Arc<Registry>, upstreams: Arc<Upstreams>) -> Self {
        Self {
            registry,
            upstreams,
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
        let Some((slot, mut policy)) = self.registry.of_peer(peer) else {
            return Ok(());
        };
        let Some(_share) = self.each.take(slot) else {
            return refuse(client, protocol).await;
        };
        let (head, peek) = timeout(PEEK_TIMEOUT, read_head(&mut client, protocol)).await??;
        let decision = decide(&policy.borrow_and_update(), &peek);
        let Some(host) = decision else {
            tracing::debug!(slot, ?peek, "egress refused by policy");
            return refuse(client, protocol).await;
        };
        let Some(mut server) = self.connect(&host, protocol.port()).await? else {
            tracing::debug!(slot, host, "egress refused: only forbidden addresses");
            return refuse(client, protocol).await;
        };
        server.write_all(&head).await?;
        tokio::select! {
            copied = copy_bidirectional(&mut client, &mut server) => copied.map(drop),
            () = forbidden(&mut policy, &peek) => Ok(()),
        }
    }

    /// A connection to the first of the host's permitted addresses that answers; `None` when
    /// there is no permitted one. Where the client meant to go does not matter.
    async fn connect(&self, host: &str, port: u16) -> io::Result<Option<TcpStream>> {
        let mut failure = None;
        for ip in self
            .upstreams
            .resolve(host)
            .await?
            .into_iter()
            .take(MAX_ADDRESSES)
        {
            let address = SocketAddr::new(IpAddr::V4(ip), port);
            if !self.registry.operator_allows(ip) || is_local(address).await {
                continue;
            }
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(Some(stream)),
                Ok(Err(error)) => failure = Some(error),
                Err(_) => failure = Some(io::ErrorKind::TimedOut.into()),
            }
        }
        failure.map_or(Ok(None), Err)
    }
}

async fn read_head(client: &mut TcpStream, protocol: Protocol) -> io::Result<(Vec<u8>, Peek)> {
    let mut head = Vec::with_capacity(2048);
    loop {
        if client.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match protocol.peek(&head) {
            Peek::Incomplete if head.len() < MAX_PEEK => {}
            Peek::Incomplete => return Ok((head, Peek::Nameless)),
            peek => return Ok((head, peek)),
        }
    }
}

/// Tells the client in its own protocol.
async fn refuse(mut client: TcpStream, protocol: Protocol) -> io::Result<()> {
    timeout(PEEK_TIMEOUT, client.write_all(protocol.refusal())).await??;
    client.shutdown().await
}

/// Whether the address is one of the host's own: then a connection to it starts from it.
async fn is_local(address: SocketAddr) -> bool {
    let probe = async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect(address).await?;
        socket.local_addr()
    };
    // Without a route there is no connection either.
    probe
        .await
        .is_ok_and(|local: SocketAddr| local.ip() == address.ip())
}

/// Returns once the policy in force no longer allows the connection, or the sandbox left.
async fn forbidden(policy: &mut PolicyWatch, peek: &Peek) {
    while policy.changed().await.is_ok() {
        if decide(&policy.borrow_and_update(), peek).is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions() {
        let policy = EgressPolicy {
            internet: false,
            allow: vec![crate::policy::AllowRule::Domain(
                "*.example.com".parse().unwrap(),
            )],
            ..EgressPolicy::default()
        };
        let ask = |host: &str| decide(&policy, &Peek::Host(host.to_owned()));
        assert_eq!(ask("A.example.com").as_deref(), Some("a.example.com"));
        assert_eq!(ask("example.com"), None);
        assert_eq!(ask("127.0.0.1"), None);
        assert_eq!(decide(&policy, &Peek::Nameless), None);
    }
}
