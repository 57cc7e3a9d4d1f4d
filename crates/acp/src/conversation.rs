//! One session's conversation with its agent process, as decisions.
//!
//! Every input gives a [`Step`]. What it appends must be durable before its acts are done: then a
//! crash at any moment loses nothing that anybody was told, and what was not yet sent is found in
//! the log and sent once.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::Value;
use woodfrog_types::session::{
    AgentProcess, Choice, LogEnd, NewSessionEvent, Position, Session, SessionEvent, SessionFace,
    SessionState, Source, Stream, Turn, kind,
};
use woodfrog_types::{Code, Timestamp};

use crate::message::{Envelope, Id};
use crate::replay::History;
use crate::universal::Fold;

mod agent;
mod build;
mod client;
mod managed;
mod recall;
mod restore;
mod rewind;
#[cfg(test)]
mod tests;

pub use rewind::{Mark, rewound_to};

/// Who waits for an answer; given out by the caller.
pub type Waiter = u64;

/// How a conversation is held.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How much an agent that has forgotten is told.
    pub replay: History,
    /// Whether permissions are given without asking anybody.
    pub allow_all: bool,
}

/// What one input leads to.
#[derive(Debug, Default)]
pub struct Step {
    /// For the log, in this order.
    pub events: Vec<NewSessionEvent>,
    /// Where the byte streams stand then; `None` if they did not move.
    pub position: Option<Position>,
    /// The record, if it changed. Its generation is that of the stored one: several steps may be
    /// written as one change.
    pub record: Option<Session>,
    /// Turns that began or ended.
    pub turns: Vec<Turn>,
    /// What to do once all of that is durable, in this order.
    pub acts: Vec<Act>,
}

impl Step {
    /// Whether there is anything to write.
    pub fn writes(&self) -> bool {
        !self.events.is_empty()
            || self.position.is_some()
            || self.record.is_some()
            || !self.turns.is_empty()
    }
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Start an agent process, then say [`Conversation::started`] or
    /// [`Conversation::start_failed`].
    Start,
    /// Give the agent this line, at this place of its input.
    Send { at: u64, line: String },
    /// Somebody has waited for this.
    Answer { waiter: Waiter, outcome: Outcome },
    /// Read the log of this conversation up to this place, then say [`Conversation::remembered`].
    Remember { conversation: String, upto: u64 },
    /// A turn is over.
    TurnEnded { number: u64 },
    /// End the agent process.
    Stop,
}

/// What somebody who waits is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The agent's answer, one line of JSON.
    Response(String),
    /// It has its place in the log and is on its way.
    Accepted,
    Failed(Failure),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The agent process ended.
    Exited(AgentEnd),
    /// The agent could not be started.
    NotStarted { code: Code, message: String },
    /// The session is over.
    Ended { reason: String },
    /// There is nothing (any more) with that id.
    Unknown { what: &'static str },
    /// Another answer was first.
    Answered,
    /// Too much waits already.
    Busy,
    /// Not while a turn goes on.
    UnderWay,
}

/// JSON-RPC: something went wrong inside.
const INTERNAL_ERROR: i64 = -32603;

impl Failure {
    /// As a JSON-RPC error.
    fn error(&self) -> Value {
        let (message, data) = match self {
            Self::Exited(end) => (
                format!("agent process exited ({})", end.status),
                serde_json::json!({"agentStderr": end.stderr.join("\n"), "code": end.code}),
            ),
            Self::NotStarted { message, .. } => (message.clone(), Value::Null),
            Self::Ended { reason } => (format!("the session is over: {reason}"), Value::Null),
            Self::Unknown { what } => (format!("no such {what}"), Value::Null),
            Self::Answered => ("answered already".to_owned(), Value::Null),
            Self::Busy => ("too much waits for this agent".to_owned(), Value::Null),
            Self::UnderWay => ("a turn goes on".to_owned(), Value::Null),
        };
        serde_json::json!({"code": INTERNAL_ERROR, "message": message, "data": data})
    }
}

