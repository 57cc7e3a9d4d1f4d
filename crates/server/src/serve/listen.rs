//! Accepting connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Faces;
use crate::gateway::{Peer, Scheme};

/// Connections at once, over all listeners; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16 * 1024;
/// From accept to the end of the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// From a connection's beginning to the head of its first request.
const FIRST_HEAD: Duration = Duration::from_secs(20);
/// A connection without a request is kept this long: longer than the 300 seconds of the clients'
/// pools, so that it is theirs to close it.
const KEPT_IDLE: Duration = Duration::from_secs(330);
/// A peer that has been silent this long is probed, so that streams to machines that are gone end.
const PEER_SILENT: Duration = Duration::from_secs(60);
const PEER_PROBE: Duration = Duration::from_secs(15);
/// Bytes of a request's head, and of one read.
const HEAD_BYTES_MAX: usize = 128 << 10;
const HEADER_COUNT_MAX: usize = 200;
const H2_STREAMS_MAX: u32 = 1024;
const H2_STREAM_WINDOW: u32 = 1 << 20;
const H2_CONNECTION_WINDOW: u32 = 8 << 20;
const H2_HEADERS_MAX: u32 = 64 << 10;
const H2_PING: Duration = Duration::from_secs(30);
/// After a failed accept (out of descriptors) it is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound socket and what is spoken on it.
pub struct Listener {
    pub tcp: TcpListener,
    /// `None`: plain HTTP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// Serves until `shutdown`, then lets answers under way finish for at most `drain`; then their
/// connections are cut.
///
/// # Errors
/// Only for no listeners at all: a connection's troubles are its own.
pub async fn serve(
    faces: Faces,
    listeners: Vec<Listener>,
    shutdown: CancellationToken,
    drain: Duration,
) -> io::Result<()> {
    if listeners.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "nothing to listen on",
        ));
    }
    let server = Arc::new(Server {
        faces,
        builder: builder(),
        slots: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        connections: TaskTracker::new(),
        shutdown: shutdown.clone(),
        cut: CancellationToken::new(),
    });
    let mut accepting = tokio::task::JoinSet::new();
    for listener in listeners {
        let server = Arc::clone(&server);
        accepting.spawn(async move {
            let shutdown = server.shutdown.clone();
            shutdown.run_until_cancelled(accept(server, listener)).await;
        });
    }
    while accepting.join_next().await.is_some() {}
    server.connections.close();
    if tokio::time::timeout(drain, server.connections.wait())
        .await
        .is_err()
    {
        tracing::info!(
            count = server.connections.len(),
            "cutting connections at shutdown"
        );
        server.cut.cancel();
        server.connections.wait().await;
    }
    Ok(())
}

struct Server {
    faces: Faces,
    builder: auto::Builder<TokioExecutor>,
    slots: Arc<Semaphore>,
    connections: TaskTracker,
    shutdown: CancellationToken,
    /// The drain is over: connections are dropped.
    cut: CancellationToken,
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(KEPT_IDLE)
        .max_headers(HEADER_COUNT_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_header_list_size(H2_HEADERS_MAX)
        .keep_alive_interval(H2_PING);
    builder
}

async fn accept(server: Arc<Server>, listener: Listener) {
    let tls = listener.tls.map(TlsAcceptor::from);
    loop {
        let Ok(slot) = Arc::clone(&server.slots).acquire_owned().await else {
            return;
        };
        match listener.tcp.accept().await {
            Ok((stream, address)) => {
                let task = connection(Arc::clone(&server), stream, address, tls.clone(), slot);
                server.connections.spawn(task);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    server: Arc<Server>,
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    slot: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let probes = TcpKeepalive::new()
        .with_time(PEER_SILENT)
        .with_interval(PEER_PROBE);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&probes);
    // Boxed, since a task is as large as the largest thing that it may become: a plain connection
    // would take the room of an encrypted one, and of every protocol, for as long as it lasts.
    match tls {
        None => {
            let scheme = Scheme::Http;
            Box::pin(exchange(server, stream, Peer { address, scheme })).await;
        }
        Some(acceptor) => {
            let handshake = Box::pin(tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)));
            // Failures are the client's: wrong authority, a port scan.
            if let Ok(Ok(stream)) = handshake.await {
                let scheme = Scheme::Https;
                Box::pin(exchange(server, stream, Peer { address, scheme })).await;
            }
        }
    }
    drop(slot);
}

/// Serves one connection to its end, to the shutdown's drain, or until it turns out that no
/// request comes.
async fn exchange<S>(server: Arc<Server>, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let spoke = Arc::new(AtomicBool::new(false));
    let faces = server.faces.clone();
    let service = {
        let spoke = Arc::clone(&spoke);
        service_fn(move |request: http::Request<Incoming>| {
            spoke.store(true, Ordering::Relaxed);
            let faces = faces.clone();
            // Boxed: a connection keeps room for what answers its requests for as long as it is
            // there, and the states of all faces are large.
            let answer =
                Box::pin(async move { faces.dispatch(request.map(Body::new), peer).await });
            async move { Ok::<_, Infallible>(answer.await) }
        })
    };
    // Boxed where it is made: each move would keep room of its own in the task.
    let mut connection = Box::pin(
        server
            .builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .into_owned(),
    );
    let mut first_head = std::pin::pin!(tokio::time::sleep(FIRST_HEAD));
    let (mut waiting, mut draining) = (true, false);
    loop {
        tokio::select! {
            done = connection.as_mut() => {
                if let Err(error) = done {
                    tracing::debug!(peer = %peer.address, %error, "a connection ended early");
                }
                return;
            }
            () = first_head.as_mut(), if waiting => {
                if !spoke.load(Ordering::Relaxed) {
                    return;
                }
                waiting = false;
            }
            () = server.shutdown.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = server.cut.cancelled() => return,
        }
    }
}
