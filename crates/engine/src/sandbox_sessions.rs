//! Sandbox sessions: what applications remember about their sandboxes.
//!
//! A session holds names; what its sandbox does, when it was used and when it falls asleep is
//! asked of the sandbox each time, so the two cannot disagree. Another workspace's session, and
//! another user's where the caller names one, answers exactly as an unknown one.

use std::time::Duration;

use woodfrog_store::StoreError;
use woodfrog_types::event::SandboxEvent;
use woodfrog_types::key::Principal;
use woodfrog_types::limits::FOREIGN_ID_BYTES_MAX;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::sandbox::SandboxState;
use woodfrog_types::sandbox_session::{
    AUTO_PAUSE_DEFAULT, Framework, SandboxSession, SandboxSessionFilter, SessionState,
};
use woodfrog_types::sleep::{Sleep, SleepPolicy};
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Code, Fault, SandboxId, SandboxSessionId, Timestamp};

use crate::engine::Engine;
use crate::fault;
use crate::inner::Inner;
use crate::request::ResumeRequest;
use crate::sandbox::{EVENTS_MAX, check_page, may_see};

/// How long a session is kept after its sandbox has ended, for those who ask what became of it.
const SESSIONS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Sessions that are forgotten in one go.
const TRIM_BATCH: usize = 1000;

/// Who asks about sessions.
#[derive(Debug, Clone)]
pub struct SessionCaller {
    pub principal: Principal,
    /// The application's user on whose behalf it asks, if it says so: then only that user's
    /// sessions are there.
    pub user: Option<String>,
}

/// A session to be remembered.
#[derive(Debug, Clone)]
pub struct NewSandboxSession {
    pub sandbox: String,
    pub project: String,
    pub user: String,
    pub framework: Framework,
    /// How long its sandbox is idle before it is paused; `None` or zero is the default.
    pub auto_pause: Option<Duration>,
}

/// A session and what its sandbox does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSessionView {
    pub session: SandboxSession,
    pub state: SessionState,
    pub last_activity: Timestamp,
    /// Idle for this long it is paused; `None` is never.
    pub auto_pause: Option<Duration>,
    /// Since when it sleeps, if it does.
    pub paused_at: Option<Timestamp>,
    pub updated_at: Timestamp,
}

impl Engine {
    /// Remembers a session of a sandbox, which from now on is paused after the session's time.
    /// `AlreadyExists` if the sandbox has one.
    pub async fn sandbox_session_create(
        &self,
        caller: &SessionCaller,
        request: NewSandboxSession,
    ) -> Result<SandboxSessionView, Fault> {
        self.inner.accepting()?;
        foreign_id("projectId", &request.project)?;
        foreign_id("userId", &request.user)?;
        if caller
            .user
            .as_ref()
            .is_some_and(|user| *user != request.user)
        {
            let text = "a caller that acts for a user makes sessions of that user only";
            return Err(Fault::new(Code::PermissionDenied, text).with_field("userId"));
        }
        let wanted = request.auto_pause.filter(|wanted| !wanted.is_zero());
        let auto_pause = wanted.unwrap_or(AUTO_PAUSE_DEFAULT);
        let sandbox = sandbox_id(&request.sandbox)?;
        let view = self.sandbox_fetch(&caller.principal, &sandbox).await?;
        let now = Timestamp::now();
        let session = SandboxSession {
            id: SandboxSessionId::generate(),
            workspace: view.sandbox.workspace,
            sandbox,
            project: request.project,
            user: request.user,
            framework: request.framework,
            auto_pause,
            created_at: now,
            updated_at: now,
            last_activity: now,
            ended_at: None,
        };
        let store = &self.inner.store;
        let inserted = store.sandbox_session_insert(&session).await;
        inserted.map_err(|error| insert_fault(error, &session.sandbox))?;
        let policy = SleepPolicy {
            pause_after: Some(auto_pause),
            ..view.sandbox.sleep
        };
        let set = self.sandbox_sleep_policy(&caller.principal, &session.sandbox, policy);
        if let Err(fault) = set.await {
            let removed = store.sandbox_session_remove(&session.id).await;
            removed.map_err(fault::store)?;
            return Err(fault);
        }
        self.session_view(caller, session).await
    }

    /// One session. `SandboxSessionNotFound` if there is none.
    pub async fn sandbox_session_fetch(
        &self,
        caller: &SessionCaller,
        id: &str,
    ) -> Result<SandboxSessionView, Fault> {
        let session = self.session(caller, id).await?;
        self.session_view(caller, session).await
    }

    /// The session that a sandbox has, or had when it was there.
    pub async fn sandbox_session_of(
        &self,
        caller: &SessionCaller,
        sandbox: &str,
    ) -> Result<SandboxSessionView, Fault> {
        let session = self.session_of(caller, sandbox).await?;
        self.session_view(caller, session).await
    }

