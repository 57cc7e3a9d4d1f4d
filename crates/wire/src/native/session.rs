//! Sessions with agents.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use woodfrog_types::{retention as kept, session as domain};

/// A session to be made.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSession {
    /// `mock`, `claude`, `opencode`, …
    pub agent: String,
    /// Where the agent is to run; a sandbox is made for the session if absent.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// What that sandbox is made from: `base` if absent. Not together with `sandbox`.
    #[serde(default)]
    pub template: Option<String>,
    /// Your own name for it, unique among those of its sandbox.
    #[serde(default)]
    pub name: Option<String>,
    /// Where the agent works; the home of the sandbox's user if absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// As ACP has them.
    #[serde(default)]
    pub mcp_servers: Vec<Value>,
    /// Whether the agent asks before it acts; `ask` if absent.
    #[serde(default)]
    pub permissions: Permissions,
    /// What is kept of the sandbox at the end of each turn; `none` if absent.
    #[serde(default)]
    pub snapshots: Snapshots,
}

/// Whether the agent asks before it acts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Permissions {
    #[default]
    Ask,
    /// Everything is allowed once it is asked for.
    Bypass,
}

/// What is kept of the sandbox at the end of each turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Snapshots {
    #[default]
    None,
    /// A snapshot with memory, taken while the sandbox runs on.
    Turn,
}

/// How long sessions and their logs are kept: `null` is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Seconds for which a session is kept after its end; it goes with its log. At least 60.
    pub ended_seconds: Option<u64>,
    /// Seconds for which an entry of a log is kept; at least 60. The last 1,000 entries stay.
    pub age_seconds: Option<u64>,
    /// Entries of one log that are kept, the last ones; at least 1,000.
    pub entries: Option<u64>,
}

impl From<kept::Retention> for Retention {
    fn from(retention: kept::Retention) -> Self {
        Self {
            ended_seconds: retention.ended.map(|time| time.as_secs()),
            age_seconds: retention.age.map(|time| time.as_secs()),
            entries: retention.entries,
        }
    }
}

impl From<Retention> for kept::Retention {
    fn from(retention: Retention) -> Self {
        Self {
            ended: retention.ended_seconds.map(Duration::from_secs),
            age: retention.age_seconds.map(Duration::from_secs),
            entries: retention.entries,
        }
    }
}

/// A turn to go back to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToTurn {
    /// Its number, as `turns` has it.
    pub turn: u64,
}

/// A session that is to begin as a copy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForkSession {
    /// The last turn that it has; its number, as `turns` has it.
    pub turn: u64,
    /// Your own name for it.
    #[serde(default)]
    pub name: Option<String>,
}

/// What holds for the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetentionView {
    /// What holds now.
    pub effective: Retention,
    /// What the workspace set; `null`: the server's holds.
    pub own: Option<Retention>,
    /// The server's.
    pub server: Retention,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    pub id: String,
    pub name: String,
    pub sandbox: String,
    pub agent: String,
    /// `native`, `acp` or `universal`: through which API it was made.
    pub face: String,
    /// `active` or `ended`.
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub end_reason: Option<String>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    pub updated_at: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_at: Option<i64>,
}

impl From<domain::Session> for Session {
    fn from(session: domain::Session) -> Self {
        let state = session.state.as_str().to_owned();
        let (ended_at, end_reason) = match session.state {
            domain::SessionState::Active => (None, None),
            domain::SessionState::Ended { at, reason } => (Some(at.as_millis()), Some(reason)),
        };
        Self {
            id: session.id.to_string(),
            name: session.name,
            sandbox: session.sandbox.to_string(),
            agent: session.agent,
            face: session.face.as_str().to_owned(),
            state,
            end_reason,
            created_at: session.created_at.as_millis(),
            updated_at: session.updated_at.as_millis(),
            ended_at,
        }
    }
}

/// A session and how it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionDetail {
    #[serde(flatten)]
    pub session: Session,
    /// The last place of the log; 0 if it is empty.
    pub last: u64,
    /// The first place that is still held.
    pub earliest: u64,
    /// Whether an agent process is there.
    pub running: bool,
    /// Whether the agent has something to do.
    pub busy: bool,
    /// What the agent has asked and nobody answered.
    pub asked: Vec<Asked>,
}

/// Something that the agent wants to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Asked {
    /// For the answer.
    pub id: String,
    /// `session/request_permission`.
    pub method: String,
    /// As ACP has them.
    pub params: Value,
    /// Its place in the log.
    pub sequence: u64,
}

/// Which sessions a list wants, and which page.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SessionQuery {
    pub sandbox: Option<String>,
    pub agent: Option<String>,
    /// `active` or `ended`.
    pub state: Option<String>,
    pub limit: Option<usize>,
    pub cursor: Option<String>,
}

/// A prompt: a text, or content blocks of ACP.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    #[serde(default)]
    pub text: Option<String>,
    #[serde(default)]
    pub blocks: Option<Vec<Value>>,
    /// Who says it, where several people share the session.
    #[serde(default)]
    pub author: Option<String>,
}

