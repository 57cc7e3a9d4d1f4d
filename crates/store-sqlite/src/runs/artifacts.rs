//! Files that runs left.

use async_trait::async_trait;
use rusqlite::{Connection, ToSql, params};
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{ArtifactPut, ArtifactStore, Result, StoreError};
use woodfrog_types::artifact::{Artifact, ArtifactFilter, Review};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::{ArtifactId, RunId, Timestamp, WorkspaceId};

use super::cut_list;
use crate::SqliteStore;
use crate::reader::{all, count, first};
use crate::stored::{artifact_from_row, to_sql_int};
use crate::writer::change;

const WHAT: &str = "artifact";
const AGED: &str = "SELECT * FROM artifacts WHERE workspace = ?1 AND created_at < ?2 \
     ORDER BY created_at, id LIMIT ?3";
const BY_ID: &str = "SELECT * FROM artifacts WHERE id = ?1";

#[async_trait]
impl ArtifactStore for SqliteStore {
    async fn artifact_put(&self, artifact: &Artifact, max: u64) -> Result<ArtifactPut> {
        let artifact = artifact.clone();
        self.write(move |conn| put(conn, &artifact, max)).await
    }

    async fn artifact_fetch(&self, id: &ArtifactId) -> Result<Option<Artifact>> {
        let id = id.clone();
        self.read(move |conn| first(conn, WHAT, BY_ID, [id.as_str()], artifact_from_row))
            .await
    }

    async fn artifact_list(
        &self,
        workspace: &WorkspaceId,
        filter: &ArtifactFilter,
        page: &PageRequest,
    ) -> Result<Page<Artifact>> {
        let (workspace, filter, page) = (workspace.clone(), filter.clone(), page.clone());
        self.read(move |conn| list(conn, &workspace, &filter, &page))
            .await
    }

    async fn artifact_aged(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Artifact>> {
        let workspace = workspace.clone();
        self.read(move |conn| {
            let params = params![workspace.as_str(), before.as_millis(), to_sql_int(limit)];
            all(conn, WHAT, AGED, params, artifact_from_row)
        })
        .await
    }

    async fn artifact_review(&self, id: &ArtifactId, review: &Review) -> Result<Artifact> {
        let (id, review) = (id.clone(), review.clone());
        self.write(move |conn| {
            let sql = "UPDATE artifacts SET state = ?2, reviewed_by = ?3, reviewed_at = ?4 \
                       WHERE id = ?1";
            let params = params![
                id.as_str(),
                review.state.as_str(),
                review.by.as_str(),
                review.at.as_millis(),
            ];
            change(conn, WHAT, sql, params)?;
            let found = first(conn, WHAT, BY_ID, [id.as_str()], artifact_from_row)?;
            found.ok_or(StoreError::NotFound { what: WHAT })
        })
        .await
    }

    async fn artifact_remove(&self, id: &ArtifactId) -> Result<bool> {
        let id = id.clone();
        self.write(move |conn| {
            let sql = "DELETE FROM artifacts WHERE id = ?1";
            Ok(change(conn, WHAT, sql, [id.as_str()])? > 0)
        })
        .await
    }
}

fn put(conn: &Connection, artifact: &Artifact, max: u64) -> Result<ArtifactPut> {
    let run = artifact.run.as_str();
    let exists = "SELECT 1 FROM runs WHERE id = ?1";
    if first(conn, WHAT, exists, [run], |_| Ok(()))?.is_none() {
        return Err(StoreError::NotFound { what: "run" });
    }
    let same = "SELECT * FROM artifacts WHERE run = ?1 AND path = ?2";
    let old = first(
        conn,
        WHAT,
        same,
        params![run, artifact.path],
        artifact_from_row,
    )?;
    if let Some(old) = old {
        let new = Artifact {
            id: old.id.clone(),
            ..artifact.clone()
        };
        let sql = "DELETE FROM artifacts WHERE id = ?1";
        change(conn, WHAT, sql, [old.id.as_str()])?;
        insert(conn, &new)?;
        return Ok(ArtifactPut::Replaced(Box::new(old)));
    }
    let sql = "SELECT count(*) AS n FROM artifacts WHERE run = ?1";
    if count(conn, WHAT, sql, [run])? >= max {
        return Ok(ArtifactPut::Full);
    }
    insert(conn, artifact)?;
    Ok(ArtifactPut::New)
}

fn insert(conn: &Connection, artifact: &Artifact) -> Result<()> {
    let sql = "INSERT INTO artifacts (id, workspace, run, thread, kind, title, path, content_type, \
               size, digest, state, reviewed_by, reviewed_at, created_at) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    let review = artifact.review.as_ref();
    let params = params![
        artifact.id.as_str(),
        artifact.workspace.as_str(),
        artifact.run.as_str(),
        artifact.thread,
        artifact.kind.as_str(),
        artifact.title,
        artifact.path,
        artifact.content_type,
        to_sql_int(artifact.size),
        artifact.digest,
        artifact.state().as_str(),
        review.map(|review| review.by.as_str()),
        review.map(|review| review.at.as_millis()),
        artifact.created_at.as_millis(),
    ];
    change(conn, WHAT, sql, params).map(drop)
}

fn list(
    conn: &Connection,
    workspace: &WorkspaceId,
    filter: &ArtifactFilter,
    page: &PageRequest,
) -> Result<Page<Artifact>> {
    let mut sql = String::from("SELECT * FROM artifacts WHERE workspace = ?");
    let mut params: Vec<Box<dyn ToSql>> = vec![Box::new(workspace.as_str().to_owned())];
    let ArtifactFilter { run, thread, state } = filter;
    let wanted = [
        ("run", run.as_ref().map(RunId::as_str)),
        ("thread", thread.as_deref()),
        ("state", state.map(|state| state.as_str())),
    ];
    for (column, value) in wanted {
        if let Some(value) = value {
            sql.push_str(&format!(" AND {column} = ?"));
            params.push(Box::new(value.to_owned()));
        }
    }
    if let Some(cursor) = &page.cursor {
        let (at, id) = cursor::decode_time(List::Artifacts, cursor)?;
        sql.push_str(" AND (created_at, id) < (?, ?)");
        params.push(Box::new(at));
        params.push(Box::new(id));
    }
    sql.push_str(" ORDER BY created_at DESC, id DESC");
    cut_list(conn, WHAT, &sql, &params, page, artifact_from_row, |last| {
        let at = last.created_at.as_millis().to_string();
        cursor::encode(List::Artifacts, &at, last.id.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::AGED;
    use crate::migrate::plan;

    #[test]
    fn old_artifacts_come_from_an_index() {
        let plan = plan(AGED);
        assert!(plan.contains("artifacts_by_age"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}
