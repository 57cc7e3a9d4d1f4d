//! What faces ask of sessions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use woodfrog_acp::{Asked, ClientMessage, Conversation, Envelope, History, Id, Outcome, Prompt};
use woodfrog_store::{SessionSlice, SessionStore, StoreError};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::session::{
    LogEnd, Session, SessionEvent, SessionFace, SessionFilter, SessionState, Stream, Turn,
};
use woodfrog_types::{Code, Fault, SandboxId, SessionId, Timestamp, WorkspaceId};

use crate::hub::{Ephemeral, Hub};
use crate::owner::{Command, Handle, Look, Means, failure};
use crate::port::Machines;
use crate::reader::{Reader, fault, not_found};

mod acp;
mod managed;
mod turns;

pub use acp::{AcpServer, Lines, Posted};
pub use managed::{NewSession, TurnOutcome};

/// Bytes of a client's own name for a session.
pub(crate) const NAME_BYTES_MAX: usize = 256;

/// How sessions are held. Immutable.
#[derive(Debug, Clone)]
pub struct Options {
    /// How much an agent that has forgotten is told.
    pub replay: History,
    /// How long a request to an agent is waited for.
    pub request_timeout: Duration,
    /// An agent with nothing to do for this long is ended, and started again when needed. `None`:
    /// it stays; where sandboxes sleep it costs nothing.
    pub reap: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            replay: History::default(),
            request_timeout: Duration::from_secs(120),
            reap: None,
        }
    }
}

/// Whose sessions, and in which sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub workspace: WorkspaceId,
    pub sandbox: SandboxId,
}

/// A session and how it is.
#[derive(Debug, Clone)]
pub struct SessionView {
    pub session: Session,
    pub end: LogEnd,
    /// What the agent has asked and nobody answered.
    pub asked: Vec<Asked>,
    /// Whether an agent process is there.
    pub running: bool,
    /// Whether the agent has something to do.
    pub busy: bool,
}

/// Sessions. A cheap handle.
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn SessionStore>,
    machines: Arc<dyn Machines>,
    options: Options,
    owners: Mutex<HashMap<SessionId, Handle>>,
    hubs: Mutex<HashMap<SessionId, Weak<Hub>>>,
}

