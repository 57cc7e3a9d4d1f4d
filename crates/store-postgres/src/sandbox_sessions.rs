//! Sandbox sessions.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use woodfrog_store::cursor::List;
use woodfrog_store::{NewEvent, Result, SandboxSessionStore, StoreError};
use woodfrog_store_rows::{Columns, duration_to_millis, sandbox_session_from_row, to_sql_int};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::sandbox_session::{SandboxSession, SandboxSessionFilter, SessionState};
use woodfrog_types::{SandboxId, SandboxSessionId, Timestamp, WorkspaceId};

use crate::PostgresStore;
use crate::client::{Arg, begin, change, commit, finds, first};
use crate::listing::Listing;
use crate::sandboxes::quoted;
use crate::text::Text;

const WHAT: &str = "sandbox session";

#[async_trait]
impl SandboxSessionStore for PostgresStore {
    async fn sandbox_session_insert(&self, session: &SandboxSession) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        // Locked: the sandbox does not go before its session is there.
        let exists = "SELECT 1 FROM sandboxes WHERE id = $1 FOR KEY SHARE";
        if !finds(&transaction, WHAT, exists, &[&session.sandbox.as_str()]).await? {
            return Err(StoreError::NotFound { what: "sandbox" });
        }
        insert(&transaction, session).await?;
        commit(transaction, WHAT).await
    }

    async fn sandbox_session_touch(&self, id: &SandboxSessionId, at: Timestamp) -> Result<()> {
        let sql = "UPDATE sandbox_sessions SET last_activity = greatest(last_activity, $2), \
                   updated_at = greatest(updated_at, $2) WHERE id = $1";
        let args: [Arg<'_>; 2] = [&id.as_str(), &at.as_millis()];
        match change(&self.client().await?, WHAT, sql, &args).await? {
            0 => Err(StoreError::NotFound { what: WHAT }),
            _ => Ok(()),
        }
    }

    async fn sandbox_session_remove(&self, id: &SandboxSessionId) -> Result<bool> {
        let sql = "DELETE FROM sandbox_sessions WHERE id = $1";
        Ok(change(&self.client().await?, WHAT, sql, &[&id.as_str()]).await? > 0)
    }

    async fn sandbox_session_fetch(&self, id: &SandboxSessionId) -> Result<Option<SandboxSession>> {
        let sql = "SELECT * FROM sandbox_sessions WHERE id = $1";
        let client = self.client().await?;
        first(
            &client,
            WHAT,
            sql,
            &[&id.as_str()],
            sandbox_session_from_row,
        )
        .await
    }

    async fn sandbox_session_of(&self, sandbox: &SandboxId) -> Result<Option<SandboxSession>> {
        let sql = "SELECT * FROM sandbox_sessions WHERE sandbox = $1";
        let client = self.client().await?;
        first(
            &client,
            WHAT,
            sql,
            &[&sandbox.as_str()],
            sandbox_session_from_row,
        )
        .await
    }

    async fn sandbox_session_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SandboxSessionFilter,
        page: &PageRequest,
    ) -> Result<Page<SandboxSession>> {
        let table = "sandbox_sessions";
        let list = Listing::new(WHAT, List::SandboxSessions, table, "created_at", false);
        let mut list = list.text("workspace", workspace.as_str());
        if let Some(project) = &filter.project {
            list = list.text("project", project);
        }
        if let Some(user) = &filter.user {
            list = list.text("\"user\"", user);
        }
        if let Some(state) = filter.state {
            list = list.when(&of_state(state));
        }
        let convert = |row: &dyn Columns| sandbox_session_from_row(row).map(Some);
        list.page(&self.client().await?, page, convert, |last| {
            (last.created_at.as_millis(), last.id.to_string())
        })
        .await
    }

    async fn sandbox_session_trim(&self, before: Timestamp, limit: usize) -> Result<u64> {
        let sql = "DELETE FROM sandbox_sessions WHERE id IN (SELECT id FROM sandbox_sessions \
                   WHERE ended_at IS NOT NULL AND ended_at < $1 ORDER BY ended_at, id LIMIT $2)";
        let args: [Arg<'_>; 2] = [&before.as_millis(), &to_sql_int(limit)];
        change(&self.client().await?, WHAT, sql, &args).await
    }
}

/// The condition that a session's sandbox is in that state now.
fn of_state(state: SessionState) -> String {
    let sandbox = |states: &[&'static str]| {
        format!(
            "EXISTS (SELECT 1 FROM sandboxes WHERE sandboxes.id = sandbox_sessions.sandbox \
             AND sandboxes.state IN ({}))",
            quoted(states)
        )
    };
    match state {
        SessionState::Running | SessionState::Paused => {
            format!("ended_at IS NULL AND {}", sandbox(state.sandbox_states()))
        }
        SessionState::Killed => {
            let running = SessionState::Running.sandbox_states();
            let there = [running, SessionState::Paused.sandbox_states()].concat();
            format!("NOT {}", sandbox(&there))
        }
    }
}

async fn insert(client: &impl GenericClient, session: &SandboxSession) -> Result<()> {
    let sql = "INSERT INTO sandbox_sessions (id, workspace, sandbox, project, \"user\", framework, \
               auto_pause_ms, created_at, updated_at, last_activity, ended_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    let args: [Arg<'_>; 11] = [
        &session.id.as_str(),
        &session.workspace.as_str(),
        &session.sandbox.as_str(),
        &Text(&session.project),
        &Text(&session.user),
        &session.framework.as_str(),
        &to_sql_int(duration_to_millis(session.auto_pause)),
        &session.created_at.as_millis(),
        &session.updated_at.as_millis(),
        &session.last_activity.as_millis(),
        &session.ended_at.map(Timestamp::as_millis),
    ];
    change(client, WHAT, sql, &args).await.map(drop)
}

/// The session of a sandbox that is removed ends, in the caller's transaction.
pub(crate) async fn end(
    client: &impl GenericClient,
    sandbox: &SandboxId,
    events: &[NewEvent],
) -> Result<()> {
    let at = events.last().map_or_else(Timestamp::now, |event| event.at);
    let sql = "UPDATE sandbox_sessions SET ended_at = $2 WHERE sandbox = $1";
    let args: [Arg<'_>; 2] = [&sandbox.as_str(), &at.as_millis()];
    change(client, WHAT, sql, &args).await.map(drop)
}