    /// The workspace's sessions that match, oldest first.
    pub async fn sandbox_session_list(
        &self,
        caller: &SessionCaller,
        mut filter: SandboxSessionFilter,
        page: PageRequest,
    ) -> Result<Page<SandboxSessionView>, Fault> {
        check_page(&page)?;
        if let Some(user) = &caller.user {
            if filter.user.as_ref().is_some_and(|wanted| wanted != user) {
                return Ok(Page {
                    items: Vec::new(),
                    next: None,
                });
            }
            filter.user = Some(user.clone());
        }
        let store = &self.inner.store;
        let listed = store.sandbox_session_list(&caller.principal.workspace, &filter, &page);
        let listed = listed.await.map_err(fault::store)?;
        let mut items = Vec::with_capacity(listed.items.len());
        for session in listed.items {
            let view = self.session_view(caller, session).await?;
            // Its sandbox may have moved on since the store was asked.
            if filter.state.is_none_or(|wanted| view.state == wanted) {
                items.push(view);
            }
        }
        Ok(Page {
            items,
            next: listed.next,
        })
    }

    /// Pauses, resumes or ends the session's sandbox; it is done when this returns. A session
    /// whose sandbox is gone stays so: `Conflict` for everything but `Killed`.
    pub async fn sandbox_session_state(
        &self,
        caller: &SessionCaller,
        id: &str,
        state: SessionState,
    ) -> Result<SandboxSessionView, Fault> {
        let session = self.session(caller, id).await?;
        let (principal, sandbox) = (&caller.principal, &session.sandbox);
        let done = match state {
            SessionState::Running => {
                let request = ResumeRequest {
                    content: SnapshotContent::Memory,
                    deadline: None,
                    on_timeout: None,
                };
                let resumed = self.sandbox_resume(principal, sandbox, request).await;
                resumed.map(drop)
            }
            SessionState::Paused => self.sandbox_pause(principal, sandbox).await.map(drop),
            SessionState::Killed => match self.sandbox_delete(principal, sandbox).await {
                Err(gone) if gone.code == Code::SandboxNotFound => Ok(()),
                other => other,
            },
        };
        done.map_err(|fault| killed(fault, &session))?;
        self.sandbox_session_fetch(caller, id).await
    }

    /// Says that the session's sandbox is in use, and wakes it if it sleeps. `Conflict` if it is
    /// gone.
    pub async fn sandbox_session_activity(
        &self,
        caller: &SessionCaller,
        id: &str,
    ) -> Result<SandboxSessionView, Fault> {
        let session = self.session(caller, id).await?;
        self.session_activity(caller, session).await
    }

    /// As [`Engine::sandbox_session_activity`], by the sandbox.
    pub async fn sandbox_session_activity_of(
        &self,
        caller: &SessionCaller,
        sandbox: &str,
    ) -> Result<SandboxSessionView, Fault> {
        let session = self.session_of(caller, sandbox).await?;
        self.session_activity(caller, session).await
    }

    /// Forgets a session; its sandbox stays as it is.
    pub async fn sandbox_session_delete(
        &self,
        caller: &SessionCaller,
        id: &str,
    ) -> Result<(), Fault> {
        let session = self.session(caller, id).await?;
        let removed = self.inner.store.sandbox_session_remove(&session.id).await;
        removed.map(drop).map_err(fault::store)
    }

    /// As [`Engine::sandbox_session_delete`], by the sandbox.
    pub async fn sandbox_session_delete_of(
        &self,
        caller: &SessionCaller,
        sandbox: &str,
    ) -> Result<(), Fault> {
        let session = self.session_of(caller, sandbox).await?;
        let removed = self.inner.store.sandbox_session_remove(&session.id).await;
        removed.map(drop).map_err(fault::store)
    }

