//! What a workspace that goes leaves in the books.

use async_trait::async_trait;
use woodfrog_engine::WorkspaceContent;
use woodfrog_types::{Fault, Timestamp, WorkspaceId};

use crate::{Billing, fault};

/// Entries that go in one transaction.
const BATCH: usize = 1_000;

#[async_trait]
impl WorkspaceContent for Billing {
    fn name(&self) -> &'static str {
        "webhooks and entries of the books"
    }

    async fn remove(&self, workspace: &WorkspaceId) -> Result<usize, Fault> {
        let store = &self.store;
        let webhooks = store.webhook_list(workspace).await.map_err(fault::store)?;
        for webhook in &webhooks {
            let removed = store.webhook_remove(&webhook.id).await;
            removed.map_err(fault::store)?;
        }
        if !webhooks.is_empty() {
            return Ok(webhooks.len());
        }
        // What sandboxes that are gone have used is booked first, so that nothing is booked later.
        self.meters.look(Timestamp::now()).await?;
        let gone = store.books_purge(workspace, BATCH).await;
        Ok(usize::try_from(gone.map_err(fault::store)?).unwrap_or(usize::MAX))
    }
}
