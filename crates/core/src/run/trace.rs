//! A run as spans: the run is the root, its tool calls are below it. Names and attributes are those
//! of OpenTelemetry's conventions for generative AI; what these do not name begins with `woodfrog.`.
//! What was said (prompts, answers, what tools were given) is in no span.

use std::collections::VecDeque;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use woodfrog_types::run::{Outcome, Run, RunEventKind, RunState, Work};
use woodfrog_types::trace::{Attribute, Span, SpanId, TraceId};
use woodfrog_types::{RunId, Timestamp};

/// Tool calls that are open at once; of more the oldest is taken for over.
const OPEN_MAX: usize = 64;
/// Characters of a name that somebody else gave.
const NAME_CHARS_MAX: usize = 200;

/// The whole run, once it is over. `None` of one that has no trace or goes on.
pub fn root(run: &Run) -> Option<Span> {
    let RunState::Ended { at, outcome, since } = &run.state else {
        return None;
    };
    let mut attributes: Vec<(&'static str, Attribute)> = vec![
        ("woodfrog.run.id", run.id.as_str().into()),
        ("woodfrog.run.status", run.state.as_str().into()),
        ("woodfrog.workspace", run.workspace.as_str().into()),
        ("woodfrog.user", run.created_by.as_str().into()),
        ("woodfrog.tool_calls", run.stats.tool_calls.into()),
        ("woodfrog.turns", run.stats.turns.into()),
        ("woodfrog.cost.micro_dollars", run.cost.total().into()),
        ("gen_ai.conversation.id", run.thread.as_str().into()),
    ];
    let name = match &run.work {
        Work::Prompt { agent, model } => {
            attributes.extend([
                ("gen_ai.operation.name", "invoke_agent".into()),
                ("gen_ai.agent.name", agent.as_str().into()),
                (
                    "gen_ai.provider.name",
                    provider(agent, model.as_deref()).into(),
                ),
            ]);
            if let Some(model) = model {
                attributes.push(("gen_ai.request.model", model.as_str().into()));
            }
            format!("invoke_agent {agent}")
        }
        Work::Command => "run command".to_owned(),
    };
    if run.tokens.total() > 0 {
        let tokens = &run.tokens;
        // By the convention all input counts, the cached part of it too.
        let cached = tokens.cache_read.saturating_add(tokens.cache_write);
        let input = tokens.input.saturating_add(cached);
        attributes.extend([
            ("gen_ai.usage.input_tokens", input.into()),
            ("gen_ai.usage.output_tokens", tokens.output.into()),
            (
                "gen_ai.usage.cache_read.input_tokens",
                tokens.cache_read.into(),
            ),
            (
                "gen_ai.usage.cache_creation.input_tokens",
                tokens.cache_write.into(),
            ),
        ]);
    }
    if let Some(sandbox) = &run.sandbox {
        attributes.push(("woodfrog.sandbox.id", sandbox.as_str().into()));
    }
    if let Some(session) = &run.session {
        attributes.push(("woodfrog.session.id", session.as_str().into()));
    }
    if let Some(since) = since {
        let waited = since.since(run.created_at).as_secs_f64();
        attributes.push(("woodfrog.run.boot_seconds", Attribute::Number(waited)));
    }
    let error = match outcome {
        Outcome::Succeeded => None,
        Outcome::Canceled { .. } => {
            attributes.push(("error.type", "canceled".into()));
            None
        }
        Outcome::Failed(error) => {
            attributes.push(("error.type", error.code.as_str().into()));
            attributes.push(("woodfrog.error.category", error.category.as_str().into()));
            Some(error.message.clone())
        }
    };
    Some(Span {
        trace: trace_id(run)?,
        id: span_id(&run.id, 0),
        parent: None,
        name,
        from: run.created_at,
        until: *at,
        attributes,
        error,
    })
}

