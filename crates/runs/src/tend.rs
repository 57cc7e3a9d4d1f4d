//! What is not to be kept: texts, artifacts and runs after their time, and what is in a workspace
//! that goes.
//!
//! Every removal can be repeated, and nothing is noted of how far one came: what is cut short is
//! found again by the next look.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use woodfrog_engine::WorkspaceContent;
use woodfrog_types::page::PageRequest;
use woodfrog_types::run::{Outcome, Run, RunFilter};
use woodfrog_types::{Fault, Timestamp, WorkspaceId};

use crate::owner;
use crate::service::{Runs, fault};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(60);
/// Things that are read, or removed in one transaction, at a time.
const PAGE: usize = 100;
/// Pages of one kind and workspace in one look: the next goes on, and no workspace waits for
/// another's million.
const PAGES: usize = 50;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What one look removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tended {
    /// Runs whose texts were removed.
    pub texts: u64,
    pub artifacts: u64,
    pub runs: u64,
}

impl Runs {
    /// Removes what is not to be kept, again and again until `stop`.
    pub async fn tend(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            match self.tend_once(Timestamp::now()).await {
                Ok(tended) if tended == Tended::default() => {}
                Ok(tended) => tracing::info!(?tended, "what is not to be kept of runs"),
                Err(fault) => tracing::warn!(%fault, "runs cannot be looked through"),
            }
        }
    }

    /// One look at all workspaces.
    pub async fn tend_once(&self, now: Timestamp) -> Result<Tended, Fault> {
        let mut tended = Tended::default();
        let mut page = PageRequest {
            limit: PAGE,
            cursor: None,
        };
        loop {
            let part = self
                .inner
                .store
                .workspace_list(&page)
                .await
                .map_err(fault)?;
            for workspace in part.items {
                // What goes wrong with one workspace concerns no other.
                if let Err(fault) = self.tend_workspace(&workspace.id, now, &mut tended).await {
                    tracing::warn!(workspace = %workspace.id, %fault, "not tended");
                }
            }
            page.cursor = part.next;
            if page.cursor.is_none() {
                return Ok(tended);
            }
        }
    }

    async fn tend_workspace(
        &self,
        workspace: &WorkspaceId,
        now: Timestamp,
        tended: &mut Tended,
    ) -> Result<(), Fault> {
        let limits = self.inner.engine.workspace_limits(workspace).await?;
        let store = &self.inner.store;
        if let Some(days) = limits.prompt_retention_days {
            for _ in 0..PAGES {
                let forgotten = store.run_forget(workspace, before(now, days), PAGE).await;
                let forgotten = forgotten.map_err(fault)?;
                tended.texts += forgotten;
                if forgotten < PAGE as u64 {
                    break;
                }
            }
        }
        if let Some(days) = limits.artifact_retention_days {
            for _ in 0..PAGES {
                let aged = store
                    .artifact_aged(workspace, before(now, days), PAGE)
                    .await;
                let aged = aged.map_err(fault)?;
                for artifact in &aged {
                    self.inner.remove_artifact(artifact).await?;
                    tended.artifacts += 1;
                }
                if aged.len() < PAGE {
                    break;
                }
            }
        }
        if let Some(days) = limits.run_retention_days {
            for _ in 0..PAGES {
                let ended = store.run_ended(workspace, before(now, days), PAGE).await;
                let ended = ended.map_err(fault)?;
                for run in &ended {
                    self.inner.remove_run(workspace, run).await?;
                    tended.runs += 1;
                }
                if ended.len() < PAGE {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Ends a run of a workspace that goes, if it goes on here.
    async fn end(&self, run: &Run) {
        let owner = self.inner.owners().get(&run.id).cloned();
        let Some(owner) = owner.filter(|_| !run.state.is_terminal()) else {
            return;
        };
        let (reply, done) = oneshot::channel();
        let outcome = Outcome::Canceled {
            by: None,
            reason: "its workspace was removed".to_owned(),
        };
        let cancel = owner::Command::Cancel { outcome, reply };
        if owner.commands.send(cancel).await.is_ok() {
            // An owner that ends by itself does not answer.
            let _ended = done.await;
        }
    }
}

fn before(now: Timestamp, days: u32) -> Timestamp {
    let kept = i64::try_from(DAY.saturating_mul(days).as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(kept))
}

#[async_trait]
impl WorkspaceContent for Runs {
    fn name(&self) -> &'static str {
        "runs"
    }

    async fn remove(&self, workspace: &WorkspaceId) -> Result<usize, Fault> {
        let page = PageRequest {
            limit: PAGE,
            cursor: None,
        };
        let filter = RunFilter::default();
        let listed = self.inner.store.run_list(workspace, &filter, &page).await;
        let runs = listed.map_err(fault)?.items;
        for run in &runs {
            self.end(run).await;
            self.inner.remove_run(workspace, &run.id).await?;
        }
        if runs.is_empty()
            && let Some(files) = &self.inner.files
        {
            let deleted = files.delete_workspace(workspace.as_str()).await;
            deleted.map_err(Fault::internal)?;
        }
        Ok(runs.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_back() {
        let now = Timestamp::from_millis(86_400_000 * 3);
        assert_eq!(before(now, 2), Timestamp::from_millis(86_400_000));
        let long = before(now, u32::MAX);
        assert!(long < Timestamp::from_millis(0));
    }
}
