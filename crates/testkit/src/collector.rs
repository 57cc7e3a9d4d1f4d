//! A collector of traces on this machine: it takes what is exported, refuses it, or hangs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// Bytes of a request that it reads.
const BODY_BYTES_MAX: usize = 16 << 20;

/// What a collector does with what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Takes,
    /// With that status.
    Refuses(u16),
    /// It reads and never answers.
    Hangs,
}

/// A span as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Hexadecimal, as the next two; no parent is empty.
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    pub attributes: BTreeMap<String, String>,
    /// Of its resource.
    pub service: String,
    pub failed: bool,
    /// The headers of the request that it came with.
    pub headers: BTreeMap<String, String>,
}

/// A collector; it takes no connections once this is dropped.
pub struct Collector {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    manner: Manner,
    seen: Mutex<Vec<Seen>>,
    requests: Mutex<usize>,
    over: AtomicBool,
}

impl Collector {
    /// Listens on a port of its own.
    ///
    /// # Errors
    /// There is none.
    pub fn start(manner: Manner) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/v1/traces", listener.local_addr()?);
        let shared = Arc::new(Shared {
            manner,
            seen: Mutex::default(),
            requests: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if own.over.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), shared) = (stream, Arc::clone(&own)) else {
                    return;
                };
                // It ends when the other end does.
                std::thread::spawn(move || serve(&shared, stream));
            }
        });
        Ok(Self { url, shared })
    }

    /// Where spans are to be sent.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What came so far, in its order.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// How many requests came so far.
    pub fn requests(&self) -> usize {
        *lock(&self.shared.requests)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        let address = self.url.trim_start_matches("http://");
        let address = address.trim_end_matches("/v1/traces");
        drop(TcpStream::connect(address));
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Requests of one connection.
fn serve(shared: &Shared, stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    while let Ok(Some((headers, body))) = request(&mut stream) {
        *lock(&shared.requests) += 1;
        let status = match shared.manner {
            Manner::Hangs => {
                // Until the client has had enough.
                drop(stream.read_to_end(&mut Vec::new()));
                return;
            }
            Manner::Refuses(status) => status,
            Manner::Takes => match spans(&headers, &body) {
                Ok(spans) => {
                    lock(&shared.seen).extend(spans);
                    200
                }
                Err(_) => 400,
            },
        };
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

type Headers = BTreeMap<String, String>;

/// `None` at the end of the connection.
fn request(stream: &mut BufReader<TcpStream>) -> Result<Option<(Headers, Vec<u8>)>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    ensure!(line.starts_with("POST /v1/traces "), "{line}");
    let mut headers = Headers::new();
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").context("a length")?;
    let length: usize = length.parse()?;
    ensure!(length <= BODY_BYTES_MAX, "{length} bytes");
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some((headers, body)))
}

fn spans(headers: &Headers, body: &[u8]) -> Result<Vec<Seen>> {
    ensure!(
        headers
            .get("content-type")
            .is_some_and(|it| it == "application/x-protobuf")
    );
    let request = ExportTraceServiceRequest::decode(body)?;
    let mut seen = Vec::new();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default();
        let resource = attributes(resource.attributes);
        let service = resource.get("service.name").cloned().unwrap_or_default();
        for span in of_resource.scope_spans.into_iter().flat_map(|it| it.spans) {
            seen.push(one(span, &service, headers));
        }
    }
    Ok(seen)
}

fn one(span: Span, service: &str, headers: &Headers) -> Seen {
    let status = span.status.unwrap_or_default();
    Seen {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name,
        attributes: attributes(span.attributes),
        service: service.to_owned(),
        // As the protocol numbers an error.
        failed: status.code == 2,
        headers: headers.clone(),
    }
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let shown = |value: AnyValue| match value.value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = pairs.into_iter();
    pairs
        .map(|pair| (pair.key, pair.value.map(shown).unwrap_or_default()))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits until a collector has seen as many spans of a trace.
///
/// # Errors
/// It has not, in time.
pub fn wait_for_spans_of(
    collector: &Collector,
    trace: &str,
    count: usize,
    most: Duration,
) -> Result<Vec<Seen>> {
    crate::wait_for("spans at the collector", most, || {
        let mut seen = collector.seen();
        seen.retain(|span| span.trace == trace);
        (seen.len() >= count).then_some(seen)
    })
}
