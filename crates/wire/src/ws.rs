//! The WebSocket sandbox: JSON text frames in both directions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

mod status;

pub use status::Status;

/// The first frame of a client that wants a new sandbox.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Create {
    /// Seconds without activity until the sandbox goes; zero or null: never.
    #[serde(deserialize_with = "said")]
    pub idle_timeout: Option<Option<f64>>,
    pub enable_checkpoint: bool,
    pub enable_sandbox_handoff: bool,
    pub enable_idle_timeout_auto_checkpoint: bool,
    pub filesystem_snapshot_name: Option<String>,
    /// What the sandbox is made from; an extension, as all that follow.
    pub template: Option<String>,
    pub env: BTreeMap<String, String>,
    pub metadata: BTreeMap<String, String>,
    pub cpu_count: Option<u32>,
    pub memory_mb: Option<u64>,
    pub disk_mb: Option<u64>,
    /// The client remembers the `cursor` of the last output that it got.
    pub cursors: bool,
}

/// Null is something else than nothing.
fn said<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<f64>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// Seconds until an idle sandbox goes whose client did not say.
const IDLE_TIMEOUT_DEFAULT: f64 = 300.0;

impl Create {
    /// The idle timeout in seconds; `None` is never.
    pub fn idle_seconds(&self) -> Option<f64> {
        match self.idle_timeout {
            None => Some(IDLE_TIMEOUT_DEFAULT),
            Some(seconds) => seconds.filter(|seconds| *seconds > 0.0),
        }
    }
}

/// Code to be run. Everything but `language` and `code` is an extension.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Exec {
    pub language: Option<Value>,
    pub code: Option<Value>,
    pub cwd: Option<String>,
    pub env: BTreeMap<String, String>,
    pub user: Option<String>,
    /// Seconds after which the process is killed.
    pub timeout: Option<f64>,
    pub pty: Option<Pty>,
}

/// A terminal in place of pipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Pty {
    pub cols: u16,
    pub rows: u16,
}

/// What a client says once its sandbox runs.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientFrame {
    Exec(Box<Exec>),
    Stdin(Stdin),
    KillProcess,
    Checkpoint,
    SnapshotFilesystem {
        name: Option<String>,
    },
    KillSandbox,
    Reconnect {
        cursor: Option<String>,
    },
    /// An extension: the size of the process's terminal.
    Resize(Pty),
}

/// Input for the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stdin {
    /// `None`: the field is missing, or no text.
    pub data: Option<String>,
    /// An extension: that was all.
    pub end: bool,
}

/// A text that is no frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAFrame(pub String);

impl ClientFrame {
    /// Reads a frame. What is neither input nor a known action is taken for code, as the protocol
    /// has it.
    pub fn parse(text: &str) -> Result<Self, NotAFrame> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| NotAFrame(format!("Invalid message: not JSON ({error})")))?;
        let Value::Object(fields) = &value else {
            return Err(NotAFrame("Invalid message: not a JSON object".to_owned()));
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        if text("event") == Some("stdin") {
            return Ok(Self::Stdin(Stdin {
                data: text("data").map(str::to_owned),
                end: fields.get("end") == Some(&Value::Bool(true)),
            }));
        }
        let owned = |name: &str| text(name).map(str::to_owned);
        Ok(match text("action") {
            Some("kill_process") => Self::KillProcess,
            Some("checkpoint") => Self::Checkpoint,
            Some("snapshot_filesystem") => Self::SnapshotFilesystem {
                name: owned("name"),
            },
            Some("kill_sandbox") => Self::KillSandbox,
            Some("reconnect") => Self::Reconnect {
                cursor: owned("cursor"),
            },
            Some("resize") => Self::Resize(shape(value)?),
            Some(_) | None => Self::Exec(Box::new(shape(value)?)),
        })
    }
}

fn shape<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, NotAFrame> {
    serde_json::from_value(value).map_err(|error| NotAFrame(format!("Invalid message: {error}")))
}

/// Which of a process's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

impl Output {
    /// The event's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What a status has besides its name. Clients that do not know a field ignore it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Details {
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// A stable code of `docs/reference/errors.md`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Of a process that ended; 128 and the signal's number for one that was killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub timed_out: bool,
    /// The process goes on without this client.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
    /// Where the output of a process that was started begins, or where it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl Details {
    /// Only a sentence.
    pub fn message(text: impl Into<String>) -> Self {
        Self {
            message: Some(text.into()),
            ..Self::default()
        }
    }
}

/// What the server says, but for output, which is written by [`output`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFrame {
    Status(Status, Details),
    SandboxId { id: String, token: String },
    Error { message: String },
}

impl ServerFrame {
    /// A status and nothing else.
    pub fn status(status: Status) -> Self {
        Self::Status(status, Details::default())
    }