/// Who serves the model, by the convention's names where it has one.
fn provider<'a>(agent: &'a str, model: Option<&'a str>) -> &'a str {
    // Agents of many providers name the model `provider/model`.
    let by_model = model.and_then(|model| model.split_once('/'));
    match by_model.map_or(agent, |(provider, _)| provider) {
        "claude" => "anthropic",
        "codex" => "openai",
        "gemini" | "google" => "gcp.gemini",
        other => other,
    }
}

struct Open {
    call: String,
    name: String,
    number: u64,
    from: Timestamp,
}

/// Tool calls of a run, from what its log says. The same log gives the same spans.
#[derive(Default)]
pub struct ToolCalls {
    open: VecDeque<Open>,
    seen: u64,
}

impl ToolCalls {
    /// Takes an entry of the log; the span of a call that it ends.
    pub fn note(
        &mut self,
        run: &Run,
        kind: RunEventKind,
        data: &Value,
        at: Timestamp,
    ) -> Option<Span> {
        match kind {
            RunEventKind::ToolUse => {
                self.seen += 1;
                self.open.push_back(Open {
                    call: short(&data["id"]),
                    name: short(&data["name"]),
                    number: self.seen,
                    from: at,
                });
                let oldest = match self.open.len() > OPEN_MAX {
                    true => self.open.pop_front(),
                    false => None,
                };
                span(run, oldest?, at, Ended::Unknown)
            }
            RunEventKind::ToolResult => {
                let call = short(&data["tool_use_id"]);
                let place = self.open.iter().position(|open| open.call == call)?;
                let ended = match data["is_error"] == true {
                    true => Ended::Failed,
                    false => Ended::Done,
                };
                span(run, self.open.remove(place)?, at, ended)
            }
            RunEventKind::Start
            | RunEventKind::Text
            | RunEventKind::Thinking
            | RunEventKind::Error
            | RunEventKind::Result
            | RunEventKind::Complete
            | RunEventKind::Raw
            | RunEventKind::Status
            | RunEventKind::Usage => None,
        }
    }

    /// Calls whose ends nobody told, when the run is over.
    pub fn rest(&mut self, run: &Run, at: Timestamp) -> Vec<Span> {
        let open = std::mem::take(&mut self.open).into_iter();
        open.filter_map(|open| span(run, open, at, Ended::Unknown))
            .collect()
    }
}

enum Ended {
    Done,
    Failed,
    /// Nobody said how.
    Unknown,
}

fn span(run: &Run, open: Open, until: Timestamp, ended: Ended) -> Option<Span> {
    let mut attributes: Vec<(&'static str, Attribute)> = vec![
        ("gen_ai.operation.name", "execute_tool".into()),
        ("gen_ai.tool.name", open.name.as_str().into()),
        ("gen_ai.tool.call.id", open.call.as_str().into()),
        ("woodfrog.run.id", run.id.as_str().into()),
    ];
    let error = match ended {
        Ended::Done => None,
        Ended::Failed => {
            attributes.push(("error.type", "tool_error".into()));
            Some("the tool failed".to_owned())
        }
        Ended::Unknown => {
            attributes.push(("woodfrog.tool.unfinished", Attribute::Flag(true)));
            None
        }
    };
    Some(Span {
        trace: trace_id(run)?,
        id: span_id(&run.id, open.number),
        parent: Some(span_id(&run.id, 0)),
        name: format!("execute_tool {}", open.name),
        from: open.from,
        until,
        attributes,
        error,
    })
}

fn trace_id(run: &Run) -> Option<TraceId> {
    let mut id = [0; 16];
    hex::decode_to_slice(run.trace_id.as_deref()?, &mut id).ok()?;
    Some(id)
}

/// 0 is the run itself.
fn span_id(run: &RunId, number: u64) -> SpanId {
    let digest = Sha256::new()
        .chain_update(run.as_str())
        .chain_update(number.to_be_bytes())
        .finalize();
    let mut id = [0; 8];
    id.copy_from_slice(&digest[..8]);
    id
}

fn short(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    text.chars().take(NAME_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
