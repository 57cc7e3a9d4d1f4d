//! A session: a conversation with an agent that runs in a sandbox, and its log.
//!
//! The log is the session. Everything that a client sent to the agent, everything that the agent
//! said, and what the server did about it has one place in one dense order. What is not in the log
//! did not happen; what is in it is never changed.

use crate::{SandboxId, SessionId, SnapshotId, Timestamp, WorkspaceId};

/// Through which face a session was made, and so who speaks the agent's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SessionFace {
    /// The client speaks ACP to the agent; the server carries it.
    Acp,
    /// The sessions API of sandbox-agent 0.1: the server speaks ACP.
    Universal,
    /// Our own API: the server speaks ACP.
    Native,
}

impl SessionFace {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Acp, Self::Universal, Self::Native];

    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acp => "acp",
            Self::Universal => "universal",
            Self::Native => "native",
        }
    }
}

/// Whether a session goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    /// Messages are taken. Whether the agent runs is another question: it is started when needed.
    Active,
    /// Over; the log stays.
    Ended { at: Timestamp, reason: String },
}

impl SessionState {
    /// A stable name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Ended { .. } => "ended",
        }
    }
}

/// A conversation as the agent knows it, inside one agent process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The id that clients use. It never changes.
    pub public: String,
    /// The id that the agent of `incarnation` gave it.
    pub agent: String,
    /// Of which agent process `agent` is an id.
    pub incarnation: u64,
    /// The parameters of `session/new`, JSON.
    pub init: String,
    /// The next prompt must carry the history up to and with this place in the log.
    pub replay_due: Option<u64>,
    /// What was chosen for it: a new conversation that takes its place is asked the same again.
    pub chosen: Vec<Choice>,
}

/// A mode, a model or an option that the agent accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// `session/set_mode` and the like.
    pub method: String,
    /// Its parameters, JSON.
    pub params: String,
}

/// The agent's process, as the guest knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentProcess {
    /// The guest's number; never used again in that sandbox.
    pub id: u64,
    /// Rises with each process of this session, from 1.
    pub incarnation: u64,
    /// What it answered to `initialize`, JSON; `None` until it has.
    pub ready: Option<String>,
    /// Nobody talks to it any more: it ended or was given up.
    pub over: bool,
}

/// A session, as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    pub workspace: WorkspaceId,
    /// Where the agent runs. It changes when the sandbox is gone and another takes its place.
    pub sandbox: SandboxId,
    pub face: SessionFace,
    /// The client's own name for it, unique in its sandbox and face among those that hold theirs.
    pub name: String,
    /// Whether nobody else may take the name. Given back when a client removes the session.
    pub holds_name: bool,
    pub agent: String,
    pub state: SessionState,
    /// Rises by one with each stored change; a write names the one it saw.
    pub generation: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// What the agent was asked to be: JSON that the session's face understands.
    pub settings: String,
    /// The parameters of the client's `initialize`, JSON; what is said to a new process.
    pub handshake: Option<String>,
    pub process: Option<AgentProcess>,
    pub bindings: Vec<Binding>,
}

/// Which of a session's two orders is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Envelopes and marks: the log.
    Log,
    /// What the clients of the session's face see, with a dense order of its own: events of the
    /// universal schema, or, for ACP, the places in the log of what they see ([`kind::LINE`]).
    Universal,
}

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Client,
    Agent,
    Server,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Client, Self::Agent, Self::Server];

    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Agent => "agent",
            Self::Server => "server",
        }
    }
}

/// One entry of a log, before it has its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSessionEvent {
    pub stream: Stream,
    pub at: Timestamp,
    pub source: Source,
    /// [`kind::MESSAGE`] for a JSON-RPC envelope, else what it marks: `turn.started`.
    pub kind: String,
    /// Who sent it, where several people share a session.
    pub author: Option<String>,
    /// Which connection of a client it came from.
    pub connection: Option<String>,
    /// One line of JSON: an object.
    pub payload: String,
    /// What the agent was really sent, where it differs from `payload`.
    pub wire: Option<String>,
}

