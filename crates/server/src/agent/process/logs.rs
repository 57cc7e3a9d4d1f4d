//! What processes printed. It is read from the guest piece by piece and never gathered here. The
//! guest numbers the pieces, so a reader goes on at exactly the next one, whoever serves it.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Query};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use woodfrog_engine::GuestLease;
use woodfrog_engine::follow::Followed;
use woodfrog_guest_client::ProcessEvent;
use woodfrog_guest_client::proto::{Channel, ErrorCode, From, ProcessInfo, ProcessRef, Times};
use woodfrog_wire::agent::process::{LogEntry, LogGap, LogStream, LogsQuery};

use super::{sandbox_ended, table};
use crate::agent::AgentHost;
use crate::agent::problem::{Failure, Result};

/// The most entries that `tail` asks for; more means all of them.
const TAIL_MAX: u64 = 1 << 20;
/// Silence on a followed log is broken this often.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) async fn logs(
    Extension(host): Extension<AgentHost>,
    Path(id): Path<String>,
    Query(query): Query<LogsQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let id = table::number(&id)?;
    let guest = host.guest().await?;
    let info = table::info(&guest, id).await?;
    let follow = query.follow == Some(true);
    let wanted = Wanted::of(&info, query, follow.then_some(&headers))?;
    let after = match query.tail.filter(|tail| *tail < TAIL_MAX) {
        Some(tail) => tail_start(&guest, &wanted, tail).await?,
        None => wanted.after,
    };
    let pieces = Pieces::open(&guest, &wanted, after).await?;
    let (kind, body) = if follow {
        ("text/event-stream", Body::from_stream(events(pieces)))
    } else {
        let pieces = Pieces {
            until: Some(wanted.offset),
            ..pieces
        };
        let body = Body::from_stream(document(table::name(id), guest, pieces));
        ("application/json", body)
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// Which part of a process's output is asked for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    process: u64,
    stream: LogStream,
    /// The sequence before the first piece.
    after: u64,
    /// Where the output ended when it was asked for.
    offset: u64,
}

impl Wanted {
    fn of(info: &ProcessInfo, query: LogsQuery, headers: Option<&HeaderMap>) -> Result<Self> {
        let last = match headers.and_then(|headers| headers.get("last-event-id")) {
            None => None,
            Some(value) => Some(sequence(value)?),
        };
        let all = match info.pty {
            Some(_) => LogStream::Pty,
            None => LogStream::Combined,
        };
        Ok(Self {
            process: info.id,
            stream: query.stream.unwrap_or(all),
            after: last.or(query.since).unwrap_or(0),
            offset: info.offset,
        })
    }
}

fn sequence(value: &HeaderValue) -> Result<u64> {
    let text = value.to_str().ok();
    text.and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| Failure::invalid("Last-Event-ID must be a positive integer"))
}

/// Output, piece by piece.
struct Pieces {
    process: Followed,
    guest: GuestLease,
    stream: LogStream,
    /// The sequence of the piece before.
    last: u64,
    /// Where in the output the next one begins, once there was one.
    at: u64,
    /// Where to stop; else at the end of the process.
    until: Option<u64>,
}

impl Pieces {
    async fn open(guest: &GuestLease, wanted: &Wanted, after: u64) -> Result<Self> {
        let (id, from) = (ProcessRef::Id(wanted.process), From::After(after));
        let attached = Followed::attach_with(guest, id, from, Times::Told).await;
        let process = attached.map_err(|error| match error.code() {
            Some(ErrorCode::InvalidArgument) => Failure::invalid(format_args!(
                "sequence {after} lies beyond the end of the log"
            )),
            _ => error.into(),
        })?;
        Ok(Self {
            at: process.started().offset,
            process,
            guest: guest.quiet(),
            stream: wanted.stream,
            last: after,
            until: None,
        })
    }

