//! What runs did is told to a collector.

use woodfrog_otlp::Exporter;
use woodfrog_runs::{Pace, Traces};
use woodfrog_types::trace::Span;

/// An exporter, as runs know it.
#[derive(Clone)]
pub struct Traced {
    pub(crate) exporter: Exporter,
    pub(crate) rate: f64,
    pub(crate) pace: Pace,
}

impl Traces for Traced {
    fn rate(&self) -> f64 {
        self.rate
    }

    fn pace(&self) -> Pace {
        self.pace
    }

    fn take(&self, spans: Vec<Span>) {
        self.exporter.take(spans);
    }
}
