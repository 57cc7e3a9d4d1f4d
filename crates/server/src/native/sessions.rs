//! Sessions with agents.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_sessions::acp::{self, Id};
use woodfrog_sessions::{Ephemeral, NewSession as Wanted, Scope, SessionView, machines};
use woodfrog_types::key::Principal;
use woodfrog_types::session::{SessionFace, SessionFilter};
use woodfrog_types::{Fault, SessionId, Timestamp};
use woodfrog_wire::native::page::{Page, PageQuery};
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::session::{
    Answer, Asked, By, NewSession, Permissions, Presence, Prompt, Session, SessionDetail,
    SessionQuery, Snapshots, TurnResult,
};

use super::extract::{Json as Body, OptionalJson, Params, Segments, sandbox_id};
use super::problem::{Failure, Result};
use crate::state::App;

mod log;
mod rewind;
mod socket;
mod workspace;

/// Bytes of an author's name.
const AUTHOR_BYTES_MAX: usize = 256;
/// Content blocks of one prompt.
const BLOCKS_MAX: usize = 1000;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(fetch, remove))
        .routes(routes!(prompt))
        .routes(routes!(cancel))
        .routes(routes!(answer))
        .routes(routes!(end))
        .routes(routes!(announce))
        .merge(log::routes())
        .merge(rewind::routes())
        .merge(socket::routes())
        .merge(workspace::routes())
}

/// Makes a session. Its agent is started by the first prompt; its sandbox is made now, unless you
/// name one.
#[utoipa::path(
    post, path = "/sessions", operation_id = "session_create", tag = "sessions",
    request_body = NewSession,
    responses((status = 201, body = Session), (status = "default", body = Problem))
)]
async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(request): Body<NewSession>,
) -> Result<(StatusCode, Json<Session>)> {
    if request.sandbox.is_some() && request.template.is_some() {
        let text = "give the sandbox, or the template to make one from, and not both";
        return Err(Fault::invalid("template", text).into());
    }
    app.sessions.knows(&request.agent)?;
    let template = request.template.as_deref().unwrap_or(machines::TEMPLATE);
    let (sandbox, made) = match &request.sandbox {
        Some(id) => {
            let id = sandbox_id(id)?;
            let view = app.engine.sandbox_fetch(&principal, &id).await?;
            (view.sandbox, None)
        }
        None => {
            let label = request.name.as_deref().unwrap_or("");
            let made = machines::make_sandbox(&app.engine, &principal, template, label).await?;
            let view = app.engine.sandbox_fetch(&principal, &made).await?;
            (view.sandbox, Some(template))
        }
    };
    let scope = Scope {
        workspace: sandbox.workspace.clone(),
        sandbox: sandbox.id.clone(),
    };
    let wanted = Wanted {
        face: SessionFace::Native,
        settings: settings(&request, made),
        name: request.name,
        agent: request.agent,
        cwd: request.cwd,
        mcp_servers: request.mcp_servers,
    };
    match app.sessions.create(&scope, wanted).await {
        Ok(session) => Ok((StatusCode::CREATED, Json(session.into()))),
        Err(fault) => {
            if made.is_some() {
                // Nobody knows of it. If this fails it shows in lists, and can be deleted there.
                let _ = app.engine.sandbox_delete(&principal, &sandbox.id).await;
            }
            Err(fault.into())
        }
    }
}

fn settings(request: &NewSession, template: Option<&str>) -> Value {
    json!({
        "permissions": match request.permissions {
            Permissions::Ask => "ask",
            Permissions::Bypass => "bypass",
        },
        "snapshots": match request.snapshots {
            Snapshots::None => "none",
            Snapshots::Turn => "turn",
        },
        "template": template,
    })
}

