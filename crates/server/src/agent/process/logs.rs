//! What processes printed. It is read from the guest piece by piece and never gathered here; a
//! piece's sequence is its offset in the output, so reading goes on at exactly the next byte.

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
use woodfrog_engine::GuestLease;
use woodfrog_guest_client::ProcessEvent;
use woodfrog_guest_client::proto::{Channel, From, Gap, ProcessInfo, ProcessRef, Times};
use woodfrog_wire::agent::process::{LogEntry, LogGap, LogStream, LogsQuery};

use super::{sandbox_ended, table};
use crate::agent::AgentHost;
use crate::agent::problem::{Failure, Result};
use woodfrog_engine::follow::Followed;

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
    let from = match query.tail.filter(|tail| *tail < TAIL_MAX) {
        Some(tail) => tail_start(&guest, &wanted, tail).await?,
        None => wanted.from,
    };
    let pieces = Pieces::open(&guest, &wanted, from).await?;
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
    from: u64,
    /// Where the output ended when it was asked for.
    offset: u64,
}

impl Wanted {
    fn of(info: &ProcessInfo, query: LogsQuery, headers: Option<&HeaderMap>) -> Result<Self> {
        let last = match headers.and_then(|headers| headers.get("last-event-id")) {
            None => None,
            Some(value) => Some(sequence(value)?),
        };
        let from = last.or(query.since).unwrap_or(info.kept);
        if from > info.offset {
            return Err(Failure::invalid(format_args!(
                "sequence {from} lies beyond the end of the log ({})",
                info.offset
            )));
        }
        let all = match info.pty {
            Some(_) => LogStream::Pty,
            None => LogStream::Combined,
        };
        Ok(Self {
            process: info.id,
            stream: query.stream.unwrap_or(all),
            from,
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
    at: u64,
    /// Where to stop; else at the end of the process.
    until: Option<u64>,
}

enum Piece {
    Entry(LogEntry),
    Gap(Gap),
}

impl Pieces {
    async fn open(guest: &GuestLease, wanted: &Wanted, from: u64) -> Result<Self> {
        let (process, at) = (ProcessRef::Id(wanted.process), From::Offset(from));
        let process = Followed::attach_with(guest, process, at, Times::Told).await?;
        Ok(Self {
            process,
            guest: guest.quiet(),
            stream: wanted.stream,
            at: from,
            until: None,
        })
    }

    /// The next piece of the wanted stream; `None` at the end.
    async fn next(&mut self) -> Result<Option<Piece>> {
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
                    let bytes = self.clip(offset, &bytes);
                    self.at = offset + bytes.len() as u64;
                    if let Some(stream) = self.shown(stream) {
                        return Ok(Some(Piece::Entry(self.entry(stream, bytes))));
                    }
                }
                Some(ProcessEvent::Gap(gap)) => {
                    self.at = gap.to;
                    return Ok(Some(Piece::Gap(gap)));
                }
                Some(ProcessEvent::Started(_)) => {}
                Some(ProcessEvent::End(_)) | None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// What of it comes before the end that was asked for.
    fn clip<'a>(&self, offset: u64, bytes: &'a [u8]) -> &'a [u8] {
        let most = self.until.map_or(u64::MAX, |until| until - offset);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        bytes.get(..most).unwrap_or(bytes)
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
            sequence: self.at,
            stream,
            timestamp_ms: self.process.at_ms().unwrap_or_default(),
            data: BASE64.encode(bytes),
            encoding: "base64",
        }
    }
}

/// Where the last `tail` entries begin: a first reading that keeps only positions.
async fn tail_start(guest: &GuestLease, wanted: &Wanted, tail: u64) -> Result<u64> {
    let tail = usize::try_from(tail).unwrap_or(usize::MAX);
    if tail == 0 {
        return Ok(wanted.offset);
    }
    let mut pieces = Pieces::open(guest, wanted, wanted.from).await?;
    pieces.until = Some(wanted.offset);
    let (mut starts, mut before) = (VecDeque::new(), wanted.from);
    while let Some(piece) = pieces.next().await? {
        match piece {
            Piece::Entry(_) => starts.push_back(before),
            Piece::Gap(_) => {}
        }
        before = pieces.at;
        if starts.len() > tail {
            starts.pop_front();
        }
    }
    Ok(starts.front().copied().unwrap_or(wanted.offset))
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
            loop {
                match pieces.next().await {
                    Ok(Some(Piece::Entry(entry))) => {
                        let json = serde_json::to_string(&entry).unwrap_or_default();
                        let text = Bytes::from(format!("{comma}{json}"));
                        return Some((Ok(text), (State::Body(pieces, ","), guest)));
                    }
                    Ok(Some(Piece::Gap(_))) => {}
                    Ok(None) => return Some((Ok(Bytes::from("]}")), (State::Over, guest))),
                    Err(failure) => return Some((Err(broken(&failure)), (State::Over, guest))),
                }
            }
        }
    })
}

fn broken(failure: &Failure) -> io::Error {
    tracing::debug!(?failure, "a log could not be read to its end");
    io::Error::other("the log could not be read to its end")
}

/// The log as events, until the process ends.
fn events(pieces: Pieces) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some(pieces), |pieces| async move {
        let mut pieces = pieces?;
        let text = match tokio::time::timeout(HEARTBEAT, pieces.next()).await {
            Err(_) => ": heartbeat\n\n".to_owned(),
            Ok(Ok(Some(Piece::Entry(entry)))) => {
                let json = serde_json::to_string(&entry).unwrap_or_default();
                format!("event: log\nid: {}\ndata: {json}\n\n", entry.sequence)
            }
            Ok(Ok(Some(Piece::Gap(gap)))) => {
                let gap = LogGap {
                    from: gap.from,
                    to: gap.to,
                };
                let json = serde_json::to_string(&gap).unwrap_or_default();
                format!("event: gap\nid: {}\ndata: {json}\n\n", gap.to)
            }
            Ok(Ok(None)) => return None,
            Ok(Err(failure)) => return Some((Err(broken(&failure)), None)),
        };
        Some((Ok(Bytes::from(text)), Some(pieces)))
    })
}