/// Names of entries that are not told by their payload.
pub mod kind {
    /// A JSON-RPC envelope between client and agent.
    pub const MESSAGE: &str = "message";
    /// An envelope of the server's own: `initialize` and the like to an agent that was started, and
    /// the answer.
    pub const HANDSHAKE: &str = "handshake";
    /// What an agent says again while it takes up a conversation that it had before.
    pub const REPEATED: &str = "repeated";
    /// An answer to nothing that was asked, of the agent or of a client.
    pub const UNMATCHED: &str = "unmatched";
    /// A line of the agent that is no JSON-RPC envelope.
    pub const UNREADABLE: &str = "agent.unreadable";
    /// An agent process was started.
    pub const AGENT_STARTED: &str = "agent.started";
    /// The agent process is gone.
    pub const AGENT_EXITED: &str = "agent.exited";
    /// The server's answer to a request of a client that the agent will not answer.
    pub const FAILED: &str = "failed";
    /// A conversation goes on in another agent process.
    pub const RESTORED: &str = "session.restored";
    /// The session goes on from the end of an earlier turn: its `place`. What lies between that
    /// and this entry stays, and is no part of the conversation any more.
    pub const REWOUND: &str = "session.rewound";
    /// The session began as a copy of another one's log, up to here.
    pub const FORKED: &str = "session.forked";
    /// The payload is a place in the log: what is there is the next thing that clients of ACP see.
    pub const LINE: &str = "line";
    /// Output of the agent was lost: more than its sandbox keeps while nobody reads.
    pub const GAP: &str = "gap";
    /// Somebody prompted; comes before what the agent says to it.
    pub const USER: &str = "chat.user";
    /// The session is there; only where its clients are told so.
    pub const SESSION_STARTED: &str = "session.started";
    pub const TURN_STARTED: &str = "turn.started";
    pub const TURN_ENDED: &str = "turn.ended";
    pub const SESSION_ENDED: &str = "session.ended";
}

impl NewSessionEvent {
    /// Whether clients of ACP see it: what comes from the agent, and what became of it.
    pub fn is_line(&self) -> bool {
        match (self.source, self.kind.as_str()) {
            (Source::Agent, kind::MESSAGE | kind::UNREADABLE) => true,
            (Source::Server, kind::AGENT_EXITED | kind::FAILED) => true,
            (Source::Client | Source::Agent | Source::Server, _) => false,
        }
    }
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEvent {
    pub session: SessionId,
    /// Its place: dense per session and stream, from 1.
    pub sequence: u64,
    pub event: NewSessionEvent,
}

impl SessionEvent {
    /// An id that no other event on earth has: the session's and the place.
    pub fn id(&self) -> String {
        let letter = match self.event.stream {
            Stream::Log => 'l',
            Stream::Universal => 'u',
        };
        format!("ev{}{letter}{}", self.session, self.sequence)
    }
}

/// How far a session's conversation with its agent process has come, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Input that the log holds for the process.
    pub input: u64,
    /// Output of the process that the log holds.
    pub output: u64,
}

/// Where a session's logs stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// The last place taken; 0 in an empty log.
    pub log: u64,
    pub universal: u64,
    /// The first places that are still held; one after the last if none is.
    pub log_first: u64,
    pub universal_first: u64,
    pub position: Position,
    /// Who may append: rises with each claim.
    pub epoch: u64,
}

/// One turn: from a prompt to the agent's last word on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Dense per session, from 1.
    pub number: u64,
    /// The conversation, as clients know it.
    pub binding: String,
    pub author: Option<String>,
    /// The place of the prompt.
    pub first: u64,
    /// The place of the agent's last word; `None` while it goes on.
    pub last: Option<u64>,
    /// The agent's stop reason, or why it has none.
    pub outcome: Option<String>,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// What the sandbox was at the end of the turn.
    pub snapshot: Option<SnapshotId>,
}

/// Which sessions a list wants. `None` means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter {
    pub sandbox: Option<SandboxId>,
    pub face: Option<SessionFace>,
    pub agent: Option<String>,
    pub active: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_differ_by_session_stream_and_place() {
        let event = |session: &SessionId, stream, sequence| SessionEvent {
            session: session.clone(),
            sequence,
            event: NewSessionEvent {
                stream,
                at: Timestamp::from_millis(0),
                source: Source::Agent,
                kind: kind::MESSAGE.to_owned(),
                author: None,
                connection: None,
                payload: "{}".to_owned(),
                wire: None,
            },
        };
        let (one, two) = (SessionId::generate(), SessionId::generate());
        let ids = [
            event(&one, Stream::Log, 1).id(),
            event(&one, Stream::Universal, 1).id(),
            event(&one, Stream::Log, 11).id(),
            event(&two, Stream::Log, 1).id(),
        ];
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }
}
