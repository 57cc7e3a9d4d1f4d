//! The steps that a prompt asks for.

use serde_json::Value;

/// One thing a turn does. `docs/reference/mock-agent.md` has the words.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Say(String),
    Think(String),
    Tool {
        id: String,
        kind: String,
        title: String,
    },
    ToolEnd {
        id: String,
        status: &'static str,
        text: String,
    },
    Plan(Vec<(String, &'static str)>),
    /// Asks for permission; refused, what follows is skipped up to `Anyway`.
    Ask(String),
    /// Asks a question with these answers.
    Choose {
        title: String,
        options: Vec<String>,
    },
    Anyway,
    Usage {
        used: u64,
        size: u64,
        cost: Option<(f64, String)>,
    },
    Mode(String),
    Title(String),
    Commands,
    Write {
        path: String,
        text: String,
    },
    Read(String),
    Env(String),
    Cwd,
    Settings,
    Before,
    Blocks,
    Delay(u64),
    /// Never answers by itself.
    Hang,
    /// Does not even answer when cancelled.
    Deaf,
    Error {
        code: i64,
        message: String,
    },
    Stop(String),
    Crash {
        code: u8,
        text: String,
    },
    Stderr(String),
    Garbage(String),
    Raw(String),
    Stray(Value),
    Twice,
    CloseStdout,
    IgnoreSignals,
    Chunks {
        left: u64,
        number: u64,
        bytes: usize,
        every_ms: u64,
    },
    Line(u64),
    Request {
        method: String,
        params: Value,
    },
    Notify {
        method: String,
        params: Value,
    },
}

/// Bytes of one chunk of an echo.
const ECHO_CHUNK: usize = 1024;

/// What an ordinary prompt gets: itself, after `mock: `, in pieces.
pub(crate) fn echo(text: &str) -> Vec<Step> {
    let mut steps = vec![Step::Say("mock: ".to_owned())];
    let mut rest = text;
    while !rest.is_empty() {
        let piece = crate::session::clip(rest, ECHO_CHUNK);
        steps.push(Step::Say(piece.to_owned()));
        rest = rest.get(piece.len()..).unwrap_or_default();
    }
    steps
}
