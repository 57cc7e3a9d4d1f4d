//! The transport of ACP: clients that speak it themselves.

use super::{
    ClientMessage, Code, Command, Duration, Envelope, Fault, NAME_BYTES_MAX, Outcome, Page,
    PageRequest, Reader, Scope, Session, SessionEvent, SessionFace, SessionFilter, SessionId,
    SessionState, Sessions, StoreError, Stream, Timestamp, fault,
};

/// One agent process that a client named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpServer {
    pub name: String,
    pub agent: String,
    pub created_at: Timestamp,
}

/// What a client's message came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    /// The agent's answer, one line of JSON.
    Response(String),
    /// It is in the log and on its way.
    Accepted,
}

/// An agent's lines, from some number on.
pub struct Lines {
    /// Reads the log; [`woodfrog_types::session::NewSessionEvent::is_line`] says what is a line.
    pub reader: Reader,
    /// The number of the line before the first.
    pub number: u64,
    /// Lines that were asked for and are no longer held.
    pub missing: Option<(u64, u64)>,
}

/// Where in the log the line of this entry is.
fn place_of(entry: &SessionEvent) -> Result<u64, Fault> {
    let place = entry.event.payload.parse();
    place.map_err(|_| Fault::internal(format!("{} is no place", entry.id())))
}

/// Sessions of one sandbox that are listed at most.
const SERVERS_MAX: usize = 1000;

impl Sessions {
    /// A client's message to the agent `name`, which is made by the first one: that must say which
    /// agent it is to be. Returns when the agent has answered a request, or when anything else is
    /// in the log.
    pub async fn acp_post(
        &self,
        scope: &Scope,
        name: &str,
        agent: Option<&str>,
        envelope: Envelope,
        connection: Option<String>,
    ) -> Result<Posted, Fault> {
        let session = self.acp_open(scope, name, agent).await?;
        let message = ClientMessage {
            envelope,
            author: None,
            connection,
        };
        let timeout = self.timeout_of(&message.envelope);
        let command = |reply| Command::Client(message, reply);
        let answer = self.ask(&session.id, command, timeout).await;
        if let Err(fault) = &answer {
            self.forget_stillborn(&session.id, fault).await;
        }
        match answer? {
            Outcome::Response(line) => Ok(Posted::Response(line)),
            Outcome::Accepted | Outcome::Failed(_) => Ok(Posted::Accepted),
        }
    }

    /// A name is not held by an agent that cannot be had.
    async fn forget_stillborn(&self, id: &SessionId, fault: &Fault) {
        if !matches!(fault.code, Code::AgentNotInstalled | Code::InstallFailed) {
            return;
        }
        let session = self.inner.store.session_fetch(id).await;
        let never_ran = matches!(session, Ok(Some(session)) if session.process.is_none());
        if never_ran && let Err(fault) = self.finish(id, "its agent cannot be had", true).await {
            tracing::warn!(session = %id, %fault, "it holds its name");
        }
    }

    /// A turn takes as long as it takes.
    fn timeout_of(&self, envelope: &Envelope) -> Option<Duration> {
        (envelope.method() != Some("session/prompt")).then_some(self.inner.options.request_timeout)
    }

    /// What the agent says, after the line of this number. A number that no line has yet is
    /// refused.
    pub async fn acp_follow(&self, scope: &Scope, name: &str, after: u64) -> Result<Lines, Fault> {
        let session = self.acp_find(scope, name).await?;
        let session = session.ok_or_else(|| no_server(name))?;
        self.attend(&session).await;
        let read = self
            .inner
            .store
            .session_read(&session.id, Stream::Universal, after, 1, 1);
        let slice = read.await.map_err(|error| fault(error, &session.id))?;
        if after > slice.end.universal {
            let text = format!(
                "{after} is ahead of the stream, whose last event is {}",
                slice.end.universal
            );
            return Err(Fault::invalid("Last-Event-ID", text));
        }
        let (place, number) = match slice.events.first() {
            Some(next) => (place_of(next)?.saturating_sub(1), next.sequence - 1),
            None => (slice.end.log, after),
        };
        Ok(Lines {
            reader: self.follow(&session.id, Stream::Log, place),
            number,
            missing: (number > after).then_some((after + 1, number)),
        })
    }

