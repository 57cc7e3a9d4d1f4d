//! The stored form of a session.

use serde::{Deserialize, Serialize};
use woodfrog_store::Result;
use woodfrog_types::session::{AgentProcess, Binding, Choice, Session, SessionFace, SessionState};

use crate::{
    Columns, corrupt, count_column, get, id_column, json_column, time_column, time_column_opt,
    to_json,
};

const WHAT: &str = "session";

/// What is not in a column of its own.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "v")]
enum Body {
    #[serde(rename = "1")]
    V1(BodyV1),
}

#[derive(Debug, Serialize, Deserialize)]
struct BodyV1 {
    /// Why it is over; when is a column, and both are there or neither.
    end_reason: Option<String>,
    /// JSON as text: it comes back byte by byte.
    settings: String,
    handshake: Option<String>,
    process: Option<StoredProcess>,
    bindings: Vec<StoredBinding>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredProcess {
    id: u64,
    incarnation: u64,
    ready: Option<String>,
    over: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredBinding {
    public: String,
    agent: String,
    incarnation: u64,
    init: String,
    replay_due: Option<u64>,
    /// Methods and their parameters; rows of earlier releases have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chosen: Vec<(String, String)>,
}

/// The text of the `body` column.
pub fn session_to_json(session: &Session) -> Result<String> {
    let end_reason = match &session.state {
        SessionState::Active => None,
        SessionState::Ended { reason, .. } => Some(reason.clone()),
    };
    let body = Body::V1(BodyV1 {
        end_reason,
        settings: session.settings.clone(),
        handshake: session.handshake.clone(),
        process: session.process.as_ref().map(|process| StoredProcess {
            id: process.id,
            incarnation: process.incarnation,
            ready: process.ready.clone(),
            over: process.over,
        }),
        bindings: session.bindings.iter().map(StoredBinding::from).collect(),
    });
    to_json(WHAT, &body)
}

/// A session from all columns of its row.
pub fn session_from_row(row: &dyn Columns) -> Result<Session> {
    let Body::V1(body) = json_column(row, WHAT, "body")?;
    let state = match (time_column_opt(row, WHAT, "ended_at")?, body.end_reason) {
        (None, None) => SessionState::Active,
        (Some(at), Some(reason)) => SessionState::Ended { at, reason },
        _ => return Err(corrupt(WHAT, "its end does not fit its body")),
    };
    let name: String = get(row, WHAT, "face")?;
    let mut faces = SessionFace::ALL.into_iter();
    let face = faces.find(|face| face.as_str() == name);
    Ok(Session {
        id: id_column(row, WHAT, "id")?,
        workspace: id_column(row, WHAT, "workspace")?,
        sandbox: id_column(row, WHAT, "sandbox")?,
        face: face.ok_or_else(|| corrupt(WHAT, format!("unknown face `{name}`")))?,
        name: get(row, WHAT, "name")?,
        holds_name: get(row, WHAT, "holds_name")?,
        agent: get(row, WHAT, "agent")?,
        state,
        generation: count_column(row, WHAT, "generation")?,
        created_at: time_column(row, WHAT, "created_at")?,
        updated_at: time_column(row, WHAT, "updated_at")?,
        settings: body.settings,
        handshake: body.handshake,
        process: body.process.map(|process| AgentProcess {
            id: process.id,
            incarnation: process.incarnation,
            ready: process.ready,
            over: process.over,
        }),
        bindings: body.bindings.into_iter().map(Binding::from).collect(),
    })
}

impl From<&Binding> for StoredBinding {
    fn from(binding: &Binding) -> Self {
        Self {
            public: binding.public.clone(),
            agent: binding.agent.clone(),
            incarnation: binding.incarnation,
            init: binding.init.clone(),
            replay_due: binding.replay_due,
            chosen: binding
                .chosen
                .iter()
                .map(|it| (it.method.clone(), it.params.clone()))
                .collect(),
        }
    }
}

impl From<StoredBinding> for Binding {
    fn from(stored: StoredBinding) -> Self {
        Self {
            public: stored.public,
            agent: stored.agent,
            incarnation: stored.incarnation,
            init: stored.init,
            chosen: stored
                .chosen
                .into_iter()
                .map(|(method, params)| Choice { method, params })
                .collect(),
            replay_due: stored.replay_due,
        }
    }
}
