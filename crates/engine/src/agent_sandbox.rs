//! The sandbox that a workspace's agents are in when nobody names one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use woodfrog_types::key::Principal;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::OnTimeout;
use woodfrog_types::sleep::SleepChanges;
use woodfrog_types::{Code, Fault, SandboxId, WorkspaceId};

use crate::engine::Engine;
use crate::fault;
use crate::request::CreateSandbox;

/// What it is made from.
const TEMPLATE: &str = "base";
/// Workspaces whose turns are remembered.
const TURNS_MAX: usize = 1024;
/// How many sandboxes that are gone again at once are passed over.
const GONE_MAX: u32 = 3;

/// One request of a workspace at a time.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<WorkspaceId, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    fn of(&self, workspace: &WorkspaceId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() >= TURNS_MAX {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(turns.entry(workspace.clone()).or_default())
    }
}

/// What the store remembers: how many there have been, and the last one.
struct Remembered {
    number: u64,
    sandbox: Option<SandboxId>,
}

impl Remembered {
    fn parse(stored: Option<Vec<u8>>) -> Result<Self, Fault> {
        let Some(stored) = stored else {
            return Ok(Self {
                number: 0,
                sandbox: None,
            });
        };
        let damaged = || Fault::internal("what is stored of the default sandbox is damaged");
        let text = std::str::from_utf8(&stored).map_err(|_| damaged())?;
        let (number, id) = text.split_once(' ').ok_or_else(damaged)?;
        Ok(Self {
            number: number.parse().map_err(|_| damaged())?,
            sandbox: Some(id.parse().map_err(|_| damaged())?),
        })
    }
}

impl Engine {
    /// The workspace's default sandbox, made if there is none, or none any more. However many ask
    /// at once, and even if the server dies meanwhile, there is one.
    pub async fn agent_sandbox(&self, principal: &Principal) -> Result<SandboxId, Fault> {
        self.inner.accepting()?;
        let (engine, principal) = (self.clone(), principal.clone());
        // Goes on without its caller: the next one is then not told that somebody makes it.
        let work = async move { engine.ensure_agent_sandbox(&principal).await };
        self.inner
            .tasks
            .spawn(work)
            .await
            .map_err(Fault::internal)?
    }

    async fn ensure_agent_sandbox(&self, principal: &Principal) -> Result<SandboxId, Fault> {
        let turn = self.inner.agent_turns.of(&principal.workspace);
        let _turn = turn.lock().await;
        let name = format!("agent.default.{}", principal.workspace);
        let stored = self.inner.store.setting_get(&name).await;
        let Remembered {
            mut number,
            sandbox,
        } = Remembered::parse(stored.map_err(fault::store)?)?;
        if let Some(id) = sandbox
            && self.record_of(&id).await?.is_some()
        {
            return Ok(id);
        }
        for _ in 0..GONE_MAX {
            number += 1;
            match self.make_agent_sandbox(principal, number).await {
                Ok(id) => {
                    let value = format!("{number} {id}");
                    let put = self.inner.store.setting_put(&name, value.as_bytes());
                    put.await.map_err(fault::store)?;
                    return Ok(id);
                }
                // An earlier server made this one, did not live to remember it, and it is gone.
                Err(gone) if gone.code == Code::Conflict => {}
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::new(
            Code::CreateFailed,
            "the default sandbox could not be made",
        ))
    }

    /// At most one sandbox per number.
    async fn make_agent_sandbox(
        &self,
        principal: &Principal,
        number: u64,
    ) -> Result<SandboxId, Fault> {
        let request = CreateSandbox {
            template: TEMPLATE.to_owned(),
            timeout: None,
            on_timeout: OnTimeout::Kill,
            auto_resume: true,
            sleep: SleepChanges::default(),
            metadata: BTreeMap::from([("woodfrog.agent".to_owned(), "default".to_owned())]),
            env: BTreeMap::new(),
            network: NetworkSpec::default(),
            secure: true,
            volumes: Vec::new(),
            resources: None,
            idempotency_key: Some(format!("agent-default-{number}")),
        };
        Ok(self.sandbox_create(principal, request).await?.sandbox.id)
    }
}
