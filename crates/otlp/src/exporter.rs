//! The queue, and the task that empties it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use woodfrog_types::trace::Span;

use crate::convert;

/// Spans that wait to be sent; more are dropped.
pub const QUEUE_SPANS: usize = 4_096;
/// Spans of one request.
const BATCH_SPANS: usize = 512;
/// How long the collector may take for one, tries included.
const EXPORT_MAX: Duration = Duration::from_secs(10);
/// How long a span may wait for others to be sent along with.
const GATHER: Duration = Duration::from_secs(2);
/// How long what is left may take when the server ends.
const END_MAX: Duration = Duration::from_secs(2);

/// Where spans go.
#[derive(Clone)]
pub struct Options {
    /// The whole address, `http://127.0.0.1:4318/v1/traces`.
    pub endpoint: String,
    /// Headers of each request; they may hold secrets.
    pub headers: HashMap<String, String>,
    /// Whether spans wait a moment for others to be sent along with.
    pub gather: bool,
    /// What the collector knows this server as.
    pub service_version: &'static str,
}

/// Why there is no exporter.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    #[error("set up the HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("set up the exporter")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
}

/// What became of spans so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The collector took them.
    pub sent: u64,
    /// There was no room for them.
    pub overflowed: u64,
    /// The collector did not take them.
    pub failed: u64,
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    overflowed: AtomicU64,
    failed: AtomicU64,
}

/// The way in. A cheap clone.
#[derive(Clone)]
pub struct Exporter {
    queue: mpsc::Sender<Span>,
    counters: Arc<Counters>,
}

impl Exporter {
    /// The way in, and what sends; nothing is sent before that runs.
    ///
    /// # Errors
    /// The options make no sense.
    pub fn new(options: Options) -> Result<(Self, Sender), ExporterError> {
        // Fails only if there is one already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(EXPORT_MAX)
            // Headers with secrets are for the collector alone.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(ExporterError::Client)?;
        let mut otlp = SpanExporter::builder()
            .with_http()
            .with_http_client(http)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(options.endpoint)
            .with_headers(options.headers)
            .with_timeout(EXPORT_MAX)
            .build()
            .map_err(ExporterError::Exporter)?;
        otlp.set_resource(
            &Resource::builder_empty()
                .with_attributes([
                    KeyValue::new("service.name", "woodfrog"),
                    KeyValue::new("service.version", options.service_version),
                ])
                .build(),
        );
        let (queue, waiting) = mpsc::channel(QUEUE_SPANS);
        let counters = Arc::new(Counters::default());
        let sender = Sender {
            otlp,
            waiting,
            counters: Arc::clone(&counters),
            gather: options.gather,
            scope: InstrumentationScope::builder("woodfrog").build(),
        };
        Ok((Self { queue, counters }, sender))
    }

    /// Takes spans, or counts them as dropped. Never waits.
    pub fn take(&self, spans: Vec<Span>) {
        for span in spans {
            if self.queue.try_send(span).is_err() {
                self.counters.overflowed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What became of them so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            sent: read(&self.counters.sent),
            overflowed: read(&self.counters.overflowed),
            failed: read(&self.counters.failed),
        }
    }
}

/// Sends what an [`Exporter`] took.
pub struct Sender {
    otlp: SpanExporter,
    waiting: mpsc::Receiver<Span>,
    counters: Arc<Counters>,
    gather: bool,
    scope: InstrumentationScope,
}

impl Sender {
    /// Sends until it is told to end, and then what is left, for a moment.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(batch) = self.next(&stop).await {
            // A collector that hangs does not hold up the end of the server.
            let late = async {
                stop.cancelled().await;
                tokio::time::sleep(END_MAX).await;
            };
            tokio::select! {
                () = self.export(batch) => {}
                () = late => return,
            }
        }
        self.waiting.close();
        let rest = async {
            loop {
                let mut batch = Vec::new();
                if self.waiting.recv_many(&mut batch, BATCH_SPANS).await == 0 {
                    return;
                }
                self.export(batch).await;
            }
        };
        if timeout(END_MAX, rest).await.is_err() {
            tracing::warn!("the last spans of traces were not taken in time");
        }
    }

    /// What to send next; `None` when it is time to end.
    async fn next(&mut self, stop: &CancellationToken) -> Option<Vec<Span>> {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            count = self.waiting.recv_many(&mut batch, BATCH_SPANS) => {
                if count == 0 {
                    return None;
                }
            }
        }
        let until = Instant::now() + GATHER;
        while self.gather && batch.len() < BATCH_SPANS {
            let room = BATCH_SPANS - batch.len();
            let more = timeout_at(until, self.waiting.recv_many(&mut batch, room));
            tokio::select! {
                () = stop.cancelled() => break,
                more = more => match more {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                },
            }
        }
        Some(batch)
    }

    async fn export(&self, batch: Vec<Span>) {
        let count = batch.len() as u64;
        let batch = batch
            .into_iter()
            .map(|span| convert::data(span, &self.scope));
        // The client has a time limit for one try, and the tries together have this one.
        let sent = timeout(EXPORT_MAX, self.otlp.export(batch.collect())).await;
        match sent {
            Ok(Ok(())) => {
                self.counters.sent.fetch_add(count, Ordering::Relaxed);
                return;
            }
            Ok(Err(error)) => tracing::warn!(%error, count, "spans of traces are lost"),
            Err(_) => tracing::warn!(count, "spans of traces are lost: the collector hangs"),
        }
        self.counters.failed.fetch_add(count, Ordering::Relaxed);
    }
}