    /// The session behind the name.
    pub async fn acp_find(&self, scope: &Scope, name: &str) -> Result<Option<Session>, Fault> {
        let found = self
            .inner
            .store
            .session_by_name(&scope.sandbox, SessionFace::Acp, name)
            .await;
        let found = found.map_err(Fault::internal)?;
        Ok(found.filter(|session| session.workspace == scope.workspace))
    }

    /// Ends the agent and gives its name back. Nothing happens if there is none.
    pub async fn acp_close(&self, scope: &Scope, name: &str) -> Result<(), Fault> {
        let Some(session) = self.acp_find(scope, name).await? else {
            return Ok(());
        };
        self.finish(&session.id, "closed by its client", true)
            .await
            .map(drop)
    }

    /// The sandbox's agents that clients named, by name.
    pub async fn acp_list(&self, scope: &Scope) -> Result<Vec<AcpServer>, Fault> {
        let filter = SessionFilter {
            sandbox: Some(scope.sandbox.clone()),
            face: Some(SessionFace::Acp),
            agent: None,
            active: Some(true),
        };
        let mut servers = Vec::new();
        let mut cursor = None;
        loop {
            let page = PageRequest { limit: 100, cursor };
            let Page { items, next } = self.list(&scope.workspace, &filter, &page).await?;
            servers.extend(items.into_iter().map(|session| AcpServer {
                name: session.name,
                agent: session.agent,
                created_at: session.created_at,
            }));
            cursor = next;
            if cursor.is_none() || servers.len() >= SERVERS_MAX {
                break;
            }
        }
        servers.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(servers)
    }

    async fn acp_open(
        &self,
        scope: &Scope,
        name: &str,
        agent: Option<&str>,
    ) -> Result<Session, Fault> {
        // Two first messages may come at once; one of them makes it.
        for _ in 0..2 {
            if let Some(session) = self.acp_find(scope, name).await? {
                return same_agent(session, name, agent);
            }
            let Some(agent) = agent else {
                let text = format!(
                    "missing required 'agent' query parameter for first POST to /v1/acp/{name}"
                );
                return Err(Fault::invalid("agent", text));
            };
            if name.len() > NAME_BYTES_MAX {
                let text = format!("at most {NAME_BYTES_MAX} bytes");
                return Err(Fault::invalid("server_id", text));
            }
            self.inner.machines.known(agent)?;
            let session = new_session(scope, SessionFace::Acp, name, agent);
            match self.inner.store.session_insert(&session).await {
                Ok(()) => return Ok(session),
                Err(StoreError::Constraint { .. }) => {}
                Err(error) => return Err(fault(error, &session.id)),
            }
        }
        Err(Fault::new(
            Code::Conflict,
            format!("server '{name}' is being made by somebody else; try again"),
        ))
    }
}

pub(super) fn new_session(scope: &Scope, face: SessionFace, name: &str, agent: &str) -> Session {
    let now = Timestamp::now();
    Session {
        id: SessionId::generate(),
        workspace: scope.workspace.clone(),
        sandbox: scope.sandbox.clone(),
        face,
        name: name.to_owned(),
        holds_name: true,
        agent: agent.to_owned(),
        state: SessionState::Active,
        generation: 1,
        created_at: now,
        updated_at: now,
        settings: "{}".to_owned(),
        handshake: None,
        process: None,
        bindings: Vec::new(),
    }
}

fn same_agent(session: Session, name: &str, agent: Option<&str>) -> Result<Session, Fault> {
    match agent {
        Some(agent) if agent != session.agent => Err(Fault::new(
            Code::Conflict,
            format!(
                "server '{name}' already exists for agent '{}'; requested '{agent}'",
                session.agent
            ),
        )),
        _ => Ok(session),
    }
}

/// Nobody made an agent of that name.
fn no_server(name: &str) -> Fault {
    Fault::new(Code::SessionNotFound, format!("session not found: {name}"))
}
