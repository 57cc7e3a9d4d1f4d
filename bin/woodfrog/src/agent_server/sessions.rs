//! Sessions with agents of this machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use woodfrog_agents::{AgentId, Agents};
use woodfrog_engine::GuestLease;
use woodfrog_guest_client::GuestClient;
use woodfrog_guest_client::proto::StartRequest;
use woodfrog_server::agent::AgentSessions;
use woodfrog_sessions::{Machines, Options, Scope, Sessions, machines};
use woodfrog_store::SessionStore;
use woodfrog_store::memory::MemoryStore;
use woodfrog_store_sqlite::SqliteStore;
use woodfrog_types::session::Session;
use woodfrog_types::{Code, Fault, SandboxId, SnapshotId, WorkspaceId};

use super::health::Lives;

/// Stands for this machine in the log: the same after each start.
const MACHINE: &str = "sb00000000000000000000000000";
/// An agent without work for this long is ended; no sandbox sleeps under it here.
const REAP: Duration = Duration::from_secs(30 * 60);

/// The id that stands for this machine.
pub(super) fn machine() -> Result<SandboxId> {
    MACHINE.parse().context("the machine's id")
}

/// The sessions of a server on that port.
pub(super) fn open(local: Local, port: u16) -> Result<AgentSessions> {
    let mut options = Options {
        reap: Some(REAP),
        ..Options::default()
    };
    if let Some(millis) = number("SANDBOX_AGENT_ACP_REQUEST_TIMEOUT_MS")? {
        options.request_timeout = Duration::from_millis(millis);
    }
    Ok(AgentSessions {
        sessions: Sessions::new(store(port)?, Arc::new(local), options),
        scope: Scope {
            workspace: WorkspaceId::default_workspace(),
            sandbox: machine()?,
        },
    })
}

fn number(name: &str) -> Result<Option<u64>> {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .map(Some)
            .with_context(|| format!("{name} must be a number")),
        Err(_) => Ok(None),
    }
}

/// One file per port, since a port has one server; a port of the moment leaves nothing.
fn store(port: u16) -> Result<Arc<dyn SessionStore>> {
    if port == 0 {
        return Ok(Arc::new(MemoryStore::new()));
    }
    let Some(directory) = data_home().map(|home| home.join("woodfrog")) else {
        tracing::warn!("neither XDG_DATA_HOME nor HOME is set: sessions are kept in memory only");
        return Ok(Arc::new(MemoryStore::new()));
    };
    std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let file = directory.join(format!("agent-server-{port}.db"));
    let store = SqliteStore::open(&file).with_context(|| format!("open {}", file.display()))?;
    Ok(Arc::new(store))
}

fn data_home() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local/share")))
}

/// This machine.
pub(super) struct Local {
    pub(super) client: GuestClient,
    pub(super) lives: Arc<Lives>,
    pub(super) agents: Arc<Agents>,
}

#[async_trait]
impl Machines for Local {
    async fn guest(&self, _: &SandboxId) -> Result<GuestLease, Fault> {
        Ok(GuestLease::living(
            self.client.clone(),
            self.lives.present(),
        ))
    }

    async fn is_awake(&self, _: &SandboxId) -> bool {
        true
    }

    async fn is_gone(&self, _: &SandboxId) -> bool {
        self.lives.are_over()
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
        machines::command(&self.agents, sandbox, guest, session).await
    }

    async fn replace(&self, _: &Session) -> Result<Option<SandboxId>, Fault> {
        Ok(None)
    }

    async fn at_turn(&self, _: &Session, _: &SnapshotId) -> Result<SandboxId, Fault> {
        Err(Fault::new(
            Code::Unsupported,
            "this machine is no sandbox: it has no snapshots",
        ))
    }

    async fn discard(&self, _: &Session, _: &SandboxId) {}

    async fn keep_turn(&self, _: &Session, _: u64) -> Result<Option<SnapshotId>, Fault> {
        Ok(None)
    }
}