/// How an agent process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentEnd {
    pub code: Option<i32>,
    /// `exit status 3`, `signal: killed`, or why it was given up.
    pub status: String,
    /// The last lines of its stderr.
    pub stderr: Vec<String>,
}

/// A message of a client that speaks ACP itself.
#[derive(Debug, Clone)]
pub struct ClientMessage {
    pub envelope: Envelope,
    pub author: Option<String>,
    pub connection: Option<String>,
}

/// A prompt of a client that does not.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Content blocks of ACP, JSON.
    pub blocks: Vec<Value>,
    pub author: Option<String>,
}

/// A request of the agent that nobody has answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    pub id: Id,
    pub method: String,
    pub conversation: Option<String>,
    pub params: Value,
    /// Its place in the log; 0 until it has one.
    pub sequence: u64,
}

/// Messages that may wait for the agent.
const HELD_MAX: usize = 1024;
/// Prompts that may wait for their turn.
const QUEUED_MAX: usize = 256;

#[derive(Debug)]
enum Phase {
    /// No process.
    Down,
    /// A process was asked for.
    Starting,
    Up,
}

/// A request that the agent has not answered.
#[derive(Debug)]
struct Pending {
    waiter: Option<Waiter>,
    /// The id that the client gave it.
    original: Id,
    about: About,
}

#[derive(Debug)]
enum About {
    Other,
    /// `ours`: said by the server, to a process that a client knew already in another life.
    Initialize {
        ours: bool,
    },
    /// A client made a conversation.
    New {
        init: String,
    },
    /// A client took one up.
    Load {
        conversation: String,
        init: String,
    },
    Prompt {
        conversation: String,
    },
    /// A client chose a mode, a model or an option.
    Choose {
        conversation: String,
        choice: Choice,
    },
    /// The server chooses the same again.
    Rechoose,
    /// The server takes a conversation up in a new process.
    Reload {
        conversation: String,
    },
    Remake {
        conversation: String,
    },
}

impl About {
    /// Whether the server asked for itself.
    const fn is_ours(&self) -> bool {
        match self {
            Self::Initialize { ours } => *ours,
            Self::Reload { .. } | Self::Remake { .. } | Self::Rechoose => true,
            Self::Other
            | Self::New { .. }
            | Self::Load { .. }
            | Self::Prompt { .. }
            | Self::Choose { .. } => false,
        }
    }
}

/// A message that cannot go to the agent yet.
#[derive(Debug)]
struct Held {
    envelope: Envelope,
    author: Option<String>,
    connection: Option<String>,
    waiter: Option<Waiter>,
    /// Of a prompt that the server made.
    turn: Option<u64>,
}

/// A prompt that waits for its turn.
#[derive(Debug)]
struct Queued {
    turn: Turn,
    blocks: Vec<Value>,
    waiter: Option<Waiter>,
}

/// See the module.
#[derive(Debug)]
pub struct Conversation {
    options: Options,
    record: Session,
    end: LogEnd,
    phase: Phase,
    /// By the id that the agent knows.
    pending: HashMap<Id, Pending>,
    asked: BTreeMap<Id, Asked>,
    held: VecDeque<Held>,
    queued: VecDeque<Queued>,
    /// Conversations that are being taken up in a new process.
    restoring: Option<String>,
    /// What the next prompt of a conversation carries; the inner `None`: nothing.
    told: HashMap<String, Option<String>>,
    remembering: bool,
    initializing: bool,
    /// The agent's own id of the conversation whose answer is being taken, if clients get another.
    renamed: Option<String>,
    turns: BTreeMap<u64, Turn>,
    next_turn: u64,
    next_own: u64,
    /// For clients of the universal schema.
    fold: Fold,
}