impl Sessions {
    pub fn new(
        store: Arc<dyn SessionStore>,
        machines: Arc<dyn Machines>,
        options: Options,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                machines,
                options,
                owners: Mutex::default(),
                hubs: Mutex::default(),
            }),
        }
    }

    /// How they are held.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Whether there is such an agent: `UnsupportedAgent` if not.
    pub fn knows(&self, agent: &str) -> Result<(), Fault> {
        self.inner.machines.known(agent)
    }

    /// One session of the workspace, as it is now. Starts and wakes nothing.
    pub async fn show(
        &self,
        workspace: &WorkspaceId,
        id: &SessionId,
    ) -> Result<SessionView, Fault> {
        let session = self.fetch(workspace, id).await?;
        self.view(session).await
    }

    /// A workspace's sessions that match, newest first.
    pub async fn list(
        &self,
        workspace: &WorkspaceId,
        filter: &SessionFilter,
        page: &PageRequest,
    ) -> Result<Page<Session>, Fault> {
        let listed = self.inner.store.session_list(workspace, filter, page).await;
        listed.map_err(|error| match error {
            StoreError::InvalidCursor => Fault::invalid("cursor", "not a cursor of this list"),
            other => Fault::internal(other),
        })
    }

    /// A piece of a log. `Trimmed` if the place after `after` is no longer held.
    pub async fn read(
        &self,
        session: &SessionId,
        stream: Stream,
        after: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<SessionSlice, Fault> {
        let slice = self
            .inner
            .store
            .session_read(session, stream, after, limit, bytes)
            .await;
        let slice = slice.map_err(|error| fault(error, session))?;
        let first = crate::hub::first(&slice.end, stream);
        if after + 1 < first {
            return Err(Fault::new(
                Code::Trimmed,
                format!(
                    "places up to {} are no longer held; the earliest is {first}",
                    first - 1
                ),
            )
            .with_field("after"));
        }
        Ok(slice)
    }

    /// Reads a log from after a place, and then what comes.
    pub fn follow(&self, session: &SessionId, stream: Stream, after: u64) -> Reader {
        let store = Arc::clone(&self.inner.store);
        Reader::new(session.clone(), stream, after, store, self.hub(session))
    }

    /// Turns after number `after`.
    pub async fn turns(
        &self,
        session: &SessionId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Turn>, Fault> {
        let turns = self.inner.store.session_turns(session, after, limit).await;
        turns.map_err(|error| fault(error, session))
    }

    /// Tells those who read now something that is not kept.
    pub fn say(&self, session: &SessionId, ephemeral: Ephemeral) {
        self.hub(session).say(ephemeral);
    }

    /// Takes up what the agents of these sandboxes say, after a start of the server. Wakes nothing.
    pub async fn take_up(&self, sandboxes: &[Scope]) {
        for scope in sandboxes {
            if let Err(fault) = self.take_up_in(scope).await {
                tracing::warn!(sandbox = %scope.sandbox, %fault, "its agents are not listened to");
            }
        }
    }

    async fn take_up_in(&self, scope: &Scope) -> Result<(), Fault> {
        let filter = SessionFilter {
            sandbox: Some(scope.sandbox.clone()),
            active: Some(true),
            ..SessionFilter::default()
        };
        let mut cursor = None;
        loop {
            let page = PageRequest { limit: 100, cursor };
            let page = self.list(&scope.workspace, &filter, &page).await?;
            for session in page.items {
                self.attend(&session).await;
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Listens to a session's agent if it can be without waking anything.
    pub async fn attend(&self, session: &Session) {
        let lives = session
            .process
            .as_ref()
            .is_some_and(|process| !process.over);
        if lives && self.inner.machines.is_awake(&session.sandbox).await {
            // An owner that cannot listen says so in the log.
            let _ = self.handle(&session.id).send(Command::Attend).await;
        }
    }

    async fn fetch(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<Session, Fault> {
        let session = self.inner.store.session_fetch(id).await;
        let session = session.map_err(|error| fault(error, id))?;
        session
            .filter(|session| session.workspace == *workspace)
            .ok_or_else(|| not_found(id.as_str()))
    }

    async fn view(&self, session: Session) -> Result<SessionView, Fault> {
        if let Some(look) = self.look(&session.id).await {
            return Ok(SessionView {
                session: look.session,
                end: look.end,
                asked: look.asked,
                running: look.running,
                busy: look.busy,
            });
        }
        let slice = self.read_end(&session.id).await?;
        Ok(SessionView {
            session,
            end: slice,
            asked: Vec::new(),
            running: false,
            busy: false,
        })
    }

    async fn read_end(&self, id: &SessionId) -> Result<LogEnd, Fault> {
        let slice = self
            .inner
            .store
            .session_read(id, Stream::Log, u64::MAX >> 1, 1, 1)
            .await;
        slice
            .map(|slice| slice.end)
            .map_err(|error| fault(error, id))
    }

    /// As the owner sees it, if there is one.
    async fn look(&self, id: &SessionId) -> Option<Look> {
        let handle = self.owners().get(id).cloned()?;
        let (reply, answer) = oneshot::channel();
        handle.send(Command::Look(reply)).await.ok()?;
        answer.await.ok()
    }

    fn owners(&self) -> MutexGuard<'_, HashMap<SessionId, Handle>> {
        self.inner
            .owners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to the session's owner; starts one if there is none.
    fn handle(&self, id: &SessionId) -> Handle {
        let mut owners = self.owners();
        if let Some(handle) = owners.get(id)
            && !handle.is_over()
        {
            return handle.clone();
        }
        owners.retain(|_, handle| !handle.is_over());
        let handle = Handle::start(id.clone(), self.means(id));
        owners.insert(id.clone(), handle.clone());
        handle
    }

    fn means(&self, id: &SessionId) -> Means {
        Means {
            store: Arc::clone(&self.inner.store),
            machines: Arc::clone(&self.inner.machines),
            hub: self.hub(id),
            replay: self.inner.options.replay,
            reap: self.inner.options.reap,
            request_timeout: self.inner.options.request_timeout,
        }
    }

    fn hub(&self, id: &SessionId) -> Arc<Hub> {
        let mut hubs = self
            .inner
            .hubs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = hubs.get(id).and_then(Weak::upgrade) {
            return hub;
        }
        hubs.retain(|_, hub| hub.strong_count() > 0);
        let hub = Arc::new(Hub::new());
        hubs.insert(id.clone(), Arc::downgrade(&hub));
        hub
    }

    /// Asks the owner something that is answered with an outcome.
    async fn ask(
        &self,
        id: &SessionId,
        command: impl FnOnce(oneshot::Sender<Outcome>) -> Command,
        timeout: Option<Duration>,
    ) -> Result<Outcome, Fault> {
        let (reply, answer) = oneshot::channel();
        let mut command = command(reply);
        // An owner may end, for want of work, just as it is asked.
        for _ in 0..3 {
            match self.handle(id).send(command).await {
                Ok(()) => {
                    let answer = answered(answer, timeout).await;
                    if matches!(&answer, Err(fault) if fault.code == Code::DeadlineExceeded) {
                        // One that has ended meanwhile has nothing to count.
                        let _ = self.handle(id).send(Command::Unanswered).await;
                    }
                    return answer;
                }
                Err(back) => command = back,
            }
        }
        Err(owner_gone())
    }

    async fn finish(&self, id: &SessionId, reason: &str, release: bool) -> Result<Session, Fault> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Finish {
            reason: reason.to_owned(),
            give_name_back: release,
            reply,
        };
        self.handle(id)
            .send(command)
            .await
            .map_err(|_| owner_gone())?;
        answer.await.map_err(|_| owner_gone())
    }
}

async fn answered(
    answer: oneshot::Receiver<Outcome>,
    timeout: Option<Duration>,
) -> Result<Outcome, Fault> {
    let outcome = match timeout {
        None => answer.await,
        Some(timeout) => match tokio::time::timeout(timeout, answer).await {
            Ok(outcome) => outcome,
            Err(_) => {
                return Err(Fault::new(
                    Code::DeadlineExceeded,
                    format!(
                        "the agent did not answer within {} s; its answer will be in the log",
                        timeout.as_secs()
                    ),
                ));
            }
        },
    };
    match outcome.map_err(|_| owner_gone())? {
        Outcome::Failed(reason) => Err(failure(reason)),
        outcome @ (Outcome::Response(_) | Outcome::Accepted) => Ok(outcome),
    }
}

fn owner_gone() -> Fault {
    Fault::new(
        Code::Unavailable,
        "the session cannot be served now; try again",
    )
}
