//! The sessions API that sandbox-agent had in version 0.1: the server speaks to the agent, and
//! clients see events of the universal schema.

use axum::extract::Path;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use woodfrog_sessions::acp::universal::{Answer, Asking};
use woodfrog_sessions::acp::{Id, Prompt};
use woodfrog_sessions::{NewSession, SessionView};
use woodfrog_types::page::PageRequest;
use woodfrog_types::session::{Session, SessionFace, SessionFilter, SessionState};
use woodfrog_types::{Code, Fault};
use woodfrog_wire::agent::problem::{Kind, Problem};

use super::extract::Json as JsonBody;
use super::problem::{Failure, Result, fault};
use super::{AgentHost, AgentSessions};

mod events;

/// Sessions of one list: the newest.
const LIST_MAX: usize = 1000;
/// Sessions that are read from the store in one go.
const BATCH: usize = 100;
/// How the session ends that a client ends.
const TERMINATED: &str = "terminated";
/// What an agent does if nothing else is said.
const DEFAULT_MODE: &str = "build";

pub(super) fn routes() -> Router {
    Router::new()
        .route("/v1/sessions", get(list))
        .route("/v1/sessions/{id}", post(create))
        .route("/v1/sessions/{id}/messages", post(message))
        .route("/v1/sessions/{id}/messages/stream", post(events::turn))
        .route("/v1/sessions/{id}/events", get(events::list))
        .route("/v1/sessions/{id}/events/sse", get(events::stream))
        .route("/v1/sessions/{id}/terminate", post(terminate))
        .route("/v1/sessions/{id}/questions/{asked}/reply", post(reply))
        .route("/v1/sessions/{id}/questions/{asked}/reject", post(reject))
        .route("/v1/sessions/{id}/permissions/{asked}/reply", post(permit))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    agent: String,
    agent_mode: Option<String>,
    permission_mode: Option<PermissionMode>,
    model: Option<String>,
    variant: Option<String>,
    agent_version: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum PermissionMode {
    #[default]
    Default,
    Plan,
    Bypass,
    AcceptEdits,
}

impl PermissionMode {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Plan => "plan",
            Self::Bypass => "bypass",
            Self::AcceptEdits => "acceptEdits",
        }
    }

    /// The mode of the agent that does it, if the server does not do it itself.
    const fn mode(self) -> Option<&'static str> {
        match self {
            Self::Default | Self::Bypass => None,
            Self::Plan => Some("plan"),
            Self::AcceptEdits => Some("acceptEdits"),
        }
    }
}

impl Create {
    /// The mode that the agent is asked for.
    fn mode(&self) -> Result<Option<&str>> {
        let own = self.agent_mode.as_deref();
        let own = own.filter(|mode| *mode != DEFAULT_MODE);
        let permission = self.permission_mode.unwrap_or_default().mode();
        match (own, permission) {
            (Some(one), Some(two)) if one != two => Err(Failure::invalid(format!(
                "agentMode `{one}` and permissionMode `{two}` exclude each other"
            ))),
            (one, two) => Ok(one.or(two)),
        }
    }

