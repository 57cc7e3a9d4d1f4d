//! What a run's log says so far, as its end needs it.

use std::collections::VecDeque;

use serde_json::Value;
use woodfrog_core::run::event::{last_line, text_of};
use woodfrog_types::run::RunEventKind;
use woodfrog_types::usage::Tokens;

/// Lines of standard error that explain an end.
const STDERR_LINES: usize = 20;
/// Bytes of a line that is kept.
const LINE_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) result: Option<String>,
    /// Events `result` so far.
    pub(super) results: u64,
    pub(super) tool_calls: u64,
    pub(super) turns: u64,
    pub(super) files_created: u64,
    pub(super) files_modified: u64,
    /// The model that the program says it used.
    pub(super) model: Option<String>,
    pub(super) last_line_tokens: Option<Tokens>,
    last_stdout: Option<String>,
    stderr: VecDeque<String>,
}

impl Summary {
    pub(super) fn note(&mut self, kind: RunEventKind, data: &Value) {
        match kind {
            RunEventKind::ToolUse => self.tool_calls += 1,
            RunEventKind::Result => {
                self.results += 1;
                self.result = Some(text_of(&data["result"]));
                self.turns += data["num_turns"].as_u64().unwrap_or(0);
                if let Some(model) = data["model"].as_str() {
                    self.model = Some(model.to_owned());
                }
            }
            RunEventKind::Complete => {
                if let Some(result) = data.get("result").filter(|it| !it.is_null()) {
                    self.result.get_or_insert_with(|| text_of(result));
                }
            }
            RunEventKind::Raw => self.line(data),
            _ => {}
        }
    }

    fn line(&mut self, data: &Value) {
        let Some(line) = data["text"].as_str().filter(|line| !line.trim().is_empty()) else {
            return;
        };
        let line = line[..line.floor_char_boundary(LINE_BYTES)].to_owned();
        if data["stream"] == "stderr" {
            if self.stderr.len() == STDERR_LINES {
                self.stderr.pop_front();
            }
            self.stderr.push_back(line);
        } else {
            self.last_stdout = Some(line);
        }
    }

    /// The result of a program that wrote no event of it.
    pub(super) fn last_words(&mut self) {
        if self.result.is_none()
            && let Some((result, tokens)) = self.last_stdout.as_deref().and_then(last_line)
        {
            self.result = Some(result);
            self.last_line_tokens = tokens;
        }
    }

    pub(super) fn stderr(&self) -> String {
        let lines: Vec<&str> = self.stderr.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}
