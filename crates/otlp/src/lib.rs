//! Spans to a collector, by OpenTelemetry's protocol over HTTP.
//!
//! Whoever has spans gives them to an [`Exporter`] and never waits: a queue with a bound takes them,
//! one task sends what is in it, and what does not fit, or that the collector does not take, is
//! dropped and counted. Spans come with their ids and times, so the SDK's tracers and processors are
//! not used, only its exporter.
#![forbid(unsafe_code)]

mod convert;
mod exporter;

pub use exporter::{Counts, Exporter, ExporterError, Options, QUEUE_SPANS, Sender};
