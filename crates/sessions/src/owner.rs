//! The owner of one session in use: everything that changes it goes through here, in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use woodfrog_acp::{
    Act, ClientMessage, Conversation, History, Id, Mark, Outcome, Prompt, Step, Waiter,
};
use woodfrog_store::{SessionAppend, SessionStore};
use woodfrog_types::session::{
    LogEnd, NewSessionEvent, Session, SessionEvent, Source, Stream, Turn, kind,
};
use woodfrog_types::{Code, Fault, SandboxId, SessionId, Timestamp};

use crate::agent::{self, Agent, Heard, Reached};
use crate::hub::Hub;
use crate::lines::Line;
use crate::port::Machines;
use crate::reader::fault;

mod failure;
mod open;
mod silence;

pub(crate) use failure::failure;
use silence::Silence;

/// Commands that may wait; the next caller waits for room.
const INBOX: usize = 256;
/// Inputs that are written in one transaction.
const BATCH: usize = 256;
/// Without anything to do for this long an owner ends; the agent's process goes on.
const LINGER: Duration = Duration::from_secs(300);
/// Entries looked at for a history, as a multiple of those told: chunks and marks are among them.
const HISTORY_FACTOR: usize = 8;
/// Times that a history goes on before a place to which its session was rewound.
const HISTORY_READS: usize = 64;

/// What an owner is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    Client(ClientMessage, oneshot::Sender<Outcome>),
    Prompt(Prompt, oneshot::Sender<Outcome>),
    /// Answered when it has its place.
    Post(Prompt, oneshot::Sender<Outcome>),
    /// Tells readers that the session is there.
    Begin(oneshot::Sender<Outcome>),
    Request {
        method: String,
        params: Value,
        author: Option<String>,
        reply: oneshot::Sender<Outcome>,
    },
    Reply {
        id: Id,
        result: Value,
        author: Option<String>,
        reply: oneshot::Sender<Outcome>,
    },
    Cancel {
        author: Option<String>,
        reply: oneshot::Sender<Outcome>,
    },
    /// Goes on from the end of a turn, in this sandbox.
    Rewind {
        to: Mark,
        sandbox: SandboxId,
        reply: oneshot::Sender<Outcome>,
    },
    Finish {
        reason: String,
        give_name_back: bool,
        reply: oneshot::Sender<Session>,
    },
    /// How it is now.
    Look(oneshot::Sender<Look>),
    /// Takes up what the agent says, if its sandbox is awake; nothing is waited for.
    Attend,
    /// Somebody waited as long as requests are waited for, in vain.
    Unanswered,
}

/// A session as its owner sees it.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) session: Session,
    pub(crate) end: LogEnd,
    pub(crate) asked: Vec<woodfrog_acp::Asked>,
    pub(crate) running: bool,
    pub(crate) busy: bool,
}

/// What an owner works with.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) machines: Arc<dyn Machines>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) replay: History,
    /// An agent with nothing to do for this long is ended; it is started again when needed.
    pub(crate) reap: Option<Duration>,
    /// How long a request to an agent is waited for.
    pub(crate) request_timeout: Duration,
}

/// A way to an owner.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    inbox: mpsc::Sender<Command>,
}

impl Handle {
    /// Starts an owner.
    pub(crate) fn start(id: SessionId, means: Means) -> Self {
        let (inbox, commands) = mpsc::channel(INBOX);
        tokio::spawn(async move {
            if let Err(fault) = open::open_and_run(&id, means, commands).await {
                tracing::warn!(session = %id, %fault, "the owner of a session ended");
            }
        });
        Self { inbox }
    }

    /// Whether the owner has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.inbox.is_closed()
    }

    /// Gives the command back if the owner has ended.
    pub(crate) async fn send(&self, command: Command) -> Result<(), Command> {
        self.inbox.send(command).await.map_err(|error| error.0)
    }
}

