//! Audit logs in memory.

use async_trait::async_trait;
use woodfrog_types::audit::{AuditEnds, AuditEntry, AuditFilter};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::{Timestamp, WorkspaceId};

use super::{MemoryStore, cut_page};
use crate::cursor::{self, List};
use crate::{AuditStore, Result, StoreError};

const WHAT: &str = "audit log";

#[async_trait]
impl AuditStore for MemoryStore {
    async fn audit_append(&self, entries: &[AuditEntry]) -> Result<()> {
        let Some(first) = entries.first() else {
            return Ok(());
        };
        let mut state = self.lock();
        let workspace = first.entry.workspace.clone();
        let (ends, log) = state
            .audit
            .entry(workspace)
            .or_insert((AuditEnds::EMPTY, Vec::new()));
        let places = ends.last + 1..;
        if entries
            .iter()
            .zip(places)
            .any(|(one, place)| one.sequence != place)
        {
            return Err(StoreError::Conflict { what: WHAT });
        }
        log.extend_from_slice(entries);
        if let Some(last) = entries.last() {
            (ends.last, ends.last_hash) = (last.sequence, last.hash);
        }
        Ok(())
    }

    async fn audit_ends(&self, workspace: &WorkspaceId) -> Result<AuditEnds> {
        let state = self.lock();
        let log = state.audit.get(workspace);
        Ok(log.map_or(AuditEnds::EMPTY, |(ends, _)| *ends))
    }

    async fn audit_list(
        &self,
        workspace: &WorkspaceId,
        filter: &AuditFilter,
        page: &PageRequest,
    ) -> Result<Page<AuditEntry>> {
        let before = cursor::decode_place(List::Audit, page)?;
        let state = self.lock();
        let log = state.audit.get(workspace);
        let all = log.into_iter().flat_map(|(_, log)| log.iter().rev());
        let found = all
            .filter(|one| before.is_none_or(|before| one.sequence < before))
            .filter(|one| filter.matches(&one.entry))
            .cloned();
        Ok(cut_page(found, cursor::page_items(page), |last| {
            cursor::encode(List::Audit, &last.sequence.to_string(), "")
        }))
    }

    async fn audit_read(
        &self,
        workspace: &WorkspaceId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>> {
        let state = self.lock();
        let log = state.audit.get(workspace);
        let all = log.into_iter().flat_map(|(_, log)| log.iter());
        let found = all.filter(|one| one.sequence > after).take(limit);
        Ok(found.cloned().collect())
    }

    async fn audit_trim(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64> {
        let mut state = self.lock();
        let Some((ends, log)) = state.audit.get_mut(workspace) else {
            return Ok(0);
        };
        let old = log.iter().take_while(|one| one.entry.at < before);
        let dropped = old.take(limit).count();
        if let Some(last) = log.drain(..dropped).next_back() {
            (ends.trimmed, ends.trimmed_hash) = (last.sequence, last.hash);
        }
        Ok(dropped as u64)
    }

    async fn audit_workspaces(&self) -> Result<Vec<WorkspaceId>> {
        Ok(self.lock().audit.keys().cloned().collect())
    }
}
