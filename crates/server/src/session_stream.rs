//! Logs of sessions as server-sent events, for the faces that have them.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderValue, header};
use woodfrog_sessions::{Batch, Ephemeral, Reader};
use woodfrog_types::Fault;
use woodfrog_types::session::SessionEvent;

/// Between two comments on a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const HEARTBEAT: &[u8] = b": heartbeat\n\n";

/// How a face shows what it reads. Each adds frames to the text, or nothing, and says whether the
/// stream goes on.
pub(crate) trait Shape: Send + 'static {
    fn event(&mut self, event: &SessionEvent, frames: &mut String) -> ControlFlow<()>;
    /// Places that are no longer held.
    fn gap(&mut self, from: u64, to: u64, frames: &mut String) -> ControlFlow<()>;
    fn ephemeral(&mut self, _: &Ephemeral, _: &mut String) {}
}

/// A frame: `name` and `data` are one line each.
pub(crate) fn frame(frames: &mut String, name: &str, id: Option<u64>, data: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(frames, "event: {name}");
    if let Some(id) = id {
        let _ = writeln!(frames, "id: {id}");
    }
    let _ = write!(frames, "data: {data}\n\n");
}

/// The place after which a client that comes back goes on; `what` names the header in the error.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    match text.trim().parse() {
        Ok(id) => Ok(Some(id)),
        Err(_) => Err(Fault::invalid(
            "Last-Event-ID",
            "Last-Event-ID must be a positive integer",
        )),
    }
}

/// The answer that streams what is read, until the client goes.
pub(crate) fn respond(reader: Reader, shape: impl Shape) -> Response {
    let mut response = Response::new(Body::from_stream(frames(reader, shape)));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies of the nginx kind hold streams back otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn frames(reader: Reader, shape: impl Shape) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(Some((reader, shape)), |state| async move {
        let (mut reader, mut shape) = state?;
        loop {
            let batch = match tokio::time::timeout(KEEP_ALIVE, reader.next()).await {
                Err(_) => {
                    let heartbeat = Bytes::from_static(HEARTBEAT);
                    return Some((Ok(heartbeat), Some((reader, shape))));
                }
                Ok(Ok(batch)) => batch,
                Ok(Err(fault)) => {
                    tracing::debug!(%fault, "a stream of a session ended");
                    return None;
                }
            };
            let mut frames = String::new();
            let flow = match batch {
                Batch::Events(events) => events
                    .iter()
                    .try_for_each(|event| shape.event(event, &mut frames)),
                Batch::Gap { from, to } => shape.gap(from, to, &mut frames),
                Batch::Ephemeral(said) => {
                    shape.ephemeral(&said, &mut frames);
                    ControlFlow::Continue(())
                }
            };
            let left = flow.is_continue().then_some((reader, shape));
            match left {
                Some(left) if frames.is_empty() => (reader, shape) = left,
                left => return Some((Ok(Bytes::from(frames)), left)),
            }
        }
    })
}