pub(crate) struct Owner {
    id: SessionId,
    means: Means,
    conversation: Conversation,
    epoch: u64,
    agent: Option<Agent>,
    starting: Option<oneshot::Receiver<Result<Started, Fault>>>,
    waiters: HashMap<Waiter, oneshot::Sender<Outcome>>,
    next_waiter: Waiter,
    silence: Silence,
    /// The sandbox sleeps; see [`Heard::Away`].
    away: bool,
    /// Those who are told once the end is written.
    finished: Vec<oneshot::Sender<Session>>,
}

/// One thing that happened.
enum Input {
    Command(Command),
    Heard(Heard),
    Started(Result<Started, Fault>),
    /// Nothing, for as long as that.
    Idle,
    /// Nobody can ask any more.
    Closed,
}

impl Owner {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), Fault> {
        loop {
            let first = self.input(&mut commands).await;
            let mut step = Step::default();
            match first {
                Input::Closed => return Ok(()),
                // The next owner finds the process where it is then.
                Input::Heard(Heard::Away) => return Ok(()),
                Input::Idle => {
                    if self.idle(&mut step) {
                        return Ok(());
                    }
                }
                input => self.take(input, &mut step),
            }
            for _ in 1..BATCH {
                let Some(input) = self.waiting(&mut commands) else {
                    break;
                };
                self.take(input, &mut step);
            }
            self.carry_out(step).await?;
            if self.away {
                return Ok(());
            }
            self.sweep();
        }
    }

    async fn input(&mut self, commands: &mut mpsc::Receiver<Command>) -> Input {
        let idle = self.patience();
        let starting = async {
            match &mut self.starting {
                Some(starting) => starting.await,
                None => std::future::pending().await,
            }
        };
        let heard = async {
            match &mut self.agent {
                Some(agent) => agent.heard.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            command = commands.recv() => command.map_or(Input::Closed, Input::Command),
            started = starting => {
                self.starting = None;
                Input::Started(started.unwrap_or_else(|_| Err(shutting_down())))
            }
            Some(heard) = heard => Input::Heard(heard),
            () = tokio::time::sleep(idle), if !self.conversation.is_busy() => Input::Idle,
        }
    }

    /// What is there already.
    fn waiting(&mut self, commands: &mut mpsc::Receiver<Command>) -> Option<Input> {
        // The end of an owner is no part of a batch.
        if let Some(agent) = &mut self.agent
            && let Ok(heard) = agent.heard.try_recv()
        {
            if matches!(heard, Heard::Away) {
                self.away = true;
                return None;
            }
            return Some(Input::Heard(heard));
        }
        commands.try_recv().ok().map(Input::Command)
    }

    fn patience(&self) -> Duration {
        match self.means.reap {
            Some(reap) if self.agent.is_some() => reap.min(LINGER),
            _ => LINGER,
        }
    }

    /// Nothing happened for long. Says whether the owner is to end.
    fn idle(&mut self, step: &mut Step) -> bool {
        match (self.means.reap, self.agent.take()) {
            (Some(_), Some(agent)) => {
                agent.stop();
                let end = woodfrog_acp::AgentEnd {
                    code: None,
                    status: "ended after it had nothing to do for long".to_owned(),
                    stderr: Vec::new(),
                };
                merge(step, self.conversation.exited(&end, Timestamp::now()));
                false
            }
            (None, Some(_)) | (_, None) => true,
        }
    }

    fn take(&mut self, input: Input, step: &mut Step) {
        let now = Timestamp::now();
        let next = match input {
            Input::Command(command) => self.command(command, now),
            Input::Heard(Heard::Line(Line::Whole { bytes, output })) => {
                self.silence.broken();
                let stderr = match &self.agent {
                    Some(agent) if looks_like_error(&bytes) => agent.stderr.lines(),
                    _ => Vec::new(),
                };
                self.conversation.line(&bytes, output, &stderr, now)
            }
            Input::Heard(Heard::Line(Line::Endless {
                start,
                length,
                output,
            })) => self.conversation.endless(&start, length, output, now),
            Input::Heard(Heard::Gap { from, to }) => self.conversation.missed(from, to, now),
            Input::Heard(Heard::End(end)) => {
                self.agent = None;
                self.conversation.exited(&end, now)
            }
            Input::Started(Ok(started)) => {
                self.agent = Some(started.agent);
                self.conversation
                    .started(&started.sandbox, started.process, now)
            }
            Input::Started(Err(fault)) => {
                tracing::warn!(session = %self.id, %fault, "an agent could not be started");
                self.conversation
                    .start_failed(fault.code, &fault.message, now)
            }
            Input::Heard(Heard::Away) | Input::Idle | Input::Closed => Step::default(),
        };
        merge(step, next);
    }

    fn command(&mut self, command: Command, now: Timestamp) -> Step {
        match command {
            Command::Client(message, reply) => {
                let waiter = self.waiter(reply);
                self.conversation.client(message, waiter, now)
            }
            Command::Prompt(prompt, reply) => {
                let waiter = self.waiter(reply);
                self.conversation.prompt(prompt, waiter, now)
            }
            Command::Begin(reply) => {
                let waiter = self.waiter(reply);
                self.conversation.begin(waiter, now)
            }
            Command::Post(prompt, reply) => {
                let waiter = self.waiter(reply);
                self.conversation.post(prompt, waiter, now)
            }
            Command::Request {
                method,
                params,
                author,
                reply,
            } => {
                let waiter = self.waiter(reply);
                self.conversation
                    .request(&method, params, author, waiter, now)
            }
            Command::Reply {
                id,
                result,
                author,
                reply,
            } => {
                let waiter = self.waiter(reply);
                self.conversation.reply(&id, result, author, waiter, now)
            }
            Command::Cancel { author, reply } => {
                let waiter = self.waiter(reply);
                self.conversation.cancel(author, waiter, now)
            }
            Command::Rewind { to, sandbox, reply } => {
                let waiter = self.waiter(reply);
                self.conversation.rewind(to, &sandbox, waiter, now)
            }
            Command::Finish {
                reason,
                give_name_back,
                reply,
            } => {
                let step = self.conversation.finish(&reason, give_name_back, now);
                self.finished.push(reply);
                step
            }
            Command::Look(reply) => {
                let _ = reply.send(self.look());
                Step::default()
            }
            Command::Attend => Step::default(),
            Command::Unanswered => self.unanswered(now),
        }
    }

    /// An agent that leaves one request after the other unanswered is ended; the next message
    /// starts it again.
    fn unanswered(&mut self, now: Timestamp) -> Step {
        if !self.conversation.is_up() || !self.silence.is_too_long() {
            return Step::default();
        }
        let Some(agent) = self.agent.take() else {
            return Step::default();
        };
        tracing::warn!(session = %self.id, "an agent that does not answer is ended");
        agent.stop();
        let end = woodfrog_acp::AgentEnd {
            code: None,
            status: "given up: it does not answer".to_owned(),
            stderr: agent.stderr.lines(),
        };
        self.conversation.exited(&end, now)
    }

    fn look(&self) -> Look {
        Look {
            session: self.conversation.record().clone(),
            end: *self.conversation.end(),
            asked: self.conversation.asked().cloned().collect(),
            running: self.conversation.is_up(),
            busy: self.conversation.is_busy(),
        }
    }

    fn waiter(&mut self, reply: oneshot::Sender<Outcome>) -> Waiter {
        self.next_waiter += 1;
        self.waiters.insert(self.next_waiter, reply);
        self.next_waiter
    }

    /// Writes the step, tells the readers, and then acts.
    async fn carry_out(&mut self, mut step: Step) -> Result<(), Fault> {
        let mut acts = std::mem::take(&mut step.acts);
        self.commit(step).await?;
        // An act may lead to another step; it comes after what was decided before it.
        while !acts.is_empty() {
            let mut more = Step::default();
            for act in acts {
                self.act(act, &mut more).await?;
            }
            acts = std::mem::take(&mut more.acts);
            self.commit(more).await?;
        }
        for reply in self.finished.drain(..) {
            // Whoever asked may be gone.
            let _ = reply.send(self.conversation.record().clone());
        }
        if let Some(agent) = &self.agent
            && !self.conversation.is_busy()
        {
            agent.rest();
        }
        Ok(())
    }

    async fn commit(&mut self, step: Step) -> Result<(), Fault> {
        if !step.writes() {
            return Ok(());
        }
        let append = SessionAppend {
            session: self.id.clone(),
            epoch: self.epoch,
            events: step.events.clone(),
            position: step.position,
            record: step.record.map(|record| self.next_generation(record)),
            turns: step.turns,
        };
        let end = self.means.store.session_append(append).await;
        let end = end.map_err(|error| fault(error, &self.id))?;
        let events = placed(&self.id, step.events, &end);
        self.means.hub.publish(events, end);
        Ok(())
    }

    fn next_generation(&mut self, mut record: Session) -> Session {
        record.generation = self.conversation.record().generation + 1;
        self.conversation.written(record.generation);
        record
    }

    async fn act(&mut self, act: Act, more: &mut Step) -> Result<(), Fault> {
        match act {
            Act::Start => self.begin_start(),
            Act::Send { at, line } => self.send(at, line, more),
            Act::Answer { waiter, outcome } => {
                if let Some(reply) = self.waiters.remove(&waiter) {
                    // Whoever asked may be gone; the log has it.
                    let _ = reply.send(outcome);
                }
            }
            Act::Remember { conversation, upto } => {
                let text = self.history(&conversation, upto).await?;
                let now = Timestamp::now();
                merge(more, self.conversation.remembered(&conversation, text, now));
            }
            Act::TurnEnded { number } => self.keep_turn(number),
            Act::Stop => {
                if let Some(agent) = self.agent.take() {
                    agent.stop();
                }
            }
        }
        Ok(())
    }

    fn begin_start(&mut self) {
        let (tell, told) = oneshot::channel();
        let session = self.conversation.record().clone();
        let reached = self.reached();
        tokio::spawn(async move {
            let started = start(reached, &session).await;
            // The owner may have ended meanwhile; the next one ends what is left.
            let _ = tell.send(started);
        });
        self.starting = Some(told);
    }

    fn reached(&self) -> Reached {
        Reached {
            machines: Arc::clone(&self.means.machines),
            sandbox: self.conversation.record().sandbox.clone(),
        }
    }

    fn send(&mut self, at: u64, line: String, more: &mut Step) {
        let Some(agent) = &self.agent else {
            return;
        };
        if !agent.send(at, line) {
            let end = woodfrog_acp::AgentEnd {
                code: None,
                status: "given up: it does not read its input".to_owned(),
                stderr: agent.stderr.lines(),
            };
            agent.stop();
            self.agent = None;
            merge(more, self.conversation.exited(&end, Timestamp::now()));
        }
    }

    async fn history(&self, conversation: &str, upto: u64) -> Result<Option<String>, Fault> {
        let limits = self.means.replay;
        let wanted = limits.events * HISTORY_FACTOR;
        let (mut events, mut upto) = (Vec::new(), upto);
        for _ in 0..HISTORY_READS {
            let room = wanted.saturating_sub(events.len());
            if room == 0 || upto == 0 {
                break;
            }
            let read = self
                .means
                .store
                .session_read_back(&self.id, Stream::Log, upto, room);
            let slice = read.await.map_err(|error| fault(error, &self.id))?;
            let Some(last) = slice.events.last() else {
                break;
            };
            upto = last.sequence.saturating_sub(1);
            for event in slice.events {
                // What lies between is no part of the conversation any more.
                if let Some(place) = woodfrog_acp::rewound_to(&event) {
                    upto = place;
                    break;
                }
                events.push(event);
            }
        }
        Ok(woodfrog_acp::history(events.iter(), conversation, limits))
    }

    /// Keeps what the sandbox is now with the turn. Nobody waits for it.
    fn keep_turn(&self, number: u64) {
        let (machines, store) = (self.means.machines.clone(), self.means.store.clone());
        let (id, epoch) = (self.id.clone(), self.epoch);
        let session = self.conversation.record().clone();
        tokio::spawn(async move {
            let snapshot = match machines.keep_turn(&session, number).await {
                Ok(Some(snapshot)) => snapshot,
                Ok(None) => return,
                Err(fault) => {
                    tracing::warn!(session = %id, turn = number, %fault, "a turn has no snapshot");
                    return;
                }
            };
            let turns = store.session_turns(&id, number.saturating_sub(1), 1).await;
            let Some(mut turn) = turns.ok().and_then(|turns| turns.into_iter().next()) else {
                return;
            };
            turn.snapshot = Some(snapshot);
            let append = SessionAppend {
                session: id.clone(),
                epoch,
                events: Vec::new(),
                position: None,
                record: None,
                turns: vec![turn],
            };
            if let Err(error) = store.session_append(append).await {
                tracing::warn!(session = %id, turn = number, %error, "a turn's snapshot is not noted");
            }
        });
    }

    /// Forgets those who do not wait any more.
    fn sweep(&mut self) {
        let gone: Vec<Waiter> = self
            .waiters
            .iter()
            .filter(|(_, reply)| reply.is_closed())
            .map(|(waiter, _)| *waiter)
            .collect();
        for waiter in gone {
            self.waiters.remove(&waiter);
            self.conversation.forget(waiter);
        }
    }
}

