//! The machines of an engine, and the agents in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use woodfrog_agents::{AgentId, Agents, LaunchOptions, Machine};
use woodfrog_engine::{CheckpointRequest, CreateSandbox, Engine, GuestLease, Reach};
use woodfrog_guest_client::proto::StartRequest;
use woodfrog_types::key::{Principal, Scope};
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::OnTimeout;
use woodfrog_types::session::{Session, SessionFace};
use woodfrog_types::sleep::SleepChanges;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::workspace::{Role, UserId};
use woodfrog_types::{Code, Fault, SandboxId, SnapshotId, WorkspaceId};

use crate::agent::end_agents;
use crate::port::Machines;

/// What the sandbox of a session is made from that names nothing.
pub const TEMPLATE: &str = "base";

/// An engine's sandboxes.
pub struct EngineMachines {
    engine: Engine,
    agents: Arc<Agents>,
}

impl EngineMachines {
    pub const fn new(engine: Engine, agents: Arc<Agents>) -> Self {
        Self { engine, agents }
    }
}

impl EngineMachines {
    /// What a session's settings put into its agent's environment: `env` as it is, and `secrets`
    /// by name. Their values are looked up now and are kept nowhere.
    async fn environment(&self, session: &Session) -> Result<BTreeMap<String, String>, Fault> {
        let settings = settings(session);
        let pairs = |field: &str| {
            let pairs = settings[field].as_object().into_iter().flatten();
            let pairs =
                pairs.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
            pairs.collect::<BTreeMap<String, String>>()
        };
        let mut env = pairs("env");
        for (variable, secret) in pairs("secrets") {
            let value = self
                .engine
                .secret_reveal(&session.workspace, &secret)
                .await?;
            env.insert(variable, value);
        }
        Ok(env)
    }
}

/// The workspace itself: what its sessions do goes on when the key that made them is gone.
fn workspace(workspace: &WorkspaceId) -> Principal {
    Principal {
        workspace: workspace.clone(),
        user: UserId::operator(),
        role: Role::Owner,
        key: None,
        scope: Scope::Workspace,
    }
}

/// Makes a sandbox for a session. It lives until it is deleted, and sleeps when nobody needs it.
pub async fn make_sandbox(
    engine: &Engine,
    principal: &Principal,
    template: &str,
    label: &str,
) -> Result<SandboxId, Fault> {
    let request = CreateSandbox {
        template: template.to_owned(),
        timeout: None,
        on_timeout: OnTimeout::Kill,
        auto_resume: true,
        sleep: SleepChanges::default(),
        metadata: BTreeMap::from([("woodfrog.session".to_owned(), label.to_owned())]),
        env: BTreeMap::new(),
        network: NetworkSpec::default(),
        secure: true,
        volumes: Vec::new(),
        resources: None,
        idempotency_key: None,
    };
    Ok(engine.sandbox_create(principal, request).await?.sandbox.id)
}

#[async_trait]
impl Machines for EngineMachines {
    async fn guest(&self, sandbox: &SandboxId) -> Result<GuestLease, Fault> {
        self.engine.guest(sandbox).await
    }

    async fn is_awake(&self, sandbox: &SandboxId) -> bool {
        let access = self.engine.peek(sandbox).await;
        access.is_ok_and(|access| access.reach == Reach::Awake)
    }

    async fn is_gone(&self, sandbox: &SandboxId) -> bool {
        let access = self.engine.peek(sandbox).await;
        access.is_err_and(|fault| fault.code == Code::SandboxNotFound)
    }

    fn known(&self, agent: &str) -> Result<(), Fault> {
        agent.parse::<AgentId>()?;
        Ok(())
    }

    async fn command(
        &self,
        sandbox: &SandboxId,
        guest: &GuestLease,
        session: &Session,
    ) -> Result<StartRequest, Fault> {
        let mut request = command(&self.agents, sandbox, guest, session).await?;
        request.env.extend(self.environment(session).await?);
        Ok(request)
    }

    async fn replace(&self, session: &Session) -> Result<Option<SandboxId>, Fault> {
        if session.face != SessionFace::Native {
            return Ok(None);
        }
        let settings = settings(session);
        let Some(template) = settings["template"].as_str() else {
            return Ok(None);
        };
        let principal = workspace(&session.workspace);
        let made = make_sandbox(&self.engine, &principal, template, session.id.as_str());
        made.await.map(Some)
    }

    async fn at_turn(&self, session: &Session, snapshot: &SnapshotId) -> Result<SandboxId, Fault> {
        let principal = workspace(&session.workspace);
        let (template, label) = (snapshot.as_str(), session.id.as_str());
        let made = make_sandbox(&self.engine, &principal, template, label).await?;
        match end_agents(&self.engine.guest(&made).await?).await {
            Ok(()) => Ok(made),
            Err(fault) => {
                self.discard(session, &made).await;
                Err(fault)
            }
        }
    }

    async fn discard(&self, session: &Session, sandbox: &SandboxId) {
        let principal = workspace(&session.workspace);
        if let Err(fault) = self.engine.sandbox_delete(&principal, sandbox).await {
            tracing::warn!(%sandbox, %fault, "a sandbox that nobody wants could not be deleted");
        }
    }

    async fn keep_turn(&self, session: &Session, turn: u64) -> Result<Option<SnapshotId>, Fault> {
        if settings(session)["snapshots"] != "turn" {
            return Ok(None);
        }
        let request = CheckpointRequest {
            name: None,
            content: SnapshotContent::Memory,
            labels: BTreeMap::from([
                ("woodfrog.session".to_owned(), session.id.to_string()),
                ("woodfrog.turn".to_owned(), turn.to_string()),
            ]),
        };
        let principal = workspace(&session.workspace);
        let kept = self
            .engine
            .sandbox_checkpoint(&principal, &session.sandbox, request);
        Ok(Some(kept.await?.id))
    }
}

/// How the session's agent is started in a machine; brings it there where that is allowed.
pub async fn command(
    agents: &Agents,
    sandbox: &SandboxId,
    guest: &GuestLease,
    session: &Session,
) -> Result<StartRequest, Fault> {
    let machine = Machine::new(sandbox.as_str(), (**guest).clone());
    let id: AgentId = session.agent.parse()?;
    let status = agents.ensure(&machine, id).await?;
    status.command(&machine, &LaunchOptions::default())
}

fn settings(session: &Session) -> serde_json::Value {
    serde_json::from_str(&session.settings).unwrap_or_default()
}
