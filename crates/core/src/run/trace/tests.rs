use serde_json::json;
use woodfrog_types::usage::Tokens;

use super::*;
use crate::run::tests::{at, run};
use crate::run::{Due, Step, due_error, step};

fn traced() -> Run {
    Run {
        trace_id: Some("0123456789abcdef0123456789abcdef".to_owned()),
        work: Work::Prompt {
            agent: "opencode".to_owned(),
            model: Some("anthropic/claude-x".to_owned()),
        },
        tokens: Tokens {
            input: 1,
            output: 2,
            cache_read: 4,
            cache_write: 8,
        },
        ..run()
    }
}

fn over(run: &Run, outcome: Outcome) -> Run {
    let running = step(run, Step::Run, at(2)).expect("it may");
    step(&running, Step::End(outcome), at(9)).expect("it may")
}

fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a Attribute> {
    let found = span.attributes.iter().find(|(key, _)| *key == name);
    found.map(|(_, value)| value)
}

#[test]
fn a_run_that_is_over_is_the_root() {
    let run = traced();
    assert_eq!(root(&run), None, "it goes on");
    let span = root(&over(&run, Outcome::Succeeded)).expect("a span");
    assert_eq!(span.name, "invoke_agent opencode");
    assert_eq!((span.from, span.until), (at(0), at(9)));
    assert_eq!((span.parent, span.error.clone()), (None, None));
    assert_eq!(hex::encode(span.trace), "0123456789abcdef0123456789abcdef");
    for (name, value) in [
        ("gen_ai.operation.name", "invoke_agent".into()),
        ("gen_ai.provider.name", "anthropic".into()),
        ("gen_ai.request.model", "anthropic/claude-x".into()),
        ("gen_ai.usage.input_tokens", Attribute::Count(13)),
        ("gen_ai.usage.output_tokens", Attribute::Count(2)),
        ("gen_ai.usage.cache_read.input_tokens", Attribute::Count(4)),
        ("woodfrog.run.boot_seconds", Attribute::Number(2.0)),
        ("woodfrog.run.status", "succeeded".into()),
    ] {
        assert_eq!(attribute(&span, name), Some(&value), "{name}");
    }
    let untraced = Run {
        trace_id: None,
        ..run
    };
    assert_eq!(root(&over(&untraced, Outcome::Succeeded)), None);
}

#[test]
fn a_failure_says_why() {
    let run = traced();
    let span = root(&over(&run, Outcome::Failed(due_error(Due::Wall, &run)))).expect("a span");
    assert!(span.error.is_some_and(|error| error.contains("120 s")));
}

#[test]
fn tool_calls_are_paired_and_the_same_each_time() {
    let run = traced();
    let log = [
        (RunEventKind::ToolUse, json!({"id": "a", "name": "Bash"}), 1),
        (RunEventKind::ToolUse, json!({"id": "b", "name": "Read"}), 2),
        (RunEventKind::Text, json!({"text": "hm"}), 3),
        (
            RunEventKind::ToolResult,
            json!({"tool_use_id": "b", "is_error": true}),
            4,
        ),
        (RunEventKind::ToolResult, json!({"tool_use_id": "no"}), 5),
        (RunEventKind::ToolResult, json!({"tool_use_id": "a"}), 6),
        (RunEventKind::ToolUse, json!({"id": "c", "name": "Edit"}), 7),
    ];
    let read = || {
        let mut calls = ToolCalls::default();
        let noted = log
            .iter()
            .map(|(kind, data, second)| calls.note(&run, *kind, data, at(*second)));
        let mut spans: Vec<Span> = noted.collect::<Vec<_>>().into_iter().flatten().collect();
        spans.extend(calls.rest(&run, at(8)));
        spans
    };
    let spans = read();
    assert_eq!(spans, read());
    let shown: Vec<_> = spans
        .iter()
        .map(|span| {
            (
                span.name.as_str(),
                span.from,
                span.until,
                span.error.is_some(),
            )
        })
        .collect();
    let expected = [
        ("execute_tool Read", at(2), at(4), true),
        ("execute_tool Bash", at(1), at(6), false),
        ("execute_tool Edit", at(7), at(8), false),
    ];
    assert_eq!(shown, expected);
    let whole = root(&over(&run, Outcome::Succeeded)).expect("a span");
    let mut ids: Vec<_> = spans.iter().map(|span| span.id).collect();
    ids.push(whole.id);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    for span in &spans {
        assert_eq!((span.trace, span.parent), (whole.trace, Some(whole.id)));
    }
    let unfinished = attribute(&spans[2], "woodfrog.tool.unfinished");
    assert_eq!(unfinished, Some(&Attribute::Flag(true)));
}

#[test]
fn what_stays_open_has_a_bound() {
    let run = traced();
    let mut calls = ToolCalls::default();
    let mut ended = 0;
    for number in 0..OPEN_MAX + 3 {
        let data = json!({"id": number.to_string(), "name": "x".repeat(1000)});
        let span = calls.note(&run, RunEventKind::ToolUse, &data, at(1));
        ended += usize::from(span.is_some());
    }
    let rest = calls.rest(&run, at(2));
    assert_eq!((ended, rest.len()), (3, OPEN_MAX));
    assert!(rest[0].name.len() <= NAME_CHARS_MAX + "execute_tool ".len());
}