/// Sessions of the workspace, newest first.
#[utoipa::path(
    get, path = "/sessions", operation_id = "session_list", tag = "sessions",
    params(SessionQuery),
    responses((status = 200, body = Page<Session>), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(query): Params<SessionQuery>,
) -> Result<Json<Page<Session>>> {
    let active = match query.state.as_deref() {
        None => None,
        Some("active") => Some(true),
        Some("ended") => Some(false),
        Some(_) => {
            let text = "state must be active or ended";
            return Err(Fault::invalid("state", text).into());
        }
    };
    let filter = SessionFilter {
        sandbox: query.sandbox.as_deref().map(sandbox_id).transpose()?,
        face: None,
        agent: query.agent,
        active,
    };
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    };
    let page = page.request()?;
    let listed = app.sessions.list(&principal.workspace, &filter, &page);
    Ok(Json(listed.await?.into()))
}

/// A session and how it is. Wakes nothing.
#[utoipa::path(
    get, path = "/sessions/{id}", operation_id = "session_fetch", tag = "sessions",
    params(("id" = String, Path)),
    responses((status = 200, body = SessionDetail), (status = "default", body = Problem))
)]
async fn fetch(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
) -> Result<Json<SessionDetail>> {
    let view = view(&app, &principal, &id).await?;
    Ok(Json(detail(view)))
}

/// Prompts the agent, and answers when its turn is over: after the turns of everybody who was
/// first. The agent, and its sandbox, are brought back if they are gone. What the agent says
/// meanwhile is in the log.
#[utoipa::path(
    post, path = "/sessions/{id}/prompt", operation_id = "session_prompt", tag = "sessions",
    params(("id" = String, Path)), request_body = Prompt,
    responses((status = 200, body = TurnResult), (status = "default", body = Problem))
)]
async fn prompt(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    Body(request): Body<Prompt>,
) -> Result<Json<TurnResult>> {
    let session = managed(&app, &principal, &id).await?;
    let prompt = acp::Prompt {
        blocks: blocks(request.text, request.blocks)?,
        author: author(request.author)?,
    };
    let outcome = app.sessions.prompt(&session, prompt).await?;
    Ok(Json(TurnResult {
        stop_reason: outcome.stop_reason,
        error: outcome.error,
        usage: outcome.usage,
    }))
}

/// Asks the agent to stop the turn that goes on. Prompts that wait stay.
#[utoipa::path(
    post, path = "/sessions/{id}/cancel", operation_id = "session_cancel", tag = "sessions",
    params(("id" = String, Path)), request_body = By,
    responses((status = 204), (status = "default", body = Problem))
)]
async fn cancel(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    OptionalJson(request): OptionalJson<By>,
) -> Result<StatusCode> {
    let session = managed(&app, &principal, &id).await?;
    app.sessions
        .cancel(&session, author(request.author)?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Answers what the agent asked. The first answer counts; later ones are refused.
#[utoipa::path(
    post, path = "/sessions/{id}/answer", operation_id = "session_answer", tag = "sessions",
    params(("id" = String, Path)), request_body = Answer,
    responses((status = 204), (status = "default", body = Problem))
)]
async fn answer(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    Body(request): Body<Answer>,
) -> Result<StatusCode> {
    let session = managed(&app, &principal, &id).await?;
    answered(&app, &session, request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the session: its agent is stopped, its log stays. Its sandbox is left as it is.
#[utoipa::path(
    post, path = "/sessions/{id}/end", operation_id = "session_end", tag = "sessions",
    params(("id" = String, Path)),
    responses((status = 200, body = Session), (status = "default", body = Problem))
)]
async fn end(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
) -> Result<Json<Session>> {
    let view = view(&app, &principal, &id).await?;
    let ended = app.sessions.end(&view.session.id, "ended").await?;
    Ok(Json(ended.into()))
}