    /// The frame as text.
    pub fn to_text(&self) -> String {
        #[derive(Serialize)]
        #[serde(tag = "event", rename_all = "snake_case")]
        enum Wire<'a> {
            StatusUpdate {
                status: &'static str,
                #[serde(flatten)]
                details: &'a Details,
            },
            SandboxId {
                sandbox_id: &'a str,
                sandbox_token: &'a str,
            },
            Error {
                message: &'a str,
            },
        }
        let wire = match self {
            Self::Status(status, details) => Wire::StatusUpdate {
                status: status.as_str(),
                details,
            },
            Self::SandboxId { id, token } => Wire::SandboxId {
                sandbox_id: id,
                sandbox_token: token,
            },
            Self::Error { message } => Wire::Error { message },
        };
        serde_json::to_string(&wire).unwrap_or_default()
    }
}

/// A frame of output; its last byte is the closing brace.
pub fn output(output: Output, text: &str, cursor: Option<&str>) -> String {
    // Most text needs few escapes.
    let mut frame = Vec::with_capacity(text.len() + text.len() / 16 + 128);
    frame.extend_from_slice(b"{\"event\":\"");
    frame.extend_from_slice(output.as_str().as_bytes());
    frame.extend_from_slice(b"\",\"data\":");
    // Neither can fail: the writer is memory, the value a text.
    let _ = serde_json::to_writer(&mut frame, text);
    if let Some(cursor) = cursor {
        frame.extend_from_slice(b",\"cursor\":");
        let _ = serde_json::to_writer(&mut frame, cursor);
    }
    frame.push(b'}');
    String::from_utf8(frame).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> ClientFrame {
        ClientFrame::parse(&value.to_string()).unwrap()
    }

    #[test]
    fn frames_of_both_clients_are_read() {
        let js: Create = serde_json::from_value(json!({
            "idle_timeout": 60, "enable_checkpoint": false, "enable_sandbox_handoff": false,
            "filesystem_snapshot_name": "n", "enable_idle_timeout_auto_checkpoint": false,
        }))
        .unwrap();
        assert_eq!(js.idle_seconds(), Some(60.0));
        let python: Create = serde_json::from_value(json!({"idle_timeout": 2.5})).unwrap();
        assert_eq!(python.idle_seconds(), Some(2.5));
        for (body, seconds) in [
            (json!({}), Some(300.0)),
            (json!({"idle_timeout": null}), None),
            (json!({"idle_timeout": 0}), None),
        ] {
            let create: Create = serde_json::from_value(body.clone()).unwrap();
            assert_eq!(create.idle_seconds(), seconds, "{body}");
        }
        assert_eq!(
            parse(json!({"event": "stdin", "data": "x"})),
            ClientFrame::Stdin(Stdin {
                data: Some("x".to_owned()),
                end: false
            })
        );
        assert_eq!(
            parse(json!({"action": "reconnect"})),
            ClientFrame::Reconnect { cursor: None }
        );
        assert_eq!(
            parse(json!({"action": "snapshot_filesystem", "name": 5})),
            ClientFrame::SnapshotFilesystem { name: None }
        );
        assert!(matches!(parse(json!({"x": 1})), ClientFrame::Exec(_)));
        assert!(ClientFrame::parse("[]").is_err());
        assert!(ClientFrame::parse("nope").is_err());
    }

    #[test]
    fn frames_are_written_as_clients_read_them() {
        let done = Details {
            exit_code: Some(3),
            ..Details::default()
        };
        for (frame, wanted) in [
            (
                ServerFrame::status(Status::Running),
                json!({"event": "status_update", "status": "SANDBOX_RUNNING"}),
            ),
            (
                ServerFrame::Status(Status::ExecutionDone, done),
                json!({
                    "event": "status_update", "status": "SANDBOX_EXECUTION_DONE", "exit_code": 3,
                }),
            ),
            (
                ServerFrame::SandboxId {
                    id: "a".to_owned(),
                    token: "b".to_owned(),
                },
                json!({"event": "sandbox_id", "sandbox_id": "a", "sandbox_token": "b"}),
            ),
            (
                ServerFrame::Error {
                    message: "m".to_owned(),
                },
                json!({"event": "error", "message": "m"}),
            ),
        ] {
            let text = frame.to_text();
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), wanted);
        }
        let frame = output(Output::Stderr, "a\"\n\u{1}ü", Some("1:2"));
        let read: Value = serde_json::from_str(&frame).unwrap();
        let wanted = json!({"event": "stderr", "data": "a\"\n\u{1}ü", "cursor": "1:2"});
        assert_eq!(read, wanted);
        assert!(output(Output::Stdout, "", None).ends_with('}'));
    }
}
