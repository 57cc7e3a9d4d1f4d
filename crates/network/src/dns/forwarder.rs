//! Answers sandboxes' DNS questions by passing them on.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::message::{self, Code};
use super::upstream::{MAX_UDP, Transport, Upstreams, read_framed, write_framed};
use crate::quota::Quota;
use crate::registry::Registry;

/// Questions under way at once; further UDP questions are dropped, as a busy server does.
const MAX_IN_FLIGHT: usize = 512;
/// Of these, one sandbox's.
const MAX_PER_SANDBOX: usize = 64;
/// Open TCP connections.
const MAX_CONNECTIONS: usize = 64;
/// Of these, one sandbox's.
const MAX_CONNECTIONS_PER_SANDBOX: usize = 8;
/// How long a TCP client may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// Pause after a failed `accept` or `recv`, so that a lasting fault does not spin.
const FAULT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Forwarder {
    registry: Arc<Registry>,
    upstreams: Arc<Upstreams>,
    in_flight: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    questions_each: Arc<Quota>,
    connections_each: Arc<Quota>,
}

impl Forwarder {
    pub(crate) fn new(registry: Arc<Registry>, upstreams: Arc<Upstreams>) -> Self {
        Self {
            registry,
            upstreams,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            questions_each: Quota::new(MAX_PER_SANDBOX),
            connections_each: Quota::new(MAX_CONNECTIONS_PER_SANDBOX),
        }
    }

    pub(crate) async fn serve_udp(self: Arc<Self>, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; MAX_UDP];
        loop {
            let Ok((len, peer)) = socket.recv_from(&mut buffer).await else {
                tokio::time::sleep(FAULT_PAUSE).await;
                continue;
            };
            let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else {
                continue;
            };
            let (forwarder, socket) = (Arc::clone(&self), Arc::clone(&socket));
            let query = buffer[..len].to_vec();
            tokio::spawn(async move {
                let _permit = permit;
                if let Some(reply) = forwarder.answer(peer.ip(), &query, Transport::Udp).await {
                    // The asker repeats its question when the reply is lost.
                    let _ = socket.send_to(&reply, peer).await;
                }
            });
        }
    }

    pub(crate) async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else {
                return;
            };
            let Ok((stream, peer)) = listener.accept().await else {
                tokio::time::sleep(FAULT_PAUSE).await;
                continue;
            };
            let forwarder = Arc::clone(&self);
            tokio::spawn(async move {
                let _permit = permit;
                // A client that breaks off or stays silent has nobody to report to.
                let _ = forwarder.converse(stream, peer.ip()).await;
            });
        }
    }

    async fn converse(&self, mut stream: TcpStream, peer: IpAddr) -> io::Result<()> {
        let Some((slot, _)) = self.registry.of_peer(peer) else {
            return Ok(());
        };
        let Some(_share) = self.connections_each.take(slot) else {
            return Ok(());
        };
        loop {
            let query = timeout(IDLE, read_framed(&mut stream)).await??;
            let Some(reply) = self.answer(peer, &query, Transport::Tcp).await else {
                return Ok(());
            };
            timeout(IDLE, write_framed(&mut stream, &reply)).await??;
        }
    }

    /// The reply; `None` for what is not a question of an attached sandbox.
    async fn answer(&self, peer: IpAddr, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let (slot, policy) = self.registry.of_peer(peer)?;
        let _share = self.questions_each.take(slot)?;
        let question = message::question(query)?;
        let allowed = policy.borrow().resolves_name(&question.name);
        if !allowed {
            return Some(message::failure(query, &question, Code::Refused));
        }
        let answer = self.upstreams.ask(query, &question, transport).await;
        Some(answer.unwrap_or_else(|error| {
            tracing::debug!(%error, "no name server answered");
            message::failure(query, &question, Code::ServerFailure)
        }))
    }
}
