//! Streams end when whoever opened them may no longer read them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use woodfrog_engine::Engine;
use woodfrog_types::key::Principal;

/// What a credential stood for when a request came in. A cheap clone; handlers of WebSockets take
/// it as an `Extension`.
#[derive(Clone)]
pub(crate) struct Grant(Arc<Credential>);

struct Credential {
    engine: Engine,
    secret: String,
    named: Option<String>,
    principal: Principal,
}

impl Grant {
    pub(super) fn new(
        engine: Engine,
        secret: &str,
        named: Option<&str>,
        principal: Principal,
    ) -> Self {
        Self(Arc::new(Credential {
            engine,
            secret: secret.to_owned(),
            named: named.map(str::to_owned),
            principal,
        }))
    }

    /// Resolves once the key is revoked or expired, or its user is less here than before.
    pub(crate) async fn ended(&self) {
        let one = &self.0;
        let named = one.named.as_deref();
        one.engine.revoked(&one.secret, named, &one.principal).await;
    }

    /// Runs what a WebSocket does until it is over, or may not go on.
    pub(crate) async fn hold(self, work: impl Future<Output = ()>) {
        tokio::select! {
            () = work => {}
            () = self.ended() => {}
        }
    }
}

/// Lets a stream end with its grant; an answer of a known size is left alone.
pub(super) fn guard(response: Response, grant: Grant) -> Response {
    let size = response.body().size_hint();
    if size.exact().is_some() {
        return response;
    }
    response.map(|body| {
        Body::new(Guarded {
            body,
            ended: Box::pin(async move { grant.ended().await }),
            over: false,
        })
    })
}

struct Guarded {
    body: Body,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    over: bool,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        // First: a stream that always has something more would never be asked.
        if self.ended.as_mut().poll(cx).is_ready() {
            self.over = true;
            self.body = Body::empty();
            return Poll::Ready(None);
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.over = matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