impl Conversation {
    /// A conversation whose log stands at `end`, claimed by the caller. `turns`: those that are not
    /// over; `last_turn`: the highest number given out.
    pub fn new(
        record: Session,
        end: LogEnd,
        turns: Vec<Turn>,
        last_turn: u64,
        options: Options,
    ) -> Self {
        Self {
            options,
            record,
            end,
            phase: Phase::Down,
            pending: HashMap::new(),
            asked: BTreeMap::new(),
            held: VecDeque::new(),
            queued: VecDeque::new(),
            restoring: None,
            told: HashMap::new(),
            remembering: false,
            initializing: false,
            renamed: None,
            turns: turns.into_iter().map(|turn| (turn.number, turn)).collect(),
            next_turn: last_turn + 1,
            next_own: 1,
            fold: Fold::default(),
        }
    }

    /// The record as it is after the last step.
    pub const fn record(&self) -> &Session {
        &self.record
    }

    /// The record was written with this generation.
    pub const fn written(&mut self, generation: u64) {
        self.record.generation = generation;
    }

    /// Where the logs stand after the last step.
    pub const fn end(&self) -> &LogEnd {
        &self.end
    }

    /// What the agent has asked and nobody answered.
    pub fn asked(&self) -> impl Iterator<Item = &Asked> {
        self.asked.values()
    }

    /// Whether the agent has something to do: its sandbox must not fall asleep for idleness.
    pub fn is_busy(&self) -> bool {
        !self.pending.is_empty() || !self.held.is_empty() || !self.queued.is_empty()
    }

    /// Whether a process is there.
    pub const fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up)
    }

    /// Nobody waits under this number any more; the agent's answer goes to the log alone.
    pub fn forget(&mut self, waiter: Waiter) {
        let gone = |it: &mut Option<Waiter>| {
            if *it == Some(waiter) {
                *it = None;
            }
        };
        self.pending
            .values_mut()
            .for_each(|it| gone(&mut it.waiter));
        self.held.iter_mut().for_each(|it| gone(&mut it.waiter));
        self.queued.iter_mut().for_each(|it| gone(&mut it.waiter));
    }

    /// Tells those who will read that the session is there. Repeated calls change nothing.
    pub fn begin(&mut self, waiter: Waiter, now: Timestamp) -> Step {
        let mut build = self.build(now);
        if build.it.end.log == 0 {
            let payload = serde_json::json!({"agent": build.it.record.agent});
            build.mark(kind::SESSION_STARTED, &payload);
        }
        build.answer(Some(waiter), Outcome::Accepted);
        build.done()
    }

    /// Ends the session. Repeated calls change nothing.
    pub fn finish(&mut self, reason: &str, give_name_back: bool, now: Timestamp) -> Step {
        let mut build = self.build(now);
        if build.it.record.state == SessionState::Active {
            build.it.record.state = SessionState::Ended {
                at: now,
                reason: reason.to_owned(),
            };
            build.changed();
            build.close_turns("session_ended");
            let failure = Failure::Ended {
                reason: reason.to_owned(),
            };
            build.fail_all(&failure);
            build.mark(kind::SESSION_ENDED, &serde_json::json!({"reason": reason}));
            build.act(Act::Stop);
        }
        if give_name_back && build.it.record.holds_name {
            build.it.record.holds_name = false;
            build.changed();
        }
        build.done()
    }

    /// The agent process that is there now, if any.
    fn incarnation(&self) -> u64 {
        self.record
            .process
            .as_ref()
            .map_or(0, |process| process.incarnation)
    }

    fn capabilities(&self) -> Option<Value> {
        let ready = self.record.process.as_ref()?.ready.as_deref()?;
        serde_json::from_str::<Value>(ready)
            .ok()?
            .get("agentCapabilities")
            .cloned()
    }

    fn is_ready(&self) -> bool {
        self.record
            .process
            .as_ref()
            .is_some_and(|process| process.ready.is_some())
    }

    fn own_id(&mut self) -> Id {
        let id = Id::text(&format!("woodfrog-{}-{}", self.end.epoch, self.next_own));
        self.next_own += 1;
        id
    }

    fn build(&mut self, now: Timestamp) -> build::Build<'_> {
        build::Build::new(self, now)
    }
}
