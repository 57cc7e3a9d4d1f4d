//! Process output as a response body. One chunk is held at a time: a slow reader holds the
//! process back and costs no memory.

use std::io;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body::Frame;
use http_body_util::StreamBody;
use woodfrog_engine::follow::Followed;
use woodfrog_guest_client::ProcessEvent;
use woodfrog_guest_client::proto::{Channel, Exit, ProcessEnd};
use woodfrog_wire::native::exec::{End, Output, OutputEvent};

use crate::native::guest::{About, fault};

const EXIT_CODE: HeaderName = HeaderName::from_static("woodfrog-exit-code");
const STATUS: HeaderName = HeaderName::from_static("woodfrog-status");
const PROCESS: HeaderName = HeaderName::from_static("woodfrog-process");
const PID: HeaderName = HeaderName::from_static("woodfrog-pid");

/// How output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Lines,
    ServerSent,
    Raw,
}

impl Format {
    /// `None` if no output is wanted.
    pub(super) fn of(output: Output, headers: &HeaderMap) -> Option<Self> {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok());
        let sse = accept.is_some_and(|accept| accept.contains("text/event-stream"));
        match output {
            Output::Detach => None,
            Output::Raw => Some(Self::Raw),
            Output::Events if sse => Some(Self::ServerSent),
            Output::Events => Some(Self::Lines),
        }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Lines => "application/x-ndjson",
            Self::ServerSent => "text/event-stream",
            Self::Raw => "application/octet-stream",
        }
    }
}

/// Streams a process until it ends, through sleep. If the sandbox ends first, the response is cut
/// off.
pub(super) fn response(process: Followed, format: Format) -> Response {
    let started = process.started().clone();
    let mut response = Response::new(Body::new(StreamBody::new(frames(process, format))));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(format.content_type()),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PROCESS, started.id.into());
    headers.insert(PID, started.pid.into());
    if format == Format::Raw {
        let trailers = HeaderValue::from_static("woodfrog-exit-code, woodfrog-status");
        headers.insert(header::TRAILER, trailers);
    }
    response
}

type Item = io::Result<Frame<Bytes>>;

fn frames(process: Followed, format: Format) -> impl Stream<Item = Item> + Send {
    stream::unfold(Some(process), move |state| async move {
        let mut process = state?;
        let guest = process.lease().quiet();
        loop {
            let event = tokio::select! {
                biased;
                event = process.next() => event,
                () = guest.ended() => {
                    return Some((Err(io::Error::other("the sandbox ended")), None));
                }
            };
            match event {
                Ok(None) => return None,
                Ok(Some(event)) => {
                    if let Some(frame) = frame(event, format) {
                        return Some((Ok(frame), Some(process)));
                    }
                }
                Err(error) => {
                    let broken = fault(error, About::Process);
                    crate::input::log(&broken);
                    if format == Format::Raw {
                        return Some((Err(io::Error::other(broken.message)), None));
                    }
                    let event = OutputEvent::Error {
                        code: broken.code.as_str().to_owned(),
                        message: broken.message,
                    };
                    return Some((Ok(Frame::data(encode(&event, format))), None));
                }
            }
        }
    })
}

fn frame(event: ProcessEvent, format: Format) -> Option<Frame<Bytes>> {
    if format != Format::Raw {
        return Some(Frame::data(encode(&wire(event), format)));
    }
    match event {
        ProcessEvent::Output {
            stream: Channel::Stdout | Channel::Pty,
            bytes,
            ..
        } => Some(Frame::data(bytes)),
        ProcessEvent::End(end) => Some(Frame::trailers(trailers(&end))),
        ProcessEvent::Started(_) | ProcessEvent::Output { .. } | ProcessEvent::Gap(_) => None,
    }
}

fn trailers(end: &ProcessEnd) -> HeaderMap {
    let mut map = HeaderMap::new();
    let code = match end.exit {
        Exit::Exited { code } => code,
        Exit::Signaled { signal, .. } => 128 + signal,
    };
    map.insert(EXIT_CODE, code.into());
    if let Ok(status) = HeaderValue::from_str(&end.status) {
        map.insert(STATUS, status);
    }
    map
}

/// The event for clients; output is base64, since it need not be text.
pub(super) fn wire(event: ProcessEvent) -> OutputEvent {
    match event {
        ProcessEvent::Started(started) => OutputEvent::Started {
            process: started.id,
            pid: started.pid,
            offset: started.offset,
        },
        ProcessEvent::Output {
            stream,
            offset,
            bytes,
        } => {
            let data = BASE64.encode(&bytes);
            match stream {
                Channel::Stderr => OutputEvent::Stderr { offset, data },
                Channel::Pty => OutputEvent::Pty { offset, data },
                Channel::Stdout | Channel::Plain => OutputEvent::Stdout { offset, data },
            }
        }
        ProcessEvent::Gap(gap) => OutputEvent::Gap {
            from: gap.from,
            to: gap.to,
        },
        ProcessEvent::End(end) => OutputEvent::End(ended(end)),
    }
}

/// How a process ended, for clients.
pub(super) fn ended(end: ProcessEnd) -> End {
    let (exit_code, signal) = match end.exit {
        Exit::Exited { code } => (Some(code), None),
        Exit::Signaled { signal, .. } => (None, Some(signal)),
    };
    End {
        exit_code,
        signal,
        status: end.status,
        timed_out: end.timed_out,
        offset: end.offset,
    }
}

fn encode(event: &OutputEvent, format: Format) -> Bytes {
    let json = serde_json::to_string(event).unwrap_or_default();
    let text = match format {
        Format::Lines | Format::Raw => format!("{json}\n"),
        Format::ServerSent => match next_offset(event) {
            // What a reader that was cut off sends back as `Last-Event-ID`.
            Some(next) => format!("id: {next}\ndata: {json}\n\n"),
            None => format!("data: {json}\n\n"),
        },
    };
    Bytes::from(text)
}

/// Where reading goes on after this event.
fn next_offset(event: &OutputEvent) -> Option<u64> {
    match event {
        OutputEvent::Started { offset, .. } => Some(*offset),
        OutputEvent::Stdout { offset, data }
        | OutputEvent::Stderr { offset, data }
        | OutputEvent::Pty { offset, data } => Some(offset + decoded_len(data)),
        OutputEvent::Gap { to, .. } => Some(*to),
        OutputEvent::End(end) => Some(end.offset),
        OutputEvent::Error { .. } => None,
    }
}

fn decoded_len(base64: &str) -> u64 {
    let padding = base64
        .bytes()
        .rev()
        .take_while(|byte| *byte == b'=')
        .count();
    (base64.len() / 4 * 3 - padding) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_id_is_where_reading_goes_on() {
        for bytes in [&b""[..], b"a", b"ab", b"abc", b"abcd"] {
            let data = BASE64.encode(bytes);
            assert_eq!(decoded_len(&data), bytes.len() as u64);
        }
        let event = OutputEvent::Stdout {
            offset: 10,
            data: BASE64.encode("four"),
        };
        let text = encode(&event, Format::ServerSent);
        assert!(
            text.starts_with(b"id: 14\ndata: {\"event\":\"stdout\""),
            "{text:?}"
        );
    }
}
