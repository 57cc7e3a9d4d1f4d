//! Bodies that end when their sandbox does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use woodfrog_engine::GuestLease;

/// A body from a sandbox. It fails the moment the sandbox ends, without what would look like a
/// proper end: HTTP/1 closes the connection, HTTP/2 resets the stream. Holds the lease: what that
/// one says of the sandbox's activity holds while the body is read.
pub(crate) struct Guarded {
    inner: Body,
    lease: GuestLease,
    moving: Moving,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
    over: bool,
}

/// Whether each frame is an activity of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moving {
    Counts,
    Silent,
}

impl Guarded {
    pub(crate) fn new(inner: Body, lease: GuestLease) -> Self {
        let watched = lease.quiet();
        let ended = Box::pin(async move { watched.ended().await });
        Self {
            inner,
            lease,
            moving: Moving::Silent,
            ended,
            idle: None,
            over: false,
        }
    }

    /// A body that keeps its sandbox awake only when something comes of it.
    pub(crate) fn quiet(inner: Body, lease: &GuestLease) -> Self {
        Self {
            moving: Moving::Counts,
            ..Self::new(inner, lease.quiet())
        }
    }

    /// Also fails when no frame came for this long.
    pub(crate) fn idle_limit(mut self, limit: Duration) -> Self {
        self.idle = Some((limit, Box::pin(tokio::time::sleep(limit))));
        self
    }

    fn fail(&mut self, text: &'static str) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.over = true;
        let error = io::Error::new(io::ErrorKind::ConnectionAborted, text);
        Poll::Ready(Some(Err(axum::Error::new(error))))
    }
}

impl hyper::body::Body for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.ended.as_mut().poll(context).is_ready() {
            return self.fail("the sandbox ended");
        }
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if self.moving == Moving::Counts {
                    self.lease.touch();
                }
                if let Some((limit, sleep)) = &mut self.idle {
                    sleep.as_mut().reset(Instant::now() + *limit);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => {
                self.over = true;
                Poll::Ready(end)
            }
            Poll::Pending => {
                let idle = self
                    .idle
                    .as_mut()
                    .map(|(_, sleep)| sleep.as_mut().poll(context));
                match idle {
                    Some(Poll::Ready(())) => self.fail("nothing came for too long"),
                    _ => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