/// How a turn went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TurnResult {
    /// The agent's: `end_turn`, `cancelled`, `max_tokens`, `refusal`, …
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stop_reason: Option<String>,
    /// The agent's error, if it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<Value>,
    /// The agent's own count.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Value>,
}

/// An answer to what the agent asked: one of the options, or none.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// [`Asked::id`].
    pub id: String,
    /// `optionId` of one of the options; absent: the request is cancelled.
    #[serde(default)]
    pub option: Option<String>,
    #[serde(default)]
    pub author: Option<String>,
}

/// Who acts.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct By {
    #[serde(default)]
    pub author: Option<String>,
}

/// Something that readers see now and nobody later.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    /// `presence` or `typing`.
    pub kind: String,
    #[serde(default)]
    pub author: Option<String>,
    #[serde(default)]
    pub data: Value,
}

/// What a client of a session's WebSocket wants.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum SessionCommand {
    /// As the body of `prompt`. What comes of it is in the log.
    Prompt {
        #[serde(default)]
        text: Option<String>,
        #[serde(default)]
        blocks: Option<Vec<Value>>,
        #[serde(default)]
        author: Option<String>,
    },
    Answer(Answer),
    Cancel {
        #[serde(default)]
        author: Option<String>,
    },
    Typing {
        #[serde(default)]
        author: Option<String>,
        #[serde(default)]
        data: Value,
    },
    Presence {
        #[serde(default)]
        author: Option<String>,
        #[serde(default)]
        data: Value,
    },
}

/// From which place a log is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Those after this place; 0 if absent.
    pub after: Option<u64>,
    /// At most this many, 1 to 1000; 100 if absent. Not for streams.
    pub limit: Option<usize>,
}

/// An entry of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionEvent {
    /// No other event anywhere has it.
    pub id: String,
    pub session: String,
    /// Its place: 1, 2, 3, …
    pub sequence: u64,
    pub at: i64,
    /// `client`, `agent` or `server`.
    pub source: String,
    /// `message` for an envelope of ACP, else what it marks: `turn.started`, `chat.user`, ….
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub author: Option<String>,
    pub payload: Value,
}

/// A piece of a log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionEvents {
    pub items: Vec<SessionEvent>,
    /// The last place of the log.
    pub last: u64,
    /// The first place that is still held.
    pub earliest: u64,
}

/// A turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Turn {
    pub number: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub author: Option<String>,
    /// The place of the prompt.
    pub first: u64,
    /// The place where it was over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<String>,
    pub started_at: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_at: Option<i64>,
    /// What the sandbox was then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub snapshot: Option<String>,
}

impl From<domain::Turn> for Turn {
    fn from(turn: domain::Turn) -> Self {
        Self {
            number: turn.number,
            author: turn.author,
            first: turn.first,
            last: turn.last,
            outcome: turn.outcome,
            started_at: turn.started_at.as_millis(),
            ended_at: turn.ended_at.map(|at| at.as_millis()),
            snapshot: turn.snapshot.map(|id| id.to_string()),
        }
    }
}

/// Turns of a session, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Turns {
    pub items: Vec<Turn>,
}

/// A [`SessionEvent`] as one line of JSON. Its payload is JSON already, and is not read again:
/// a log is shown at the speed at which it is read.
pub fn event_line(event: &domain::SessionEvent, line: &mut String) {
    let inner = &event.event;
    // Writing to a string does not fail.
    let _ = write!(
        line,
        r#"{{"id":"{}","session":"{}","sequence":{},"at":{},"source":"{}","kind":{}"#,
        event.id(),
        event.session,
        event.sequence,
        inner.at.as_millis(),
        inner.source.as_str(),
        quoted(&inner.kind),
    );
    if let Some(author) = &inner.author {
        let _ = write!(line, r#","author":{}"#, quoted(author));
    }
    let _ = write!(line, r#","payload":{}}}"#, inner.payload);
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use woodfrog_types::{SessionId, Timestamp};

    use super::*;

    #[test]
    fn a_line_is_an_event() {
        let event = domain::SessionEvent {
            session: SessionId::generate(),
            sequence: 3,
            event: domain::NewSessionEvent {
                stream: domain::Stream::Log,
                at: Timestamp::from_millis(9),
                source: domain::Source::Agent,
                kind: "message".to_owned(),
                author: Some("a \"b\"".to_owned()),
                connection: None,
                payload: r#"{"x":[1,2]}"#.to_owned(),
                wire: None,
            },
        };
        let mut line = String::new();
        event_line(&event, &mut line);
        let read: SessionEvent = serde_json::from_str(&line).expect("an event");
        assert_eq!(read.sequence, 3);
        assert_eq!(read.author.as_deref(), Some("a \"b\""));
        assert_eq!(read.payload["x"][1], 2);
        assert_eq!(read.id, event.id());
    }
}
