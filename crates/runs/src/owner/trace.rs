//! What a run did, told as spans.

use std::sync::Arc;

use serde_json::Value;
use woodfrog_core::run::sample::is_sampled;
use woodfrog_core::run::trace::{ToolCalls, root};
use woodfrog_types::Timestamp;
use woodfrog_types::run::{Outcome, Run, RunEventKind, RunState};
use woodfrog_types::trace::{Attribute, Span};

use crate::hooks::{Pace, Traces};

/// Spans of one run that wait for its end; of more there is only the number.
const KEPT_MAX: usize = 1_000;

/// Whether an entry is new or was read from a log that another owner wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    New,
    Recalled,
}

/// The trace of one run; nothing if nobody is told of any.
#[derive(Default)]
pub(super) struct Trace {
    to: Option<Arc<dyn Traces>>,
    sampled: bool,
    calls: ToolCalls,
    kept: Vec<Span>,
    left_out: u64,
}

impl Trace {
    pub(super) fn new(to: Option<Arc<dyn Traces>>, run: &Run) -> Self {
        let rate = to.as_ref().map_or(0.0, |to| to.rate());
        let input = run.input.as_deref().unwrap_or_default();
        Self {
            to,
            sampled: is_sampled(input, rate),
            ..Self::default()
        }
    }

    /// Takes an entry of the log.
    pub(super) fn note(
        &mut self,
        run: &Run,
        kind: RunEventKind,
        data: &Value,
        at: Timestamp,
        age: Age,
    ) {
        let Some(to) = &self.to else { return };
        let Some(span) = self.calls.note(run, kind, data, at) else {
            return;
        };
        match (to.pace(), age) {
            (Pace::AtOnce, Age::New) if self.sampled => to.take(vec![span]),
            // The owner before told it.
            (Pace::AtOnce, Age::Recalled) if self.sampled => {}
            (Pace::AtOnce | Pace::AtEnd, Age::New | Age::Recalled) => self.keep(span),
        }
    }

    fn keep(&mut self, span: Span) {
        if self.kept.len() < KEPT_MAX {
            self.kept.push(span);
        } else {
            self.left_out += 1;
        }
    }

    /// The run is over, and its record is written.
    pub(super) fn end(&mut self, run: &Run) {
        let Some(to) = self.to.take() else { return };
        let failed = matches!(
            run.state,
            RunState::Ended {
                outcome: Outcome::Failed(_),
                ..
            }
        );
        if !self.sampled && !failed {
            return;
        }
        let Some(mut whole) = root(run) else { return };
        for span in self.calls.rest(run, whole.until) {
            self.keep(span);
        }
        let more: [(&'static str, Attribute); 2] = [
            ("woodfrog.sampled_out", Attribute::Flag(!self.sampled)),
            ("woodfrog.spans_left_out", self.left_out.into()),
        ];
        whole.attributes.extend(more);
        let mut spans = std::mem::take(&mut self.kept);
        spans.push(whole);
        to.take(spans);
    }
}