/// Ends the session and removes it with its log.
#[utoipa::path(
    delete, path = "/sessions/{id}", operation_id = "session_delete", tag = "sessions",
    params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn remove(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
) -> Result<StatusCode> {
    let id = session_id(&id)?;
    app.sessions.remove(&principal.workspace, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells those who follow the session now that somebody is there or types. It is not kept.
#[utoipa::path(
    post, path = "/sessions/{id}/presence", operation_id = "session_presence", tag = "sessions",
    params(("id" = String, Path)), request_body = Presence,
    responses((status = 204), (status = "default", body = Problem))
)]
async fn announce(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments(id): Segments<String>,
    Body(request): Body<Presence>,
) -> Result<StatusCode> {
    let view = view(&app, &principal, &id).await?;
    if !["presence", "typing"].contains(&request.kind.as_str()) {
        let text = "kind must be presence or typing";
        return Err(Fault::invalid("kind", text).into());
    }
    let said = Ephemeral {
        at: Timestamp::now(),
        kind: request.kind,
        author: author(request.author)?,
        payload: request.data.to_string(),
    };
    app.sessions.say(&view.session.id, said);
    Ok(StatusCode::NO_CONTENT)
}

async fn answered(app: &App, id: &SessionId, answer: Answer) -> std::result::Result<(), Fault> {
    let asked = serde_json::from_str(&answer.id)
        .ok()
        .and_then(|value| Id::of(&value))
        .ok_or_else(|| Fault::invalid("id", "not an id of `asked`"))?;
    let outcome = match answer.option {
        Some(option) => json!({"outcome": "selected", "optionId": option}),
        None => json!({"outcome": "cancelled"}),
    };
    let result = json!({ "outcome": outcome });
    app.sessions
        .reply(id, &asked, result, author(answer.author)?)
        .await
}

/// What cannot be an id is a session that does not exist.
fn session_id(text: &str) -> std::result::Result<SessionId, Fault> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Fault::new(
            woodfrog_types::Code::SessionNotFound,
            format!("session `{shown}` does not exist, or belongs to another workspace"),
        )
    })
}

async fn view(
    app: &App,
    principal: &Principal,
    id: &str,
) -> std::result::Result<SessionView, Failure> {
    let id = session_id(id)?;
    Ok(app.sessions.show(&principal.workspace, &id).await?)
}

/// The session, if the server speaks ACP in it.
async fn managed(
    app: &App,
    principal: &Principal,
    id: &str,
) -> std::result::Result<SessionId, Failure> {
    let view = view(app, principal, id).await?;
    match view.session.face {
        SessionFace::Native | SessionFace::Universal => Ok(view.session.id),
        SessionFace::Acp => Err(Fault::new(
            woodfrog_types::Code::Conflict,
            "the client of this session speaks ACP itself; send it there",
        )
        .into()),
    }
}

fn detail(view: SessionView) -> SessionDetail {
    let asked = view.asked.into_iter().map(|asked| Asked {
        id: asked.id.to_string(),
        method: asked.method,
        params: asked.params,
        sequence: asked.sequence,
    });
    SessionDetail {
        session: view.session.into(),
        last: view.end.log,
        earliest: view.end.log_first,
        running: view.running,
        busy: view.busy,
        asked: asked.collect(),
    }
}

fn blocks(
    text: Option<String>,
    blocks: Option<Vec<Value>>,
) -> std::result::Result<Vec<Value>, Fault> {
    match (text, blocks) {
        (Some(text), None) => Ok(vec![json!({"type": "text", "text": text})]),
        (None, Some(blocks)) if (1..=BLOCKS_MAX).contains(&blocks.len()) => Ok(blocks),
        (None, Some(_)) => {
            let text = format!("blocks must have 1 to {BLOCKS_MAX} items");
            Err(Fault::invalid("blocks", text))
        }
        (Some(_), Some(_)) | (None, None) => {
            Err(Fault::invalid("text", "give either text or blocks"))
        }
    }
}

fn author(author: Option<String>) -> std::result::Result<Option<String>, Fault> {
    match author {
        Some(author) if author.is_empty() || author.len() > AUTHOR_BYTES_MAX => {
            let text = format!("author must have 1 to {AUTHOR_BYTES_MAX} bytes");
            Err(Fault::invalid("author", text))
        }
        author => Ok(author),
    }
}