    /// The next piece of the wanted stream, and what is missing before it; `None` at the end.
    async fn next(&mut self) -> Result<Option<(Option<LogGap>, LogEntry)>> {
        let mut gap = None;
        while self.until.is_none_or(|until| self.at < until) {
            let event = tokio::select! {
                biased;
                event = self.process.next() => event?,
                () = self.guest.ended() => return Err(sandbox_ended()),
            };
            match event {
                Some(ProcessEvent::Output {
                    stream,
                    offset,
                    bytes,
                }) => {
                    self.at = offset + bytes.len() as u64;
                    gap = self.count().or(gap);
                    if let Some(stream) = self.shown(stream) {
                        return Ok(Some((gap, self.entry(stream, &bytes))));
                    }
                }
                Some(ProcessEvent::Gap(_) | ProcessEvent::Started(_)) => {}
                Some(ProcessEvent::End(_)) | None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Takes the number of the piece that came; the pieces that are missing before it.
    fn count(&mut self) -> Option<LogGap> {
        let number = self.process.moment().map_or(self.last + 1, |m| m.number);
        let missing = (number > self.last + 1).then_some(LogGap {
            from: self.last + 1,
            to: number.saturating_sub(1),
        });
        self.last = number;
        missing
    }

    fn shown(&self, channel: Channel) -> Option<LogStream> {
        let stream = match channel {
            Channel::Stdout | Channel::Plain => LogStream::Stdout,
            Channel::Stderr => LogStream::Stderr,
            Channel::Pty => LogStream::Pty,
        };
        (self.stream == LogStream::Combined || self.stream == stream).then_some(stream)
    }

    fn entry(&self, stream: LogStream, bytes: &[u8]) -> LogEntry {
        LogEntry {
            sequence: self.last,
            stream,
            timestamp_ms: self.process.moment().map_or(0, |moment| moment.at_ms),
            data: BASE64.encode(bytes),
            encoding: "base64",
        }
    }
}

/// After which piece the last `tail` entries begin: a first reading that keeps only sequences.
async fn tail_start(guest: &GuestLease, wanted: &Wanted, tail: u64) -> Result<u64> {
    let tail = usize::try_from(tail).unwrap_or(usize::MAX);
    let mut pieces = Pieces::open(guest, wanted, wanted.after).await?;
    pieces.until = Some(wanted.offset);
    let mut found = VecDeque::new();
    while let Some((_, entry)) = pieces.next().await? {
        found.push_back(entry.sequence);
        if found.len() > tail {
            found.pop_front();
        }
    }
    let first = found.front().copied();
    Ok(first.map_or(pieces.last, |first| first.saturating_sub(1)))
}

/// The log as one JSON document. Holds the sandbox awake until it is read.
fn document(
    name: String,
    guest: GuestLease,
    pieces: Pieces,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    enum State {
        Head(Pieces),
        Body(Pieces, &'static str),
        Over,
    }
    let stream = serde_json::to_string(&pieces.stream).unwrap_or_default();
    let head = format!(r#"{{"processId":"{name}","stream":{stream},"entries":["#);
    stream::unfold((State::Head(pieces), guest), move |(state, guest)| {
        let head = head.clone();
        async move {
            let (mut pieces, comma) = match state {
                State::Head(pieces) => {
                    return Some((Ok(Bytes::from(head)), (State::Body(pieces, ""), guest)));
                }
                State::Body(pieces, comma) => (pieces, comma),
                State::Over => return None,
            };
            match pieces.next().await {
                Ok(Some((_, entry))) => {
                    let json = serde_json::to_string(&entry).unwrap_or_default();
                    let text = Bytes::from(format!("{comma}{json}"));
                    Some((Ok(text), (State::Body(pieces, ","), guest)))
                }
                Ok(None) => Some((Ok(Bytes::from("]}")), (State::Over, guest))),
                Err(failure) => Some((Err(broken(&failure)), (State::Over, guest))),
            }
        }
    })
}

fn broken(failure: &Failure) -> io::Error {
    tracing::debug!(?failure, "a log could not be read to its end");
    io::Error::other("the log could not be read to its end")
}

fn event(name: &str, id: u64, data: &impl Serialize) -> String {
    let json = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\nid: {id}\ndata: {json}\n\n")
}

/// The log as events, until the process ends.
fn events(pieces: Pieces) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some(pieces), |pieces| async move {
        let mut pieces = pieces?;
        let text = match tokio::time::timeout(HEARTBEAT, pieces.next()).await {
            Err(_) => ": heartbeat\n\n".to_owned(),
            Ok(Ok(Some((gap, entry)))) => {
                let gap = gap
                    .map(|gap| event("gap", gap.to, &gap))
                    .unwrap_or_default();
                gap + &event("log", entry.sequence, &entry)
            }
            Ok(Ok(None)) => return None,
            Ok(Err(failure)) => return Some((Err(broken(&failure)), None)),
        };
        Some((Ok(Bytes::from(text)), Some(pieces)))
    })
}