    fn settings(&self) -> Value {
        let mode = self.permission_mode.unwrap_or_default();
        json!({
            "permissions": if mode == PermissionMode::Bypass { "bypass" } else { "ask" },
            "agentMode": self.agent_mode.as_deref().unwrap_or(DEFAULT_MODE),
            "permissionMode": mode.as_str(),
            "model": self.model,
            "variant": self.variant,
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    native_session_id: Option<String>,
}

async fn create(
    Extension(host): Extension<AgentHost>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<Create>,
) -> Result<Json<Created>> {
    let AgentSessions { sessions, scope } = &host.sessions;
    sessions.knows(&request.agent)?;
    if request.agent_version.is_some() {
        let text = "agentVersion: install the version that you want before";
        return Err(Failure::invalid(text));
    }
    let mode = request.mode()?.map(str::to_owned);
    let wanted = NewSession {
        face: SessionFace::Universal,
        name: Some(id.clone()),
        agent: request.agent.clone(),
        cwd: Some(home(&host).await?),
        mcp_servers: Vec::new(),
        settings: request.settings(),
    };
    let session = sessions.create(scope, wanted).await.map_err(|fault| {
        crate::input::log(&fault);
        Failure::from(Problem::from(&fault).with("sessionId", id))
    })?;
    if let Err(failure) = choose(&host, &session, mode, &request).await {
        sessions.remove(&scope.workspace, &session.id).await?;
        return Err(failure);
    }
    let view = sessions.show(&scope.workspace, &session.id).await?;
    Ok(Json(Created {
        healthy: true,
        native_session_id: native(&view.session),
    }))
}

/// The folder that the agent works in.
async fn home(host: &AgentHost) -> Result<String> {
    let guest = host.guest().await?;
    let here = woodfrog_guest_client::proto::PathRequest {
        path: ".".to_owned(),
        ..Default::default()
    };
    Ok(guest.stat(here).await.map_err(fault)?.path)
}

/// Asks the agent to be as the client wants it, each in the words that it may know.
async fn choose(
    host: &AgentHost,
    session: &Session,
    mode: Option<String>,
    request: &Create,
) -> Result<()> {
    let option = |id: &str, value: &str| {
        let params = json!({"configId": id, "value": value});
        ("session/set_config_option", params)
    };
    let mut wanted = Vec::new();
    if let Some(mode) = &mode {
        let own = ("session/set_mode", json!({"modeId": mode}));
        wanted.push(("mode", mode, vec![own, option("mode", mode)]));
    }
    if let Some(model) = &request.model {
        let own = ("session/set_model", json!({"modelId": model}));
        wanted.push(("model", model, vec![option("model", model), own]));
    }
    if let Some(variant) = &request.variant {
        let ways = vec![option("thought_level", variant)];
        wanted.push(("variant", variant, ways));
    }
    let sessions = &host.sessions.sessions;
    for (what, value, ways) in wanted {
        let mut refused = None;
        for (method, params) in ways {
            let asked = sessions.request(&session.id, method, params, None).await;
            match asked {
                Ok(_) => {
                    refused = None;
                    break;
                }
                // The agent's own no; everything else is no answer.
                Err(fault) if fault.code == Code::Conflict => refused = Some(fault),
                Err(fault) => return Err(fault.into()),
            }
        }
        if let Some(fault) = refused {
            let text = format!("{what} `{value}`: {fault}");
            let problem = Problem::new(Kind::ModeNotSupported, text);
            return Err(problem.with("agent", session.agent.as_str()).into());
        }
    }
    Ok(())
}

async fn list(Extension(host): Extension<AgentHost>) -> Result<Json<Value>> {
    let AgentSessions { sessions, scope } = &host.sessions;
    let filter = SessionFilter {
        sandbox: Some(scope.sandbox.clone()),
        face: Some(SessionFace::Universal),
        ..SessionFilter::default()
    };
    let (mut shown, mut cursor) = (Vec::new(), None);
    while shown.len() < LIST_MAX {
        let request = PageRequest {
            limit: BATCH,
            cursor,
        };
        let page = sessions.list(&scope.workspace, &filter, &request).await?;
        for session in page.items {
            // It may have been removed just now.
            if let Ok(view) = sessions.show(&scope.workspace, &session.id).await {
                shown.push(info(&view));
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    Ok(Json(json!({ "sessions": shown })))
}

fn info(view: &SessionView) -> Value {
    let session = &view.session;
    let settings: Value = serde_json::from_str(&session.settings).unwrap_or_default();
    let mut info = json!({
        "sessionId": session.name,
        "agent": session.agent,
        "agentMode": settings["agentMode"],
        "permissionMode": settings["permissionMode"],
        "ended": matches!(session.state, SessionState::Ended { .. }),
        "eventCount": view.end.universal,
    });
    for name in ["model", "variant"] {
        if let Some(value) = settings[name].as_str() {
            info[name] = Value::from(value);
        }
    }
    if let Some(native) = native(session) {
        info["nativeSessionId"] = Value::from(native);
    }
    info
}

/// The agent's own id of the session, once it has one.
fn native(session: &Session) -> Option<String> {
    let mut bindings = session.bindings.iter();
    let known = bindings.find(|binding| binding.incarnation > 0)?;
    Some(known.agent.clone())
}

#[derive(Deserialize)]
struct Message {
    message: String,
}

impl Message {
    fn prompt(self) -> Prompt {
        Prompt {
            blocks: vec![json!({"type": "text", "text": self.message})],
            author: None,
        }
    }
}

async fn message(
    Extension(host): Extension<AgentHost>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<Message>,
) -> Result<StatusCode> {
    let session = find(&host, &id).await?;
    let sessions = &host.sessions.sessions;
    sessions.post(&session.id, request.prompt()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn terminate(
    Extension(host): Extension<AgentHost>,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    let session = find(&host, &id).await?;
    host.sessions.sessions.end(&session.id, TERMINATED).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Reply {
    answers: Vec<Vec<String>>,
}

async fn reply(
    Extension(host): Extension<AgentHost>,
    Path((id, asked)): Path<(String, String)>,
    JsonBody(reply): JsonBody<Reply>,
) -> Result<StatusCode> {
    // An agent asks one thing at a time and takes one answer.
    let mut answers = reply.answers.into_iter().flatten();
    match (answers.next(), answers.next()) {
        (Some(answer), None) => say(&host, &id, &asked, true, &Answer::Option(answer)).await,
        (None, _) => say(&host, &id, &asked, true, &Answer::Reject).await,
        (Some(_), Some(_)) => Err(Failure::invalid("answers: the question takes one answer")),
    }
}

async fn reject(
    Extension(host): Extension<AgentHost>,
    Path((id, asked)): Path<(String, String)>,
) -> Result<StatusCode> {
    say(&host, &id, &asked, true, &Answer::Reject).await
}

#[derive(Deserialize)]
struct Permit {
    reply: Permission,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Permission {
    Once,
    Always,
    Reject,
}

async fn permit(
    Extension(host): Extension<AgentHost>,
    Path((id, asked)): Path<(String, String)>,
    JsonBody(request): JsonBody<Permit>,
) -> Result<StatusCode> {
    let answer = match request.reply {
        Permission::Once => Answer::Once,
        Permission::Always => Answer::Always,
        Permission::Reject => Answer::Reject,
    };
    say(&host, &id, &asked, false, &answer).await
}

/// Answers what the agent asked.
async fn say(
    host: &AgentHost,
    session: &str,
    asked: &str,
    question: bool,
    answer: &Answer,
) -> Result<StatusCode> {
    let session = find(host, session).await?;
    let (id, asking) = asking(host, &session, asked).await?;
    if asking.question != question {
        let text = format!(
            "{asked} is a {}",
            if question { "permission" } else { "question" }
        );
        return Err(Failure::invalid(text));
    }
    let Some(result) = asking.result(answer) else {
        return Err(Failure::invalid(format!("{answer:?} is not offered")));
    };
    let sessions = &host.sessions.sessions;
    sessions.reply(&session.id, &id, result, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn asking(host: &AgentHost, session: &Session, asked: &str) -> Result<(Id, Asking)> {
    let AgentSessions { sessions, scope } = &host.sessions;
    // What was asked before the server began anew is known once somebody listens.
    sessions.attend(session).await;
    let view = sessions.show(&scope.workspace, &session.id).await?;
    let open = view.asked.into_iter();
    let mut open = open.map(|it| (it.id, Asking::of(it.sequence, &it.params)));
    let found = open.find(|(_, asking)| asking.id == asked);
    found.ok_or_else(|| Problem::not_found("request", asked).into())
}

/// The session that a client calls so.
async fn find(host: &AgentHost, name: &str) -> Result<Session> {
    let AgentSessions { sessions, scope } = &host.sessions;
    let found = sessions
        .by_name(scope, SessionFace::Universal, name)
        .await?;
    found.ok_or_else(|| {
        let problem = Problem::from(&Fault::new(Code::SessionNotFound, name));
        problem.with("sessionId", name).into()
    })
}

/// Prompts, for those who follow the turn: its number, and where the events were before.
async fn begin(host: &AgentHost, name: &str, message: Message) -> Result<(Session, u64, u64)> {
    let session = find(host, name).await?;
    let AgentSessions { sessions, scope } = &host.sessions;
    let before = sessions.show(&scope.workspace, &session.id).await?;
    let turn = sessions.post(&session.id, message.prompt()).await?;
    Ok((session, before.end.universal, turn))
}
