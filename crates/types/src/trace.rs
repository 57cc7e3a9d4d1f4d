//! Spans of traces: what was done, from when to when.

use crate::Timestamp;

/// The id of a trace.
pub type TraceId = [u8; 16];
/// The id of a span in its trace.
pub type SpanId = [u8; 8];

/// One thing that was done. What is told twice has the same ids.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub trace: TraceId,
    pub id: SpanId,
    /// What it is a part of; `None`: it is the whole.
    pub parent: Option<SpanId>,
    pub name: String,
    pub from: Timestamp,
    pub until: Timestamp,
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// What is known of a span.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    Text(String),
    Count(u64),
    Number(f64),
    Flag(bool),
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Attribute {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}
