//! Files that runs left.

use async_trait::async_trait;
use deadpool_postgres::{Client, GenericClient};
use woodfrog_store::cursor::List;
use woodfrog_store::{ArtifactPut, ArtifactStore, Result, StoreError};
use woodfrog_store_rows::{Columns, artifact_from_row, to_sql_int};
use woodfrog_types::artifact::{Artifact, ArtifactFilter, Review};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::{ArtifactId, RunId, Timestamp, WorkspaceId};

use crate::PostgresStore;
use crate::client::{Arg, all, begin, change, commit, count, finds, first};
use crate::listing::Listing;
use crate::text::Text;

const WHAT: &str = "artifact";

#[async_trait]
impl ArtifactStore for PostgresStore {
    async fn artifact_put(&self, artifact: &Artifact, max: u64) -> Result<ArtifactPut> {
        put(&mut self.client().await?, artifact, max).await
    }

    async fn artifact_fetch(&self, id: &ArtifactId) -> Result<Option<Artifact>> {
        let sql = "SELECT * FROM artifacts WHERE id = $1";
        let client = self.client().await?;
        first(&client, WHAT, sql, &[&id.as_str()], artifact_from_row).await
    }

    async fn artifact_list(
        &self,
        workspace: &WorkspaceId,
        filter: &ArtifactFilter,
        page: &PageRequest,
    ) -> Result<Page<Artifact>> {
        let ArtifactFilter { run, thread, state } = filter;
        let mut list = Listing::new(WHAT, List::Artifacts, "artifacts", "created_at", true)
            .text("workspace", workspace.as_str());
        let wanted = [
            ("run", run.as_ref().map(RunId::as_str)),
            ("thread", thread.as_deref()),
            ("state", state.map(|state| state.as_str())),
        ];
        for (column, value) in wanted {
            if let Some(value) = value {
                list = list.text(column, value);
            }
        }
        let convert = |row: &dyn Columns| artifact_from_row(row).map(Some);
        list.page(&self.client().await?, page, convert, |last| {
            (last.created_at.as_millis(), last.id.to_string())
        })
        .await
    }

    async fn artifact_aged(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Artifact>> {
        let sql = "SELECT * FROM artifacts WHERE workspace = $1 AND created_at < $2 \
                   ORDER BY created_at, id LIMIT $3";
        let args: [Arg<'_>; 3] = [&workspace.as_str(), &before.as_millis(), &to_sql_int(limit)];
        let client = self.client().await?;
        all(&client, WHAT, sql, &args, artifact_from_row).await
    }

    async fn artifact_review(&self, id: &ArtifactId, review: &Review) -> Result<Artifact> {
        let sql = "UPDATE artifacts SET state = $2, reviewed_by = $3, reviewed_at = $4 \
                   WHERE id = $1 RETURNING *";
        let args: [Arg<'_>; 4] = [
            &id.as_str(),
            &review.state.as_str(),
            &Text(review.by.as_str()),
            &review.at.as_millis(),
        ];
        let client = self.client().await?;
        let found = first(&client, WHAT, sql, &args, artifact_from_row).await?;
        found.ok_or(StoreError::NotFound { what: WHAT })
    }

    async fn artifact_remove(&self, id: &ArtifactId) -> Result<bool> {
        let sql = "DELETE FROM artifacts WHERE id = $1";
        Ok(change(&self.client().await?, WHAT, sql, &[&id.as_str()]).await? > 0)
    }
}

async fn put(client: &mut Client, artifact: &Artifact, max: u64) -> Result<ArtifactPut> {
    let run = artifact.run.as_str();
    let transaction = begin(client, WHAT).await?;
    // Locked: files of one run come one by one, and the run does not go meanwhile.
    let exists = "SELECT 1 FROM runs WHERE id = $1 FOR UPDATE";
    if !finds(&transaction, WHAT, exists, &[&run]).await? {
        return Err(StoreError::NotFound { what: "run" });
    }
    let same = "DELETE FROM artifacts WHERE run = $1 AND path = $2 RETURNING *";
    let args: [Arg<'_>; 2] = [&run, &Text(&artifact.path)];
    let old = first(&transaction, WHAT, same, &args, artifact_from_row).await?;
    let put = match old {
        Some(old) => {
            let id = old.id.clone();
            let new = Artifact {
                id,
                ..artifact.clone()
            };
            insert(&transaction, &new).await?;
            ArtifactPut::Replaced(Box::new(old))
        }
        None => {
            let sql = "SELECT count(*) AS n FROM artifacts WHERE run = $1";
            if count(&transaction, WHAT, sql, &[&run]).await? >= max {
                return Ok(ArtifactPut::Full);
            }
            insert(&transaction, artifact).await?;
            ArtifactPut::New
        }
    };
    commit(transaction, WHAT).await?;
    Ok(put)
}

async fn insert(client: &impl GenericClient, artifact: &Artifact) -> Result<()> {
    let sql = "INSERT INTO artifacts (id, workspace, run, thread, kind, title, path, content_type, \
               size, digest, state, reviewed_by, reviewed_at, created_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
    let review = artifact.review.as_ref();
    let args: [Arg<'_>; 14] = [
        &artifact.id.as_str(),
        &artifact.workspace.as_str(),
        &artifact.run.as_str(),
        &Text(&artifact.thread),
        &artifact.kind.as_str(),
        &Text(&artifact.title),
        &Text(&artifact.path),
        &Text(&artifact.content_type),
        &to_sql_int(artifact.size),
        &Text(&artifact.digest),
        &artifact.state().as_str(),
        &review.map(|review| Text(review.by.as_str())),
        &review.map(|review| review.at.as_millis()),
        &artifact.created_at.as_millis(),
    ];
    change(client, WHAT, sql, &args).await.map(drop)
}
