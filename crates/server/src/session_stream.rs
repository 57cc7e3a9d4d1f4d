//! Logs of sessions as server-sent events, for the faces that have them.

use std::any::TypeId;
use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderValue, header};
use tokio::time::{Instant, Sleep};
use woodfrog_sessions::{Batch, Ephemeral, Reader};
use woodfrog_types::Fault;
use woodfrog_types::session::SessionEvent;

/// Between two comments on a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const HEARTBEAT: &[u8] = b": heartbeat\n\n";

/// How a face shows what it reads. Each adds frames to the text, or nothing, and says whether the
/// stream goes on.
pub(crate) trait Shape: Send + 'static {
    /// Whether everybody sees the same of an event, whatever came before it: then it is written
    /// once for all who follow.
    const SAME_FOR_ALL: bool = false;

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

fn frames<S: Shape>(reader: Reader, shape: S) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let quiet = Box::pin(tokio::time::sleep(KEEP_ALIVE));
    let follower = Follower {
        reader,
        shape,
        quiet,
        spoke: Instant::now(),
    };
    stream::unfold(Some(follower), |state| async move {
        let mut follower = state?;
        let (frames, flow) = follower.next().await?;
        follower.spoke = Instant::now();
        Some((Ok(frames), flow.is_continue().then_some(follower)))
    })
}

/// One stream's state.
struct Follower<S> {
    reader: Reader,
    shape: S,
    /// Set anew only when it is over: a timer that moves with every frame costs more than the
    /// frame.
    quiet: Pin<Box<Sleep>>,
    /// When it last said something.
    spoke: Instant,
}

impl<S: Shape> Follower<S> {
    /// The next frames, never empty, and whether more come; `None` if the stream is over.
    async fn next(&mut self) -> Option<(Bytes, ControlFlow<()>)> {
        loop {
            let batch = tokio::select! {
                biased;
                batch = self.reader.next() => batch,
                () = self.quiet.as_mut() => {
                    if self.keeps_alive() {
                        return Some((Bytes::from_static(HEARTBEAT), ControlFlow::Continue(())));
                    }
                    continue;
                }
            };
            let (frames, flow) = match batch {
                Ok(batch) => self.shown(batch),
                Err(fault) => {
                    tracing::debug!(%fault, "a stream of a session ended");
                    return None;
                }
            };
            if !frames.is_empty() || flow.is_break() {
                return Some((frames, flow));
            }
        }
    }

    /// Whether the stream was silent for long enough to be heard of; sets the timer either way.
    fn keeps_alive(&mut self) -> bool {
        let now = Instant::now();
        let silent = now.duration_since(self.spoke) >= KEEP_ALIVE;
        let from = if silent { now } else { self.spoke };
        self.quiet.as_mut().reset(from + KEEP_ALIVE);
        silent
    }

    fn shown(&mut self, batch: Batch) -> (Bytes, ControlFlow<()>) {
        let mut frames = String::new();
        let flow = match batch {
            Batch::Events(events) => match events.as_slice() {
                [event] if S::SAME_FOR_ALL => {
                    return (
                        written::<S>(&mut self.shape, event),
                        ControlFlow::Continue(()),
                    );
                }
                events => events
                    .iter()
                    .try_for_each(|event| self.shape.event(event, &mut frames)),
            },
            Batch::Gap { from, to } => self.shape.gap(from, to, &mut frames),
            Batch::Ephemeral(said) => {
                self.shape.ephemeral(&said, &mut frames);
                ControlFlow::Continue(())
            }
        };
        (Bytes::from(frames), flow)
    }
}

/// What a thread wrote last, and for which shape: when an event comes, its thousand followers are
/// woken one after the other.
type Written = Option<(TypeId, Arc<SessionEvent>, Bytes)>;

thread_local! {
    static WRITTEN: RefCell<Written> = const { RefCell::new(None) };
}

/// The frame of an event that everybody sees the same way.
fn written<S: Shape>(shape: &mut S, event: &Arc<SessionEvent>) -> Bytes {
    let kind = TypeId::of::<S>();
    WRITTEN.with_borrow_mut(|last| {
        if let Some((of, which, bytes)) = last
            && *of == kind
            && Arc::ptr_eq(which, event)
        {
            return bytes.clone();
        }
        let mut frames = String::new();
        // It is the same for all: nothing ends with it.
        let _ = shape.event(event, &mut frames);
        let bytes = Bytes::from(frames);
        *last = Some((kind, Arc::clone(event), bytes.clone()));
        bytes
    })
}
