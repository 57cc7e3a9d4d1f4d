//! The procedures themselves.
//!
//! Their answers are those of the contract: what fails inside one is `success: false` with HTTP
//! 200. What the protocol knows (who are you, what do you want) is its own error.

use http::{HeaderMap, Method};
use serde_json::Value;
use woodfrog_core::access::Action;
use woodfrog_engine::SessionCaller;
use woodfrog_types::audit::AuditOutcome;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::page::PageRequest;
use woodfrog_types::sandbox_session::SandboxSessionFilter;
use woodfrog_types::{Code, Fault};
use woodfrog_wire::native::sandbox_session::SandboxSession;
use woodfrog_wire::trpc::{Answer, Kind, Output, text_field};

use crate::door;
use crate::sessions;
use crate::state::App;

/// Sessions that one answer holds; the native API has pages.
const SESSIONS_MAX: usize = 1000;

/// Who calls, or why that is not known: found out once for all calls of a batch.
pub(super) struct Caller {
    found: Result<SessionCaller, Fault>,
    request_id: String,
}

impl Caller {
    /// Counts the batch as one request.
    pub(super) async fn new(app: &App, headers: &HeaderMap, request_id: String) -> Self {
        let found = Self::find(app, headers).await;
        Self { found, request_id }
    }

    async fn find(app: &App, headers: &HeaderMap) -> Result<SessionCaller, Fault> {
        let (principal, _) = door::principal(app, headers, None).await?;
        door::count(app, &principal).await?;
        sessions::caller(principal, headers)
    }
}

#[derive(Debug, Clone, Copy)]
enum Procedure {
    UpdateActivity,
    GetSession,
    GetProjectSessions,
    GetUserSessions,
}

impl Procedure {
    const ALL: [(&'static str, Self); 4] = [
        ("sandbox.updateActivity", Self::UpdateActivity),
        ("sandbox.getSession", Self::GetSession),
        ("sandbox.getProjectSessions", Self::GetProjectSessions),
        ("sandbox.getUserSessions", Self::GetUserSessions),
    ];

    fn named(path: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|(name, _)| *name == path).map(|(_, one)| one)
    }

    const fn action(self) -> Action {
        match self {
            Self::UpdateActivity => Action::SandboxSessionWrite,
            Self::GetSession | Self::GetProjectSessions | Self::GetUserSessions => {
                Action::SandboxSessionRead
            }
        }
    }

    const fn kind(self) -> (&'static str, Method) {
        match self {
            Self::UpdateActivity => ("mutation", Method::POST),
            Self::GetSession | Self::GetProjectSessions | Self::GetUserSessions => {
                ("query", Method::GET)
            }
        }
    }
}

/// Answers one call.
pub(super) async fn call(
    app: &App,
    caller: &Caller,
    method: &Method,
    path: &str,
    input: Option<&Value>,
) -> Answer {
    let shown: String = path.chars().take(128).collect();
    let Some(procedure) = Procedure::named(path) else {
        let text = format!("No procedure found on path \"{shown}\"");
        return Kind::NotFound.answer(text, Some(&shown));
    };
    let (kind, wanted) = procedure.kind();
    if method != wanted {
        let text = format!("Unsupported {method}-request to {kind} procedure at path \"{shown}\"");
        return Kind::MethodNotSupported.answer(text, Some(&shown));
    }
    let request_id = &caller.request_id;
    let caller = match &caller.found {
        Ok(caller) => caller,
        Err(fault) if fault.code == Code::Unauthenticated => {
            return Kind::Unauthorized.answer("Not authenticated", Some(&shown));
        }
        Err(fault) => {
            crate::input::log(fault);
            return Kind::of(fault.code).answer(&fault.message, Some(&shown));
        }
    };
    let target = input.and_then(|input| text_field(Some(input), "sandboxId").ok());
    let one = door::Call {
        face: "trpc",
        action: procedure.action(),
        target: target.unwrap_or_default(),
        request_id: request_id.clone(),
    };
    let principal = &caller.principal;
    if let Err(fault) = door::check(app, principal, &one).await {
        return Kind::of(fault.code).answer(&fault.message, Some(&shown));
    }
    let (answer, done) = match run(app, caller, procedure, input).await {
        Ok(output) => {
            let done = output.succeeded();
            (Answer::of(output), done)
        }
        Err(issues) => (Kind::BadRequest.answer(issues, Some(&shown)), false),
    };
    let outcome = match done {
        true => AuditOutcome::Done,
        false => AuditOutcome::Failed,
    };
    door::note(
        app,
        principal,
        &one,
        outcome,
        &answer.http_status().to_string(),
    )
    .await;
    answer
}

/// Runs a procedure; the error is what is wrong with the input.
async fn run(
    app: &App,
    caller: &SessionCaller,
    procedure: Procedure,
    input: Option<&Value>,
) -> Result<Output, String> {
    let engine = &app.engine;
    let output = match procedure {
        Procedure::UpdateActivity => {
            let sandbox = text_field(input, "sandboxId")?;
            let view = engine.sandbox_session_activity_of(caller, &sandbox).await;
            view.map(|view| Output::session(Some(sessions::record(view))))
        }
        Procedure::GetSession => {
            let sandbox = text_field(input, "sandboxId")?;
            match engine.sandbox_session_of(caller, &sandbox).await {
                Ok(view) => Ok(Output::session(Some(sessions::record(view)))),
                Err(none) if none.code == Code::SandboxSessionNotFound => Ok(Output::session(None)),
                Err(fault) => Err(fault),
            }
        }
        Procedure::GetProjectSessions => {
            let filter = SandboxSessionFilter {
                project: Some(text_field(input, "projectId")?),
                ..SandboxSessionFilter::default()
            };
            list(app, caller, filter).await.map(Output::sessions)
        }
        // The caller's user is the filter. A key that names none stands for all of its workspace.
        Procedure::GetUserSessions => {
            let filter = SandboxSessionFilter::default();
            list(app, caller, filter).await.map(Output::sessions)
        }
    };
    Ok(output.unwrap_or_else(|fault| {
        crate::input::log(&fault);
        Output::failed(fault.message)
    }))
}

async fn list(
    app: &App,
    caller: &SessionCaller,
    filter: SandboxSessionFilter,
) -> Result<Vec<SandboxSession>, Fault> {
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let page = PageRequest {
            limit: PAGE_ITEMS_MAX,
            cursor,
        };
        let part = app
            .engine
            .sandbox_session_list(caller, filter.clone(), page);
        let part = part.await?;
        found.extend(part.items.into_iter().map(sessions::record));
        cursor = part.next;
        if cursor.is_none() {
            return Ok(found);
        }
        if found.len() >= SESSIONS_MAX {
            let text = format!(
                "there are more than {SESSIONS_MAX} sessions: \
                 list them in pages with GET /api/v1/sandbox-sessions"
            );
            return Err(Fault::new(Code::TooLarge, text));
        }
    }
}
