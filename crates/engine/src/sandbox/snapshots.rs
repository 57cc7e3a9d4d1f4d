//! Snapshots: what callers with a principal may do with them. Another workspace's snapshot answers
//! exactly as an unknown one.

use std::collections::BTreeMap;

use woodfrog_core::validate;
use woodfrog_types::key::Principal;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::snapshot::{Snapshot, SnapshotFilter, SnapshotState};
use woodfrog_types::{Code, Fault, SnapshotId};

use crate::engine::Engine;
use crate::fault;
use crate::keys::need_admin;
use crate::lease;
use crate::sandbox::{check_page, may_see, scrub, shelf};
use crate::view::GcReport;

impl Engine {
    /// One snapshot, by id or name.
    pub async fn snapshot_fetch(
        &self,
        principal: &Principal,
        reference: &str,
    ) -> Result<Snapshot, Fault> {
        let found = self.snapshot_find(principal, reference).await?;
        found.ok_or_else(|| not_found(reference))
    }

    /// The workspace's snapshots that match, newest first.
    pub async fn snapshot_list(
        &self,
        principal: &Principal,
        filter: SnapshotFilter,
        page: PageRequest,
    ) -> Result<Page<Snapshot>, Fault> {
        check_page(&page)?;
        let store = &self.inner.store;
        let listed = store.snapshot_list(&principal.workspace, &filter, &page);
        listed.await.map_err(fault::store)
    }

    /// Removes a snapshot; all of it is gone when this returns. `Conflict` while a sandbox sleeps
    /// in it.
    pub async fn snapshot_delete(
        &self,
        principal: &Principal,
        reference: &str,
    ) -> Result<(), Fault> {
        self.inner.accepting()?;
        let snapshot = self.snapshot_fetch(principal, reference).await?;
        let _turn = self.inner.pins.deleting().await;
        let sleeper = self.record_of(&snapshot.source).await?;
        if let Some(sleeper) = sleeper
            && shelf::names(&sleeper, &snapshot.id)
        {
            return Err(Fault::new(
                Code::Conflict,
                format!(
                    "the sandbox {} sleeps in it; resume or delete that first",
                    sleeper.id
                ),
            ));
        }
        shelf::remove(&self.inner, &snapshot.id).await
    }

    /// Sets labels (or removes those given as `None`).
    pub async fn snapshot_label(
        &self,
        principal: &Principal,
        reference: &str,
        labels: BTreeMap<String, Option<String>>,
    ) -> Result<Snapshot, Fault> {
        self.inner.accepting()?;
        let mut snapshot = self.snapshot_fetch(principal, reference).await?;
        // Whoever wrote the record last is whom the others take to have it.
        lease::check_here(&self.inner, &snapshot).await?;
        for (name, value) in labels {
            match value {
                Some(value) => snapshot.labels.insert(name, value),
                None => snapshot.labels.remove(&name),
            };
        }
        validate::metadata(&snapshot.labels).map_err(|fault| fault.with_field("labels"))?;
        snapshot.generation += 1;
        let stored = self.inner.store.snapshot_update(&snapshot).await;
        stored.map_err(fault::store)?;
        Ok(snapshot)
    }

    /// Reads a snapshot back and compares it with what was written; the record says what was
    /// found.
    pub async fn snapshot_verify(
        &self,
        principal: &Principal,
        reference: &str,
    ) -> Result<Snapshot, Fault> {
        self.inner.accepting()?;
        let snapshot = self.snapshot_fetch(principal, reference).await?;
        match snapshot.state {
            SnapshotState::Ready | SnapshotState::Damaged { .. } => {}
            SnapshotState::Writing | SnapshotState::Deleting => {
                return Err(Fault::new(
                    Code::Transitioning,
                    format!("the snapshot is {}", snapshot.state.as_str()),
                ));
            }
        }
        scrub::verify(&self.inner, &snapshot).await
    }

    /// Removes what nothing refers to any more. Needs admin scope.
    pub async fn snapshot_gc(&self, principal: &Principal) -> Result<GcReport, Fault> {
        self.inner.accepting()?;
        need_admin(principal)?;
        scrub::collect(&self.inner).await
    }

    /// A snapshot that the principal may see and that is not being removed.
    pub(crate) async fn snapshot_find(
        &self,
        principal: &Principal,
        reference: &str,
    ) -> Result<Option<Snapshot>, Fault> {
        let store = &self.inner.store;
        let found = match reference.parse::<SnapshotId>() {
            Ok(id) => store.snapshot_fetch(&id).await,
            Err(_) => {
                store
                    .snapshot_by_name(&principal.workspace, reference)
                    .await
            }
        };
        let visible = |snapshot: &Snapshot| {
            may_see(principal, &snapshot.workspace) && snapshot.state != SnapshotState::Deleting
        };
        Ok(found.map_err(fault::store)?.filter(visible))
    }
}

pub(super) fn not_found(reference: &str) -> Fault {
    Fault::new(
        Code::SnapshotNotFound,
        format!("snapshot '{reference}' not found"),
    )
}