    /// What happened to the session's sandbox after event `after`, oldest first; also when it is
    /// gone, while its log is kept.
    pub async fn sandbox_session_events(
        &self,
        caller: &SessionCaller,
        id: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<SandboxEvent>, Fault> {
        let session = self.session(caller, id).await?;
        let limit = limit.min(EVENTS_MAX);
        let events = self.inner.store.event_list(&session.sandbox, after, limit);
        events.await.map_err(fault::store)
    }

    async fn session(&self, caller: &SessionCaller, id: &str) -> Result<SandboxSession, Fault> {
        let Ok(parsed) = id.parse() else {
            return Err(not_found(id));
        };
        let found = self.inner.store.sandbox_session_fetch(&parsed).await;
        visible(caller, found.map_err(fault::store)?, id)
    }

    async fn session_of(
        &self,
        caller: &SessionCaller,
        sandbox: &str,
    ) -> Result<SandboxSession, Fault> {
        let Ok(parsed) = sandbox.parse() else {
            return Err(not_found(sandbox));
        };
        let found = self.inner.store.sandbox_session_of(&parsed).await;
        visible(caller, found.map_err(fault::store)?, sandbox)
    }

    async fn session_activity(
        &self,
        caller: &SessionCaller,
        session: SandboxSession,
    ) -> Result<SandboxSessionView, Fault> {
        let touched = self
            .sandbox_touch(&caller.principal, &session.sandbox)
            .await;
        let touched = touched.map_err(|fault| killed(fault, &session))?;
        let store = &self.inner.store;
        let kept = store.sandbox_session_touch(&session.id, touched.last_activity);
        kept.await.map_err(|error| match error {
            StoreError::NotFound { .. } => not_found(session.id.as_str()),
            error => fault::store(error),
        })?;
        self.sandbox_session_fetch(caller, session.id.as_str())
            .await
    }

    /// The session with what its sandbox says of itself.
    async fn session_view(
        &self,
        caller: &SessionCaller,
        session: SandboxSession,
    ) -> Result<SandboxSessionView, Fault> {
        let (principal, id) = (&caller.principal, &session.sandbox);
        let looked = match self.sandbox_fetch(principal, id).await {
            Ok(view) => self
                .sandbox_wakefulness(principal, id)
                .await
                .map(|awake| (view.sandbox, awake.last_activity)),
            Err(fault) => Err(fault),
        };
        let (sandbox, used) = match looked {
            Ok(looked) => looked,
            Err(gone) if gone.code == Code::SandboxNotFound => return Ok(ended(session)),
            Err(fault) => return Err(fault),
        };
        let last_activity = session.last_activity.max(used);
        let paused_at = sleep_of(&sandbox.state).map(|sleep| sleep.since);
        let changed = session.updated_at.max(last_activity);
        Ok(SandboxSessionView {
            state: SessionState::of(&sandbox.state),
            last_activity,
            auto_pause: sandbox.sleep.pause_after,
            paused_at,
            updated_at: paused_at.map_or(changed, |since| changed.max(since)),
            session,
        })
    }
}

/// Forgets sessions whose sandboxes ended long ago.
pub(crate) async fn trim(inner: &Inner, now: Timestamp) -> Result<u64, StoreError> {
    let kept = i64::try_from(SESSIONS_KEPT.as_millis()).unwrap_or(i64::MAX);
    let before = Timestamp::from_millis(now.as_millis().saturating_sub(kept));
    inner.store.sandbox_session_trim(before, TRIM_BATCH).await
}

/// A session whose sandbox is gone.
fn ended(session: SandboxSession) -> SandboxSessionView {
    let changed = session.updated_at.max(session.last_activity);
    SandboxSessionView {
        state: SessionState::Killed,
        last_activity: session.last_activity,
        auto_pause: Some(session.auto_pause),
        paused_at: None,
        updated_at: session.ended_at.map_or(changed, |at| changed.max(at)),
        session,
    }
}

fn sleep_of(state: &SandboxState) -> Option<Sleep> {
    match state {
        SandboxState::Paused { sleep, .. }
        | SandboxState::Hibernating { sleep, .. }
        | SandboxState::Hibernated { sleep, .. }
        | SandboxState::Archiving { sleep, .. }
        | SandboxState::Archived { sleep, .. } => Some(*sleep),
        SandboxState::Creating
        | SandboxState::Running { .. }
        | SandboxState::Waking { .. }
        | SandboxState::Deleting { .. } => None,
    }
}

fn visible(
    caller: &SessionCaller,
    found: Option<SandboxSession>,
    asked: &str,
) -> Result<SandboxSession, Fault> {
    let sees = |session: &SandboxSession| {
        let user = caller.user.as_ref();
        may_see(&caller.principal, &session.workspace)
            && user.is_none_or(|user| session.user == *user)
    };
    found.filter(sees).ok_or_else(|| not_found(asked))
}

fn not_found(asked: &str) -> Fault {
    let shown: String = asked.chars().take(64).collect();
    let text = format!("Sandbox session not found: {shown}");
    Fault::new(Code::SandboxSessionNotFound, text)
}

/// The sandbox of a session that exists is not there: it was, so it has ended.
fn killed(fault: Fault, session: &SandboxSession) -> Fault {
    if fault.code != Code::SandboxNotFound {
        return fault;
    }
    let id = &session.sandbox;
    let text = format!("the sandbox {id} of this session is gone; KILLED is final");
    Fault::new(Code::Conflict, text)
}

fn insert_fault(error: StoreError, sandbox: &SandboxId) -> Fault {
    match error {
        StoreError::Constraint { .. } => Fault::new(
            Code::AlreadyExists,
            format!("the sandbox {sandbox} has a session already"),
        ),
        StoreError::NotFound { .. } => Fault::sandbox_not_found(sandbox.as_str()),
        error => fault::store(error),
    }
}

fn sandbox_id(text: &str) -> Result<SandboxId, Fault> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Fault::sandbox_not_found(&shown)
    })
}

/// A name that an application gives to something of its own.
fn foreign_id(field: &str, text: &str) -> Result<(), Fault> {
    let fits = (1..=FOREIGN_ID_BYTES_MAX).contains(&text.len());
    if fits && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let message =
        format!("{field} must be 1 to {FOREIGN_ID_BYTES_MAX} bytes without control characters");
    Err(Fault::invalid(field, message))
}
