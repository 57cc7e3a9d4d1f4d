//! Sessions whose clients do not speak ACP.

use super::acp::new_session;
use super::{
    Code, Command, Conversation, Fault, Id, NAME_BYTES_MAX, Outcome, Prompt, Scope, Session,
    SessionFace, SessionId, Sessions, StoreError, Value, WorkspaceId, fault, json,
};

/// What a session is to be.
#[derive(Debug, Clone)]
pub struct NewSession {
    pub face: SessionFace,
    /// The client's own name; the session's id if it has none.
    pub name: Option<String>,
    pub agent: String,
    /// Where the agent works.
    pub cwd: Option<String>,
    /// MCP servers for the agent, as ACP has them.
    pub mcp_servers: Vec<Value>,
    /// JSON object: what the face wants to know of it later, and `permissions`, `snapshots`.
    pub settings: Value,
}

/// How a turn went.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnOutcome {
    /// The agent's stop reason; `None` if it failed.
    pub stop_reason: Option<String>,
    /// The agent's error, if it failed.
    pub error: Option<Value>,
    /// The agent's own count of tokens, as it gave it.
    pub usage: Option<Value>,
}

impl Sessions {
    /// Makes a session. No agent is started before it is prompted.
    pub async fn create(&self, scope: &Scope, new: NewSession) -> Result<Session, Fault> {
        self.inner.machines.known(&new.agent)?;
        if let Some(name) = &new.name
            && (name.is_empty() || name.len() > NAME_BYTES_MAX)
        {
            let text = format!("must have 1 to {NAME_BYTES_MAX} bytes");
            return Err(Fault::invalid("name", text));
        }
        let mut session = new_session(scope, new.face, "", &new.agent);
        session.name = new.name.unwrap_or_else(|| session.id.to_string());
        session.settings = new.settings.to_string();
        let init = json!({
            "cwd": new.cwd.as_deref().unwrap_or("/"),
            "mcpServers": new.mcp_servers,
        });
        Conversation::prepare(&mut session, &init);
        match self.inner.store.session_insert(&session).await {
            Ok(()) => {
                if session.face == SessionFace::Universal {
                    let timeout = Some(self.inner.options.request_timeout);
                    self.ask(&session.id, Command::Begin, timeout).await?;
                }
                Ok(session)
            }
            Err(StoreError::Constraint { .. }) => Err(Fault::new(
                Code::AlreadyExists,
                format!("session `{}` exists already", session.name),
            )
            .with_field("name")),
            Err(error) => Err(fault(error, &session.id)),
        }
    }

    /// The session that holds this name.
    pub async fn by_name(
        &self,
        scope: &Scope,
        face: SessionFace,
        name: &str,
    ) -> Result<Option<Session>, Fault> {
        let found = self
            .inner
            .store
            .session_by_name(&scope.sandbox, face, name)
            .await;
        let found = found.map_err(Fault::internal)?;
        Ok(found.filter(|session| session.workspace == scope.workspace))
    }

    /// Prompts, and returns when the turn is over: after those of everybody who was first.
    pub async fn prompt(&self, id: &SessionId, prompt: Prompt) -> Result<TurnOutcome, Fault> {
        let command = |reply| Command::Prompt(prompt, reply);
        let outcome = self.ask(id, command, None).await?;
        Ok(turn_outcome(&outcome))
    }

    /// Prompts, and returns as soon as the prompt has its place: the number of its turn.
    pub async fn post(&self, id: &SessionId, prompt: Prompt) -> Result<u64, Fault> {
        let timeout = Some(self.inner.options.request_timeout);
        let command = |reply| Command::Post(prompt, reply);
        let Outcome::Response(line) = self.ask(id, command, timeout).await? else {
            return Err(Fault::internal("a prompt without a turn"));
        };
        let answer: Value = serde_json::from_str(&line).map_err(Fault::internal)?;
        let turn = answer["turn"].as_u64();
        turn.ok_or_else(|| Fault::internal("a prompt without a turn"))
    }

    /// Asks the agent to stop the turn that goes on, if one does.
    pub async fn cancel(&self, id: &SessionId, author: Option<String>) -> Result<(), Fault> {
        let timeout = Some(self.inner.options.request_timeout);
        let command = |reply| Command::Cancel { author, reply };
        self.ask(id, command, timeout).await.map(drop)
    }

    /// Asks the agent something about the session's one conversation: its result.
    pub async fn request(
        &self,
        id: &SessionId,
        method: &str,
        params: Value,
        author: Option<String>,
    ) -> Result<Value, Fault> {
        let timeout = Some(self.inner.options.request_timeout);
        let method = method.to_owned();
        let command = |reply| Command::Request {
            method,
            params,
            author,
            reply,
        };
        let Outcome::Response(line) = self.ask(id, command, timeout).await? else {
            return Ok(Value::Null);
        };
        let answer: Value = serde_json::from_str(&line).map_err(Fault::internal)?;
        match answer.get("error") {
            None => Ok(answer.get("result").cloned().unwrap_or(Value::Null)),
            Some(error) => {
                let text = error.get("message").and_then(Value::as_str);
                let text = text.unwrap_or("the agent refused");
                Err(Fault::new(
                    Code::Conflict,
                    format!("the agent refused: {text}"),
                ))
            }
        }
    }

    /// Answers what the agent asked. `Conflict` if another answer was first.
    pub async fn reply(
        &self,
        id: &SessionId,
        asked: &Id,
        result: Value,
        author: Option<String>,
    ) -> Result<(), Fault> {
        let timeout = Some(self.inner.options.request_timeout);
        let asked = asked.clone();
        let command = |reply| Command::Reply {
            id: asked,
            result,
            author,
            reply,
        };
        self.ask(id, command, timeout).await.map(drop)
    }

    /// Ends the session; its log stays. Repeated, it changes nothing.
    pub async fn end(&self, id: &SessionId, reason: &str) -> Result<Session, Fault> {
        self.finish(id, reason, false).await
    }

    /// Ends the session and removes it with its log.
    pub async fn remove(&self, workspace: &WorkspaceId, id: &SessionId) -> Result<(), Fault> {
        self.fetch(workspace, id).await?;
        self.finish(id, "removed", true).await?;
        let removed = self.inner.store.session_remove(id).await;
        removed.map(drop).map_err(|error| fault(error, id))
    }
}

fn turn_outcome(outcome: &Outcome) -> TurnOutcome {
    let answer: Value = match outcome {
        Outcome::Response(line) => serde_json::from_str(line).unwrap_or(Value::Null),
        Outcome::Accepted | Outcome::Failed(_) => Value::Null,
    };
    let result = answer.get("result");
    let stop = result.and_then(|it| it.get("stopReason")?.as_str());
    TurnOutcome {
        stop_reason: stop.map(str::to_owned),
        error: answer.get("error").cloned(),
        usage: result.and_then(|it| it.get("usage")).cloned(),
    }
}
