//! What a client can have done to its sandbox as a whole.

use std::collections::BTreeMap;

use woodfrog_engine::{CheckpointRequest, Engine, HibernateRequest};
use woodfrog_types::key::Principal;
use woodfrog_types::sleep::SleepCause;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::{Code, SandboxId};

use super::failed;
use super::machine::Failed;

/// One sandbox, and in whose name something is done to it.
pub(super) struct Deeds {
    pub(super) engine: Engine,
    pub(super) principal: Principal,
    pub(super) id: SandboxId,
}

impl Deeds {
    /// Saves memory, processes and files, and ends what runs. Where it fails it goes on as before.
    pub(super) async fn checkpoint(&self) -> Result<(), Failed> {
        let request = HibernateRequest {
            content: SnapshotContent::Memory,
            cause: SleepCause::Requested,
        };
        let slept = self
            .engine
            .sandbox_hibernate(&self.principal, &self.id, request);
        slept.await.map(drop).map_err(failed)
    }

    /// Saves its files under a name that is not taken.
    pub(super) async fn snapshot(&self, name: String) -> Result<(), Failed> {
        let request = CheckpointRequest {
            name: Some(name.clone()),
            content: SnapshotContent::Filesystem,
            labels: BTreeMap::new(),
        };
        let saved = self
            .engine
            .sandbox_checkpoint(&self.principal, &self.id, request);
        saved.await.map(drop).map_err(|fault| match fault.code {
            Code::AlreadyExists => Failed {
                message: format!(
                    "A snapshot '{name}' exists already; it is not overwritten. Delete it first."
                ),
                code: Some(fault.code.as_str().to_owned()),
            },
            _ => failed(fault),
        })
    }

    /// Removes it. One that is gone already is removed.
    pub(super) async fn delete(&self) -> Result<(), Failed> {
        match self.engine.sandbox_delete(&self.principal, &self.id).await {
            Ok(()) => Ok(()),
            Err(fault) if fault.code == Code::SandboxNotFound => Ok(()),
            Err(fault) => Err(failed(fault)),
        }
    }
}