/// A process that was started.
struct Started {
    sandbox: SandboxId,
    process: u64,
    agent: Agent,
}

/// Starts the session's agent, in another sandbox if its own is gone and another may be made.
async fn start(mut reached: Reached, session: &Session) -> Result<Started, Fault> {
    let process = match agent::start(&reached, session).await {
        Err(gone) if gone.code == Code::SandboxNotFound => {
            let Some(sandbox) = reached.machines.replace(session).await? else {
                return Err(gone);
            };
            reached.sandbox = sandbox;
            agent::start(&reached, session).await?
        }
        started => started?,
    };
    let agent = Agent::attach(&reached, process, 0).await?;
    let agent = agent.ok_or_else(|| Fault::new(Code::AgentExited, "the agent ended at once"))?;
    Ok(Started {
        sandbox: reached.sandbox,
        process,
        agent,
    })
}

/// Whether a line may be an answer that says no: then the agent's last words belong to it.
fn looks_like_error(line: &[u8]) -> bool {
    let head = line.get(..4096).unwrap_or(line);
    head.windows(8).any(|window| window == b"\"error\":")
}

fn merge(into: &mut Step, step: Step) {
    into.events.extend(step.events);
    into.position = step.position.or(into.position);
    into.record = step.record.or(into.record.take());
    for turn in step.turns {
        into.turns.retain(|it: &Turn| it.number != turn.number);
        into.turns.push(turn);
    }
    into.acts.extend(step.acts);
}

/// The entries with the places that they got: the last ones of their streams.
fn placed(session: &SessionId, events: Vec<NewSessionEvent>, end: &LogEnd) -> Vec<SessionEvent> {
    let count = |stream: Stream| {
        let of = events.iter().filter(|event| event.stream == stream);
        of.count() as u64
    };
    let mut log = end.log - count(Stream::Log);
    let mut universal = end.universal - count(Stream::Universal);
    let place = |event: NewSessionEvent| {
        let sequence = match event.stream {
            Stream::Log => &mut log,
            Stream::Universal => &mut universal,
        };
        *sequence += 1;
        SessionEvent {
            session: session.clone(),
            sequence: *sequence,
            event,
        }
    };
    events.into_iter().map(place).collect()
}

/// What the agent was sent with this entry, if anything.
fn sent(event: &SessionEvent) -> Option<String> {
    let was_sent = event.event.source != Source::Agent
        && matches!(event.event.kind.as_str(), kind::MESSAGE | kind::HANDSHAKE);
    was_sent.then(|| {
        let line = event.event.wire.as_deref().unwrap_or(&event.event.payload);
        format!("{line}\n")
    })
}

fn shutting_down() -> Fault {
    Fault::new(Code::Unavailable, "the server is shutting down")
}
