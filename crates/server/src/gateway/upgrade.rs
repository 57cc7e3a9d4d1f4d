//! WebSockets and whatever else leaves HTTP behind.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use http::{HeaderValue, Request, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use woodfrog_engine::GuestLease;

/// A client's wish to leave HTTP.
pub(super) struct Wanted {
    pub(super) protocol: HeaderValue,
    client: OnUpgrade,
}

impl Wanted {
    /// Reads the wish of a request, before its connection headers are removed.
    pub(super) fn take(request: &mut Request<Body>) -> Option<Self> {
        if request.version() != Version::HTTP_11 {
            return None;
        }
        let protocol = request.headers().get(header::UPGRADE)?.clone();
        let asked = request
            .headers()
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
        // HTTP/2 without TLS is not for the inside.
        if !asked || protocol.as_bytes().eq_ignore_ascii_case(b"h2c") {
            return None;
        }
        Some(Self {
            protocol,
            client: hyper::upgrade::on(request),
        })
    }

    /// Copies between the two sides until one is done or the sandbox ends. Returns at once; the
    /// copying begins when the answer has reached the client.
    pub(super) fn join(self, inside: OnUpgrade, lease: GuestLease) {
        tokio::spawn(async move {
            let copy = async {
                let (client, inside) = tokio::try_join!(self.client, inside)?;
                let mut client = Counted::new(TokioIo::new(client), lease.quiet());
                let mut inside = TokioIo::new(inside);
                let copied = tokio::io::copy_bidirectional(&mut client, &mut inside).await;
                if let Err(error) = copied {
                    tracing::debug!(%error, "an upgraded connection broke");
                }
                Ok::<_, hyper::Error>(())
            };
            tokio::select! {
                () = lease.ended() => {}
                done = copy => {
                    if let Err(error) = done {
                        tracing::debug!(%error, "an upgrade did not happen");
                    }
                }
            }
        });
    }
}

/// A connection on which every move, either way, is an activity of the sandbox.
struct Counted<T> {
    inner: T,
    lease: GuestLease,
}

impl<T> Counted<T> {
    const fn new(inner: T, lease: GuestLease) -> Self {
        Self { inner, lease }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if read.is_ready() {
            self.lease.touch();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        if written.is_ready() {
            self.lease.touch();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
