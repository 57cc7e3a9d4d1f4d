//! From an id to a sandbox: the one in memory that has an owner, or the record in the store.

use std::sync::Arc;

use tokio::sync::oneshot;
use woodfrog_types::key::Principal;
use woodfrog_types::sandbox::{Sandbox, SandboxState};
use woodfrog_types::{Fault, SandboxId};

use crate::engine::Engine;
use crate::fault;
use crate::lease::moving;
use crate::sandbox::live::{Command, Live};
use crate::sandbox::{may_see, owner};

impl Engine {
    /// A sandbox's record, without waking or otherwise moving it. `SandboxNotFound` if it is gone
    /// or going, or another workspace's.
    pub(crate) async fn record(
        &self,
        principal: &Principal,
        id: &SandboxId,
    ) -> Result<Arc<Sandbox>, Fault> {
        let found = self.record_of(id).await?;
        found
            .filter(|record| may_see(principal, &record.workspace))
            .ok_or_else(|| Fault::sandbox_not_found(id.as_str()))
    }

    /// As [`Self::record`], of whatever workspace.
    pub(crate) async fn record_of(&self, id: &SandboxId) -> Result<Option<Arc<Sandbox>>, Fault> {
        let there = |record: &Arc<Sandbox>| !matches!(record.state, SandboxState::Deleting { .. });
        if let Some(live) = self.inner.registry.get(id) {
            return Ok(Some(live.record()).filter(there));
        }
        let stored = self.inner.store.sandbox_fetch(id).await;
        let stored = stored.map_err(fault::store)?.map(Arc::new);
        // One that is being made has an owner; without it nothing of it counts.
        let begun = |record: &Arc<Sandbox>| !matches!(record.state, SandboxState::Creating);
        Ok(stored.filter(there).filter(begun))
    }

    /// A sandbox with its owner, which it is given if it has none.
    pub(crate) async fn live(&self, id: &SandboxId) -> Result<Arc<Live>, Fault> {
        let gone = || Fault::sandbox_not_found(id.as_str());
        if let Some(live) = self.inner.registry.get(id) {
            return Some(live).filter(|live| !live.is_ending()).ok_or_else(gone);
        }
        self.record_of(id).await?.ok_or_else(gone)?;
        self.inner.accepting()?;
        moving::fetch(&self.inner, id).await?;
        // It may have come from another server.
        let record = self.record_of(id).await?.ok_or_else(gone)?;
        Ok(owner::spawn(
            &self.inner,
            Live::new(&self.inner.registry.gates, (*record).clone(), None),
            None,
        ))
    }

    /// Asks a sandbox's owner.
    pub(crate) async fn ask<T>(
        &self,
        principal: &Principal,
        id: &SandboxId,
        make: impl Fn(oneshot::Sender<Result<T, Fault>>) -> Command,
    ) -> Result<T, Fault> {
        loop {
            self.inner.accepting()?;
            self.record(principal, id).await?;
            let live = self.live(id).await?;
            // An owner that left let the sandbox sleep: the next one answers.
            if let Some(answer) = live.ask(&make).await {
                return answer;
            }
        }
    }
}
