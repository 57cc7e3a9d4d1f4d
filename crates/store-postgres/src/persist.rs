//! What clients persist of sessions of their own.

use async_trait::async_trait;
use woodfrog_store::cursor::List;
use woodfrog_store::{PersistStore, PersistedEvent, PersistedSession, Result, StoreError};
use woodfrog_store_rows::{
    Columns, persisted_event_from_row, persisted_session_from_row, to_sql_int,
};
use woodfrog_types::WorkspaceId;
use woodfrog_types::page::{Page, PageRequest};

use crate::PostgresStore;
use crate::client::{Arg, all, change, count, finds, first};
use crate::listing::Listing;
use crate::text::Text;

const SESSION: &str = "persisted session";
const EVENT: &str = "persisted event";

#[async_trait]
impl PersistStore for PostgresStore {
    async fn persist_session_put(
        &self,
        workspace: &WorkspaceId,
        session: &PersistedSession,
    ) -> Result<()> {
        let sql = "INSERT INTO persisted_sessions (workspace, id, created_at, record) \
                   VALUES ($1, $2, $3, $4) ON CONFLICT (workspace, id) DO UPDATE SET record = $4";
        let args: [Arg<'_>; 4] = [
            &workspace.as_str(),
            &Text(&session.id),
            &session.created_at,
            &Text(&session.record),
        ];
        change(&self.client().await?, SESSION, sql, &args)
            .await
            .map(drop)
    }

    async fn persist_session_fetch(
        &self,
        workspace: &WorkspaceId,
        id: &str,
    ) -> Result<Option<PersistedSession>> {
        let sql = "SELECT * FROM persisted_sessions WHERE workspace = $1 AND id = $2";
        let args: [Arg<'_>; 2] = [&workspace.as_str(), &Text(id)];
        first(
            &self.client().await?,
            SESSION,
            sql,
            &args,
            persisted_session_from_row,
        )
        .await
    }

    async fn persist_session_remove(&self, workspace: &WorkspaceId, id: &str) -> Result<bool> {
        // One statement, so both go or neither.
        let sql = "WITH events AS ( \
                       DELETE FROM persisted_events WHERE workspace = $1 AND session = $2) \
                   DELETE FROM persisted_sessions WHERE workspace = $1 AND id = $2";
        let args: [Arg<'_>; 2] = [&workspace.as_str(), &Text(id)];
        let removed = change(&self.client().await?, SESSION, sql, &args).await?;
        Ok(removed > 0)
    }

    async fn persist_session_list(
        &self,
        workspace: &WorkspaceId,
        page: &PageRequest,
    ) -> Result<Page<PersistedSession>> {
        let table = "persisted_sessions";
        let list = Listing::new(SESSION, List::PersistedSessions, table, "created_at", false);
        let list = list.text("workspace", workspace.as_str());
        let convert = |row: &dyn Columns| persisted_session_from_row(row).map(Some);
        list.page(&self.client().await?, page, convert, |last| {
            (last.created_at, last.id.clone())
        })
        .await
    }

    async fn persist_event_insert(
        &self,
        workspace: &WorkspaceId,
        event: &PersistedEvent,
    ) -> Result<()> {
        let taken = StoreError::Constraint { what: EVENT };
        let Ok(place) = i64::try_from(event.index) else {
            return Err(taken);
        };
        let client = self.client().await?;
        let sql = "INSERT INTO persisted_events (workspace, id, session, place, record) \
                   VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        let args: [Arg<'_>; 5] = [
            &workspace.as_str(),
            &Text(&event.id),
            &Text(&event.session),
            &place,
            &Text(&event.record),
        ];
        if change(&client, EVENT, sql, &args).await? > 0 {
            return Ok(());
        }
        let same = "SELECT 1 FROM persisted_events \
                    WHERE workspace = $1 AND id = $2 AND session = $3 AND place = $4";
        match finds(&client, EVENT, same, &args[..4]).await? {
            true => Ok(()),
            false => Err(taken),
        }
    }

    async fn persist_event_list(
        &self,
        workspace: &WorkspaceId,
        session: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PersistedEvent>> {
        let sql = "SELECT * FROM persisted_events WHERE workspace = $1 AND session = $2 \
                   AND place > $3 ORDER BY place LIMIT $4";
        let after: i64 = after.map_or(-1, to_sql_int);
        let args: [Arg<'_>; 4] = [
            &workspace.as_str(),
            &Text(session),
            &after,
            &to_sql_int(limit),
        ];
        all(
            &self.client().await?,
            EVENT,
            sql,
            &args,
            persisted_event_from_row,
        )
        .await
    }

    async fn persist_event_last(
        &self,
        workspace: &WorkspaceId,
        session: &str,
        limit: usize,
    ) -> Result<Vec<PersistedEvent>> {
        let sql = "SELECT * FROM persisted_events WHERE workspace = $1 AND session = $2 \
                   ORDER BY place DESC LIMIT $3";
        let args: [Arg<'_>; 3] = [&workspace.as_str(), &Text(session), &to_sql_int(limit)];
        let client = self.client().await?;
        all(&client, EVENT, sql, &args, persisted_event_from_row).await
    }

    async fn persist_event_count(&self, workspace: &WorkspaceId, session: &str) -> Result<u64> {
        let sql = "SELECT count(*) AS n FROM persisted_events \
                   WHERE workspace = $1 AND session = $2";
        let args: [Arg<'_>; 2] = [&workspace.as_str(), &Text(session)];
        count(&self.client().await?, EVENT, sql, &args).await
    }
}
